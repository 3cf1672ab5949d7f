"""`suffice profile`: every kind of source, and what is shown: tables, JSON, pictures, the page."""

from __future__ import annotations

import gzip
import json
import re
import tomllib
import unicodedata
from importlib.resources import files
from pathlib import Path
from string import Formatter
from typing import Any

import numpy as np
import pytest

from suffice.cli.main import main
from suffice.data import Turn
from suffice.data.token_columns import RowLengths
from suffice.errors import DataError
from suffice.profiling import LengthReader, LengthRecord, measure
from suffice.profiling.bilingual import Bilingual, heading, say
from suffice.profiling.terminal import bar, display_width, table

QUANTILES = (0.5, 0.9, 0.95, 0.99)


def write(path: Path, rows: list[Any]) -> str:
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text, encoding="utf-8")
    return str(path)


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as exit_:
        main(["profile", *arguments])
    assert isinstance(exit_.value.code, int)
    return exit_.value.code


def as_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert run(*arguments, "--json") == 0
    record: dict[str, Any] = json.loads(capsys.readouterr().out)
    return record


class WordCounter:
    """A tokenizer that counts words, and remembers how many texts it got at once."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def prompts(self, conversations: Any) -> list[int | None]:
        self.batches.append(len(conversations))
        return [None if "REFUSE" in turns[-1]["content"] else self._count(turns) for turns in conversations]

    def answers(self, texts: Any) -> list[int]:
        return [len(text.split()) + 1 for text in texts]

    @staticmethod
    def _count(turns: tuple[Turn, ...]) -> int:
        return sum(len(turn["content"].split()) for turn in turns)


# ---- sources ----


def test_given_counts_are_used_and_nothing_is_tokenized(tmp_path: Path) -> None:
    rows = [{"prompt": "a b c", "prompt_tokens": 30 + n, "output_tokens": n, "category": "x"} for n in range(5)]
    reader = LengthReader()  # without a counter: a text that had to be counted would be an error
    profile = measure(reader.read([write(tmp_path / "rows.jsonl.gz", rows)]), reader.groups)
    assert dict(profile.all.answer.items()) == dict.fromkeys(range(5), 1)
    assert profile.all.whole.total == sum(30 + 2 * n for n in range(5))
    assert (reader.summary.given, reader.summary.counted) == (10, 0)
    assert list(profile.groups()["category"]) == ["x"]


def test_a_csv_trace_and_names_of_other_traces(tmp_path: Path) -> None:
    one, other = tmp_path / "azure.csv", tmp_path / "vidur.csv"
    one.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n1,4808,10\n2,3180,8\n")
    other.write_text("num_prefill_tokens,num_decode_tokens\n7,3\n")
    reader = LengthReader()
    profile = measure(reader.read([str(one), str(other)]), reader.groups)
    assert sorted(dict(profile.all.answer.items())) == [3, 8, 10]
    assert profile.all.prompt.largest == 4808
    assert list(profile.groups()["file"]) == ["azure.csv", "vidur.csv"]


def test_one_row_with_the_answers_of_several_models(tmp_path: Path) -> None:
    rows = [
        {"prompt": "q", "prompt_tokens": 5, "output_tokens": {"small": 10, "large": 20}, "finish": {"small": "length"}}
    ]
    reader = LengthReader()
    profile = measure(reader.read([write(tmp_path / "multi.jsonl", rows)]), reader.groups)
    models = profile.groups()["model"]
    assert {name: group.answer.total for name, group in models.items()} == {"large": 20, "small": 10}
    assert models["small"].finishes == {"length": 1}


def test_texts_are_counted_in_batches_by_the_given_tokenizer(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"query": "one two three", "response": "four five"} for _ in range(600)]
    rows.append({"query": "REFUSE", "response": "x"})
    counter = WordCounter()
    reader = LengthReader(counter=lambda: counter)
    profile = measure(reader.read([write(tmp_path / "rows.jsonl", rows)]), reader.groups)
    assert dict(profile.all.prompt.items()) == {3: 600}
    assert dict(profile.all.answer.items()) == {3: 600}  # two words and the end token
    assert max(counter.batches) == 256
    assert reader.summary.errors.total() == 1
    assert "chat template" in reader.summary.examples[0]


def test_a_result_file_of_infer(tmp_path: Path) -> None:
    rows = [
        {"index": 0, "line": 1, "text": "t", "finish_reason": "stop", "prompt_tokens": 9, "answer_tokens": 7,
         "budget": {"limited_by": "tier"}, "row": {"query": "List", "category": "lists", "output_tokens": 999}},
        {"index": 1, "line": 2, "text": "t", "finish_reason": "length", "prompt_tokens": 9, "answer_tokens": 64,
         "budget": {"limited_by": "caller"}, "row": {"query": "Write", "category": "essays"}},
        {"index": 3, "line": 4, "text": "a a", "finish_reason": "stop", "finish_by": "repetition", "prompt_tokens": 9,
         "answer_tokens": 30, "row": {"query": "Loop", "category": "essays"}},
        {"index": 2, "line": 3, "error": "the server is down", "row": {"query": "Why", "category": "essays"}},
    ]  # fmt: skip
    reader = LengthReader(groups=("category", "budget.limited_by"))
    profile = measure(reader.read([write(tmp_path / "answers.jsonl", rows)]), reader.groups)
    assert dict(profile.all.answer.items()) == {7: 1, 30: 1, 64: 1}
    assert profile.all.finishes == {"stop": 1, "length": 1, "repetition": 1, "error": 1}
    assert dict(profile.all.looped.items()) == {30: 1}
    assert set(profile.groups()["category"]) == {"lists", "essays"}
    assert set(profile.groups()["budget.limited_by"]) == {"tier", "caller"}


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ({"finish_reason": "length", "finish_by": "repetition"}, "repetition"),
        ({"finish": "stop", "finish_detail": "repetition"}, "repetition"),
        ({"choices": [{"finish_reason": "length"}], "suffice": {"finish_detail": "repetition"}}, "repetition"),
        ({"response": {"body": {"finish_reason": "length", "suffice": {"finish_detail": "repetition"}}}}, "repetition"),
        ({"finish_reason": "length", "finish_by": "tier", "row": {"finish_by": "repetition"}}, "length"),
    ],
)
def test_a_loop_is_told_from_a_cap_in_every_file_that_suffice_writes(
    said: dict[str, Any], kept: str, tmp_path: Path
) -> None:
    row = {"prompt_tokens": 3, "answer_tokens": 30, **said}
    assert RowLengths.of(row).finish(None) == kept
    profile = measure(LengthReader().read([write(tmp_path / "rows.jsonl", [row])]), ())
    assert profile.all.finishes == {kept: 1}


def test_a_folder_of_api_logs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    logs = tmp_path / "logs" / "day1"
    logs.mkdir(parents=True)
    call = {
        "request": {"model": "m", "messages": [{"role": "user", "content": "hi"}]},
        "response": {
            "choices": [{"finish_reason": "length", "message": {"content": "x"}}],
            "usage": {"prompt_tokens": 8, "completion_tokens": 21},
        },
    }
    write(logs / "a.jsonl", [call])
    write(tmp_path / "logs" / "b.log", [{"usage": {"input_tokens": 4, "output_tokens": 6}, "stop_reason": "end_turn"}])
    (tmp_path / "logs" / "broken.jsonl").write_text("")
    (tmp_path / "logs" / "notes.md").write_text("# notes")
    (tmp_path / "logs" / "a.jsonl.meta.json").write_text("{}")
    record = as_json(capsys, str(tmp_path / "logs"))
    assert record["answer"]["counts"] == [[6, 1], [21, 1]]
    assert (record["finishes"]["length"], record["finishes"]["stop"]) == (1, 1)
    notes = " ".join(record["notes"])
    assert "notes.md" in notes
    assert "broken.jsonl is empty" in notes
    assert "meta.json" not in notes


def test_bad_rows_are_told_and_good_ones_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "rows.jsonl"
    good = json.dumps({"prompt_tokens": 1, "output_tokens": 2})
    lines = [good, "{broken", json.dumps({"prompt_tokens": 1, "output_tokens": "many"}), json.dumps({"x": 1}), good]
    path.write_text("\n".join([*lines, json.dumps({"prompt_tokens": 1, "output_tokens": -3})]))
    record = as_json(capsys, str(path))
    assert record["answer"]["rows"] == 2
    assert record["errors"]["rows"] == 4
    assert [re.search(r"line (\d+)", text)[1] for text in record["errors"]["examples"]] == ["2", "3", "4", "6"]
    assert "'many'" in record["errors"]["examples"][1]


def test_own_column_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "rows.jsonl", [{"n_in": 3, "n_out": 4, "why": "max_tokens"}])
    record = as_json(capsys, path, "--columns", "n_in=prompt_tokens", "n_out=answer_tokens", "why=finish_reason")
    assert (record["prompt"]["max"], record["answer"]["max"], record["finishes"]["length"]) == (3, 4, 1)
    assert run(path, "--columns", "n_in=nothing") == 2
    assert "answer_tokens" in capsys.readouterr().err


def test_a_column_with_a_name_for_every_row_stays_bounded() -> None:
    profile = measure((LengthRecord(1, 1, None, (str(n),)) for n in range(3000)), ("id",))
    groups = profile.groups()["id"]
    assert len(groups) == 1001
    assert groups["(other values)"].records == 2000


def test_a_missing_source_and_a_useless_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(str(tmp_path / "nothing.jsonl")) == 2
    assert "no file" in capsys.readouterr().err
    assert run(write(tmp_path / "rows.jsonl", [{"x": 1}])) == 2
    assert "can be used" in capsys.readouterr().err
    with pytest.raises(DataError, match="no tokenizer"):
        list(LengthReader().read([write(tmp_path / "text.jsonl", [{"query": "hi"}])]))


# ---- what is shown ----


def test_tables_stay_in_line_with_chinese_text() -> None:
    assert display_width("写作 ab") == 7
    assert display_width("e\u0301") == 1
    lines = table([["类别", "n"], ["写作与创作", "1,000"], ["code", "7"]])
    assert {sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in line) for line in lines} == {17}


def test_bars_never_hide_what_is_there() -> None:
    assert bar(0) == ""
    assert bar(1e-9) == "▏"
    assert bar(0.5, 8) == "████"
    assert bar(1, 8) == "████████"


def test_the_newcomers_question(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        {"prompt": "写一首诗", "prompt_tokens": 12, "output_tokens": 50 + n % 200, "category": "诗"}
        for n in range(1000)
    ]
    assert run(write(tmp_path / "rows.jsonl", rows)) == 0
    out = capsys.readouterr().out
    assert "Set max_new_tokens to 256." in out
    assert "The tier standard (512) serves this traffic" in out
    assert "█" in out


def test_prompts_without_answers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"prompt": "x", "prompt_tokens": n, "category": "ab"[n % 2]} for n in range(1, 50)]
    assert run(write(tmp_path / "rows.jsonl", rows)) == 0
    out = capsys.readouterr().out
    assert "no answers here" in out
    assert "prompt tokens" in out


def test_the_page_loads_nothing_and_hides_nothing(tmp_path: Path) -> None:
    rows = [
        {
            "prompt": f"<script>alert({n})</script> 写作",
            "prompt_tokens": 5,
            "output_tokens": 20 + n,
            "model": "<b>&",
            "finish": "stop",
        }
        for n in range(500)
    ]
    rows.append({"prompt": "x", "prompt_tokens": 5, "output_tokens": 9, "model": "模型", "finish": "stop"})
    page = tmp_path / "report.html"
    assert run(write(tmp_path / "rows.jsonl", rows), "--html", str(page)) == 0
    text = page.read_text("utf-8")
    assert not re.search(r"(?:src|href)\s*=|url\(|@import|<script|<link|<img|https?://", text)
    assert "&lt;b&gt;&amp;" in text
    assert "模型" in text
    assert "建议 max_new_tokens" in text
    assert "prefers-color-scheme: dark" in text
    assert text.count("<svg") == text.count("</svg>") >= 4
    assert "{{" not in text


@pytest.mark.parametrize(("name", "magic"), [("p.png", b"\x89PNG"), ("p.svg", b"<?xml")])
def test_pictures(tmp_path: Path, name: str, magic: bytes) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / name
    rows = [{"prompt_tokens": 5 + n, "output_tokens": n, "category": "ab"[n % 2]} for n in range(300)]
    assert run(write(tmp_path / "rows.jsonl", rows), "--plot", str(path)) == 0
    assert path.read_bytes().startswith(magic)


def test_a_picture_that_cannot_be_written_is_an_error_before_reading(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write(tmp_path / "rows.jsonl", [{"prompt_tokens": 1, "output_tokens": 1}])
    assert run(data, "--plot", str(tmp_path / "p.gif")) == 2
    assert ".png or .svg" in capsys.readouterr().err
    assert run(data, "--html", str(tmp_path / "no" / "p.html")) == 2
    assert "no folder" in capsys.readouterr().err


def test_json_is_complete(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lengths = np.random.default_rng(5).lognormal(5, 1, 800).astype(int)
    rows = [{"prompt": "q", "prompt_tokens": 7, "output_tokens": int(n), "model": "ab"[n % 2]} for n in lengths]
    record = as_json(capsys, write(tmp_path / "rows.jsonl", rows), "--tokens-per-second", "10")
    for p in QUANTILES:
        assert record["answer"][f"p{p * 100:.0f}"] == np.percentile(lengths, 100 * p, method="inverted_cdf")
    assert record["answer"]["over"]["512"] == pytest.approx((lengths > 512).mean(), abs=1e-6)
    assert record["answer"]["counts"] == [[int(n), int((lengths == n).sum())] for n in np.unique(lengths)]
    for name, remainder in (("a", 0), ("b", 1)):
        own = lengths[lengths % 2 == remainder]
        assert record["groups"]["model"][name]["answer"]["p99"] == np.percentile(own, 99, method="inverted_cdf")
    assert record["advice"]["savings"]["worst_seconds"][0] == pytest.approx(204.8)


def test_training_counts_are_those_of_fine_tuning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("transformers")
    from suffice.checkpoints.model_source import bundled_model
    from suffice.cli.profile.token_counter import load_counter
    from suffice.train.loss_mask import Encoder

    counter = load_counter(str(bundled_model()))
    encoder = Encoder(counter._tokenizer, [counter._tokenizer.eos_token_id])
    turns = [("你是谁？", "我是一个助手。"), ("Who are you?", "I am an assistant, made to help.\n\nAsk me!")]
    rows = [{"system": "Be brief.", "query": query, "response": answer} for query, answer in turns]
    for query, answer in turns:
        messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": query}]
        encoded = encoder.encode([*messages, {"role": "assistant", "content": answer}])
        (prompt,) = counter.prompts([messages])  # type: ignore[list-item]
        assert (prompt, *counter.answers([answer])) == (encoded.prompt_tokens, encoded.answer_tokens)
    path = write(tmp_path / "rows.jsonl", rows)
    record = as_json(capsys, path, "--training", "--model", str(bundled_model()))
    assert record["lengths"] == {"given": 0, "counted": 4}
    sizes = [limit["training_bytes"] for limit in record["max_length"]]
    assert sizes == sorted(sizes)
    assert sizes[0] > 0
    assert run(path, "--training", "--model", str(bundled_model())) == 0
    assert "keeps every row" in capsys.readouterr().out


def test_every_sentence_and_heading_is_in_both_languages_with_the_same_values() -> None:
    folder = files("suffice.profiling")
    wording = tomllib.loads(folder.joinpath("report.toml").read_text("utf-8"))
    code = "".join(path.read_text("utf-8") for path in folder.iterdir() if path.name.endswith(".py"))
    for english in wording.pop("headings"):
        assert f'"{english}"' in code, english
    for name, texts in wording.items():
        places = [{each for _, each, _, _ in Formatter().parse(texts[language]) if each} for language in ("en", "zh")]
        assert places[0] == places[1], name
        assert f'"{name}"' in code, name
    assert say("tier", name="t", cap=1024, share="1 %", low="a", high="b", doubt=say("sure")).zh.endswith("b）。")
    assert say("tier", name="t", cap=1024, share="1 %", low="a", high="b", doubt=say("sure")).en.startswith(
        "The tier t (1,024)"
    )
    assert heading("p99") == Bilingual("p99", "p99")
