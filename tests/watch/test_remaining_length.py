"""What is still to come of a running answer."""

from __future__ import annotations

from typing import Any

import pytest

from suffice.watch.remaining_length import RemainingLength

QUANTILES = ((0.5, 200), (0.9, 600), (0.95, 900), (0.99, 1800))


def after(text: str, tokens: int, *, prompt: str = "", size: int = 7, **state: Any) -> int:
    """What is expected to come after a text, taken in pieces."""
    remaining = RemainingLength(QUANTILES, 2048, prompt)
    for at in range(0, len(text), size):
        remaining.push(text[at : at + size], round(tokens * min(1, (at + size) / len(text))), **state)
    return remaining.tokens


def test_at_the_beginning_the_median_is_expected() -> None:
    assert RemainingLength(QUANTILES, 2048).tokens == 200


def test_an_answer_that_is_longer_than_expected_has_more_before_it_than_the_median_says() -> None:
    rest = [after("word " * 10, tokens) for tokens in (1, 100, 200, 600, 1000, 1800)]
    assert rest[0] > rest[1], "it counts down first"
    assert all(each > 50 for each in rest), "an answer beyond the median is not over"
    assert rest[4] > rest[2], "and one in the tail has a longer one before it"


def test_an_answer_that_has_outgrown_every_expectation_is_not_said_to_be_over() -> None:
    remaining = RemainingLength(((0.5, 10), (0.9, 12), (0.95, 13), (0.99, 14)), 2048)
    remaining.push("", 400)
    assert remaining.tokens == 60


def test_at_the_90_percent_quantile_the_95_percent_quantile_is_the_median_of_what_is_left() -> None:
    assert after("word " * 10, 600) == pytest.approx(300, abs=2)


def test_nothing_is_expected_beyond_the_cap_and_quantiles_that_were_clipped_at_it_do_no_harm() -> None:
    remaining = RemainingLength(((0.5, 90), (0.9, 100), (0.95, 100), (0.99, 100)), 100)
    remaining.push("a", 97)
    assert remaining.tokens <= 3
    clipped = RemainingLength(((0.5, 100), (0.9, 100)), 100)
    clipped.push("a", 10)
    assert 0 < clipped.tokens <= 90
    nothing = RemainingLength((), 100)
    nothing.push("a", 100)
    assert nothing.tokens == 0


@pytest.mark.parametrize(
    ("prompt", "text"),
    [
        ("Give me five reasons.", "1. Rain falls on hills.\n2. Rivers carry it down.\n3. The"),
        ("", "There are five steps:\n1) Boil the water now.\n2) Add the tea leaf.\n3) The"),
        ("列出五点好处", "1. 身体更加健康。\n2. 心情更加愉快。\n3. 睡"),
        ("请给出五条建议", "第一点：每天早睡早起。\n第二点：多吃蔬菜水果。\n第三点：每"),
        ("", "Step 1 of 5: boil it all\nStep 2 of 5: add it all\nStep 3 of 5: th"),
    ],
)
@pytest.mark.parametrize("size", [1, 4, 100])
def test_the_place_in_a_list_says_what_is_missing(prompt: str, text: str, size: int) -> None:
    rest = after(text, 60, prompt=prompt, size=size)
    if size < 100:
        assert 65 <= rest <= 115, "two items and most of a third, of some 25 tokens each, and a sentence behind them"
    else:
        assert rest == after("word " * 9, 60), "items that came in one piece say nothing of how long one is"


def test_a_list_that_is_longer_than_announced_is_left_to_its_length() -> None:
    text = "".join(f"{n}. Something is said here.\n" for n in range(1, 9))
    assert after(text, 100, prompt="three reasons") == after("word " * 40, 100)


@pytest.mark.parametrize(
    ("text", "most"), [("I hope this helps", 40), ("希望这能帮到你", 40), ("\nIn conclusion, ", 60), ("总之，", 60)]
)
def test_a_closing_formula_closes(text: str, most: int) -> None:
    assert after("word " * 30 + text, 50) <= most < after("word " * 30, 50)


def test_an_open_code_block_and_open_thinking_have_more_before_them() -> None:
    code = "Here:\n```python\nprint('I hope this helps')\n"
    assert after(code, 180) >= 12
    assert after(code + "```\nI hope this helps", 180) <= 40
    assert after("word " * 30 + "希望这座城市", 50) == after("word " * 30, 50), "another wish closes nothing"
    remaining = RemainingLength(((0.5, 200), (0.9, 210)), 2048)
    remaining.push("", 190)
    assert remaining.tokens < 30
    remaining.push("", 190, thinking=True)
    assert remaining.tokens == 100, "the answer is still to come"


def test_it_says_what_it_rests_on() -> None:
    remaining = RemainingLength(QUANTILES, 2048, "three reasons, please")
    said = []
    for tokens, text in enumerate(("1. Rain.\n", "2. Snow.\n", "```\nprint()\n", "```\nI hope this helps."), 1):
        remaining.push(text, 10 * tokens)
        said.append(remaining.basis)
    assert said == ["length", "list", "code", "closing"]
    remaining.push("", 50, thinking=True)
    assert remaining.basis == "thinking"
