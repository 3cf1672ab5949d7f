"""Measure how many tokens real answers take per word, character, sentence, bullet point and paragraph.

    python benchmarks/token_ratios.py DATA [--tokenizer DATA/qwen2-tokenizer/tokenizer.json]

DATA holds `*_full.jsonl.gz`, one answer a line with `lang`, `output` and `finish`. The numbers printed are the
constants in `suffice.token_ratios`, whose docstrings say from which answers they come.
"""

from __future__ import annotations

import argparse
import gzip
import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import astuple, fields
from pathlib import Path

import numpy as np

from suffice.token_ratios import (
    CHINESE_REFERENCE,
    ENGLISH_REFERENCE,
    CharacterKinds,
    TextRatios,
    count_kinds,
    estimate_tokens,
)

SOURCES = ("ifeval_full", "ruozhiba_full", "mt_bench_zh_full")
LANGUAGES = ("en", "zh", "ja", "fr", "es", "other")
_BULLET = re.compile(r"^[ \t]*(?:[-*•]|\d{1,2}[.)、])[ \t]*(\S.*)$", re.M)
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|(?<=[。！？])|\n+")
_UNCOMMON_WORD = re.compile(r"[\u0370-\u1fff]+")
_UNCOMMON_SCRIPT = re.compile(r"[\u0370-\u1fff]")  # Greek, Cyrillic, Arabic, Devanagari, Bengali, Tamil, Thai ...


def answers(data: Path) -> Iterator[tuple[str, str]]:
    """(language, answer) of every answer that ended by itself; 'other' when most letters are of an uncommon script."""
    for name in SOURCES:
        with gzip.open(data / f"{name}.jsonl.gz", "rt", encoding="utf-8") as lines:
            for row in map(json.loads, lines):
                text = row["output"].strip()
                if row["finish"] == "length" or not text:
                    continue
                uncommon = len(_UNCOMMON_SCRIPT.findall(text)) > len(text) / 3
                yield "other" if uncommon else row["lang"], text


def per_unit(texts: Iterable[str], count: Callable[[str], int]) -> dict[str, list[float]]:
    """Tokens per unit, one number for each answer (word, character) or each unit (sentence, bullet, paragraph)."""
    found: dict[str, list[float]] = defaultdict(list)
    for text in texts:
        tokens = count(text)
        kinds = count_kinds(text)
        words = kinds.words + kinds.cjk + len(_UNCOMMON_WORD.findall(text))
        if words >= 20:
            found["word"].append(tokens / words)
            found["character"].append(tokens / len(text))
        sentences = (sentence.strip() for sentence in _SENTENCE_END.split(text))
        found["sentence"] += [count(s) for s in sentences if len(s) > 8 and s[-1] in ".!?。！？"]
        found["bullet"] += [count(m.group(1)) for m in _BULLET.finditer(text)]
        blocks = [block for block in re.split(r"\n\s*\n", text) if not _BULLET.match(block) and len(block) > 80]
        found["paragraph"] += map(count, blocks)
    return found


def print_units(by_language: dict[str, list[str]], count: Callable[[str], int]) -> None:
    print(f"{'':8}{'answers':>8}  tokens per unit: mean (90th percentile, number of units)")
    for language in LANGUAGES:
        texts = by_language[language]
        cells = []
        for unit, values in per_unit(texts, count).items():
            mean, p90 = np.mean(values), np.percentile(values, 90)
            digits = 2 if mean < 10 else 0
            cells.append(f"{unit} {mean:.{digits}f} ({p90:.{digits}f}, {len(values)})")
        print(f"{language:8}{len(texts):>8}  " + "  ".join(cells))


def print_estimate(by_language: dict[str, list[str]], count: Callable[[str], int]) -> None:
    """Least squares of tokens on the kinds of characters, and how well `estimate_tokens` does as it is."""
    # Divided by the true count, so that every answer weighs the same.
    texts = [text for language in LANGUAGES for text in by_language[language][:700]]
    tokens = np.array([count(text) for text in texts], dtype=float)
    kinds = np.array([astuple(count_kinds(text)) for text in texts], dtype=float)
    solution, *_ = np.linalg.lstsq(kinds / tokens[:, None], np.ones(len(texts)), rcond=None)
    names = [field.name for field in fields(CharacterKinds)]
    print(
        "\nfit: tokens = " + " + ".join(f"{factor:.2f} x {name}" for factor, name in zip(solution, names, strict=True))
    )
    ratios = TextRatios()
    for language in LANGUAGES:
        errors = [abs(estimate_tokens(text, ratios) / count(text) - 1) for text in by_language[language]]
        p50, p90 = np.percentile(errors, (50, 90))
        print(f"estimate_tokens on {language}: error {p50:.0%} (median), {p90:.0%} (90th percentile)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with the answers")
    parser.add_argument("--tokenizer", type=Path, help="a tokenizer.json; default DATA/qwen2-tokenizer/tokenizer.json")
    options = parser.parse_args()

    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(options.tokenizer or options.data / "qwen2-tokenizer" / "tokenizer.json"))

    def count(text: str) -> int:
        return len(tokenizer.encode(text, add_special_tokens=False).ids)

    by_language: dict[str, list[str]] = defaultdict(list)
    for language, text in answers(options.data):
        by_language[language].append(text)
    print_units(by_language, count)
    print_estimate(by_language, count)
    print(f"\nreference texts: English {count(ENGLISH_REFERENCE)}, Chinese {count(CHINESE_REFERENCE)} tokens")


if __name__ == "__main__":
    main()
