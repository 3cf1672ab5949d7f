"""Streamed text: whole characters, and stop words wherever the pieces are cut."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from suffice.watch import IncrementalDecoder, StopWords


class Bytes:
    """A tokenizer whose tokens are single bytes; it counts how many it was asked to decode."""

    def __init__(self) -> None:
        self.decoded = 0

    def __call__(self, ids: Sequence[int]) -> str:
        self.decoded += len(ids)
        return bytes(ids).decode(errors="replace")


@pytest.mark.parametrize(
    "text", ["plain", "恰到好处，不多不少。", "a😀b👩‍👩‍👧c", "Ünïcödé\n\n\t", "�honest replacement"]
)
def test_decoder_gives_the_text_and_never_half_a_character(text: str) -> None:
    decoder = IncrementalDecoder(Bytes())
    pieces = [decoder.push(byte) for byte in text.encode()]
    assert "".join(pieces) + decoder.flush() == text
    assert all("�" not in piece for piece in pieces) or "�" in text


def test_decoder_work_per_token_does_not_grow() -> None:
    decode = Bytes()
    decoder = IncrementalDecoder(decode)
    text = "恰到好处" * 500
    assert "".join(map(decoder.push, text.encode())) + decoder.flush() == text
    assert decode.decoded < 40 * len(text.encode())


def test_decoder_shows_bytes_that_never_become_a_character() -> None:
    decoder = IncrementalDecoder(Bytes())
    shown = "".join(map(decoder.push, b"ok\xe4\xbd"))
    assert shown == "ok"
    assert decoder.flush() == "�"
    garbage = IncrementalDecoder(Bytes())
    flood = b"\xff" * 300
    assert "".join(map(garbage.push, flood)) + garbage.flush() == "�" * 300


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize(
    ("text", "words", "expected", "word"),
    [
        ("x</answer>y", ["</answer>"], "x", "</answer>"),
        ("one two END", ["END"], "one two ", "END"),
        ("你好。再见。", ["。"], "你好", "。"),
        ("aab", ["aab", "ab"], "", "aab"),
        ("abcd", ["abcd", "bc"], "a", "bc"),
        ("STO STOP", ["STOP"], "STO ", "STOP"),
        ("nothing here", ["missing", ""], "nothing here", None),
    ],
)
def test_stop_words_do_not_depend_on_how_the_text_is_cut(
    text: str, words: list[str], expected: str, word: str | None, keep: bool
) -> None:
    for seed in range(20):
        rng = random.Random(seed)
        stop, shown, found, rest = StopWords(words, keep=keep), "", None, text
        while rest and found is None:
            size = rng.randint(1, len(rest))
            match = stop.push(rest[:size])
            shown, found, rest = shown + match.text, match.word, rest[size:]
        shown += stop.flush()
        assert found == word
        assert shown == expected + (word if keep and word else "")


def test_the_beginning_of_a_stop_word_is_held_back_until_it_is_none() -> None:
    stop = StopWords(["</answer>"])
    assert stop.push("yes</ans").text == "yes"
    assert stop.push("wers").text == "</answers"
    assert stop.push("</").text == ""
    assert stop.flush() == "</"
