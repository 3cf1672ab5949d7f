"""What the model sees of a prompt: hashed character n-grams, and some thirty numbers about its form.

Knows nothing about lengths of answers, nor about who asks.
"""

from __future__ import annotations

import math
import re
from functools import cache, lru_cache

import numpy as np
from numpy.typing import NDArray

from suffice.budget.expectation import LengthQuery
from suffice.budget.length_constraints.find import find_constraints
from suffice.immutable import immutable
from suffice.prompt import Prompt, content_text, instructions
from suffice.token_ratios import TextRatios

__all__ = ["BITS", "FORM_NAMES", "SEEN_BITS", "TextFeatures"]
__all__ += ["conversation_features", "features", "model_key", "prompt_text"]

BITS = 15
"""n-grams are hashed into 2^15 cells (the hashing trick, Weinberger et al. 2009)."""
SEEN_BITS = 20
"""Which 3-grams training has seen is kept in 2^20 bits: a Bloom filter with one hash function. A short Chinese question
shares few longer ones with any other."""
_HEAD, _TAIL = 700, 400  # characters of a long prompt that are read: people say what they want first or last
_ORDERS = 5  # 1 to 5 characters: words in English, words and their neighbours in Chinese

FORM_NAMES = (
    *("characters", "letters", "capitals", "digits", "han", "other scripts", "kana", "marks", "lines", "han share"),
    *("mark share", "question marks", "backslashes", "quotes", "brackets", "commas", "full stops", "equals", "colons"),
    *("parentheses", "backticks", "first line", "last line", "wish tokens", "wishes", "wish bound", "model size"),
    *("turns", "last answer", "system", "tools", "json", "temperature"),
)
"""Names as they are in the files of models, which have to name the same."""
_TRUE = np.ones(1, bool)
_PUNCTUATION = [code for code in range(33, 127) if not chr(code).isalnum()]
_COUNTED = [ord(mark) for mark in '?\\"[,.=:(`']
_BOUNDS = {"at most": -1.0, "about": 0.0, "at least": 1.0}
_NO_CONSTRAINT = -2.0
_QWEN2 = TextRatios()


@immutable
class TextFeatures:
    cells: NDArray[np.int64]
    """Cells of the n-grams that occur, ascending, each once."""
    fingerprints: NDArray[np.uint32]
    """Its 3-grams as `SEEN_BITS`-bit hashes, in order."""
    form: NDArray[np.float64]
    """The numbers that `FORM_NAMES` names, shape (len(FORM_NAMES),)."""


def prompt_text(prompt: Prompt) -> str:
    """What is read of a prompt: the last user message, or all of it where there is none.

    Raises:
        UsageError: a message is not one.
    """
    return prompt.user or prompt.text


def conversation_features(query: LengthQuery) -> tuple[float, ...]:
    """The last of `FORM_NAMES`, from `turns` on: what lies around the text."""
    messages = query.prompt.messages
    answer = next((message for message in reversed(messages) if message.get("role") == "assistant"), None)
    return (
        float(max(1, len(messages))),
        -1.0 if answer is None else math.log1p(len(content_text(answer.get("content")))),
        math.log1p(len(query.prompt.system or query.info.system or "")),
        float(bool(query.prompt.tools)),
        float(bool(query.info.response_format)),
        -1.0 if query.info.temperature is None else float(query.info.temperature),
    )


def features(query: LengthQuery, conversation: tuple[float, ...]) -> TextFeatures:
    """The features of a prompt that has a text; `conversation` is what `conversation_features` says."""
    text = prompt_text(query.prompt)
    shown = text if len(text) <= _HEAD + _TAIL else f"{text[:_HEAD]}\n{text[-_TAIL:]}"
    codes = np.frombuffer(f"\x02{shown}\x03".encode("utf-32-le", "replace"), np.uint32)
    return TextFeatures(*_ngrams(_lower(codes)), _form(query, text, codes, conversation))


def model_key(name: object) -> str:
    """A model's name without owner and quantisation: Qwen/Qwen2.5-7B-Instruct-AWQ -> qwen2.5-7b-instruct."""
    return _model_key(str(name or ""))


@lru_cache(maxsize=1024)
def _model_key(name: str) -> str:
    base = name.lower().rstrip("/").rpartition("/")[2]
    return _patterns()["quantised"].sub("", base)


@cache
def _patterns() -> dict[str, re.Pattern[str]]:
    return {
        "quantised": re.compile(r"[-_.](?:gptq|awq|gguf|fp8|int[48]|bnb|4bit|8bit|mlx|bf16|fp16)\b.*$"),
        "size": re.compile(r"(\d+(?:\.\d+)?)b\b"),
    }


def _lower(codes: NDArray[np.uint32]) -> NDArray[np.uint32]:
    capital = (codes - 65) < 26  # unsigned: everything below "A" wraps around
    return codes + (capital.astype(np.uint32) << 5)


def _ngrams(codes: NDArray[np.uint32]) -> tuple[NDArray[np.int64], NDArray[np.uint32]]:
    """Rolling multiplicative hashes of 3 codes or more (Knuth's 2654435761; mixers of MurmurHash3 and xxHash).

    Returns:
        The cells of all n-grams, and the hashes of the 3-grams in order.
    """
    rolling = codes * np.uint32(2654435761)
    ones = rolling >> np.uint32(32 - BITS)
    added, longer = codes * np.uint32(0x85EBCA6B), []
    for order in range(1, min(_ORDERS, len(codes))):
        rolling = (rolling[:-1] ^ (rolling[:-1] >> np.uint32(13))) * np.uint32(0x9E3779B1) + added[order:]
        longer.append(rolling)
    hashes = np.concatenate(longer)
    hashes = (hashes ^ (hashes >> np.uint32(15))) * np.uint32(0x2C1B3C6D)
    cells = np.concatenate((ones, hashes >> np.uint32(32 - BITS)))
    cells.sort()
    first = np.concatenate((_TRUE, cells[1:] != cells[:-1]))  # as np.unique, several times faster
    threes = slice(len(longer[0]), len(longer[0]) + len(longer[1]))
    return cells[first].astype(np.int64), hashes[threes] >> np.uint32(32 - SEEN_BITS)


@cache
def _classes() -> NDArray[np.uint8]:
    """Class of every character of the basic plane: ASCII by itself (0-127), then han, kana, scripts, marks, letters."""
    table = np.full(1 << 16, 131, np.uint8)
    table[:128] = np.arange(128)
    table[0xC0:0x250] = 132
    table[0x370:0x2000] = 130
    table[0x3040:0x3100] = 129
    for low, high in ((0x3400, 0x4DC0), (0x4E00, 0xA000), (0xAC00, 0xD7B0), (0xF900, 0xFB00)):
        table[low:high] = 128
    for full, half in (("？", "?"), ("，", ","), ("、", ","), ("。", "."), ("（", "("), ("：", ":"), ("“", '"')):
        table[ord(full)] = ord(half)
    return table


def _form(
    query: LengthQuery, text: str, codes: NDArray[np.uint32], conversation: tuple[float, ...]
) -> NDArray[np.float64]:
    counts = np.bincount(_classes()[np.minimum(codes, 0xFFFF)], minlength=133).tolist()
    small, capitals = sum(counts[97:123]) + counts[132], sum(counts[65:91])
    han, kana, script, lines = (counts[code] for code in (128, 129, 130, 10))
    marks = sum([counts[code] for code in _PUNCTUATION]) + counts[131]
    counted = [counts[code] for code in _COUNTED]
    seen = len(codes) + 1
    language = "ja" if kana else "zh" if han * 2 > small else "other" if script > seen / 4 else "en"
    log = math.log1p
    return np.array(
        [
            *(log(len(text)), log(small + capitals), capitals / seen, log(sum(counts[48:58])), log(han)),
            *(log(script), log(kana), log(marks), log(lines), han / seen, marks / seen, *counted),
            *(log(len(text.partition("\n")[0])), log(len(text.rpartition("\n")[2]))),
            *_constraint_features(query, text, language),
            _size(model_key(query.engine.model)),
            *conversation,
        ]
    )


def _constraint_features(query: LengthQuery, text: str, language: str) -> tuple[float, float, float]:
    """Tokens, number and bound of the lengths that the text asks for."""
    constraints = query.constraints if query.prompt.user else find_constraints(instructions(text))
    if not constraints:
        return 0.0, 0.0, _NO_CONSTRAINT
    tokens, bound = max((each.tokens(language, _QWEN2), each.bound) for each in constraints)
    return math.log1p(tokens), float(len(constraints)), _BOUNDS[bound]


@lru_cache(maxsize=1024)
def _size(model: str) -> float:
    """Logarithm of the parameters in billions that a model's name tells; -2 where it tells none."""
    found = _patterns()["size"].search(model)
    return math.log(max(0.1, float(found[1]))) if found else -2.0
