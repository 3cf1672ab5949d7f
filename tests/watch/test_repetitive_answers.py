"""Properties of the runaway detector on generated answers, read by tokens and by text, with and without a prompt.

Rows, tables and refrains of random shape that advance (by a counter, an id, a date or a random word; 20 to 400 of them)
are never stopped; a random turn that is said again and again is; and what is taken back is a copy to the letter.
"""

from __future__ import annotations

import random
import re
import zlib
from collections.abc import Callable
from datetime import date, timedelta

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from suffice.watch import Runaway, RunawayDetector
from suffice.watch.units import TextUnits

Row = Callable[[random.Random, int], str]
WORDS = ["apple", "river", "stone", "lamp", "chair", "cloud", "music", "paper", "glass", "bread", "horse", "garden"]
NUMERALS = "零一二三四五六七八九"


def word(draw: random.Random) -> str:
    return draw.choice(WORDS)


def chinese(number: int) -> str:
    hundreds, tens, ones = number // 100, number // 10 % 10, number % 10
    return (NUMERALS[hundreds] + "百") * (hundreds > 0) + (NUMERALS[tens] + "十") * (tens > 0) + NUMERALS[ones]


ROWS: dict[str, Row] = {
    "insert": lambda draw, n: f"INSERT INTO items (id, name, active) VALUES ({n}, 'item', true);\n",
    "csv": lambda draw, n: f"{n},pending,0,,false\n",
    "json": lambda draw, n: f'  {{"id": {n}, "name": "{word(draw)}", "tags": [], "active": true}},\n',
    "json over lines": lambda draw, n: (
        f'  {{\n    "id": {n},\n    "status": "pending",\n    "retries": 0,\n    "error": null\n  }},\n'
    ),
    "yaml": lambda draw, n: f"- name: worker-{n}\n  image: app:latest\n  replicas: 1\n  ports:\n    - 80\n",
    "xml": lambda draw, n: f'<row id="{n}"><name>{word(draw)}</name><value>0</value></row>\n',
    "table": lambda draw, n: f"| {n} |  |  |  |  |\n",
    "dates": lambda draw, n: f"| 20{10 + n // 336:02}-{n // 28 % 12 + 1:02}-{n % 28 + 1:02} | rest | - | - |\n",
    "tests": lambda draw, n: (
        f"    def test_{n}(self):\n        result = self.client.get('/health')\n"
        f"        self.assertEqual(result.status, 200)\n        self.assertTrue(result.ok)\n\n"
    ),
    "css": lambda draw, n: f".mt-{n} {{ margin-top: {n * 4}px; }}\n",
    "log": lambda draw, n: f"2025-03-01 10:{n // 60:02}:{n % 60:02} INFO worker: job finished status=ok\n",
    "counting": lambda draw, n: f"{n}, ",
    "chinese counting": lambda draw, n: chinese(n) + "、",
    "chinese articles": lambda draw, n: f"第{chinese(n)}条 本条内容待补充，请在后续版本中完善。\n",
    "chinese seats": lambda draw, n: f"第{n}号座位：空\n",
    "milestones": lambda draw, n: (
        f"**Milestone {n}:** Complete the project scope and the timeline of all the work.\n\n"
    ),
    "days": lambda draw, n: f"Day {n}: wake up at seven, drink a glass of water, walk for half an hour, then read.\n",
    "drill": lambda draw, n: f"{chr(65 + n % 26)} is for {word(draw)}, and {chr(97 + n % 26)} is for {word(draw)}.\n",
    "ballad": lambda draw, n: (
        f"The {word(draw)} and the {word(draw)} went over the {word(draw)},\nand none of them came back.\n"
        f"O sing, my {word(draw)}, sing low,\nthe wind will never know.\n\n"
    ),
    "refrain": lambda draw, n: (
        " ".join(word(draw) for _ in range(20)) + "\n" + "La la la, hey hey, we are going home tonight,\n" * 4 + "\n"
    ),
    "hexdump": lambda draw, n: f"{n * 16:08x}  " + "00 " * 16 + "|................|\n",
    "path": lambda draw, n: f"L {n * 10} {draw.randrange(100)} ",
    "chess": lambda draw, n: f"{n}. Kd{draw.choice('345')} Ke{draw.choice('67')} ",
    "contacts": lambda draw, n: f"{word(draw)} {word(draw)}, 555-01{n % 100:02}, Springfield\n",
    "dna": lambda draw, n: "".join(draw.choices("ACGT", k=10)) + " ",
    "translations": lambda draw, n: f"{word(draw)} → {word(draw)}\n",
    "shifts": lambda draw, n: f"Week {n}: Mon early, Tue early, Wed early, Thu late, Fri late, Sat free, Sun free\n",
    "accessors": lambda draw, n: f"    public String get{n}() {{\n        return this.value{n};\n    }}\n\n",
    "cells mostly equal": lambda draw, n: (
        f"| ok | ok | {draw.choice(['ok'] * 4 + ['no'])} | ok | {draw.choice('ABCD')} |\n"
    ),
    "truth table": lambda draw, n: "|".join(f" {n >> bit & 1} " for bit in range(9)) + "\n",
    "bits": lambda draw, n: f"{draw.randrange(2)}, ",
    "quiz": lambda draw, n: (
        f"Q{n}: Is a {word(draw)} heavier than a {word(draw)}?\nTrue\nFalse\nAnswer: {draw.choice('AB')}\n"
    ),
    "fixtures": lambda draw, n: (
        '{"user": "guest", "role": "none"},\n' * draw.randrange(1, 5)
        + f'{{"user": "{word(draw)}", "role": "{word(draw)}"}},\n'
    ),
    "rules": lambda draw, n: "-" * 60 + f"\n{word(draw)} {word(draw)} {n}\n" + "=" * 60 + "\n",
    "art": lambda draw, n: " " * draw.randrange(30) + "*" * draw.randrange(1, 9) + "\n",
    "maze": lambda draw, n: "".join(draw.choices("#....", k=30)) + "\n",
    "bottles": lambda draw, n: (
        f"{500 - n} bottles of beer on the wall, {500 - n} bottles of beer. Take one down and pass it around.\n\n"
    ),
    "products": lambda draw, n: f"{n // 10 + 1} x {n % 10 + 1} = {(n // 10 + 1) * (n % 10 + 1)}\n",
    "epochs": lambda draw, n: f"epoch {n}/400 loss 0.{draw.randrange(9999):04} acc 1.0000\n",
    "tree": lambda draw, n: f"├── module_{n}\n│   ├── __init__.py\n│   ├── models.py\n│   └── views.py\n",
    "knitting": lambda draw, n: f"Rnd {n}: sc in each st around (24)\n",
}
ASKED = {
    "Write 'I will not talk in class' 200 times.": "I will not talk in class.\n" * 200,
    "Make an empty table with 60 rows.": "|   |   |   |\n" * 60,
    "Write a 30x40 matrix of zeros.": ("[" + "0, " * 39 + "0],\n") * 30,
    "请把“好好学习，天天向上”抄写一百遍": "好好学习，天天向上\n" * 100,
}


def any_word(draw: random.Random) -> str:
    return f"{word(draw)} {word(draw)}"


ADVANCES: dict[str, Row] = {
    "counter": lambda draw, n: str(n),
    "padded": lambda draw, n: f"{n:05}",
    "tens": lambda draw, n: f"{n * 10:,}",
    "countdown": lambda draw, n: str(1000 - n),
    "chinese": lambda draw, n: f"第{chinese(n)}条",
    "id": lambda draw, n: f"{zlib.crc32(bytes([n % 256, n // 256])):08x}",
    "date": lambda draw, n: str(date(2024, 1, 1) + timedelta(n)),
    "day": lambda draw, n: f"{date(2024, 1, 1) + timedelta(n):%d %B %Y}",
    "word": lambda draw, n: any_word(draw),
    "letter": lambda draw, n: f"{chr(97 + n % 26)}{n // 26}",
}
STILL = [
    "",
    "name",
    "true",
    "0",
    "1.50",
    "null",
    "the value is ready",
    "Springfield",
    "待补充",
    "本条内容由后续版本完善",
    "ok",
]
BETWEEN = [", ", " | ", "\t", " ", ": ", "：", "，", " = ", "\n  ", "'), ('", ' class="row">']
BEGINS = ["", "- ", "| ", "    ", "INSERT INTO t VALUES (", "<td>", "O sing again,\nO sing again,\n"]
ENDS = ["\n", "\n\n", ", ", "; ", "。\n", " |\n", ");\n", "</td>\n", "\n" + "-" * 20 + "\n"]
PROMPTS = [None, "Go on, please.", "请继续。", "Make test data for 3 tables.", "Write {count} rows.", "写{count}行。"]
quick = settings(max_examples=60, derandomize=True, deadline=None, database=None)
parts = st.lists(st.one_of(st.sampled_from(STILL), st.sampled_from(list(ADVANCES))), min_size=1, max_size=6)


@st.composite
def templates(draw: st.DrawFn) -> Row:
    """A row of one of the kinds above, or of a random shape, in which at least one part advances."""
    if draw(st.booleans()):
        return ROWS[draw(st.sampled_from(list(ROWS)))]
    shape = draw(parts)
    shape.insert(draw(st.integers(0, len(shape))), draw(st.sampled_from(list(ADVANCES))))
    begin, between, end = (draw(st.sampled_from(each)) for each in (BEGINS, BETWEEN, ENDS))
    return lambda d, n: begin + between.join(ADVANCES[p](d, n) if p in ADVANCES else p for p in shape) + end


@st.composite
def turns(draw: st.DrawFn) -> str:
    """Something that may be said again and again: words, numbers and signs in Latin and Chinese, 1 to 150 of them."""
    vocabulary = [*WORDS, *ADVANCES, "7", "12", "=", "(x)", "好", "我们", "继续努力", "der", "été", "привет", "|"]
    said = draw(st.lists(st.sampled_from(vocabulary), min_size=1, max_size=150))
    return draw(st.sampled_from(WORDS)) + " " + " ".join(said) + draw(st.sampled_from([" ", ". ", ",\n", "\n\n", "。"]))


def written(template: Row, count: int, seed: int) -> str:
    draw = random.Random(seed)
    return "".join(template(draw, n) for n in range(1, count + 1))


def tokens(text: str) -> list[str]:
    return re.findall(r" ?[A-Za-z]{1,8}|\d|\n{1,2}| {2,16}|-{1,16}|={1,16}|.", text)


def told(text: str, prompt: str | None, by_text: bool) -> Runaway | None:
    parts = tokens(text)
    number = {part: at for at, part in enumerate(dict.fromkeys(parts))}
    names = list(number)
    detector = RunawayDetector(prompt, names.__getitem__)
    take = detector.push_text if by_text else lambda part: detector.push(number[part])
    return next((found for part in parts if (found := take(part))), None)


@quick
@given(templates(), st.integers(20, 400), st.sampled_from(PROMPTS), st.booleans(), st.integers(0, 9))
def test_what_advances_is_never_stopped(
    template: Row, count: int, prompt: str | None, by_text: bool, seed: int
) -> None:
    assert told(written(template, count, seed), prompt and prompt.format(count=count), by_text) is None


@quick
@given(turns(), st.booleans())
def test_what_is_said_again_and_again_is_stopped(turn: str, by_text: bool) -> None:
    text = turn * (5 + 4000 // len(turn))
    found = told(text, "Tell me about it.", by_text)
    assert found is not None
    assert found.at < 2000 + 2.2 * len(turn if by_text else tokens(turn))


@quick
@example(ROWS["insert"], 1, "apple apple. ", True, 0)
@given(templates(), st.integers(1, 60), turns(), st.booleans(), st.integers(0, 9))
def test_what_is_taken_back_is_a_copy_to_the_letter(
    template: Row, count: int, turn: str, by_text: bool, seed: int
) -> None:
    before = written(template, count, seed)
    text = before + turn * (6 + 4000 // len(turn))
    found = told(text, None, by_text)
    assert found is not None
    units = text if by_text else tokens(text)
    assert units[found.keep : found.at] == units[found.onset : found.at - found.period]
    kept = text[: found.keep] if by_text else "".join(units[: found.keep])
    assert kept.startswith(before), "rows before the loop are kept"
    assert kept.count(turn, len(before)) <= 2 or found.keep == found.at, "turns that differ in commas are kept"


@quick
@given(st.text(alphabet="aA zé\n\t  ..--=|0123你好喂яжñ\ufffd_²😀", max_size=120), st.integers(1, 9))
def test_units_do_not_depend_on_where_text_is_cut(text: str, size: int) -> None:
    whole, parts = TextUnits().push(text), TextUnits()
    assert [unit for at in range(0, len(text), size) for unit in parts.push(text[at : at + size])] == whole


@pytest.mark.parametrize("by_text", [False, True], ids=["tokens", "text"])
@pytest.mark.parametrize("prompt", ASKED)
def test_what_was_asked_for_is_never_stopped(prompt: str, by_text: bool) -> None:
    assert told(ASKED[prompt], prompt, by_text) is None
