"""`suffice sft` against `swift sft` (ms-swift, in its own virtual environment) on the bundled model.

Same model, same 300 rows, same recipe, one after the other, medians of the repeats:

    command to first logged step  target: at most 0.5 x ms-swift
    whole run                     target: at most 0.7 x ms-swift
    loss of the final adapter     target: within 5 %

Run:  python benchmarks/sft.py --swift /path/to/venv/bin/swift [--repeats 3] [--threads 2] [--json results.json]

The first step counts as logged when its line is in `logging.jsonl`, which both write. Both run offline. The loss is
that of the two final adapters on 100 other rows, per answer token, measured by one and the same code. The logged losses
cannot be compared: ms-swift also learns the line break after the end token.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from suffice.checkpoints.model_source import bundled_model

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))
from tiny.tasks import draw

ROWS, OTHER_ROWS = 300, 100
RECIPE = {
    "num_train_epochs": 1,
    "per_device_train_batch_size": 1,
    "per_device_eval_batch_size": 1,
    "gradient_accumulation_steps": 16,
    "learning_rate": 1e-4,
    "lora_rank": 8,
    "lora_alpha": 32,
    "target_modules": "all-linear",
    "warmup_ratio": 0.05,
    "max_length": 2048,
    "eval_steps": 50,
    "save_steps": 50,
    "logging_steps": 1,
    "seed": 42,
}


@dataclass(frozen=True, slots=True)
class Run:
    """One fine-tune, in seconds from its command line."""

    who: str
    first_step: float
    whole: float
    loss: float
    """Of the final adapter, on other rows."""
    steps: int


def main() -> None:
    """Run both, print the table, and say which targets are met."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--swift", type=Path, help="ms-swift's command; without it only suffice is measured")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--json", type=Path, help="write the runs here too")
    options = parser.parse_args()
    runs = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = write_rows(folder / "train.jsonl", ROWS, seed=5)
        others = write_rows(folder / "others.jsonl", OTHER_ROWS, seed=6)
        for repeat in range(options.repeats):
            arms = {"suffice": suffice_command(data)}
            if options.swift:
                arms["ms-swift"] = swift_command(options.swift, data)
            for who, command in arms.items():
                runs.append(measure(who, command, folder / f"{who}-{repeat}", others, options.threads))
                print(runs[-1], flush=True)
    print(
        f"{platform.processor() or platform.machine()}, {options.threads} threads, Python {platform.python_version()}"
    )
    report(runs)
    if options.json:
        options.json.write_text(json.dumps([asdict(run) for run in runs], indent=1) + "\n")


def write_rows(path: Path, count: int, seed: int) -> Path:
    """Questions of the bundled model's own kinds, all of them different."""
    rng = random.Random(seed)
    rows: dict[str, str] = {}
    while len(rows) < count:
        example = draw(rng)
        if example.ends:
            rows[example.prompt] = example.answer
    lines = ({"query": prompt, "response": answer} for prompt, answer in rows.items())
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), "utf-8")
    return path


def suffice_command(data: Path) -> list[str]:
    """Our side; the check whether answers still end stays on, as users have it."""
    code = "from suffice.cli.sft import command; command.main()"
    return [sys.executable, "-c", code, "--model", str(bundled_model()), "--dataset", str(data), *flags()]


def swift_command(swift: Path, data: Path) -> list[str]:
    """Their side, with the same settings."""
    extra = ["--model_type", "qwen2", "--template", "chatml", "--torch_dtype", "float32", "--report_to", "none"]
    extra += ["--load_from_cache_file", "false", "--dataloader_num_workers", "0", "--gradient_checkpointing", "false"]
    extra += ["--system", "", "--save_total_limit", "2", "--dataset_num_proc", "1"]
    return [str(swift), "sft", "--model", str(bundled_model()), "--dataset", str(data), *flags(), *extra]


def flags() -> list[str]:
    """The recipe as both take it."""
    return [word for name, value in RECIPE.items() for word in (f"--{name}", str(value))] + [
        "--split_dataset_ratio",
        "0.01",
    ]


def measure(who: str, command: list[str], output: Path, others: Path, threads: int) -> Run:
    """Run one command and watch its log."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
    output.mkdir()
    started, first = time.perf_counter(), None
    with (output / "shown.txt").open("w") as shown:
        process = subprocess.Popen(
            [*command, "--output_dir", str(output)], stdout=shown, stderr=subprocess.STDOUT, env=environment
        )
        while process.poll() is None:
            if first is None and any(entry for entry in losses(output)):
                first = time.perf_counter() - started
            time.sleep(0.02)
    whole = time.perf_counter() - started
    if process.returncode or first is None:
        sys.exit(f"{who} failed:\n" + (output / "shown.txt").read_text()[-4000:])
    return Run(who, round(first, 2), round(whole, 2), round(final_loss(output, others), 4), len(losses(output)))


def final_loss(output: Path, others: Path) -> float:
    """Loss per answer token of the last checkpoint on other rows."""
    import torch

    from suffice.checkpoints.load_model import load_model
    from suffice.checkpoints.model_source import resolve_model
    from suffice.train.length_groups import collate
    from suffice.train.loss_mask import IGNORED
    from suffice.train.recipe import Recipe
    from suffice.train.run import make_plan

    checkpoint = max(output.glob("*/checkpoint-*"), key=lambda path: int(path.name.partition("-")[2]))
    model = load_model(resolve_model(bundled_model(), adapters=[checkpoint]), device="cpu").model
    rows = make_plan(Recipe(dataset=(str(others),), split_dataset_ratio=0, device="cpu")).prepared.train
    total, tokens = 0.0, 0
    with torch.inference_mode():
        for row in rows:
            batch = collate([row], padding=0)
            learned = int((batch["labels"][:, 1:] != IGNORED).sum())
            total, tokens = total + learned * model(**batch).loss.item(), tokens + learned
    return total / tokens


def losses(output: Path) -> list[float]:
    """Training losses in the log so far."""
    entries = [line for log in output.glob("*/logging.jsonl") for line in log.read_text("utf-8").splitlines()]
    return [float(entry["loss"]) for entry in map(_parsed, entries) if "loss" in entry]


def _parsed(line: str) -> dict[str, float]:
    try:
        entry: dict[str, float] = json.loads(line)
    except ValueError:
        return {}  # the end of a line is still to come
    return entry


def report(runs: list[Run]) -> None:
    """Medians, and their ratios to the targets."""
    sides = {
        who: {
            name: statistics.median(getattr(run, name) for run in runs if run.who == who)
            for name in ("first_step", "whole", "loss")
        }
        for who in dict.fromkeys(run.who for run in runs)
    }
    for who, values in sides.items():
        print(f"{who:<9}" + "  ".join(f"{name} {value:.2f}" for name, value in values.items()))
    if len(sides) == 2:
        ours, theirs = sides["suffice"], sides["ms-swift"]
        for name, target in (("first_step", 0.5), ("whole", 0.7)):
            ratio = ours[name] / theirs[name]
            print(f"{name}: {ratio:.2f} x ms-swift (target {target}): {'met' if ratio <= target else 'missed'}")
        apart = abs(ours["loss"] / theirs["loss"] - 1)
        print(f"loss: {apart:.1%} apart (target 5 %): {'met' if apart <= 0.05 else 'missed'}")


if __name__ == "__main__":
    main()
