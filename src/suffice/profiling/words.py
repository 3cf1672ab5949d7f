"""Which words of a prompt go with long answers, and which with short ones: from a sample of distinct prompts, so that
memory and time stay bounded, and a prompt that was answered many times is one observation."""

from __future__ import annotations

import math
import re
import zlib
from collections import defaultdict
from dataclasses import dataclass
from statistics import NormalDist

__all__ = ["SplittingWord", "WordSample"]

_PROMPTS = 10_000  # distinct prompts that are kept at most
_HEAD, _TAIL = 1200, 400
"""Characters of a prompt that are looked at, from its beginning and its end, where people say what they want."""
_LEAST_ROWS = 8
_LEAST_SHARE, _MOST_SHARE = 0.002, 0.9
"""A word in fewer prompts says little about traffic, one in nearly all of them tells nothing apart."""
_FAMILY_ERROR = 0.05  # chance that any word is listed although none matters
_LEAST_FACTOR = 1.15  # smaller differences are true, perhaps, and of no use
_LONGEST_PHRASE = 4  # Chinese characters in a row
_LOOKED_AT = 200
_SAME_PROMPTS = 0.5  # words with so large a share of their prompts in common (Jaccard) say the same

_Observation = tuple[frozenset[str], float]
"""The words of a prompt, and the mean logarithm of its answers' lengths."""

_RUNS = re.compile(r"[^\W\d_\u3040-\u30ff\u3400-\u9fff]{2,}(?:['’-][^\W\d_]+)*|[\u3040-\u30ff\u3400-\u9fff]+")
_HAN = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]")


@dataclass(frozen=True, slots=True)
class SplittingWord:
    """A word (or a run of Chinese characters) and the answers to the prompts that have it."""

    word: str
    prompts: int
    """Distinct prompts with it."""
    typical: int
    """Geometric mean of the tokens of their answers."""
    others: int
    """The same of all other prompts."""

    @property
    def factor(self) -> float:
        """How many times as long the answers are with the word as without."""
        return self.typical / max(1, self.others)


class WordSample:
    """Distinct prompts with the lengths of their answers.

    Kept are the prompts with the smallest checksums: Gibbons 2001, "Distinct Sampling for Highly-Accurate Answers to
    Distinct Values Queries and Event Reports". The same rows give the same sample, in whatever order.
    """

    def __init__(self, most: int = _PROMPTS) -> None:
        self._most = most
        self._limit = 1 << 32
        self._prompts: dict[int, tuple[str, int, float]] = {}
        self.seen = 0
        """Answers to prompts with a text."""

    def add(self, prompt: str, tokens: int) -> None:
        self.seen += 1
        head = prompt if len(prompt) <= _HEAD + _TAIL else _ends(prompt)
        key = zlib.crc32(head.encode("utf-8", "replace"))
        if key >= self._limit:
            return
        text, times, logs = self._prompts.get(key, (head, 0, 0.0))
        self._prompts[key] = text, times + 1, logs + math.log(max(1, tokens))
        while len(self._prompts) > self._most:
            self._limit //= 2
            self._prompts = {kept: value for kept, value in self._prompts.items() if kept < self._limit}

    @property
    def prompts(self) -> int:
        return len(self._prompts)

    @property
    def complete(self) -> bool:
        """Whether the sample has every distinct prompt."""
        return self._limit == 1 << 32

    def splitting(self, most: int = 8) -> tuple[list[SplittingWord], list[SplittingWord]]:
        """Words of prompts with longer answers and with shorter ones, the largest difference first.

        Welch's t-test on the logarithm of the length, corrected for the number of words that are looked at
        (Bonferroni); of words that stand in mostly the same prompts, one is kept.
        """
        observations = [(_terms(text), logs / times) for text, times, logs in self._prompts.values()]
        found = _significant(observations)
        longer = [word for word in found if word.factor >= _LEAST_FACTOR]
        shorter = [word for word in found if word.factor <= 1 / _LEAST_FACTOR]
        longer.sort(key=lambda word: (-word.factor, -len(word.word)))
        shorter.sort(key=lambda word: (word.factor, -len(word.word)))
        return _distinct(longer, observations)[:most], _distinct(shorter, observations)[:most]


def _ends(prompt: str) -> str:
    """Beginning and end of a long prompt, without the words that the cuts would halve."""
    return f"{prompt[:_HEAD].rpartition(' ')[0] or prompt[:_HEAD]}\n{prompt[-_TAIL:].partition(' ')[2]}"


def _terms(text: str) -> frozenset[str]:
    """Words in lower case; runs of Chinese characters as every piece of 2 to 4."""
    terms: set[str] = set()
    for run in _RUNS.findall(text.lower()):
        if _HAN.match(run):
            for size in range(2, _LONGEST_PHRASE + 1):
                terms.update(run[at : at + size] for at in range(len(run) - size + 1))
        else:
            terms.add(run)
    return frozenset(terms)


def _significant(observations: list[_Observation]) -> list[SplittingWord]:
    rows = len(observations)
    sums: dict[str, list[float]] = defaultdict(lambda: [0, 0.0, 0.0])
    for terms, value in observations:
        for term in terms:
            entry = sums[term]
            entry[0] += 1
            entry[1] += value
            entry[2] += value * value
    total = math.fsum(value for _, value in observations)
    squares = math.fsum(value * value for _, value in observations)
    least, most = max(_LEAST_ROWS, _LEAST_SHARE * rows), _MOST_SHARE * rows
    candidates = {term: entry for term, entry in sums.items() if least <= entry[0] <= most}
    if not candidates:
        return []
    z = NormalDist().inv_cdf(1 - _FAMILY_ERROR / (2 * len(candidates)))
    found = []
    for term, (count, own, own_squares) in candidates.items():
        rest = rows - count
        means = own / count, (total - own) / rest
        variance = _variance(count, own, own_squares) / count
        variance += _variance(rest, total - own, squares - own_squares) / rest
        if abs(means[0] - means[1]) > z * math.sqrt(variance):
            found.append(SplittingWord(term, int(count), round(math.exp(means[0])), round(math.exp(means[1]))))
    return found


def _variance(count: float, total: float, squares: float) -> float:
    """Sample variance from sums; a little more than 0, so that equal lengths do not make a word certain."""
    return max((squares - total * total / count) / max(1, count - 1), 1e-3)


def _distinct(words: list[SplittingWord], observations: list[_Observation]) -> list[SplittingWord]:
    """The first of all words that stand in mostly the same prompts, such as the pieces of a phrase."""
    words = words[:_LOOKED_AT]
    places: dict[str, set[int]] = {word.word: set() for word in words}
    for place, (terms, _) in enumerate(observations):
        for term in terms & places.keys():
            places[term].add(place)
    kept: list[SplittingWord] = []
    for word in words:
        own = places[word.word]
        if all(len(own & other) < _SAME_PROMPTS * len(own | other) for other in (places[each.word] for each in kept)):
            kept.append(word)
    return kept
