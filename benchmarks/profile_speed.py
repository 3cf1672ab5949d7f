"""Measure how fast `suffice profile` reads rows, and the memory that it takes.

    python benchmarks/profile_speed.py DATA [--rows 10000000] [--tokenizer DATA/qwen2-tokenizer]

DATA holds `*.jsonl.gz` and `traces/*.csv.gz`. Rows per second are by CPU time of one thread, the median of
three; files of fewer than 50,000 rows are repeated until they have as many. With --rows, a file of so many rows
(lengths drawn from a log-normal distribution) is measured once in a process of its own, and its peak memory told.
With --tokenizer, the answers of `*_full.jsonl.gz` are counted, and set against the tokenizer alone on the same texts.
"""

from __future__ import annotations

import argparse
import gzip
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from suffice.budget.answer_language import answer_language
from suffice.cli.profile.token_counter import load_counter
from suffice.data import Conversation, read_dataset
from suffice.profiling import LengthReader, Profile, measure

COUNTED = ("traces/servegen_mlarge_reconstructed.csv.gz", "ifeval.jsonl.gz", "zeroeval_gsm.jsonl.gz", "gaokao.jsonl.gz")
TEXTS = ("ruozhiba_full.jsonl.gz", "ifeval_full.jsonl.gz")
LEAST_ROWS = 50_000


def read(path: Path) -> tuple[Profile, float, int]:
    """The profile of a file with given counts, CPU seconds, rows."""
    reader = LengthReader(language_of=answer_language)
    started = time.process_time()
    profile = measure(reader.read([str(path)]), reader.groups)
    return profile, time.process_time() - started, reader.summary.rows


def repeated(path: Path, folder: Path) -> Path:
    """A copy of a file with its rows repeated until there are enough."""
    with gzip.open(path, "rb") as file:
        lines = file.readlines()
    header, rows = (lines[:1], lines[1:]) if ".csv" in path.name else ([], lines)
    copy = folder / path.name
    with gzip.open(copy, "wb", compresslevel=6) as file:
        file.writelines(header)
        for _ in range(-(-LEAST_ROWS // len(rows))):
            file.writelines(rows)
    return copy


def print_speeds(data: Path, folder: Path) -> None:
    print("counts given in the rows: rows/s of CPU time (median of three)")
    for name in COUNTED:
        path = repeated(data / name, folder)
        runs = [read(path) for _ in range(3)]
        print(f"  {name:<48} {statistics.median(rows / seconds for _, seconds, rows in runs):>9,.0f}")


def print_large(rows: int, folder: Path) -> None:
    """A file of very many rows, in a process whose peak memory is its own."""
    generator = random.Random(0)
    for name, header, line in (
        ("large.csv.gz", "prompt_tokens,output_tokens,model\n", "{},{},m{}\n"),
        ("large.jsonl", "", '{{"prompt_tokens": {}, "output_tokens": {}, "model": "m{}", "finish": "stop"}}\n'),
    ):
        path = folder / name
        with gzip.open(path, "wt", compresslevel=1) if name.endswith(".gz") else path.open("w") as file:
            file.write(header)
            for _ in range(rows):
                prompt, answer = generator.lognormvariate(6, 1.5), generator.lognormvariate(5.5, 1)
                file.write(line.format(int(prompt), int(answer), int(answer) % 7))
        command = [sys.executable, __file__, "--one", str(path)]
        print(subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE).stdout.strip())
        path.unlink()


def print_one(path: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    _, seconds, rows = read(path)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    size = path.stat().st_size / 2**20
    print(
        f"  {path.name}: {rows:,} rows ({size:,.0f} MiB), {rows / seconds:,.0f} rows/s, peak {peak / 1024:,.0f} MiB "
        f"({before / 1024:,.0f} MiB before)"
    )


def print_counting(data: Path, tokenizer: Path) -> None:
    """Prompts and answers counted by the reader, and the tokenizer alone on the same texts."""
    os.environ["RAYON_NUM_THREADS"] = "1"
    print("texts counted, CPU time of one thread")
    counter = load_counter(str(tokenizer))
    for name in TEXTS:
        path = data / name
        rows = [row for row in read_dataset(str(path)) if isinstance(row, Conversation)]
        started = time.process_time()
        for at in range(0, len(rows), 256):
            counter.prompts([row.messages for row in rows[at : at + 256]])
            counter.answers([row.reference or "" for row in rows[at : at + 256]])
        alone = time.process_time() - started
        # The files give counts too; under other names for them the texts are counted.
        reader = LengthReader(counter=lambda: counter, columns={}, language_of=answer_language)
        with tempfile.TemporaryDirectory() as folder:
            bare = Path(folder) / "bare.jsonl"
            text = gzip.decompress(path.read_bytes()).decode()
            bare.write_text(text.replace('"prompt_tokens":', '"p":').replace('"output_tokens":', '"o":'))
            started = time.process_time()
            profile = measure(reader.read([str(bare)]), reader.groups)
            seconds = time.process_time() - started
        tokens = profile.all.whole.total
        print(
            f"  {name:<26} {tokens / seconds:>10,.0f} tokens/s, {len(rows) / seconds:>7,.0f} rows/s; the tokenizer and "
            f"chat template alone {tokens / alone:>10,.0f} tokens/s ({alone / seconds:.0%} of the time)"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?", help="folder with the files")
    parser.add_argument("--rows", type=int, help="rows of the large file")
    parser.add_argument("--tokenizer", type=Path, help="folder with a tokenizer")
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print_one(options.one)
        return
    if options.data is None:
        parser.error("DATA is missing")
    with tempfile.TemporaryDirectory() as folder:
        print_speeds(options.data, Path(folder))
        if options.rows:
            print("many rows")
            print_large(options.rows, Path(folder))
    if options.tokenizer:
        print_counting(options.data, options.tokenizer)


if __name__ == "__main__":
    main()
