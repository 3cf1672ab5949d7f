"""Datasets in every shape people have them."""

from __future__ import annotations

import gzip
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

import suffice.data as data
from suffice.data import (
    Conversation,
    UnusableRow,
    count_rows,
    read_dataset,
)
from suffice.data.rows import read_row
from suffice.data.types import RowProblem
from suffice.errors import DataError


def write_jsonl(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def prompts(spec: Path | str, **options: Any) -> list[str]:
    """The last turn of each row, or "line N" for one that cannot be used."""
    return [
        row.messages[-1]["content"] if isinstance(row, Conversation) else f"line {row.line}"
        for row in read_dataset(str(spec), **options)
    ]


def only_error(path: Path) -> UnusableRow:
    (row,) = read_dataset(str(path))
    assert isinstance(row, UnusableRow)
    return row


# ---- formats of a row ----


@pytest.mark.parametrize(
    ("row", "roles", "last", "reference", "name"),
    [
        ({"query": "你好", "response": "在"}, "user", "你好", "在", "query/response"),
        ({"prompt": "hi"}, "user", "hi", None, "query/response"),
        ({"question": "2+2?", "answer": 4}, "user", "2+2?", "4", "query/response"),
        ({"input": "a", "output": ""}, "user", "a", None, "query/response"),
        ({"Prompt": "hi", "Completion": "ho"}, "user", "hi", "ho", "query/response"),
        (
            {"query": "q", "history": [["a", "b"]], "system": "s"},
            "system user assistant user",
            "q",
            None,
            "query/response",
        ),
        ({"query": "q", "history": '[["a", "b"]]', "system": ""}, "user assistant user", "q", None, "query/response"),
        ({"instruction": "翻译", "input": "猫", "output": "cat"}, "user", "翻译\n猫", "cat", "alpaca"),
        ({"instruction": "Go", "input": "", "output": "ok", "history": []}, "user", "Go", "ok", "alpaca"),
        ({"instruction": "Go", "question": "why?"}, "user", "Go\nwhy?", None, "alpaca"),
        (
            {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]},
            *("user", "a", "b", "messages"),
        ),
        (
            {"messages": [{"role": r, "content": r} for r in ("system", "user", "assistant", "user")], "answer": "x"},
            *("system user assistant user", "user", "x", "messages"),
        ),
        (
            {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}], "system": "s"},
            *("system user", "a", "b", "sharegpt"),
        ),
        (
            {"conversation": [{"from": f, "value": f} for f in ("human", "function_call", "observation", "gpt")]},
            *("user assistant tool", "observation", "gpt", "sharegpt"),
        ),
        (
            {
                "messages": '[{"role": "user", "content": '
                '[{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}]'
            },
            *("user", "ab", None, "messages"),
        ),
        (
            {"prompt": [{"role": "user", "content": "a"}], "completion": [{"role": "assistant", "content": "b"}]},
            *("user", "a", "b", "messages"),
        ),
        ("只是一句话", "user", "只是一句话", None, "text"),
    ],
)
def test_every_row_format_is_understood(row: Any, roles: str, last: str, reference: str | None, name: str) -> None:
    prompt = read_row(row)
    assert " ".join(turn["role"] for turn in prompt.messages) == roles
    assert (prompt.messages[-1]["content"], prompt.reference, prompt.format) == (last, reference, name)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"foo": "bar", "n": 1}, "it has foo, n, expected messages, conversations, instruction, query"),
        ({}, "no columns"),
        (7, "expected an object with named columns, found a number (7)"),
        ({"query": "  "}, "the prompt is empty"),
        ({"query": None}, 'column "query" is empty'),
        ({"instruction": "", "input": "", "output": "x"}, "the prompt is empty"),
        ({"query": 5}, 'column "query" is a number (5), expected text'),
        ({"messages": []}, "no user turn"),
        ({"messages": "hello"}, 'column "messages" is "hello", expected a list'),
        (
            {"messages": [{"role": "system", "content": "s"}]},
            "no user turn to answer (turns before the answer: system)",
        ),
        ({"messages": [{"role": "assistant", "content": "s"}]}, "no user turn"),
        ({"messages": [{"role": "narrator", "content": "s"}]}, 'unknown role "narrator"'),
        ({"messages": [{"role": "user"}]}, "turn 1 of messages has role, expected role and content"),
        ({"messages": [{"role": "user", "content": None}]}, "is empty, expected text"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, 'a part of type "image_url"'),
        ({"conversations": ["hi"]}, 'turn 1 of conversations is text ("hi")'),
        ({"query": ["a", "b"]}, 'turn 1 of query is text ("a")'),
        ({"query": "q", "history": [["a"]]}, 'item 1 of history is ["a"], expected a [question, answer] pair'),
        ({"query": "q", "history": 3}, "history is a number (3)"),
        ({"query": "q", "answer": {"a": 1}}, 'column "answer" is an object'),
        ({"query": "half \ud83d"}, "half a character"),
    ],
)
def test_a_row_that_cannot_be_used_says_why_in_one_line(row: Any, reason: str) -> None:
    with pytest.raises(RowProblem) as caught:
        read_row(row)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_examples_in_the_docs_are_what_they_say() -> None:
    docs = (Path(__file__).parents[2] / "docs" / "datasets.md").read_text(encoding="utf-8")
    examples = [json.loads(line) for line in docs.splitlines() if line.startswith("    {")]
    assert [read_row(row).format for row in examples] == [
        "messages",
        "sharegpt",
        "alpaca",
        "query/response",
        "openai batch",
    ]
    assert all(read_row(row).reference for row in examples[:4])


def test_tool_turns_keep_what_a_chat_template_needs() -> None:
    call = [{"id": "1", "function": {"name": "f", "arguments": "{}"}}]
    turns = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": None, "tool_calls": call},
        {"role": "tool", "content": "42", "tool_call_id": "1", "weight": 0},
    ]
    messages = read_row({"messages": turns}).messages
    assert messages[1] == {"role": "assistant", "content": "", "tool_calls": call}
    assert messages[2] == {"role": "tool", "content": "42", "tool_call_id": "1"}


def test_the_answer_is_kept_whole() -> None:
    call = [{"id": "1", "function": {"name": "f", "arguments": "{}"}}]
    user, thought = {"role": "user", "content": "a"}, {"reasoning_content": "Which tool?"}
    called = {"role": "assistant", "content": None, "tool_calls": call, **thought, "weight": 1}
    whole = {"role": "assistant", "content": "", "tool_calls": call, **thought}
    for row in ({"messages": [user, called]}, {"prompt": [user], "completion": [called]}, {"q": "a", "r": [called]}):
        parsed = read_row(row, {"q": "query", "r": "response"})
        assert (parsed.answer, parsed.reference) == (whole, None)
        assert [turn["content"] for turn in parsed.messages] == ["a"]
    said = read_row({"messages": [user, {"role": "assistant", "content": "b", **thought}]})
    assert (said.answer, said.reference) == ({"role": "assistant", "content": "b", **thought}, "b")
    assert read_row({"query": "a", "answer": 4}).answer == {"role": "assistant", "content": "4"}
    empty = {"role": "assistant", "content": ""}
    assert read_row({"messages": [user, empty]}).answer is None
    assert read_row({"messages": [user, {**empty, "content": None}]}).answer is None
    assert read_row({"messages": [user, empty], "answer": "b"}).reference == "b"
    half = {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "\ud83d"}}]}
    with pytest.raises(RowProblem, match="half a character"):
        read_row({"messages": [user, half]})


def test_columns_are_renamed_and_win_over_known_names() -> None:
    row = {"ask": "mine", "query": "theirs", "gold": "g", "answer": "a"}
    prompt = read_row(row, {"ask": "query", "gold": "output"})
    assert (prompt.messages[-1]["content"], prompt.reference) == ("mine", "g")
    moved = read_row({"prompt": "be kind", "input": "hi"}, {"prompt": "system"})
    assert [turn["content"] for turn in moved.messages] == ["be kind", "hi"]
    swapped = read_row({"answer": "q", "query": "a"}, {"answer": "query", "query": "response"})
    assert (swapped.messages[-1]["content"], swapped.reference) == ("q", "a")


# ---- files ----


def test_a_bad_row_stays_in_its_place_and_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(
        b'\xef\xbb\xbf{"query": "one", "id": "x"}\r\n\r\n{"query": "tw\n'
        b'{"foo": 1}\n{"instruction": "four"}\n{"query": "\xc4\xe3"}\n   \n'
        b'{"messages": [{"role": "user", "content": "six"}]}'
    )
    rows = read_dataset(str(path))
    read = list(rows)
    assert [(row.index, row.line) for row in read] == [(0, 1), (1, 3), (2, 4), (3, 5), (4, 6), (5, 8)]
    assert isinstance(read[0], Conversation)
    assert read[0].row == {"query": "one", "id": "x"}
    broken, unknown, gbk = (str(row) for row in read if isinstance(row, UnusableRow))
    assert broken.startswith(f"{path}, line 3: not valid JSON: Unterminated string starting at column 11")
    assert "it has foo" in unknown
    assert "line 6: not UTF-8 (byte 0xc4 at position 12)" in gbk
    assert rows.summary.rows == 6
    assert rows.summary.describe() == "6 rows: query/response 1, alpaca 1, messages 1, errors 3"
    assert count_rows(str(path)) == 6


def test_json_arrays_containers_single_objects_and_lines(tmp_path: Path) -> None:
    rows = [{"query": "a"}, {"query": "b"}, {"foo": 1}]
    path = tmp_path / "in.json"
    for text in (json.dumps(rows), json.dumps(rows, indent=2), json.dumps({"version": 1, "data": rows}, indent=2)):
        path.write_text(text)
        assert prompts(path) == ["a", "b", "line 3"]
        assert count_rows(str(path)) == 3
    path.write_text("\n".join(json.dumps(row) for row in rows))  # lines under the wrong name
    assert prompts(path) == ["a", "b", "line 3"]
    path.write_text(json.dumps({"messages": [{"role": "user", "content": "x"}]}))
    assert prompts(path) == ["x"]
    path.write_text('["一", "二"]')
    assert prompts(path) == ["一", "二"]
    as_lines = tmp_path / "array.jsonl"
    as_lines.write_text(json.dumps(rows, indent=2))
    assert prompts(as_lines) == ["a", "b", "line 3"]
    assert "row 3: none of its columns" in str(list(read_dataset(str(as_lines)))[2])


def test_csv_and_tsv(tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_bytes(
        '\ufeffquery,response,id\r\n"a, ""b""\nc",x,1\r\n\r\nonly\r\n你好,好,3\r\nq"uote,y,4\r\n"open,y,5\r\n'.encode()
    )
    rows = list(read_dataset(str(path)))
    assert [row.line for row in rows] == [2, 5, 6, 7, 8]
    assert isinstance(rows[0], Conversation)
    assert rows[0].messages[0]["content"] == 'a, "b"\nc'
    assert rows[0].row["id"] == "1"
    assert "1 cells, and the header has 3" in str(rows[1])
    assert isinstance(rows[3], Conversation)
    assert "not valid CSV: a quote is opened and never closed" in str(rows[4])  # it swallows nothing in silence
    assert count_rows(str(path)) == 5
    path.write_text("question;answer\na,b;c\n")
    assert prompts(path) == ["a,b"]
    tabbed = tmp_path / "in.tsv"
    tabbed.write_bytes(b"query\tresponse\na\tb\n" + b"\xc4\xe3\tb\n" + b"x" * 200_000 + b"\tb\n")
    assert [text[:6] for text in prompts(tabbed)] == ["a", "line 3", "xxxxxx"]
    path.write_text("query,query\na,b\n")
    with pytest.raises(DataError, match="two columns named query"):
        read_dataset(str(path))


def test_parquet_with_nested_messages(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    path = tmp_path / "in.parquet"
    pq.write_table(pa.table({"messages": [turns, None], "id": [1, 2]}), path)
    first, second = read_dataset(str(path))
    assert isinstance(first, Conversation)
    assert (first.reference, first.row["id"]) == ("b", 1)
    assert 'row 2: column "messages" is empty' in str(second)
    assert count_rows(str(path)) == 2
    path.write_bytes(b"PAR1 this is not parquet")
    with pytest.raises(DataError, match="not a parquet file"):
        read_dataset(str(path))


def test_parquet_without_pyarrow_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    path = tmp_path / "in.parquet"
    path.write_bytes(b"PAR1")
    with pytest.raises(DataError, match=r"suffice\[data\]"):
        read_dataset(str(path))


def test_gzip_text_and_unnamed_formats(tmp_path: Path) -> None:
    packed = tmp_path / "in.jsonl.gz"
    packed.write_bytes(gzip.compress(b"".join(b'{"query": "%d"}\n' % number for number in range(3_000))))
    assert prompts(packed) == [str(number) for number in range(3_000)]
    text = tmp_path / "in.txt"
    text.write_bytes("一\r\n\r\n  two\n".encode())
    assert prompts(text) == ["一", "  two"]
    unnamed = tmp_path / "data"
    for content, found in (('{"query": "a"}\n{"query": "b"}\n', ["a", "b"]), ("question,answer\na,b\n", ["a"])):
        unnamed.write_text(content)
        assert prompts(unnamed) == found
    unnamed.write_text("no idea\n")
    with pytest.raises(DataError, match="cannot tell its format"):
        read_dataset(str(unnamed))


def test_samples_are_repeatable_ordered_and_reported(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a#b.jsonl", [{"query": str(number)} for number in range(100)])
    sample = list(read_dataset(f"{path}#10", seed=1))
    lines = [row.line for row in sample]
    assert [row.index for row in sample] == list(range(10))
    assert lines == sorted(lines) == [row.line for row in read_dataset(f"{path}#10", seed=1)]
    assert lines != [row.line for row in read_dataset(f"{path}#10", seed=2)]
    assert len(prompts(path)) == 100
    rows = read_dataset(f"{path}#500")
    assert len(list(rows)) == 100
    assert rows.summary.notes == [f"500 rows of {path} were asked for and it has 100: all are used"]
    assert (count_rows(f"{path}#10"), count_rows(f"{path}#500")) == (10, 100)
    write_jsonl(tmp_path / "c.jsonl", [{"query": "other"}] * 9)
    assert prompts(write_jsonl(tmp_path / "c.jsonl#5", [{"query": "real name"}])) == ["real name"]
    table = tmp_path / "in.csv"
    table.write_text("query\n" + "".join(f"{number}\n" for number in range(100)))
    assert [int(text) + 2 for text in prompts(f"{table}#10", seed=1)] == [line + 1 for line in lines]


def test_a_column_that_is_nowhere_is_reported(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "in.jsonl", [{"query": "a"}])
    rows = read_dataset(str(path), columns={"aks": "query"})
    assert len(list(rows)) == 1
    assert rows.summary.notes == [f'the column "aks" is in no row of {path}']
    with pytest.raises(DataError, match='no column is called "qery"'):
        read_dataset(str(path), columns={"ask": "qery"})


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("trian.jsonl", "in {0}/ there is: train.jsonl, other.csv"),
        ("nowhere/deep/a.jsonl", 'there is no folder "{0}/nowhere/deep"'),
        ("train.jsonl#0", "asks for 0 rows"),
        ("train.jsonl#some", "after # comes the number of rows"),
        ("", "is a folder"),
        ("blank.jsonl", "is empty"),
        ("none.json", "has no rows"),
        ("bad.json", "bad.json, line 2: not valid JSON"),
        ("sheet.csv", r"is a zip \(or Excel\) file"),
        ("pipe", "is a pipe or a device"),
    ],
)
def test_a_file_that_cannot_be_used_is_an_error_at_once(tmp_path: Path, spec: str, message: str) -> None:
    write_jsonl(tmp_path / "train.jsonl", [{"query": "a"}])
    (tmp_path / "other.csv").write_text("query\na\n")
    (tmp_path / "notes.md").write_text("x")
    if spec == "pipe":
        os.mkfifo(tmp_path / "pipe")
    contents = {"blank.jsonl": b"\n", "none.json": b"[]", "bad.json": b'[{"query": "a"},\n{"query" "b"}]'}
    contents |= {"sheet.csv": b"PK\x03\x04..."}
    if spec in contents:
        (tmp_path / spec).write_bytes(contents[spec])
    with pytest.raises(DataError, match=message.format(tmp_path)) as caught:
        read_dataset(f"{tmp_path}/{spec}")
    assert "\n" not in str(caught.value)


def test_reading_streams(tmp_path: Path) -> None:
    """A file whose end is damaged gives its first rows, and then says where the damage is."""
    path = tmp_path / "in.jsonl.gz"
    lines = b"".join(b'{"query": "%s"}\n' % os.urandom(600).hex().encode() for _ in range(1000))
    path.write_bytes(gzip.compress(lines)[:-1000])
    rows = read_dataset(str(path))
    assert all(isinstance(next(rows), Conversation) for _ in range(500))
    with pytest.raises(DataError, match=r"cannot be read after line \d+: Compressed file ended"):
        list(rows)


def test_public_names() -> None:
    assert data.__all__ == sorted(data.__all__)
    assert all(hasattr(data, name) for name in data.__all__)
