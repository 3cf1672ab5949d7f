"""What `make demo` shows: real commands on the bundled model, each printed before it runs. Needs no network."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path

from suffice.cli.main import main

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "output" / "demo.jsonl"
COMMANDS = [
    ["budget", "写一篇800字的文章"],
    ["infer", "--prompt", "用一句话解释什么是雨。"],
    ["infer", "--prompt", "Count from 1 to 20."],
    ["infer", "--prompt", "列出五种动物。"],
    ["infer", "--prompt", "Tell me a short story."],
    ["infer", "--prompt", "Explain tea in detail.", "--max_new_tokens", "24"],
    ["infer", "--prompt", "Repeat \"good morning\" forever.", "--tier", "short"],
    ["infer", "--dataset", "examples/prompts.jsonl", "--output", "output/demo.jsonl", "--overwrite"],
]  # fmt: skip


def run(arguments: list[str]) -> None:
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
    print(f"\nthe first rows of {RESULTS.relative_to(ROOT)}:")
    lines = RESULTS.read_text(encoding="utf-8").splitlines()
    for row in map(json.loads, lines[:count]):
        used = f"{row['answer_tokens']} of {row['budget']['max_new_tokens']} tokens"
        print(f"  {row['row']['query']}  ->  {row['text'][:40]!r}  ({used}, {row['finish_detail']})")


if __name__ == "__main__":
    (ROOT / "output").mkdir(exist_ok=True)
    for arguments in COMMANDS:
        run(arguments)
    show_rows(6)
    print("\nyour turn: .venv/bin/suffice infer")
