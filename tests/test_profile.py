"""`suffice profile`: figures against NumPy, every kind of source, advice and its uncertainty, pictures."""

from __future__ import annotations

import gzip
import json
import math
import random
import re
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from suffice.cli.main import main
from suffice.data import Turn
from suffice.data.lengths import Histogram, LengthReader, LengthRecord, Profile, advise, measure, row_limits
from suffice.data.lengths.advice import cap_advice
from suffice.data.lengths.intervals import quantile_ranks, rows_needed, share_interval
from suffice.data.lengths.report import Report
from suffice.data.lengths.text import bar, display_width, report_lines, table
from suffice.data.lengths.words import WordSample
from suffice.errors import DataError

QUANTILES = (0.5, 0.9, 0.95, 0.99)
TIERS = [("short", 128), ("standard", 512), ("long", 1024), ("unlimited", 2048)]


def histogram(lengths: Any) -> Histogram:
    made = Histogram()
    for tokens in lengths:
        made.add(int(tokens))
    return made


def profile_of(lengths: Any, finish: str | None = None) -> Profile:
    return measure(LengthRecord(10, int(tokens), finish) for tokens in lengths)


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


# ---- figures ----


@pytest.mark.parametrize("rows", [1, 2, 3, 7, 20, 100, 101, 700, 2900, 5000])
def test_quantiles_means_and_shares_are_numpys(rows: int) -> None:
    lengths = np.random.default_rng(rows).lognormal(5.5, 1.1, rows).astype(int)
    counted = histogram(lengths)
    for p in (*QUANTILES, 0.001, 0.25, 1.0):
        assert counted.quantile(p) == np.percentile(lengths, 100 * p, method="inverted_cdf"), p
    for limit in (0, 128, 256, 512, 1024, 2048):
        assert counted.over(limit) == int((lengths > limit).sum())
        assert counted.tokens_over(limit) == int(np.clip(lengths - limit, 0, None).sum())
    assert counted.mean == pytest.approx(lengths.mean())
    assert (counted.rows, counted.total, counted.largest) == (rows, lengths.sum(), lengths.max())
    assert sum(count for _, _, count in counted.bars()) == rows


def test_a_histogram_is_exact_up_to_long_contexts_and_bounded_beyond() -> None:
    exact = histogram([131_072, 131_071, 1])
    assert [tokens for tokens, _ in exact.items()] == [1, 131_071, 131_072]
    huge = Histogram()
    for tokens in range(1 << 20, 1 << 21, 101):
        huge.add(tokens)
    assert sum(1 for _ in huge.items()) <= 513
    middle = (1 << 20) * 1.5
    assert middle <= huge.quantile(0.5) <= middle * 1.002
    assert huge.largest == max(range(1 << 20, 1 << 21, 101))
    assert huge.quantile(1.0) == huge.largest


def test_share_intervals_are_wilsons() -> None:
    # Brown, Cai & DasGupta's formula, computed by hand for 5 of 50: 0.1 -> (0.0434, 0.2136)
    low, high = share_interval(5, 50)
    assert (low, high) == (pytest.approx(0.04348, abs=1e-4), pytest.approx(0.21360, abs=1e-4))
    assert share_interval(0, 100)[0] == 0
    assert share_interval(100, 100)[1] == 1
    with pytest.raises(ValueError):
        share_interval(3, 2)


@pytest.mark.parametrize(("rows", "p"), [(50, 0.5), (400, 0.99), (1000, 0.9), (5000, 0.99)])
def test_quantile_ranks_hold_the_probability_they_promise(rows: int, p: float) -> None:
    log = [
        math.lgamma(rows + 1)
        - math.lgamma(k + 1)
        - math.lgamma(rows - k + 1)
        + k * math.log(p)
        + (rows - k) * math.log1p(-p)
        for k in range(rows + 1)
    ]
    below = np.cumsum(np.exp(log))  # P(B <= k)
    low, high = quantile_ranks(rows, p)
    assert low is not None
    assert high is not None
    assert below[low - 1] <= 0.025 < below[low]
    assert 1 - below[high - 1] <= 0.025 < 1 - below[high - 2]


def test_too_few_rows_have_no_upper_bound() -> None:
    needed = rows_needed(0.99)
    assert needed == 368
    assert quantile_ranks(needed, 0.99)[1] == needed
    assert quantile_ranks(needed - 1, 0.99)[1] is None


def test_the_interval_covers_the_true_quantile_as_often_as_it_says() -> None:
    generator = np.random.default_rng(0)
    truth, hits = 1_000 * -math.log(0.01), 0
    for _ in range(300):
        lengths = np.sort(np.ceil(generator.exponential(1_000, 600)))
        low, high = quantile_ranks(600, 0.99)
        assert low is not None
        assert high is not None
        hits += lengths[low - 1] <= math.ceil(truth) <= lengths[high - 1]
    assert hits / 300 >= 0.93


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
        {"index": 2, "line": 3, "error": "the server is down", "row": {"query": "Why", "category": "essays"}},
    ]  # fmt: skip
    reader = LengthReader(groups=("category", "budget.limited_by"))
    profile = measure(reader.read([write(tmp_path / "answers.jsonl", rows)]), reader.groups)
    assert dict(profile.all.answer.items()) == {7: 1, 64: 1}
    assert profile.all.finishes == {"stop": 1, "length": 1, "error": 1}
    assert set(profile.groups()["category"]) == {"lists", "essays"}
    assert set(profile.groups()["budget.limited_by"]) == {"tier", "caller"}


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


# ---- advice ----


def test_the_cap_is_the_99th_percentile_and_its_upper_bound() -> None:
    lengths = np.random.default_rng(1).permutation(np.arange(1, 1001))
    cap = cap_advice(profile_of(lengths).all)
    assert cap is not None
    assert cap.observed == np.percentile(lengths, 99, method="inverted_cdf") == 990
    low, high = quantile_ranks(1000, 0.99)
    assert (cap.lower, cap.upper) == (low, high)
    assert cap.suggested == 1024


@pytest.mark.parametrize("rows", [1, 99, 100, 150, 367])
def test_few_rows_are_said_to_be_few(rows: int) -> None:
    profile = profile_of(range(1, rows + 1))
    cap = cap_advice(profile.all)
    assert cap is not None
    assert cap.observed == rows - rows // 100
    assert cap.suggested is None
    assert f"{rows} answers are too few" in " ".join(lines_of(profile))


def test_answers_that_a_limit_cut_count_as_longer_than_any_cap() -> None:
    records = [LengthRecord(1, 10, "stop")] * 900 + [LengthRecord(1, 64, "length")] * 100
    profile = measure(records)
    cap = cap_advice(profile.all)
    assert cap is not None
    assert (cap.already_cut, cap.observed, cap.suggested, cap.ended) == (100, None, None, 10)
    text = " ".join(lines_of(profile))
    assert "a limit cut 10 % of the 1,000 answers already" in text
    assert "99 % have at most 10 tokens" in text
    advice = advise(profile.all, {}, TIERS)
    assert advice is not None
    assert [tier.cut for tier in advice.tiers] == [100] * 4
    assert advice.tier is None


def test_loops_do_not_ask_for_a_larger_cap() -> None:
    records = [LengthRecord(1, 10, "stop")] * 900 + [LengthRecord(1, 5000, "repetition")] * 100
    cap = cap_advice(measure(records).all)
    assert cap is not None
    assert (cap.rows, cap.observed, cap.suggested) == (900, 10, 64)


def test_a_spike_at_the_longest_length_is_taken_for_a_limit() -> None:
    lengths = [*np.random.default_rng(2).integers(10, 400, 2000), *[1024] * 60]
    profile = profile_of(lengths)
    assert profile.all.spike() == (1024, 60)
    cap = cap_advice(profile.all)
    assert cap is not None
    assert cap.already_cut == 60
    assert profile_of(lengths, "stop").all.spike() is None  # known to have ended by themselves
    assert profile_of(np.random.default_rng(3).integers(10, 400, 2000)).all.spike() is None
    assert profile_of([3] * 500).all.spike() is None  # labels


def test_tiers_and_what_a_cap_saves() -> None:
    profile = profile_of([100] * 600 + [400] * 390 + [600] * 10, "stop")
    advice = advise(profile.all, {}, TIERS, baseline=2048)
    assert advice is not None
    assert [(tier.name, tier.cut) for tier in advice.tiers] == [
        ("short", 400),
        ("standard", 10),
        ("long", 0),
        ("unlimited", 0),
    ]
    assert [round(tier.needed_by, 3) for tier in advice.tiers] == [0.6, 0.39, 0.01, 0]
    assert advice.tier is not None
    assert (advice.tier.name, advice.tier.verdict) == ("standard", "perhaps")
    savings = advice.savings
    assert savings is not None
    assert (savings.before, savings.after) == (2048, 640)
    assert savings.memory == pytest.approx(1 - (10 + 640) / (10 + 2048))
    assert savings.worst_time == pytest.approx(3.2)
    assert savings.used == pytest.approx((10 + 0.6 * 100 + 0.39 * 400 + 0.01 * 600) / 2058)


def test_max_length_advice_counts_rows_and_tokens() -> None:
    lengths = np.random.default_rng(4).lognormal(6, 1, 3000).astype(int)
    limits = row_limits(profile_of(lengths).all)
    whole = lengths + 10
    assert [limit.max_length for limit in limits] == sorted({limit.max_length for limit in limits})
    assert limits[-1].over == 0
    for limit in limits:
        over = whole[whole > limit.max_length]
        assert limit.over == len(over)
        assert limit.tokens_dropped == over.sum()
        assert limit.tokens_cut == (over - limit.max_length).sum()


def test_training_counts_are_those_of_fine_tuning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("transformers")
    from suffice.cli.counting import load_counter
    from suffice.engines.loading import bundled_model
    from suffice.train.masks import Encoder

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


# ---- words ----


def test_words_at_which_lengths_split_in_both_languages() -> None:
    generator, sample = random.Random(0), WordSample()
    for number in range(400):
        long = number % 2
        english, chinese = ("Write an essay about", "请写一篇文章关于") if long else ("Say yes or", "请用一句话回答")
        topic = generator.choice(["rivers", "cats", "music"])
        tokens = round((500 if long else 20) * generator.lognormvariate(0, 0.3))
        sample.add(f"{english} {topic} {number}" if number % 4 < 2 else f"{chinese}{topic}{number}", tokens)
    longer, shorter = sample.splitting()
    assert {"essay"} & {word.word for word in longer} or {"write", "about"} & {word.word for word in longer}
    assert any("文章" in word.word or "一篇" in word.word or "关于" in word.word for word in longer)
    assert any(set(word.word) & set("一句话回答") for word in shorter)
    assert all(word.word not in ("rivers", "cats", "music") for word in (*longer, *shorter))
    assert all(word.factor > 5 for word in longer)


def test_noise_lists_no_words() -> None:
    generator, sample = random.Random(1), WordSample()
    vocabulary = [f"word{letter}{other}" for letter in "abcdefghij" for other in "klmnopqrst"]
    for _ in range(1000):
        sample.add(" ".join(generator.sample(vocabulary, 8)), round(generator.lognormvariate(5, 1)))
    assert sample.splitting() == ([], [])


def test_the_sample_of_prompts_is_bounded_and_does_not_depend_on_the_order() -> None:
    prompts = [f"prompt number {n}" for n in range(3000)]
    one, other = WordSample(most=500), WordSample(most=500)
    for prompt in prompts:
        one.add(prompt, 5)
    for prompt in reversed(prompts):
        other.add(prompt, 5)
        other.add(prompt, 5)
    assert one.prompts == other.prompts <= 500
    assert one.prompts > 100


# ---- what is shown ----


def lines_of(profile: Profile, **settings: Any) -> list[str]:
    reader = LengthReader()
    groups = profile.groups()
    advice = advise(profile.all, groups, TIERS)
    report = Report(("x.jsonl",), reader.summary, profile, groups, profile.words.splitting(), advice, **settings)
    return list(report_lines(report))


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
