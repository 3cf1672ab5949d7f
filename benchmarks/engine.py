"""The local engine against padded `model.generate`, in tokens per second.

Three comparisons, arms alternating in one run, medians of the repeats; end tokens are off in both arms, so that both
produce exactly the lengths asked for. Only tokens that were asked for count: padding does not.

    (a) 32 requests of 64 tokens           target: at least 0.8 x generate
    (b) 64 requests of real answer lengths target: at least 2 x generate, which pads all to the longest
    (c) 1 request of 64 tokens             target: at least 0.8 x generate

Run:  python benchmarks/engine.py [--model FOLDER] [--trace azure2023_conv.csv.gz] [--threads 1] [--repeats 3]

Beside the clock, the CPU time of the process is compared: on a machine that others use too, it is the steadier one.

The engine is driven through `LocalEngine.submit`, token by token with its text, as every caller of it is; generate gets
ready token ids and returns ids.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import gzip
import json
import os
import random
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from suffice.checkpoints.load_model import load_model
from suffice.checkpoints.model_source import resolve_model
from suffice.engines.base import GenerationRequest, Sampling
from suffice.engines.local.engine import LocalEngine
from suffice.prompt import Prompt

LONGEST = 512
REQUESTS = 64
PROMPT_TOKENS = 16

# fmt: off
TRACE_LENGTHS = (
    59, 57, 51, 71, 78, 228, 50, 105, 37, 55, 242, 22, 26, 30, 140, 198, 39, 222, 7, 212, 14, 196, 111, 42, 43,
    45, 202, 48, 315, 36, 271, 210, 82, 205, 48, 24, 192, 207, 34, 91, 74, 220, 96, 28, 201, 46, 32, 217, 40, 86,
    49, 62, 47, 209, 204, 53, 65, 68, 44, 19, 54, 214, 203, 203,
)
# fmt: on


def trace_lengths(path: Path | None) -> list[int]:
    """Answer lengths in tokens: 64 evenly spaced ranks of the trace, scaled so that its longest answer is 512.

    The built-in list is this, taken from the Azure LLM inference trace 2023, conversations (CC-BY, Patel et al.).
    """
    if path is None:
        return list(TRACE_LENGTHS)
    with gzip.open(path, "rt", encoding="utf-8") as file:
        lengths = sorted(int(row["output_tokens"]) for row in csv.DictReader(file))
    ranks = [lengths[(2 * rank + 1) * len(lengths) // (2 * REQUESTS)] for rank in range(REQUESTS)]
    scaled = [max(1, round(length * LONGEST / lengths[-1])) for length in ranks]
    random.Random(0).shuffle(scaled)
    return scaled


def random_prompts(tokenizer: Any, requests: int, generator: random.Random) -> list[str]:
    """Prompts of about PROMPT_TOKENS tokens, new ones each time, so that no arm profits from a cache of prefixes."""
    ordinary = [token for token in range(len(tokenizer)) if token not in tokenizer.all_special_ids]
    return [tokenizer.decode(generator.choices(ordinary, k=PROMPT_TOKENS)) for _ in range(requests)]


@dataclass(frozen=True, slots=True)
class Took:
    """Seconds that a run took."""

    wall: float
    cpu: float


class Stopwatch:
    """Measures from when it is made."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def read(self) -> Took:
        """Seconds until now."""
        return Took(time.perf_counter() - self._wall, time.process_time() - self._cpu)


def run_generate(model: Any, tokenizer: Any, prompts: Sequence[str], lengths: Sequence[int]) -> Took:
    """What one padded batch takes to reach the longest length."""
    watch = Stopwatch()
    batch = tokenizer(list(prompts), return_tensors="pt", padding=True, padding_side="left")
    out = model.generate(
        input_ids=batch["input_ids"],
        attention_mask=batch["attention_mask"],
        max_new_tokens=max(lengths),
        do_sample=False,
        repetition_penalty=1.0,
    )
    took = watch.read()
    assert out.shape[1] - batch["input_ids"].shape[1] == max(lengths), "generate ended early"
    return took


async def run_engine(engine: LocalEngine, prompts: Sequence[str], lengths: Sequence[int]) -> Took:
    """What it takes until the last of the answers is complete."""

    async def one(index: int) -> int:
        sampling = Sampling(temperature=0, repetition_penalty=1.0)
        request = GenerationRequest(f"{index}", Prompt(raw=prompts[index]), lengths[index], sampling=sampling)
        return sum([len(chunk.token_ids) async for chunk in engine.submit(request)])

    watch = Stopwatch()
    counts = await asyncio.gather(*(one(index) for index in range(len(prompts))))
    took = watch.read()
    assert list(counts) == list(lengths), "the engine ended early"
    return took


def summary(
    name: str, words: str, lengths: Sequence[int], target: float, runs: Sequence[tuple[Took, Took]]
) -> dict[str, Any]:
    """Medians over the repeats."""
    by_generate, by_engine = zip(*runs, strict=True)
    wall = [statistics.median(took.wall for took in arm) for arm in (by_generate, by_engine)]
    cpu = [statistics.median(took.cpu for took in arm) for arm in (by_generate, by_engine)]
    return {
        "case": name,
        "what": words,
        "tokens": sum(lengths),
        "longest": max(lengths),
        "generate_tokens_per_s": round(sum(lengths) / wall[0], 1),
        "engine_tokens_per_s": round(sum(lengths) / wall[1], 1),
        "ratio": round(wall[0] / wall[1], 2),
        "cpu_ratio": round(cpu[0] / cpu[1], 2),
        "target": target,
        "seconds": {
            "generate": [round(took.wall, 2) for took in by_generate],
            "engine": [round(took.wall, 2) for took in by_engine],
        },
    }


async def compare(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Run every case, arms alternating."""
    plain = load_model(resolve_model(args.model))
    plain.model.generation_config.eos_token_id = None
    plain.tokenizer.pad_token = plain.tokenizer.pad_token or plain.tokenizer.eos_token
    plain.model.generation_config.pad_token_id = plain.tokenizer.pad_token_id
    generator = random.Random(0)
    cases = [
        ("a", "32 equal lengths", [64] * 32, 0.8),
        ("b", f"{REQUESTS} trace lengths", trace_lengths(args.trace), 2.0),
        ("c", "1 request", [64], 0.8),
    ]
    results = []
    async with LocalEngine(args.model, ignore_end_tokens=True) as engine:
        for name, words, lengths, target in cases:
            if name not in args.cases:
                continue
            runs: list[tuple[Took, Took]] = []
            for repeat in range(args.repeats + 1):
                prompts = random_prompts(plain.tokenizer, len(lengths), generator)
                wanted = [min(length, 8) for length in lengths] if repeat == 0 else lengths  # the first warms up
                runs.append(
                    (
                        run_generate(plain.model, plain.tokenizer, prompts, wanted),
                        await run_engine(engine, prompts, wanted),
                    )
                )
            results.append(summary(name, words, lengths, target, runs[1:]))
            print(json.dumps(results[-1]))
    return results


def main() -> None:
    """Measure and print one JSON object per case, then a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="folder or hub id (default: the bundled model)")
    parser.add_argument(
        "--trace", type=Path, help="gzipped CSV with a column output_tokens (default: built-in lengths)"
    )
    parser.add_argument("--threads", type=int, help="torch threads, in both arms (default: torch's own choice)")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--cases", default="abc", help="which of a, b, c to run")
    args = parser.parse_args()
    import torch

    if args.threads:
        torch.set_num_threads(args.threads)
    results = asyncio.run(compare(args))
    print(
        f"\ntorch {torch.__version__}, {torch.get_num_threads()} threads of {os.cpu_count()} cores, "
        f"load {os.getloadavg()[0]:.1f}"
    )
    print(f"{'case':<22}{'generate':>10}{'engine':>10}{'ratio':>8}{'by CPU':>8}{'target':>8}")
    for result in results:
        print(
            f"{result['what']:<22}{result['generate_tokens_per_s']:>10}{result['engine_tokens_per_s']:>10}"
            f"{result['ratio']:>8}{result['cpu_ratio']:>8}{result['target']:>8}"
        )


if __name__ == "__main__":
    main()
