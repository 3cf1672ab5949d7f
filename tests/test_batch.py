"""A whole dataset through one session."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from suffice.batch import BatchSummary, run_batch
from suffice.data import Conversation, ResultWriter, UnusableRow, read_results
from suffice.errors import EngineError
from suffice.session import Answer, Request, Session
from suffice.testing.scripted_engine import ScriptedEngine


def conversation(index: int, text: str) -> Conversation:
    turns = ({"role": "user", "content": text},)
    return Conversation(index=index, line=index + 1, messages=turns, row={"query": text}, source="in", format="alpaca")


def describe(answer: Answer) -> dict[str, Any]:
    return {"text": answer.text, "finish": answer.finish.reason}


def run(
    engine: ScriptedEngine, rows: list[Conversation | UnusableRow], path: Path, **options: Any
) -> tuple[BatchSummary, list[dict[str, Any]]]:
    settings = {"concurrency": 4, **options}

    async def main() -> BatchSummary:
        with ResultWriter(path, resume=True) as writer:
            return await run_batch(
                Session(engine), rows, writer, lambda row: Request(row.messages), describe, **settings
            )

    return asyncio.run(main()), list(read_results(path))


def test_the_longest_answers_start_first(tmp_path: Path) -> None:
    asks = ["answer in one sentence", "write an essay of 500 words", "give me 100 words", "in 2000 words"]
    rows: list[Conversation | UnusableRow] = [conversation(i, text) for i, text in enumerate(asks)]
    engine = ScriptedEngine("x", context=100_000)
    run(engine, rows, tmp_path / "sorted", concurrency=1)
    assert [r.prompt.messages[0]["content"] for r in engine.asked] == [asks[3], asks[1], asks[2], asks[0]]
    engine = ScriptedEngine("x", context=100_000)
    run(engine, rows, tmp_path / "as they are", concurrency=1, longest_first=False)
    assert [r.prompt.messages[0]["content"] for r in engine.asked] == asks


def test_rows_are_read_as_they_are_needed(tmp_path: Path) -> None:
    read = 0

    def rows() -> Iterator[Conversation]:
        nonlocal read
        for index in range(1000):
            read += 1
            yield conversation(index, "hi")

    seen: list[tuple[int, int]] = []
    engine = ScriptedEngine("ab")

    async def main() -> None:
        with ResultWriter(tmp_path / "out") as writer:
            request = lambda row: Request(row.messages)  # noqa: E731
            on_row = lambda summary: seen.append((summary.rows, read))  # noqa: E731
            await run_batch(Session(engine), rows(), writer, request, describe, concurrency=4, on_row=on_row)

    asyncio.run(main())
    assert max(ahead - done for done, ahead in seen) <= 4 * 8 + 4
    assert seen[-1] == (1000, 1000)


def test_as_many_rows_as_asked_for_run_at_once(tmp_path: Path) -> None:
    engine = ScriptedEngine("abc", slow=True)
    rows: list[Conversation | UnusableRow] = [conversation(i, "hi") for i in range(16)]
    run(engine, rows, tmp_path / "out")
    assert engine.most_running == 4


def test_bad_rows_and_long_prompts_fail_alone(tmp_path: Path) -> None:
    rows = [conversation(0, "hi"), UnusableRow(1, 2, "no query"), conversation(2, "x" * 2000), conversation(3, "ho")]
    summary, results = run(ScriptedEngine("abc"), rows, tmp_path / "out")
    assert (summary.answered, summary.failed, summary.answer_tokens) == (2, 2, 6)
    by_index = {row["index"]: row for row in results}
    assert "no query" in by_index[1]["error"]
    assert "2000 tokens" in by_index[2]["error"]
    assert by_index[3] == {
        "index": 3,
        "dataset": "in",
        "line": 4,
        "text": "abc",
        "finish": "stop",
        "row": {"query": "ho"},
    }


def test_the_summary_counts_what_was_cut_and_by_what(tmp_path: Path) -> None:
    rows: list[Conversation | UnusableRow] = [conversation(0, "hi"), conversation(1, "y" * 950)]
    summary, _ = run(ScriptedEngine("x" * 100, default_max_new_tokens=99), rows, tmp_path / "out")
    assert summary.finishes == {"length": 2}
    assert summary.limits == {"model": 1, "context": 1}
    assert summary.truncation_rate == 1.0
    assert summary.cap_tokens == 99 + 50
    with pytest.warns(DeprecationWarning, match="asked_tokens is deprecated: use BatchSummary.cap_tokens"):
        assert summary.asked_tokens == summary.cap_tokens


def test_an_engine_that_always_fails_ends_the_run(tmp_path: Path) -> None:
    rows: list[Conversation | UnusableRow] = [conversation(i, "hi") for i in range(300)]
    with pytest.raises(EngineError, match="--resume"):
        run(ScriptedEngine("abc", fail_after=1), rows, tmp_path / "out")
    there = list(read_results(tmp_path / "out"))
    assert 20 <= len(there) < 60
    assert all(row["error"] == "the cable was pulled" and row["text"] == "a" for row in there)
