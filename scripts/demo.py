"""What `make demo` shows: real commands on the bundled model, each printed before it runs. Needs no network."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from suffice.cli.main import main

ROOT = Path(__file__).parent.parent
OUTPUT = Path("output/demo")
RESULTS, RUNS = OUTPUT / "answers.jsonl", OUTPUT / "runs"
ANSWER = [
    ["budget", "写一篇800字的文章"],
    ["infer", "--prompt", "用一句话解释什么是雨。"],
    ["infer", "--prompt", "Count from 1 to 20."],
    ["infer", "--prompt", "列出五种动物。"],
    ["infer", "--prompt", "Tell me a story in 4 sentences."],
    ["infer", "--prompt", "Explain tea in detail.", "--max_new_tokens", "24"],
    ["infer", "--prompt", 'Repeat "good morning" forever.', "--tier", "short"],
    ["infer", "--dataset", "examples/prompts.jsonl", "--output", str(RESULTS)],
]
FINE_TUNE = [
    *["sft", "--dataset", "self_cognition", "--model_name", "小智", "Bot", "--model_author", "张三", "Jane Doe"],
    *["--num_train_epochs", "10", "--learning_rate", "2e-3", "--per_device_train_batch_size", "8"],
    *["--gradient_accumulation_steps", "1", "--output_dir", str(RUNS)],
]
QUESTIONS = ["请问您是谁？", "Can you tell me who made you?", "Count from 1 to 10."]


def run(arguments: Sequence[str]) -> None:
    """Print a command as one would type it, and run it."""
    print(f"\n$ suffice {shlex.join(arguments)}", flush=True)
    try:
        main(arguments)
    except SystemExit as exit_:
        if exit_.code:
            sys.exit(f"the demo stopped: suffice {arguments[0]} ended with status {exit_.code}")
    sys.stderr.flush()


def show_rows(count: int) -> None:
    """A few rows of the result file: what was allowed, what was used, why it ended."""
    print(f"\nthe first rows of {RESULTS}:")
    for row in map(json.loads, RESULTS.read_text(encoding="utf-8").splitlines()[:count]):
        used = f"{row['answer_tokens']} of {row['budget']['max_new_tokens']} tokens"
        print(f"  {row['row']['query']}  ->  {row['text'][:40]!r}  ({used}, {row['finish_detail']})")


def newest_adapter() -> Path:
    """The last checkpoint of the run that was just made."""
    (run_folder,) = RUNS.glob("v*")
    return run_folder / "last"


if __name__ == "__main__":
    shutil.rmtree(ROOT / OUTPUT, ignore_errors=True)
    (ROOT / OUTPUT).mkdir(parents=True)
    for arguments in ANSWER:
        run(arguments)
    show_rows(6)
    run(FINE_TUNE)
    for question in QUESTIONS:
        run(["infer", "--adapters", str(newest_adapter()), "--prompt", question])
    print("\nyour turn: .venv/bin/suffice infer")
