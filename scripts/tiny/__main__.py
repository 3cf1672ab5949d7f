"""Makes the bundled model anew: text, tokenizer, training, export, measurement.

cd scripts
python -m tiny              all of it; an interrupted run continues
python -m tiny evaluate     only measure the model in the package
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tiny.evaluate import Score, evaluate
from tiny.tasks import EXACT_KINDS
from tiny.tokenizer import make_tokenizer
from tiny.train import TinyRecipe, train

_ROOT = Path(__file__).parents[2]
_PACKAGE = _ROOT / "src" / "suffice" / "models" / "tiny"
_DEFAULT = TinyRecipe()
_DEFAULT_MAX_NEW_TOKENS = 1024  # the longest right answer has about 900 tokens


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of `python -m tiny`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", nargs="?", choices=["all", "evaluate"], default="all")
    parser.add_argument(
        "--work", type=Path, default=_ROOT / "build" / "tiny", help="folder of the checkpoint and the log"
    )
    parser.add_argument("--output", type=Path, default=_PACKAGE, help="folder that the finished model is written to")
    parser.add_argument("--tokens", type=int, default=_DEFAULT.tokens, help="tokens to train on")
    parser.add_argument("--learning-rate", type=float, default=_DEFAULT.learning_rate)
    parser.add_argument("--per-kind", type=int, default=60, help="held-out prompts of each kind to measure on")
    options = parser.parse_args(arguments)
    if options.action == "all":
        _make(options.work, options.output, TinyRecipe(tokens=options.tokens, learning_rate=options.learning_rate))
    _measure(options.output, options.per_kind)


def _make(work: Path, output: Path, recipe: TinyRecipe) -> None:
    work.mkdir(parents=True, exist_ok=True)
    tokenizer = _tokenizer(work)
    model = train(work, tokenizer, recipe)
    _export(model, tokenizer, output)


def _tokenizer(work: Path) -> Any:
    from transformers import AutoTokenizer

    if (work / "tokenizer.json").exists():
        return AutoTokenizer.from_pretrained(work, local_files_only=True)
    return make_tokenizer(work)


def _export(model: Any, tokenizer: Any, output: Path) -> None:
    """Weights in float16 (they are small numbers, and it halves the package), tokenizer and defaults."""
    import torch
    from transformers import GenerationConfig

    model.generation_config = GenerationConfig(
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        do_sample=False,
        max_new_tokens=_DEFAULT_MAX_NEW_TOKENS,
    )
    model.to(torch.float16).save_pretrained(output, safe_serialization=True)
    tokenizer.save_pretrained(output)


def _measure(folder: Path, per_kind: int) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    scores = evaluate(model, tokenizer, per_kind=per_kind)
    print(_table(scores))
    report = [
        {"kind": s.kind, "prompts": s.prompts, "ended": s.ended, "exact": s.exact, "tokens": s.tokens} for s in scores
    ]
    (folder / "measured.json").write_text(json.dumps(report), encoding="utf-8")


def _table(scores: Sequence[Score]) -> str:
    lines = ["| kind | prompts | ended by itself | exact | answer tokens min / median / max |", "|---|---|---|---|---|"]
    for s in scores:
        tokens = sorted(s.tokens)
        exact = f"{100 * s.exact / s.prompts:.1f} %" if s.kind in EXACT_KINDS else "-"
        lines.append(
            f"| {s.kind} | {s.prompts} | {100 * s.ended / s.prompts:.1f} % | {exact} | "
            f"{tokens[0]} / {tokens[len(tokens) // 2]} / {tokens[-1]} |"
        )
    prompts, ended = sum(s.prompts for s in scores), sum(s.ended for s in scores)
    judged = [s for s in scores if s.kind in EXACT_KINDS]
    exact_share = sum(s.exact for s in judged) / sum(s.prompts for s in judged)
    lines.append(f"| **all** | {prompts} | **{100 * ended / prompts:.1f} %** | **{100 * exact_share:.1f} %** | |")
    wrong = [f"  {s.kind}: {prompt!r} -> {answer[:80]!r}" for s in scores for prompt, answer in s.wrong[:4]]
    return "\n".join(lines + (["", "wrong or not ended, up to four of a kind:", *wrong] if wrong else []))


if __name__ == "__main__":
    main()
