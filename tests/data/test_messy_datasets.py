"""Datasets as people have them: each row is read or has a reason of one line, and none is lost in silence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from suffice.data import UnusableRow, count_rows, read_dataset
from suffice.errors import DataError


def lines(*rows: Any) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


MESSY: dict[str, tuple[str, list[str | None]]] = {
    "alpaca.json": (
        json.dumps(
            [{"instruction": "Say hi", "input": "", "output": "hi"}, {"instruction": "", "input": "only input"}]
        ),
        [None, None],
    ),
    "sharegpt.json": (
        json.dumps(
            [
                {"conversations": [{"from": "gpt", "value": "first"}, {"from": "human", "value": "then me"}]},
                {"conversations": []},
                {"conversations": [{"from": "system", "value": "s"}, {"from": "human", "value": ""}]},
                {"conversations": [{"from": "narrator", "value": "x"}]},
            ]
        ),
        [None, "no user turn", "the prompt is empty", 'the unknown role "narrator"'],
    ),
    "excel.csv": ('\ufeffquery;response\r\n"hi; there";yo\r\n', [None]),
    "short rows.csv": ("query,response\nhi\na,b\na,b,c\n", ["1 cells", None, "3 cells"]),
    "open quote.csv": (
        'query,response\na,b\n"open,b\nc,d\n',
        [None, "is opened and never closed (lines 3 to 4)"],
    ),
    "no header.csv": ("hello there\nsecond prompt\n", ["it has hello there"]),
    "commas.jsonl": ('{"query": "a"},\n{"query": "b"},\n{"query": "c"}\n', [None] * 3),
    "jq.jsonl": ('{\n  "query": "a"\n}\n{\n  "query": "b"\n}\n', [None] * 2),
    "jq.json": ('{\n "query": "a"\n},\n{"query": 5}\n', [None, "is a number (5)"]),
    "joined.jsonl": ('{"query": "a"}{"query": "b"}\n{"query": "c"}\n', ["Extra data at column 15", None]),
    "python.jsonl": ("{'query': 'a'}\n" + lines({"query": "b"}), ["property name enclosed in double quotes", None]),
    "blank lines.jsonl": ("\n" + lines({"query": "a"}) + "\n   \n\n" + lines({"query": "b"}), [None] * 2),
    "cut.jsonl": (lines({"query": "a"}) + '{"query": "b", "resp', [None, "Unterminated string"]),
    "nan.jsonl": ('{"query": NaN}\n{"query": "a", "score": NaN}\n', ["is a number (NaN)", None]),
    "kinds.jsonl": (
        lines(*({"prompt": value} for value in (42, True, None, ["a"], {"text": "x"}, "ok", "  "))),
        ["is a number (42)", "true/false", '"prompt" is empty', "turn 1 of prompt", "an object", None, "is empty"],
    ),
    "history.jsonl": (
        lines({"query": "a", "history": [["q", "a"], ["q2"]]}, {"query": "a", "history": '[["q", "a"]]'}),
        ["item 2 of history", None],
    ),
    "nested.json": (
        json.dumps([[{"query": "a"}], "plain", 5, None, {"query": "ok"}]),
        ["found a list", None, "found a number (5)", "found empty", None],
    ),
    "same id.jsonl": (lines({"id": 1, "query": "a"}, {"id": 1, "query": "a"}), [None] * 2),
    "other names.jsonl": (lines({" Prompt ": "a"}, {"QUESTION": "b"}, {"inputs": "c"}), [None, None, "it has inputs"]),
    "control.jsonl": ('{"query": "a\x01b"}\n{"query": "\\ud83d"}\n', ["Invalid control", "half a character"]),
    "big number.jsonl": ('{"query": "a", "n": ' + "9" * 5000 + "}\n", ["5000 digits"]),
    "deep.jsonl": ('{"query": ' + "[" * 100_000 + "]" * 100_000 + "}\n" + lines({"query": "a"}), ["recursion", None]),
    "huge.jsonl": (lines({"query": "word " * 200_000}, {"query": "a"}), [None] * 2),
    "container.json": (json.dumps({"version": 1, "data": [{"question": "q?", "answer": "a"}]}), [None]),
    "images.jsonl": (
        lines({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]}),
        ['a part of type "image_url", only text is read'],
    ),
    "text.txt": ("first\n\n  second\n\t\nthird", [None] * 3),
}
"""Content by name, and for each row why it cannot be used, or None."""


@pytest.mark.parametrize("name", MESSY)
def test_each_row_is_read_or_has_its_reason(tmp_path: Path, name: str) -> None:
    content, expected = MESSY[name]
    path = tmp_path / name
    path.write_text(content, encoding="utf-8", newline="")
    rows = list(read_dataset(str(path)))
    reasons = [row.reason if isinstance(row, UnusableRow) else None for row in rows]
    assert len(rows) == len(expected) == count_rows(str(path)), reasons
    for reason, words in zip(reasons, expected, strict=True):
        assert (reason is None) == (words is None), reason
        assert (words or "") in (reason or "")
        assert "\n" not in (reason or "")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("empty.jsonl", b"", "is empty"),
        ("blank.jsonl", b"\n \n", "is empty"),
        ("mac.csv", b"query,response\rhi,there\r", "a line ends with a carriage return alone"),
        ("twice.csv", b"query,query\na,b\n", "two columns named query"),
        (
            "splits.json",
            b'{"train": [{"query": "a"}], "test": [{"query": "b"}]}',
            "lists of rows (train, test)",
        ),
        ("sheet.xlsx", b"PK\x03\x04aaaa", "a zip (or Excel) file"),
        ("rows.yaml", b"- query: a\n", "cannot tell its format"),
        ("image.jsonl", b"\x89PNG\r\n\x1a\n\x00\x00\x00\r", "a binary file"),
        ("jq.json", b'{\n"query": "a"}\n{"query": }\n', "line 3: not valid JSON"),
    ],
)
def test_a_file_of_which_nothing_can_be_read_is_one_line(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as told:
        list(read_dataset(str(tmp_path / name)))
    assert words in str(told.value)
    assert "\n" not in str(told.value)
