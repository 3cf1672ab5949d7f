"""`suffice fit`, `suffice profile` and `suffice plan --lengths` read lengths from the same files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from suffice.cli.plan.lengths import is_profile, read_lengths
from suffice.data import AnswerSummary, read_answers
from suffice.data.finish_words import FINISH_REASONS, finish_reason_of
from suffice.data.token_columns import ANSWER_TOKENS, FINISH_REASON, PROMPT_TOKENS
from suffice.profiling import LengthReader

SPELLINGS = [(prompt, "answer_tokens") for prompt in PROMPT_TOKENS] + [
    ("prompt_tokens", each) for each in ANSWER_TOKENS
]
NESTED = [
    {"usage": {"prompt_tokens": 30, "completion_tokens": 7}},
    {"usage": {"input_tokens": 30, "output_tokens": 7}, "stop_reason": "end_turn"},
    {"response": {"body": {"usage": {"prompt_tokens": 30, "completion_tokens": 7}}}},
    {"index": 0, "text": "t", "prompt_tokens": 30, "answer_tokens": 7, "row": {"output_tokens": 999}},
    {"prompt_tokens": 30, "output_tokens": {"small": 7}},
    {"prompt_tokens": 30.0, "output_tokens": "7"},
]


def fitted(path: Path) -> list[dict[str, Any]]:
    return list(read_answers(str(path), len, AnswerSummary()))


def profiled(path: Path) -> list[tuple[int | None, int | None, str | None]]:
    return [(each.prompt_tokens, each.answer_tokens, each.finish) for each in LengthReader().read([str(path)])]


@pytest.mark.parametrize(("prompt", "answer"), SPELLINGS)
def test_every_spelling_is_read_by_all_three(tmp_path: Path, prompt: str, answer: str) -> None:
    for spelled in (str, str.upper):
        trace = tmp_path / "trace.csv"
        trace.write_text(f"arrival,{spelled(prompt)},{spelled(answer)}\n0.5,30,7\n")
        assert [record["output_tokens"] for record in fitted(trace)] == [7]
        assert profiled(trace) == [(30, 7, None)]
        assert read_lengths(trace).pairs == ((30, 7, 1),)


@pytest.mark.parametrize("row", NESTED)
def test_lengths_inside_a_log_or_a_result_are_read_by_all_three(tmp_path: Path, row: dict[str, Any]) -> None:
    log = tmp_path / "log.jsonl"
    log.write_text(json.dumps(row) + "\n")
    assert [record["output_tokens"] for record in fitted(log)] == [7]
    assert [lengths[:2] for lengths in profiled(log)] == [(30, 7)]
    assert read_lengths(log).pairs == ((30, 7, 1),)


@pytest.mark.parametrize("column", FINISH_REASON)
@pytest.mark.parametrize("word", ["length", "max_tokens", "MAX_TOKENS", "max_output_tokens", "incomplete"])
def test_an_answer_that_a_limit_cut_is_known_by_any_word_for_it(tmp_path: Path, column: str, word: str) -> None:
    log = tmp_path / "log.jsonl"
    log.write_text(json.dumps({"prompt_tokens": 1, "output_tokens": 5, column: word}) + "\n")
    summary = AnswerSummary()
    (record,) = read_answers(str(log), len, summary)
    assert (record["finish"], summary.cut) == ("length", 1)
    assert profiled(log) == [(1, 5, "length")]


def test_finish_words() -> None:
    assert {finish_reason_of(word) for word in FINISH_REASONS} == set(FINISH_REASONS)
    assert (finish_reason_of(" Stop_Sequence "), finish_reason_of("abort")) == ("stop", "cancelled")
    assert (finish_reason_of("content_filter"), finish_reason_of(""), finish_reason_of(None)) == (
        *("content_filter", None),
        None,
    )


def test_a_json_file_of_rows_is_not_taken_for_a_length_profile(tmp_path: Path) -> None:
    rows = tmp_path / "rows.json"
    rows.write_text(json.dumps([{"prompt_tokens": 30, "output_tokens": 7}]))
    assert not is_profile(rows)
    assert read_lengths(rows).pairs == ((30, 7, 1),)
    rows.write_text(json.dumps({"overall": {"p50": 1}}))
    assert is_profile(rows)


@pytest.mark.parametrize("reason", ["length", "stop"])
def test_the_length_of_a_loop_is_not_learned_from(tmp_path: Path, reason: str) -> None:
    log = tmp_path / "log.jsonl"
    row = {"prompt_tokens": 1, "output_tokens": 5, "finish_reason": reason, "finish_by": "repetition"}
    log.write_text(json.dumps(row) + "\n")
    summary = AnswerSummary()
    assert not list(read_answers(str(log), len, summary))
    assert (summary.problems, summary.cut) == ({"looped": 1}, 0)
    assert profiled(log) == [(1, 5, "repetition")]
