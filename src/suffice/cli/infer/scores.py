"""`--metric`: how near answers are to the references that their rows have."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from suffice.data import Conversation
from suffice.errors import packages_of
from suffice.session import Answer

__all__ = ["METRICS", "Scores", "is_same"]

_BY_CHARACTER = r"\u2e80-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # Chinese and Japanese have no spaces between words
_TOKENS = re.compile(rf"[{_BY_CHARACTER}]|(?:(?![{_BY_CHARACTER}])[^\W_])+")


class Scores:
    """Scores answers by one of `METRICS`; with None, by nothing.

    Raises:
        UsageError: the package that the metric needs is missing.
    """

    def __init__(self, metric: str | None) -> None:
        self._score = METRICS[metric]() if metric else None

    def of(self, row: Conversation, answer: Answer) -> dict[str, Any]:
        """What a result line says: the reference, and each score from 0 to 1; {} for a row without a reference."""
        if self._score is None or row.reference is None:
            return {}
        return {"reference": row.reference, "scores": self._score(answer.text, row.reference)}

    def describe(self, results: Iterable[Mapping[str, Any]]) -> list[str]:
        """A line on all results of a file, those of earlier runs included."""
        if self._score is None:
            return []
        sums: Counter[str] = Counter()
        scored = without = 0
        for result in results:
            if isinstance(scores := (result.get("suffice") or result).get("scores"), Mapping):
                scored += 1
                sums.update({name: float(value) for name, value in scores.items()})
            else:
                without += result.get("error") is None
        means = ", ".join(f"{name} {100 * total / scored:.1f} %" for name, total in sums.items()) or "no score"
        others = f"; {without} others have no score: no reference in the row, or answered without --metric"
        return [f"{means}: mean of {scored} answers" + (others if without else "")]


def is_same(answer: str, reference: str) -> bool:
    """Whether two texts are the same but for case, width, white space, and a full stop at the end."""
    return _plain(answer) == _plain(reference)


def _plain(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split()).rstrip(".。")


def _accuracy() -> Callable[[str, str], dict[str, float]]:
    return lambda answer, reference: {"acc": float(is_same(answer, reference))}


def _rouge() -> Callable[[str, str], dict[str, float]]:
    """ROUGE-1, -2 and -L (Lin, 2004), as F-measures, by lower-case words, and by characters in Chinese and Japanese.

    The figures are those of Google's rouge-score with these tokens; its ROUGE-L takes half a minute for two texts of
    8,000 tokens, in which a batch would hear nothing from its server.
    """
    with packages_of("metrics", "--metric rouge needs"):
        from rapidfuzz.distance import LCSseq

    def score(answer: str, reference: str) -> dict[str, float]:
        said, wanted = _tokens(answer), _tokens(reference)
        a, b = len(said), len(wanted)
        return {
            "rouge_1": _f_measure(_common(said, wanted, 1), a, b),
            "rouge_2": _f_measure(_common(said, wanted, 2), a - 1, b - 1),
            "rouge_l": _f_measure(LCSseq.similarity(said, wanted), a, b),
        }

    return score


def _tokens(text: str) -> list[str]:
    return _TOKENS.findall(unicodedata.normalize("NFKC", text).casefold())


def _common(one: list[str], other: list[str], n: int) -> int:
    """Runs of `n` tokens that are in both, each as often as in the one that has it less often."""
    counts = [Counter(zip(*(tokens[start:] for start in range(n)), strict=False)) for tokens in (one, other)]
    return (counts[0] & counts[1]).total()


def _f_measure(common: int, of_one: int, of_other: int) -> float:
    return round(2 * common / (of_one + of_other), 4) if common else 0.0


METRICS: dict[str, Callable[[], Callable[[str, str], dict[str, float]]]] = {"acc": _accuracy, "rouge": _rouge}
