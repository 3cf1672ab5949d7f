"""Length constraints in Chinese: 50字以内, 一句话, 列出三点, 写一篇800字的文章, 三千字."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache

from suffice.budget.length_constraints.constraint import Bound, LengthConstraint, Unit, sentence_around
from suffice.budget.length_constraints.numbers import CHINESE_NUMBER, parse_number

__all__ = ["chinese_constraints"]

_ITEM_VERBS = (
    "列出|列举|举出|举|给出|给我|说出|推荐|提供|写出|介绍|分享|总结|概括|归纳|提出|分成|分为|"
    r"(?:用|以|分)(?=[\d一二两三四五六七八九十])|答出|想出|写"
)
_UNITS: dict[str, Unit] = {"字": "hanzi", "词": "word", "句": "sentence", "段": "paragraph", "页": "page", "行": "line"}
_AT_MOST = frozenset(
    [
        *("不超过", "不多于", "不要超过", "别超过", "少于", "小于", "不到", "最多", "至多"),
        *("限", "限制", "限在", "限制在", "控制在", "低于", "不高于"),
    ]
)
_AT_LEAST = frozenset(["至少", "不少于", "不低于", "超过", "多于", "最少", "不小于", "大于"])
_GIVEN = frozenset("第这那前后有了上下本才刚")
_TASKS = ("概括", "总结", "解释", "说明", "回答", "介绍")
_QUOTED = _AT_MOST | _AT_LEAST | {"用", "以", "约", "大约"}


@cache
def _rules() -> dict[str, re.Pattern[str]]:
    zh = CHINESE_NUMBER
    return {
        "amount": re.compile(
            rf"(?P<pre>(?:不\s*超过|不多于|不要超过|别超过|少于|小于|不到|最多|至多|限制?在?|控制在|低于|不高于|至少|不少于|不低于|"
            r"超过|多于|最少|不小于|大于|大约|约|大概|用|以|以内|每段|每点|每条|每个|每篇|每句|每部分|每章|共|总共|字数|写|为|第|这|那|前|后|有|"
            r"了|的|本|上|下|是|成|到|要|请|仅|只|才|刚|满|够)?\s*)"
            rf"(?P<low>{zh})(?:\s*[-~—–－～到至]+\s*(?P<high>{zh}))?\s*(?P<ish>多|余|来)?\s*个?\s*(?:英文|中文|汉)?(?:单)?"
            r"(?P<unit>字符(?!串)|字(?!母|符|典|体|节|段|幕|迹|眼)|词(?!典|条|汇|缀)|句话|句|段话|段落|段(?!时间|路|感情|经历|历史|报道|代码)|页|行)(?P<suffix>左右|上下|以内|之内|内|以下|以上|起|之间)?",
        ),
        "item": re.compile(
            rf"(?:{_ITEM_VERBS})[^，。；！？\n\d一二两三四五六七八九十]{{0,8}}(?<![这那第每前后上下])(?P<n>{zh})\s*"
            r"(?P<unit>个|条|点|种|项|首|部|本|道|位|件|步|例|款|类|家|座|篇|方面|大)(?!字|词|字母|月|小时|人|星期)",
        ),
        "directive": re.compile(
            r"写|作文|撰|生成|编|创作|给我|给出|来一|要求|字数|篇幅|控制|回答|回复|概括|总结|解释|说明|介绍|描述|用|请|限|"
            r"扩写|缩写|续写|输出|长度|论述|阐述|字以|需要|帮我|谈谈|讲|告诉|形容|说说|造"
        ),
        "statement": re.compile(
            r"(?:我|他|她|它|你|们|里|中|文章|全文|书|文件)(?:已经|现在|一共|总共|刚刚|刚|昨天|今天)?(?:有|写了|看了|读了|背了|抄了|删了|是)|"
            r"写了|看到|听到|读到|听过|看过|有人|有多少|多少|共有"
        ),
        "number": re.compile(r"[\d一二两三四五六七八九十百千万][\s\d.]*(?:[^\x00-\u2fff]|$)"),
        "title": re.compile(r"标题|题目|口号|摘要部分|开头|结尾"),
    }


def chinese_constraints(text: str) -> Iterator[LengthConstraint]:
    if text.isascii():
        return
    rules = _rules()
    if not rules["number"].search(text):
        return
    if any(unit in text for unit in _UNITS):
        found = (_constraint(text, match) for match in rules["amount"].finditer(text))
        yield from (constraint for constraint in found if constraint is not None)
    for match in rules["item"].finditer(text):
        amount = parse_number(match["n"])
        if amount and 2 <= amount <= 500:
            yield LengthConstraint("piece" if match["unit"] in "篇首部章" else "item", amount, "about", match.group())


def _constraint(text: str, match: re.Match[str]) -> LengthConstraint | None:
    rules = _rules()
    low, high = parse_number(match["low"]), parse_number(match["high"] or match["low"])
    if not low or not high:
        return None
    pre, suffix = "".join(match["pre"].split()), match["suffix"] or ""
    unit: Unit = "character" if match["unit"] == "字符" else _UNITS[match["unit"][0]]
    before, after = sentence_around(text, match.start("low"), match.end(), "。！？；\n!?;，,")
    at_most = pre in _AT_MOST or suffix in ("以内", "之内", "内", "以下")
    at_least = not at_most and (pre in _AT_LEAST or suffix in ("以上", "起") or bool(match["ish"]))
    bounded = at_most or at_least or suffix in ("左右", "上下", "之间") or pre in ("大约", "约", "大概")
    if (pre in _GIVEN and not (bounded and pre == "有")) or (rules["statement"].search(before) and not bounded):
        return None
    near = before if unit == "hanzi" and high >= 100 else before[-14:]
    directed = rules["directive"].search(near) or after.startswith(_TASKS)
    alone = not before.strip(" ：:-*（(") and not after.strip(" ）)*.")
    each = pre.startswith("每") or "每" in before[-10:]
    if not (bounded or directed or alone or each):
        return None
    if unit in ("hanzi", "word", "line") and high < 5 and pre not in ("用", "以", "只", "仅"):
        return None  # 两个字, 限一词: about spelling and single words more often than about length
    one_line = unit == "line" and high == 1 and pre != "用"
    one_paragraph = unit == "paragraph" and high == 1 and not rules["directive"].search(before[-3:])
    if one_line or one_paragraph or rules["title"].search(before[-8:]):
        return None
    bound: Bound = "at most" if at_most else "at least" if at_least else "about"
    said = match.group() if pre in _QUOTED else match.group()[len(match["pre"]) :]
    return LengthConstraint(unit, max(low, high), bound, said.strip(), each)
