"""How many tokens text takes: per word, character, sentence, bullet point, paragraph and page.

The constants were measured with the Qwen2 tokenizer (151,643 byte-level BPE ranks) by `benchmarks/token_ratios.py` on
answers that ended by themselves: en, ja, fr, es and uncommon scripts from Qwen2.5-1.5B, 7B and 14B on (M-)IFEval; zh
from gpt-4o, gpt-4-turbo and gpt-4 on ruozhiba and MT-Bench-zh. `docs/budget.md` has the table with how many there were.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from types import MappingProxyType

from suffice.prompt import Prompt

__all__ = ["CHINESE_REFERENCE", "ENGLISH_REFERENCE", "CharacterKinds", "LanguageRatios", "TextRatios"]
__all__ += ["count_kinds", "estimate_prompt_tokens", "estimate_tokens"]

ENGLISH_REFERENCE = (
    "The morning train was late again, so Maria opened her notebook and made a list of everything she wanted to do "
    "before winter: repair the old bicycle, visit her grandmother in the mountains, learn twenty songs on the guitar, "
    "and finally answer the letters that had been waiting on her desk since August. Nobody around her seemed to be in "
    "a hurry. A student was explaining to his friend how photosynthesis turns light, water and carbon dioxide into "
    "sugar and oxygen."
)
CHINESE_REFERENCE = (
    "早上的火车又晚点了，于是小梅打开笔记本，把冬天来临之前想做的事情一件一件写下来：修好那辆旧自行车，去山里看望外婆，"
    "学会二十首吉他曲，还要回复从八月起就放在书桌上的那些信。周围的人似乎都不着急，一个学生正在给朋友解释，"
    "植物怎样通过光合作用，把阳光、水和二氧化碳变成糖和氧气。"
)
_ENGLISH_REFERENCE_TOKENS = 91  # both counted with the Qwen2 tokenizer
_CHINESE_REFERENCE_TOKENS = 88

_TEMPLATE_TOKENS = 5  # what a chat template adds per message, in ChatML: <|im_start|>role\n ... <|im_end|>\n
_SAMPLED = 32_000  # characters from which on a text is sampled, so that a megabyte costs no more than this
_WINDOWS = 16


@dataclass(frozen=True, slots=True)
class LanguageRatios:
    """Tokens per unit in one language, punctuation and spaces included."""

    word: float
    """Per word; in Chinese and Japanese per character (字)."""
    character: float
    sentence: float
    item: float
    """Per bullet point or list entry."""
    paragraph: float
    words_per_page: int = 500
    """A single-spaced A4 page: a convention, not measured. Words, or 字 in Chinese."""

    def scaled(self, factor: float) -> LanguageRatios:
        """The same language under a tokenizer that needs `factor` times as many tokens."""
        units = ("word", "character", "sentence", "item", "paragraph")
        return replace(self, **{unit: getattr(self, unit) * factor for unit in units})


_LANGUAGES: Mapping[str, LanguageRatios] = MappingProxyType(
    {
        "en": LanguageRatios(word=1.41, character=0.23, sentence=21, item=17, paragraph=73),
        "zh": LanguageRatios(word=0.67, character=0.59, sentence=23, item=28, paragraph=106, words_per_page=800),
        "ja": LanguageRatios(word=0.86, character=0.69, sentence=29, item=31, paragraph=114, words_per_page=800),
        "fr": LanguageRatios(word=1.63, character=0.28, sentence=30, item=42, paragraph=91),
        "es": LanguageRatios(word=1.72, character=0.25, sentence=33, item=42, paragraph=98),
        "other": LanguageRatios(word=6.17, character=0.92, sentence=90, item=129, paragraph=183),
    }
)


@dataclass(frozen=True, slots=True)
class TextRatios:
    """Tokens per piece of text for one tokenizer. The defaults are Qwen2's."""

    word: float = 0.97
    """Per word of an alphabetic script, up to its sixth letter."""
    letter: float = 0.29
    """Per letter from the seventh on."""
    cjk: float = 0.59
    """Per Chinese, Japanese or Korean character."""
    script: float = 0.56
    """Per character of Cyrillic, Arabic, Devanagari, Thai and other scripts."""
    other: float = 0.86
    """Per digit, punctuation mark or line end."""
    languages: Mapping[str, LanguageRatios] = field(default_factory=lambda: _LANGUAGES)
    """By ISO 639 code: en, zh, ja, fr, es; `other` for scripts that a tokenizer splits finely."""

    @classmethod
    def measured(cls, count_tokens: Callable[[str], int]) -> TextRatios:
        """The built-in ratios, scaled by how another tokenizer counts two short texts, without special tokens."""
        english = count_tokens(ENGLISH_REFERENCE) / _ENGLISH_REFERENCE_TOKENS
        chinese = count_tokens(CHINESE_REFERENCE) / _CHINESE_REFERENCE_TOKENS
        base = cls()
        languages = {
            name: ratios.scaled(chinese if name in ("zh", "ja", "other") else english)
            for name, ratios in base.languages.items()
        }
        return cls(
            word=base.word * english,
            letter=base.letter * english,
            cjk=base.cjk * chinese,
            script=base.script * chinese,
            other=base.other,
            languages=MappingProxyType(languages),
        )


@dataclass(frozen=True, slots=True)
class CharacterKinds:
    words: int
    long_letters: int
    """Letters after the sixth of their word."""
    cjk: int
    script: int
    other: int


_CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff"
_LATIN = "A-Za-z\u00c0-\u024f"


@cache
def _kinds() -> tuple[re.Pattern[str], ...]:
    patterns = (rf"[{_LATIN}]+", rf"[{_CJK}]", "[\u0370-\u1fff]", r"[^\w\s]|[\d_\n]")
    return tuple(re.compile(pattern) for pattern in patterns)


def count_kinds(text: str) -> CharacterKinds:
    """Count words, CJK characters and the rest of `text`."""
    latin, cjk, script, other = _kinds()
    words = latin.findall(text)
    long_letters = sum([len(word) - 6 for word in words if len(word) > 6])
    others = len(other.findall(text))
    if text.isascii():
        return CharacterKinds(len(words), long_letters, 0, 0, others)
    return CharacterKinds(len(words), long_letters, len(cjk.findall(text)), len(script.findall(text)), others)


def estimate_tokens(text: str, ratios: TextRatios | None = None) -> int:
    """About how many tokens `text` has, when there is no tokenizer at hand.

    Half of the estimates are within 10 % (prompts with code 7 %, Chinese 6 %), 90 % within 25 %. Texts above 32,000
    characters are estimated from 16 evenly spaced windows.
    """
    ratios = ratios or TextRatios()
    if len(text) > _SAMPLED:
        step, width = len(text) // _WINDOWS, _SAMPLED // _WINDOWS
        windows = "".join(text[at : at + width] for at in range(0, step * _WINDOWS, step))
        return round(estimate_tokens(windows, ratios) * len(text) / len(windows))
    kinds = count_kinds(text)
    latin = kinds.words * ratios.word + kinds.long_letters * ratios.letter
    tokens = latin + kinds.cjk * ratios.cjk + kinds.script * ratios.script + kinds.other * ratios.other
    return max(1 if text else 0, round(tokens))


def estimate_prompt_tokens(prompt: Prompt, ratios: TextRatios | None = None) -> int:
    """About how many tokens a prompt has, chat template and tools included, where no tokenizer is at hand.

    Images count nothing.
    """
    if prompt.ids:
        return len(prompt.ids)
    tools = estimate_tokens(json.dumps([*prompt.tools], ensure_ascii=False), ratios) if prompt.tools else 0
    template = _TEMPLATE_TOKENS * (len(prompt.messages) + 1) if prompt.is_chat else 0
    return estimate_tokens(prompt.text, ratios) + tools + template
