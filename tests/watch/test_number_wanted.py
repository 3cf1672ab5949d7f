"""What a prompt bounds: an answer that is far past a number that was asked for is stopped after a complete item."""

import math

import pytest

from suffice.watch import Runaway, RunawayDetector
from suffice.watch.advance import Advance
from suffice.watch.number_wanted import bounds

COUNT = ", ".join(map(str, range(1, 900)))
FRUITS = "".join(f"{n}. fruit of kind {n * 37 % 1009}\n" for n in range(1, 500))
INSERTS = "".join(f"INSERT INTO users VALUES ({n}, 'guest');\n" for n in range(1, 500))
RECORDS = "".join(f'  {{\n    "id": {n},\n    "ok": true\n  }},\n' for n in range(1, 500))


def told(text: str, prompt: object, size: int = 3) -> Runaway | None:
    detector = RunawayDetector(prompt)
    return next(
        (found for at in range(0, len(text), size) if (found := detector.push_text(text[at : at + size]))), None
    )


@pytest.mark.parametrize(
    ("text", "prompt", "least"),
    [
        (FRUITS, "Name five fruits.", "105. "),
        (FRUITS, "Please list exactly 30 fruits", "130. "),
        (FRUITS, "列出五种水果", "105. "),
        (INSERTS, "Write 5 INSERT statements for a table of users.", "(105, "),
        (INSERTS, "生成50条插入语句", "(200, "),
        (RECORDS, "Give me 5 JSON records.", '"id": 105,'),
        (COUNT, "Count to 100.", " 400,"),
        (COUNT, "Can you count from 1 to one hundred?", " 400,"),
        (COUNT, "从1数到100", " 400,"),
    ],
)
def test_what_is_far_past_the_number_that_was_asked_for_is_stopped(text, prompt, least):
    found = told(text, prompt)
    assert found is not None
    assert found.keep == found.at, "it advances: nothing of it is taken back"
    assert text[: found.at].rstrip()[-1] in "0123456789;,}", "after a complete item"
    assert least in text[: found.at + 2]
    assert told(text, "Go on, please.") is None


@pytest.mark.parametrize(
    "prompt",
    [
        "Name five fruits for each letter of the alphabet.",
        "Name five fruits or more.",
        "List 3 columns of fruits.",
        "List at least 20 fruits.",
        "Name 20 fruits and 30 vegetables.",
        "Make a table with 3 columns of the countries of the world.",
        "Write 5 poems.",
        "List 300 fruits.",
        "Here are five fruits: apple, pear, plum, fig, lime. List some others.",
        "Count for me.",
        "列出每个字母的五种水果",
        "Continue.",
        "Count to 1 million.",
        "Count to 1 000 000.",
        "Count to 10k.",
        "Count to 1.000.000.",
        "从1数到1亿",
        [
            {"role": "user", "content": "Name five fruits."},
            {"role": "assistant", "content": "Apple, pear, plum, fig and lime."},
            {"role": "user", "content": "And what else is there?"},
        ],
        "List 5 fruits. " + "They are for a party. " * 40,
        "",
    ],
)
def test_a_number_that_may_be_multiplied_bounds_nothing(prompt):
    assert bounds(prompt) == (math.inf, math.inf, math.inf) or bounds(prompt).items > 500
    assert told(FRUITS, prompt) is None
    assert told(COUNT, prompt) is None


@pytest.mark.parametrize("prompt", ["Count to 100.", "从1数到100", "Count to 100 in steps of 2."])
def test_an_answer_that_keeps_to_what_was_asked_for_is_whole(prompt):
    assert told(", ".join(map(str, range(1, 101))) + ".\n" + FRUITS, prompt) is None


def test_bounds_are_wide():
    assert bounds("Name five fruits.") == (105, math.inf, math.inf)
    assert bounds("List 100 fruits.").items == 400
    assert bounds("Count to 100.").counted == 400
    assert bounds("List 10 names of 20 letters").items == 800


def test_a_list_that_begins_late_is_counted_from_there():
    late = "".join(f"{n}. fruit of kind {n * 37 % 1009}\n" for n in range(101, 190))
    assert told(late, "List 5 fruits.") is None


@pytest.mark.parametrize(
    ("text", "counted"),
    [
        ("1, 2, 3, 4", 3),
        ("1\n2\n3\n", 3),
        ("10 8 6 4 ", 4),
        ("1、2、3、", 3),
        ("1 2 3 apples ", 0),
        ("1 2 3 5 7 ", 3),
        ("3 3 3 3 ", 1),
    ],
)
def test_numbers_are_counted_wherever_the_text_is_cut(text, counted):
    for size in (1, 2, 5, 100):
        advance = Advance()
        for at in range(0, len(text), size):
            advance.count(text[at : at + size])
        assert advance.counted == counted


def test_rows_of_several_lines_are_noticed_and_empty_lines_make_no_difference():
    detector = RunawayDetector()
    for n in range(70):
        detector.push_text(f'{{\n  "id": {n}\n}},\n\n')
    assert 200 <= detector.notice.lines <= 202
    assert detector.runaway is None
