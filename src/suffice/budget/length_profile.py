"""How long are the answers that a model was trained on? Measured once when it is trained, used for its budgets after.

A fine-tuned model answers prompts like its training prompts at about the length of its training answers. So a profile
keeps the distribution of those lengths, apart for the kinds of prompts where that tells them apart, and the terms of
the training prompts, by which a prompt is recognised as one of their like. On other prompts a profile is silent.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from suffice.budget.answer_language import answer_language
from suffice.budget.expectation import Expectation, LengthQuery
from suffice.budget.types import Quantiles
from suffice.errors import DataError
from suffice.prompt import Prompt
from suffice.token_ratios import estimate_tokens

__all__ = ["FILE_NAME", "AnswerLengths", "LengthProfile", "ProfileEstimator"]

FILE_NAME = "length_profile.json"

_VERSION = 1
_PROBABILITIES = (0.5, 0.9, 0.95, 0.99)
_MIN_PART = 20  # rows; the 99 % quantile of fewer is little more than their maximum
_MIN_EXPLAINED = 0.1  # of the variance of log length; a split that explains less is not worth a second distribution
_MAX_TERMS = 4000
# Share of a prompt's terms that training prompts have. With a profile of the bundled self-cognition data and a share of
# 0.7, 37 of 40 other wordings of its questions are familiar, and of 2,375 prompts for other tasks none whose answer
# outgrows its room; with 0.6 there are two.
_FAMILIAR = 0.7
_HEADROOM_FACTOR = 2.0  # on the 99 % quantile: the profile is a sample, and sampling at temperature > 0 strays
_HEADROOM_TOKENS = 64

_TERM = re.compile(r"[^\W\d_\u3040-\u9fff]+|\d+|[\u3040-\u9fff]+")
_QUESTION = re.compile(
    r"[?？]\s*$|^\s*(?:what|who|whose|which|when|where|why|how|is|are|do|does|did|can|could|will|would)\b|[吗呢么]\s*$"
    r"|什么|谁|哪|怎么|怎样|为何|多少",
    re.I,
)


@dataclass(frozen=True, slots=True)
class AnswerLengths:
    rows: int
    quantiles: Quantiles
    """(p, tokens) for p = 0.5, 0.9, 0.95, 0.99: the least length that at least p of the answers do not exceed."""
    longest: int

    @classmethod
    def of(cls, lengths: Sequence[int]) -> AnswerLengths:
        """Measure; `lengths` must not be empty."""
        ordered = sorted(lengths)
        ranks = ((p, math.ceil(p * len(ordered)) - 1) for p in _PROBABILITIES)
        return cls(len(ordered), tuple((p, ordered[rank]) for p, rank in ranks), ordered[-1])

    def to_dict(self) -> dict[str, int]:
        names = {f"p{round(p * 100)}": tokens for p, tokens in self.quantiles}
        return {"rows": self.rows, **names, "longest": self.longest}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> AnswerLengths:
        """The inverse of `to_dict`.

        Raises:
            KeyError, TypeError, ValueError: it is none.
        """
        quantiles = tuple((p, _whole(record[f"p{round(p * 100)}"])) for p in _PROBABILITIES)
        if [tokens for _, tokens in quantiles] != sorted(tokens for _, tokens in quantiles):
            raise ValueError("quantiles that do not ascend")
        return cls(_whole(record["rows"]), quantiles, _whole(record["longest"]))


@dataclass(frozen=True, slots=True)
class LengthProfile:
    """Lengths of a training set's answers: of all, and by kind of prompt where that tells long from short."""

    overall: AnswerLengths
    split: str | None
    """What the prompts are split by (`wish`, `form`, `prompt length`, `language`); None where nothing explains much."""
    parts: Mapping[str, AnswerLengths]
    """The distribution of each kind, at least 20 rows; rarer kinds are only in `overall`."""
    terms: frozenset[str]
    """Words, numbers, Chinese characters and pairs of them in the training prompts, the most frequent ones."""

    @classmethod
    def measure(cls, rows: Iterable[tuple[str, int]]) -> LengthProfile:
        """Measure a training set.

        Args:
            rows: (prompt, tokens of its answer, end token included) for each.

        Raises:
            DataError: no rows, or a length that is not above 0.
        """
        queries, lengths = [], []
        for number, (prompt, tokens) in enumerate(rows, 1):
            if tokens < 1:
                raise DataError(f"row {number} has an answer of {tokens} tokens; a length profile needs 1 or more")
            queries.append(LengthQuery(Prompt(raw=prompt)))
            lengths.append(tokens)
        if not lengths:
            raise DataError("no rows to measure: a length profile needs at least one answer")
        counts = Counter(term for query in queries for term in _terms(query.prompt))
        split, parts = _best_split(queries, lengths)
        terms = frozenset(term for term, _ in counts.most_common(_MAX_TERMS))
        return cls(AnswerLengths.of(lengths), split, parts, terms)

    def save(self, folder: Path) -> Path:
        """Write `length_profile.json` into a folder; the path of the file."""
        record = {
            "version": _VERSION,
            "unit": "tokens of the answer, end token included",
            "overall": self.overall.to_dict(),
            "split": self.split,
            "parts": {kind: part.to_dict() for kind, part in self.parts.items()},
            "terms": sorted(self.terms),
        }
        path = folder / FILE_NAME
        path.write_text(json.dumps(record, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
        return path

    @classmethod
    def load(cls, folder: Path) -> LengthProfile | None:
        """The profile in a folder (an adapter's), or None where there is no file of it.

        Raises:
            DataError: there is one, and it cannot be read.
        """
        path = folder / FILE_NAME
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            if record["version"] != _VERSION:
                raise ValueError(f"version {record['version']!r} instead of {_VERSION}")
            split = record["split"]
            if split is not None and split not in _SPLITS:
                raise ValueError(f"split {split!r}")
            parts = {kind: AnswerLengths.from_dict(part) for kind, part in record["parts"].items()}
            return cls(AnswerLengths.from_dict(record["overall"]), split, parts, frozenset(record["terms"]))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(
                f"{path} is not a length profile ({type(error).__name__}: {error}): "
                "delete it to do without, or train again"
            ) from None

    def lengths_for(self, query: LengthQuery) -> tuple[AnswerLengths, str | None]:
        """The distribution that speaks for a prompt, and the name of the kind it belongs to (None: all rows)."""
        kind = _SPLITS[self.split](query) if self.split is not None else None
        if kind is None or kind not in self.parts:
            return self.overall, None
        return self.parts[kind], f"{self.split}: {kind}"

    def is_familiar(self, prompt: Prompt) -> bool:
        """Whether at least 70 % of the prompt's terms occur in training prompts."""
        terms = _terms(prompt)
        return bool(terms) and len(terms & self.terms) >= _FAMILIAR * len(terms)


@dataclass(frozen=True, slots=True)
class ProfileEstimator:
    """What the training answers say: asked after what the prompt asks for, before what keywords hint at."""

    profile: LengthProfile

    def estimate(self, query: LengthQuery) -> Expectation | None:
        """The training answers' quantiles, with room for twice the 99 % one; None for a prompt of another sort."""
        if not self.profile.is_familiar(query.prompt):
            return None
        lengths, kind = self.profile.lengths_for(query)
        by_p = dict(lengths.quantiles)
        answers = f"{lengths.rows} answers like this" + (f" ({kind})" if kind else "")
        reason = f"the adapter was trained on {answers}: half within {by_p[0.5]} tokens, 99 % within {by_p[0.99]}"
        room = max(lengths.longest, math.ceil(_HEADROOM_FACTOR * by_p[0.99])) + _HEADROOM_TOKENS
        return Expectation(lengths.quantiles, reason, room)


def _whole(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{value!r} where a whole number above 0 belongs")
    return value


def _terms(prompt: Prompt) -> frozenset[str]:
    """Words in lower case, numbers as written (they often say how much), Chinese characters and neighbouring pairs."""
    terms: set[str] = set()
    for run in _TERM.findall(prompt.instructions.casefold()):
        if "\u3040" <= run[0] <= "\u9fff":
            terms.update([*run, *(run[at : at + 2] for at in range(len(run) - 1))])
        else:
            terms.add(run)
    return frozenset(terms)


def _prompt_length(query: LengthQuery) -> str:
    tokens = estimate_tokens(query.prompt.user)
    return next((f"up to {limit} tokens" for limit in (16, 64, 256) if tokens <= limit), "over 256 tokens")


_SPLITS: Mapping[str, Callable[[LengthQuery], str]] = {
    "wish": lambda query: query.constraints[0].unit if query.constraints else "none",
    "form": lambda query: "question" if _QUESTION.search(query.prompt.instructions.strip()) else "request",
    "prompt length": _prompt_length,
    "language": lambda query: answer_language(query.prompt.user),
}
"""Kinds of prompts; the names are those in the files."""


def _best_split(queries: Sequence[LengthQuery], lengths: Sequence[int]) -> tuple[str | None, dict[str, AnswerLengths]]:
    """The split that explains most of the variance of log length, if that is enough; its parts of 20 rows or more."""
    best: tuple[float, str, dict[str, list[int]]] | None = None
    for name, kind_of in _SPLITS.items():
        kinds: dict[str, list[int]] = defaultdict(list)
        for query, tokens in zip(queries, lengths, strict=True):
            kinds[kind_of(query)].append(tokens)
        large = {kind: part for kind, part in kinds.items() if len(part) >= _MIN_PART}
        explained = _explained(list(large.values()))
        if len(large) > 1 and explained >= _MIN_EXPLAINED and (best is None or explained > best[0]):
            best = explained, name, large
    if best is None:
        return None, {}
    return best[1], {kind: AnswerLengths.of(part) for kind, part in sorted(best[2].items())}


def _explained(parts: Sequence[Sequence[int]]) -> float:
    """Variance of log length between the parts over all of it (eta squared)."""
    logs = [[math.log(tokens) for tokens in part] for part in parts]
    everything = [value for part in logs for value in part]
    if not everything:
        return 0.0
    mean = math.fsum(everything) / len(everything)
    total = math.fsum((value - mean) ** 2 for value in everything)
    between = math.fsum(len(part) * (math.fsum(part) / len(part) - mean) ** 2 for part in logs)
    return between / total if total > 0 else 0.0
