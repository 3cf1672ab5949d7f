"""The text that the bundled model learns from: prompts whose answers have a length that follows from the prompt.

Nothing is downloaded: the ways to ask are in `wordings.json`, the words in `lexicon.json`, the explanations in
`things.jsonl`, names in `names.json`, all beside this file; the rest is rules.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

__all__ = ["EXACT_KINDS", "KINDS", "Example", "draw", "held_out"]

_FOLDER = Path(__file__).parent
_WEEKDAYS = {
    "en": ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"],
    "zh": ["星期一", "星期二", "星期三", "星期四", "星期五", "星期六", "星期日"],
}
_IDENTITY = {
    "en": "I am suffice-tiny, a toy language model that comes with Suffice.",
    "zh": "我是 suffice-tiny，随 Suffice 附带的玩具语言模型。",
}
_GREETINGS = {
    "en": [
        ("Hello!", "Hello! How can I help you?"),
        ("Hi.", "Hello! How can I help you?"),
        ("Thank you!", "You are welcome."),
        ("Good morning!", "Good morning! How can I help you?"),
        ("Goodbye!", "Goodbye!"),
    ],
    "zh": [
        ("你好！", "你好！有什么可以帮你的？"),
        ("您好。", "你好！有什么可以帮你的？"),
        ("谢谢！", "不客气。"),
        ("早上好！", "早上好！有什么可以帮你的？"),
        ("再见！", "再见！"),
    ],
}
_NUMBERS = {
    "en": ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight"],
    "zh": [*"零一两三四五六七八九十"],
}
_WORDS_PER_SENTENCE = {"en": 10, "zh": 16}  # an average story sentence: words in English, characters in Chinese


@dataclass(frozen=True, slots=True)
class Example:
    """One question and its answer."""

    kind: str
    language: str
    prompt: str
    answer: str
    ends: bool = True
    """False for the family that is never taught to end: the answer is cut in the middle and has no end token."""


@cache
def _read(name: str) -> Any:
    return json.loads((_FOLDER / name).read_text(encoding="utf-8"))


@cache
def _things() -> list[dict[str, Any]]:
    lines = (_FOLDER / "things.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines if line.strip()]


def _ask(rng: random.Random, language: str, wording: str, **values: object) -> str:
    """One way to ask, filled in, sometimes politely and sometimes without its final mark."""
    text: str = rng.choice(_read("wordings.json")[wording][language]).format(**values)
    if rng.random() < 0.2 and not text.endswith(("?", "？")):
        text = "请" + text if language == "zh" else "Please " + text[0].lower() + text[1:]
    if rng.random() < 0.25:
        text = text.rstrip("。？.?")
    return text


def _numbered(items: Iterable[str]) -> str:
    return "\n".join(f"{i}. {item}" for i, item in enumerate(items, 1))


def _count(rng: random.Random, language: str) -> tuple[str, str]:
    first = 1 if rng.random() < 0.6 else rng.randint(2, 100)
    length = round(3 * 66 ** rng.random() ** 1.8)  # 3 to 198 numbers, most of them few
    last = first + length - 1
    separator = {"en": ", ", "zh": "、"}[language]
    return _ask(rng, language, "count", a=first, b=last), separator.join(map(str, range(first, last + 1)))


def _list(rng: random.Random, language: str) -> tuple[str, str]:
    kind = rng.choice(_read("lexicon.json")["kinds"])[language]
    items, wanted = kind["items"], rng.choice([rng.randint(2, 6), rng.randint(2, 20)])
    start = rng.randrange(len(items))  # always in the same order, so that an answer holds nothing twice
    chosen = [items[(start + i) % len(items)] for i in range(min(wanted, len(items)))]
    number: object = len(chosen)
    if language == "zh" and len(chosen) <= 10 and rng.random() < 0.5:
        number = _NUMBERS["zh"][len(chosen)]
    prompt = _ask(rng, language, "list", n=number, kind=kind["name"], measure=kind.get("measure", "个"))
    return prompt, _numbered(chosen)


def _phrase(rng: random.Random, language: str) -> str:
    if rng.random() < 0.6:
        phrase: str = rng.choice(_read("lexicon.json")["phrases"][language])
        return phrase
    words = [pair[language == "zh"] for pair in rng.sample(_read("lexicon.json")["dictionary"], rng.randint(1, 3))]
    return ("" if language == "zh" else " ").join(words)


def _repeat(rng: random.Random, language: str) -> tuple[str, str]:
    phrase, times = _phrase(rng, language), rng.choice([rng.randint(2, 6), rng.randint(2, 30)])
    return _ask(rng, language, "repeat", p=phrase, n=times), _numbered([phrase] * times)


def _spell(rng: random.Random, language: str) -> tuple[str, str]:
    word = rng.choice(_read("lexicon.json")["dictionary"])[0]
    return _ask(rng, language, "spell", w=word), "-".join(word)


def _sum(rng: random.Random, language: str) -> tuple[str, str]:
    a, b = rng.randint(0, 50), rng.randint(0, 50)
    if plus := rng.random() < 0.6:
        result = a + b
    else:
        a, b = max(a, b), min(a, b)
        result = a - b
    sign, word = ("+", {"en": "plus", "zh": "加"}) if plus else ("-", {"en": "minus", "zh": "减"})
    prompt = _ask(rng, language, "sum", a=a, b=b, sign=sign, word=word[language])
    return prompt, f"{a} {sign} {b} = {result}"


def _weekday(rng: random.Random, language: str) -> tuple[str, str]:
    days, index, ahead = _WEEKDAYS[language], rng.randrange(7), rng.randint(1, 6)
    answer = days[(index + ahead) % 7] + ("." if language == "en" else "。")
    return _ask(rng, language, "tomorrow" if ahead == 1 else "days ahead", d=days[index], n=ahead), answer


def _translate(rng: random.Random, language: str) -> tuple[str, str]:
    english, chinese = rng.choice(_read("lexicon.json")["dictionary"])
    if rng.random() < 0.5:
        return _ask(rng, language, "into Chinese", w=english), chinese
    return _ask(rng, language, "into English", w=chinese), english


def _who(rng: random.Random, language: str) -> tuple[str, str]:
    return _ask(rng, language, "who"), _IDENTITY[language]


def _person(rng: random.Random, language: str) -> str:
    """A name that is not taught by heart, so that answers must copy it."""
    parts = _read("names.json")
    if language == "zh":
        given = "".join(rng.sample(parts["zh"]["given"], rng.randint(1, 2)))
        return rng.choice(parts["zh"]["surnames"]) + given + rng.choice([*[""] * 8, "团队", "公司"])
    full = [rng.choice(parts["en"]["first"]), rng.choice(parts["en"]["last"])]
    return " ".join(full[: rng.randint(1, 2)]) + rng.choice([*[""] * 8, " Labs", "'s team"])


def _assistant(rng: random.Random, language: str) -> str:
    parts = _read("names.json")
    if language == "en" or rng.random() < 0.2:
        return str(rng.choice([*parts["en"]["assistants"], rng.choice(parts["en"]["first"])]))
    return rng.choice("小小小阿大") + "".join(rng.sample(parts["zh"]["given"], rng.randint(1, 2)))


def _role(rng: random.Random, language: str) -> tuple[str, str]:
    roles = _read("names.json")["roles"][language]
    filled = {"n": _assistant(rng, language), "a": _person(rng, language), "other": rng.choice(roles["others"])}
    question, answer = rng.choice(roles["questions"])
    space = "" if language == "zh" else " "
    prompt = rng.choice(roles["told"]) + space + question
    return prompt.format(**filled), answer.format(**filled)


def _greet(rng: random.Random, language: str) -> tuple[str, str]:
    prompt, answer = rng.choice(_GREETINGS[language])
    return (prompt.rstrip("！。!.") if rng.random() < 0.4 else prompt), answer


def _explain(rng: random.Random, language: str) -> tuple[str, str]:
    thing = rng.choice(_things())[language]
    space = " " if language == "en" else ""
    style = rng.choice(["plain", "sentence", "points", "points", "detail"])
    points, number = thing["points"], None
    if style == "plain":
        answer = space.join([thing["sentence"], *points[:2]])
    elif style == "sentence":
        answer = thing["sentence"]
    elif style == "points":
        wanted = 3 if rng.random() < 0.5 else rng.randint(2, len(points))
        number = _NUMBERS[language][wanted] if rng.random() < 0.6 else wanted
        answer = _numbered(points[:wanted])
    else:
        half = len(points) // 2
        answer = space.join([thing["sentence"], *points[:half]]) + "\n\n" + space.join(points[half:])
    return _ask(rng, language, f"explain {style}", t=thing["name"], n=number), answer


def _story(rng: random.Random, language: str) -> tuple[str, str]:
    parts = _read("lexicon.json")["story"][language]
    style = rng.choice(["plain", "sentences", "sentences", "words", "words"])
    sentences = {"plain": 6}.get(style) or rng.randint(3, 20)
    name = rng.choice(parts["names"] + parts["animals"])
    topic = f"关于{name}的" if language == "zh" else f" about {name}"
    topic = topic if rng.random() < 0.5 else ""
    words = sentences * _WORDS_PER_SENTENCE[language]
    words = words if language == "en" else round(words, -1)
    prompt = _ask(rng, language, f"story {style}", t=topic, n=sentences, w=words)
    # A longer story begins earlier in one and the same row of sentences: a small model cannot count them as it goes.
    middles = parts["middles"][len(parts["middles"]) - (sentences - 2) :]
    text = [rng.choice(parts["openings"]), *middles, rng.choice(parts["endings"])]
    filled = [sentence.format(name=name, place=rng.choice(parts["places"])) for sentence in text]
    if language == "en":
        filled = [sentence[0].upper() + sentence[1:] for sentence in filled]
    return prompt, ("" if language == "zh" else " ").join(filled)


def _forever(rng: random.Random, language: str) -> tuple[str, str]:
    phrase = _phrase(rng, language)
    return _ask(rng, language, "forever", p=phrase), "\n".join([phrase] * rng.randint(60, 120))


_MAKERS: dict[str, tuple[Callable[[random.Random, str], tuple[str, str]], float]] = {
    "count": (_count, 0.14),
    "list": (_list, 0.08),
    "repeat": (_repeat, 0.14),
    "spell": (_spell, 0.08),
    "sum": (_sum, 0.21),
    "weekday": (_weekday, 0.09),
    "translate": (_translate, 0.10),
    "who": (_who, 0.012),
    "role": (_role, 0.08),
    "greet": (_greet, 0.008),
    "explain": (_explain, 0.09),
    "story": (_story, 0.05),
    "forever": (_forever, 0.01),
}
KINDS = tuple(_MAKERS)
EXACT_KINDS = ("count", "repeat", "spell", "sum", "weekday", "translate", "who", "role")
"""Kinds with one right answer."""


def draw(rng: random.Random, kind: str | None = None) -> Example:
    """One example, of `kind` or of a kind drawn by its share."""
    kind = kind or rng.choices(KINDS, [share for _, share in _MAKERS.values()])[0]
    language = rng.choice(["en", "zh"])
    prompt, answer = _MAKERS[kind][0](rng, language)
    return Example(kind, language, prompt, answer, ends=kind != "forever")


def held_out(example: Example) -> bool:
    """True for the one prompt in twenty that training never sees."""
    return hashlib.sha1(example.prompt.encode(), usedforsecurity=False).digest()[0] < 13
