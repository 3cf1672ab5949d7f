"""The length model: what it learns from prompts and from who asks, how honest it is, and what it may not do."""

from __future__ import annotations

import json
import math
import random
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from suffice.budget import Budgeter, EngineInfo, LengthModel, Limits, RequestInfo
from suffice.budget.learned_length import LearnedLength
from suffice.budget.length_key import LengthKey
from suffice.budget.length_model import prompt_model
from suffice.budget.length_model.distribution import EDGES, bin_of, grid_quantiles
from suffice.budget.length_model.evaluate import evaluate
from suffice.budget.length_model.features import TextFeatures, conversation_features, features, model_key
from suffice.budget.length_model.history import Groups
from suffice.budget.length_model.sample import LengthSample
from suffice.budget.length_model.trees import Forest, Growth, Trees
from suffice.cli.main import main
from suffice.data import AnswerSummary, read_answers
from suffice.errors import DataError

TOPICS = ("bees", "rivers", "trains", "the moon", "bread", "chess", "volcanoes", "violins", "glass", "maps")
ZH_TOPICS = ("蜜蜂", "河流", "火车", "月亮", "面包", "象棋", "火山", "小提琴", "玻璃", "地图")


def asked(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Prompts of four kinds in two languages, whose answers have lengths of their own."""
    random_ = random.Random(seed)
    kinds = (
        ("What is {}? Answer with a name only", 8.0),
        ("Write a detailed essay about {} and its history", 700.0),
        ("{}是什么？只说名字", 6.0),
        ("请写一篇关于{}的文章，详细介绍它的历史", 900.0),
    )
    records = []
    for number in range(count):
        form, median = kinds[number % 4]
        topic = random_.choice(ZH_TOPICS if "写" in form or "只" in form else TOPICS)
        prompt = f"{form.format(topic)} ({random_.randrange(10**6)})"
        tokens = max(1, round(median * random_.lognormvariate(0, 0.25)))
        records.append({"prompt": prompt, "model": "some/Model-7B", "output_tokens": tokens})
    return records


@pytest.fixture(scope="module")
def trained() -> LengthModel:
    return LengthModel.fit(asked(400))


def question(record: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name != "output_tokens"}


def test_it_tells_short_from_long_in_english_and_chinese(trained: LengthModel) -> None:
    short, long, short_zh, long_zh = (trained.predict(question(record)).quantile(0.5) for record in asked(4, seed=9))
    assert 4 <= short <= 16
    assert 500 <= long <= 950
    assert 3 <= short_zh <= 12
    assert 650 <= long_zh <= 1200


def test_quantiles_of_unseen_prompts_hold(trained: LengthModel) -> None:
    records = asked(600, seed=5)
    for p in (0.1, 0.5, 0.9, 0.95):
        within = [record["output_tokens"] <= trained.predict(question(record)).quantile(p) for record in records]
        assert abs(sum(within) / len(within) - p) < 0.07  # of 400 trained and 600 tested: within three deviations


def test_quantiles_ascend_and_the_mean_lies_among_them(trained: LengthModel) -> None:
    prediction = trained.predict({"prompt": "Write a detailed essay about tea and its history"})
    levels = [0.001, 0.01, 0.07, 0.3, 0.5, 0.77, 0.9, 0.93, 0.99, 0.9995]
    quantiles = [prediction.quantile(p) for p in levels]
    assert quantiles == sorted(quantiles)
    assert quantiles[0] <= prediction.expected <= quantiles[-1]
    assert all(isinstance(tokens, int) for tokens in quantiles)
    with pytest.raises(ValueError, match="between 0 and 1"):
        prediction.quantile(1.5)


def test_a_prompt_like_nothing_in_training_gets_wider_quantiles(trained: LengthModel) -> None:
    def width(prompt: str) -> float:
        prediction = trained.predict({"prompt": prompt, "model": "some/Model-7B"})
        return math.log(prediction.quantile(0.95) / max(1, prediction.quantile(0.1)))

    assert width("Объясните, пожалуйста, как работает ядерный реактор") > 2 * width(
        "What is tea? Answer with a name only"
    )
    assert "unlike" in trained.predict({"prompt": "Объясните, пожалуйста, как работает реактор"}).source


def test_an_unknown_model_widens(trained: LengthModel) -> None:
    records = [*asked(200), *({**record, "model": "terse-1b", "output_tokens": 3} for record in asked(200, seed=1))]
    model = LengthModel.fit(records)
    known, other = (
        model.predict({"prompt": "Write a detailed essay about tea", "model": m}) for m in ("terse-1b", "x")
    )
    assert known.quantile(0.9) < other.quantile(0.9)


def test_history_an_old_client_speaks_for_itself_and_a_new_one_borrows() -> None:
    model, random_ = LengthModel(), random.Random(0)
    for _ in range(300):
        model.observe({"client": "brief", "output_tokens": random_.randint(2, 5)})
        model.observe({"client": "verbose", "output_tokens": random_.randint(900, 1100)})
    assert model.predict({"client": "brief"}).quantile(0.9) <= 6
    assert 880 <= model.predict({"client": "verbose"}).quantile(0.5) <= 1110
    new = model.predict({"client": "never seen"})
    assert new.quantile(0.25) <= 6
    assert new.quantile(0.9) >= 900
    assert "600 earlier answers to everyone" in new.source


@pytest.mark.parametrize("who", ["client", "route", "system", "model"])
def test_every_level_of_history_is_used(who: str) -> None:
    model = LengthModel()
    for _ in range(100):
        model.observe({who: "a", "output_tokens": 10})
        model.observe({who: "b", "output_tokens": 1000})
    assert model.predict({who: "a"}).quantile(0.5) <= 12
    assert model.predict({who: "b"}).quantile(0.5) >= 900


def test_a_system_message_is_the_system_prompt() -> None:
    model = LengthModel()
    for _ in range(100):
        model.observe({"system": "Be brief.", "prompt": "x", "output_tokens": 10})
        model.observe({"system": "Be long.", "prompt": "x", "output_tokens": 1000})
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}]
    assert model.predict({"messages": messages}).quantile(0.5) <= 12


def test_traffic_corrects_a_model_that_was_trained_elsewhere(trained: LengthModel) -> None:
    model, records = trained.untaught(), asked(400, seed=3)
    for record in records:
        model.observe({**record, "client": "here", "output_tokens": 3 * record["output_tokens"]})
    fresh = asked(400, seed=4)
    within = [
        3 * record["output_tokens"] <= model.predict({**question(record), "client": "here"}).quantile(0.9)
        for record in fresh
    ]
    assert abs(sum(within) / len(within) - 0.9) < 0.06
    short, long = (model.predict({**question(fresh[at]), "client": "here"}).quantile(0.5) for at in (0, 1))
    assert short * 5 < long, "the prompt still tells"


def test_coverage_is_kept_while_lengths_drift() -> None:
    model, random_ = LengthModel(), random.Random(1)
    over = {0.5: 0, 0.9: 0, 0.95: 0}
    for number in range(6000):
        tokens = round(50 * math.exp(number / 1500) * random_.lognormvariate(0, 0.6))
        prediction = model.predict({"client": "c"})
        if number >= 1000:
            for p in over:
                over[p] += tokens > prediction.quantile(p)
        model.observe({"client": "c", "output_tokens": tokens})
    for p, count in over.items():
        assert abs(count / 5000 - (1 - p)) < 0.012


def test_an_answer_that_was_cut_counts_as_at_least_so_long() -> None:
    model, random_ = LengthModel(), random.Random(2)
    for _ in range(1500):
        tokens = round(random_.lognormvariate(5, 0.7))
        cut = {"finish": "length", "output_tokens": 128} if random_.random() < 0.5 and tokens > 128 else {}
        model.observe({"output_tokens": tokens, **cut})
    assert 120 <= model.predict({}).quantile(0.5) <= 180  # the median is 148; taking 128 at its word gives 128


def test_training_answers_that_were_cut_are_no_traffic() -> None:
    cut = [{"prompt": "endless", "finish": "length", "output_tokens": 2048} for _ in range(20)]
    model = LengthModel.fit([*asked(200), *cut])
    assert model.predict(question(asked(1)[0])).quantile(0.95) < 40
    assert "earlier" not in model.predict({"prompt": "x"}).source


def test_memory_is_bounded_and_everyone_stays() -> None:
    model = LengthModel(capacity=50)
    for number in range(2000):
        model.observe({"client": f"client {number}", "route": "/v1", "output_tokens": 100})
    assert len(model._groups) == 50
    assert 97 <= model.predict({"client": "client 0"}).quantile(0.5) <= 103


def test_several_threads() -> None:
    model, failures = LengthModel(capacity=30), []

    def work(name: int) -> None:
        try:
            for number in range(300):
                record = {"client": f"{name}-{number % 20}", "route": "r"}
                model.observe({**record, "output_tokens": 10 + name})
                assert 9 <= model.predict(record).quantile(0.5) <= 15
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert model.predict({}).source == "1200 earlier answers to everyone"


def test_saved_and_loaded_it_says_the_same(trained: LengthModel, tmp_path: Path) -> None:
    model = trained.untaught()
    for record in asked(60, seed=7):
        model.observe({**record, "client": "c"})
    model.card = {"sources": ["here"]}
    again = LengthModel.load(model.save(tmp_path / "folder"))
    for record in asked(20, seed=8):
        for who in ("c", "other"):
            mine, theirs = (m.predict({**question(record), "client": who}) for m in (model, again))
            assert abs(mine.quantile(0.9) - theirs.quantile(0.9)) <= 0.02 * mine.quantile(0.9) + 1  # halves on disk
            assert mine.source == theirs.source
    assert again.card == model.card
    assert LengthModel.load(tmp_path / "folder").card == model.card


def test_what_cannot_be_loaded_is_one_line(trained: LengthModel, tmp_path: Path) -> None:
    path = trained.save(tmp_path / "m.npz")
    whole = path.read_bytes()
    with pytest.raises(DataError, match="there is no length model"):
        LengthModel.load(tmp_path / "nothing.npz")
    for damaged in (b"", b"text", whole[: len(whole) // 2], whole[:-300] + bytes(300)):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match="damaged") as caught:
            LengthModel.load(path)
        assert "\n" not in str(caught.value)


def test_a_state_of_the_release_before_says_the_same() -> None:
    """Saved, and these figures printed, by the release whose length model was `suffice.budget.model`."""
    model = LengthModel.load(Path(__file__).with_name("data") / "length_model_of_first_release.npz")
    assert model.card == {"rows": 100}
    essay = {"prompt": "Write a detailed essay about glass and its history", "client": "anna", "route": "/v1"}
    for record, quantiles in (
        ({"prompt": "What is glass? Answer with a name only", "model": "some/Model-7B"}, (73, 157, 204, 304)),
        (essay, (1021, 1564, 1823, 2314)),
        ({"client": "anna"}, (26, 1615, 1729, 2058)),
    ):
        assert [tokens for _, tokens in model.predict(record).quantiles()] == pytest.approx(quantiles, abs=1)
    assert "60 earlier answers to such requests (answers are 1.91 times" in model.predict(essay).source


def test_a_request_of_the_release_before_can_be_learned_from() -> None:
    said = {"groups": ["65766572796f6e65", "0a1b2c3d4e5f6071"], "outlook": [4.0, 0.5], "predicted": True}
    key = LengthKey.from_json(said)
    assert key.to_json() == said
    model = LengthModel()
    model.learn(key, 300)
    assert 291 <= model.predict({}).quantile(0.5) <= 309  # a bin of the grid is 3 % wide


def test_a_file_of_another_release(trained: LengthModel, tmp_path: Path) -> None:
    path = trained.save(tmp_path / "m.npz")
    with np.load(path) as archive:
        arrays = dict(archive)
    meta = json.loads(arrays["meta"].tobytes())

    def rewritten(**changes: Any) -> Path:
        changed = {**meta, **changes}
        np.savez(path, **{**arrays, "meta": np.frombuffer(json.dumps(changed).encode(), np.uint8)})
        return path

    with pytest.raises(DataError, match="newer release"):
        LengthModel.load(rewritten(version=99))
    with pytest.raises(DataError, match="train it again"):
        LengthModel.load(rewritten(prompt={**meta["prompt"], "form": ["something else"]}))
    assert LengthModel.load(rewritten(unknown_key=1)).predict({"prompt": "x"}).quantile(0.5) > 0


def test_numbers_that_no_traffic_gives_are_refused(tmp_path: Path) -> None:
    model = LengthModel()
    for tokens in range(1, 50):
        model.observe({"client": "anna", "output_tokens": tokens})
    path = model.save(tmp_path / "m.npz")
    with np.load(path) as archive:
        arrays = dict(archive)
    meta = json.loads(arrays["meta"].tobytes())
    for name in ("group_counts", "group_shifts", "group_numbers"):
        for value in (np.nan, np.inf, -np.inf, 1e30):
            for column in range(arrays[name].shape[1]):
                wrong = arrays[name].copy()
                wrong[-1, column] = value
                np.savez(path, **{**arrays, name: wrong})
                with pytest.raises(DataError, match="damaged"):
                    LengthModel.load(path)
                if name != "group_numbers":
                    break
    without_room = np.frombuffer(json.dumps({**meta, "capacity": 0}).encode(), np.uint8)
    np.savez(path, **{**arrays, "meta": without_room})
    with pytest.raises(DataError, match="damaged"):
        LengthModel.load(path)
    np.savez(path, **arrays)
    assert LengthModel.load(path).predict({"client": "anna"}).quantile(0.5) == model.predict(
        {"client": "anna"}
    ).quantile(0.5)


def test_pickles_are_never_read(tmp_path: Path) -> None:
    np.savez(tmp_path / "m.npz", meta=np.array([{"a": 1}], dtype=object))
    with pytest.raises(DataError, match="damaged"):
        LengthModel.load(tmp_path / "m.npz")


def test_bad_records_are_named() -> None:
    with pytest.raises(DataError, match="nothing to learn from"):
        LengthModel.fit([])
    for wrong in (None, "12", -1, True, float("nan")):
        with pytest.raises(DataError, match="output_tokens is"):
            LengthModel().observe({"client": "a", "output_tokens": wrong})


def test_few_records_teach_history_only() -> None:
    model = LengthModel.fit(asked(12))
    assert model.predict({"prompt": "hello"}).quantile(0.5) > 0
    assert "earlier answers" in model.predict({"prompt": "hello"}).source


def test_nothing_known_is_wide() -> None:
    prediction = LengthModel().predict({})
    assert prediction.quantile(0.5) == 250
    assert prediction.quantile(0.99) > 2048
    assert prediction.source == "nothing known yet"


def test_odd_prompts_do_not_break_it(trained: LengthModel) -> None:
    for prompt in ("", " \n ", "a", "好", "\ud800", "x" * 100_000, "🙂" * 50, "\x00"):
        assert trained.predict({"prompt": prompt}).quantile(0.9) >= 1


def test_the_grid() -> None:
    assert [bin_of(tokens) for tokens in (0, 1, 2, 10**9)] == [0, 1, 2, len(EDGES) - 2]
    one = np.zeros(len(EDGES) - 1)
    one[bin_of(17)] = 1
    assert grid_quantiles(one.cumsum(), np.array([0.01, 0.5, 0.99])).tolist() == [17, 17, 17]


def test_a_forest_says_the_mean_of_its_trees() -> None:
    random_ = np.random.default_rng(0)
    table = random_.normal(size=(300, 6))
    target = 3 * (table[:, 0] > 0) + table[:, 1] + random_.normal(size=300) * (0.1 + (table[:, 2] > 0))
    fits = [Trees.grow(table, target, Growth(trees=150, shrinkage=2.0), seed) for seed in range(3)]
    location, log_scale = Forest.of(fits).predict(np.repeat(table[:1], 3, axis=0))
    each = [fit.predict(table[:1]) for fit in fits]
    assert location == pytest.approx(np.mean([one[0][0] for one in each]), abs=1e-5)
    assert log_scale == pytest.approx(np.mean([one[1][0] for one in each]), abs=1e-5)
    said, scale = fits[0].predict(table)
    assert np.corrcoef(said, target)[0, 1] > 0.9
    assert np.exp(scale[table[:, 2] > 0]).mean() > 1.5 * np.exp(scale[table[:, 2] <= 0]).mean()


def test_model_names() -> None:
    assert model_key("Qwen/Qwen2.5-7B-Instruct-GPTQ-Int4") == model_key("qwen2.5-7b-instruct") == "qwen2.5-7b-instruct"
    assert model_key(None) == ""


def read(record: dict[str, Any]) -> TextFeatures:
    query = LengthSample.of(record).query
    return features(query, conversation_features(query))


def test_features_read_both_ends_of_a_long_prompt() -> None:
    middle = "filler " * 1000
    plain, asks = read({"prompt": middle}), read({"prompt": f"{middle}\n用一句话总结"})
    assert set(asks.cells) - set(plain.cells)


def test_who_asks_without_a_prompt_has_no_prompt_to_read(trained: LengthModel) -> None:
    assert trained.key(LengthSample.of({"client": "a"}).query).by_prompt is None
    assert trained.key(LengthSample.of({"client": "a", "prompt": "What is tea?"}).query).by_prompt is not None


def test_a_prompt_that_comes_again_is_read_once_and_others_are_not_taken_for_it(
    trained: LengthModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[TextFeatures] = []
    expect = prompt_model.PromptModel.expect
    monkeypatch.setattr(
        prompt_model.PromptModel, "expect", lambda self, found, model: said.append(found) or expect(self, found, model)
    )
    fresh, texts = trained.untaught(), ["Write a story.", "Write a poem."]
    records = [
        {"prompt": text, "model": model, "sampling": {"temperature": temperature}, "system": system}
        for text in texts
        for model in (None, "qwen2.5-7b-instruct")
        for temperature in (None, 0.5)
        for system in (None, "Be brief.")
    ]
    first = [fresh.predict(record).quantiles() for record in records]
    assert len(said) == len(records)
    assert [fresh.predict(record).quantiles() for record in records] == first
    assert len(said) == len(records)
    assert [trained.untaught().predict(record).quantiles() for record in records] == first


def test_groups_keep_the_most_recent() -> None:
    groups = Groups(3, 1)
    for key in (b"a", b"b", b"a", b"c"):
        groups.touch([b"everyone", key])
    assert {key for key, _ in groups.items()} == {b"everyone", b"a", b"c"}


def test_held_out_figures_beat_a_constant_and_streams_are_taken_in_order() -> None:
    figures = evaluate(asked(300))
    assert figures.rows == 300
    assert figures.ratio < 0.6
    random_ = random.Random(4)
    medians = {"a": 10, "b": 100, "c": 1000}
    clients = [random_.choice("abc") for _ in range(500)]
    stream = [{"client": c, "output_tokens": round(medians[c] * random_.lognormvariate(0, 0.3))} for c in clients]
    figures = evaluate(stream)
    assert figures.rows == 100
    assert figures.ratio < 0.5


# In the budget


class _Says(LengthModel):
    """Expects the same of every prompt."""

    def __init__(self, tokens: int) -> None:
        super().__init__()
        for _ in range(200):
            self.observe({"output_tokens": tokens})


@pytest.mark.parametrize(
    "prompt", ["Hello", "写一个故事", "Write a joke", "用一句话解释", "Write 300 words about bees"]
)
@pytest.mark.parametrize("expected", [3, 100_000])
def test_a_prediction_never_touches_the_cap(prompt: str, expected: int) -> None:
    without = Budgeter.load()
    bare = without.with_length_model(None)
    told = without.with_length_model(LearnedLength(_Says(expected)))
    for limits, default in (
        (Limits(), None),
        (Limits(tier="short"), None),
        (Limits(max_new_tokens=77), None),
        (Limits(), 400),
        (Limits(max_length=300), None),
    ):
        engine = EngineInfo(default_max_new_tokens=default)
        plain, predicted = (each.decide(prompt, limits, engine=engine) for each in (bare, told))
        assert predicted.max_new_tokens == plain.max_new_tokens
        assert predicted.limited_by == plain.limited_by
        assert all(tokens <= predicted.max_new_tokens for _, tokens in predicted.quantiles)


def test_it_is_asked_before_the_keywords_and_after_what_the_prompt_asks_for() -> None:
    told = Budgeter.load().with_length_model(LearnedLength(_Says(40)))
    guess = told.decide("Hello")
    assert 39 <= guess.expected_tokens <= 41
    assert "expected length: from 200 earlier answers to everyone" in guess.reasons
    assert told.decide("Write 300 words about bees").expected_tokens > 300


def test_who_asks_reaches_the_model() -> None:
    model = LengthModel()
    for _ in range(100):
        model.observe({"client": "brief", "output_tokens": 5})
        model.observe({"client": "verbose", "output_tokens": 800})
    budgeter = Budgeter.load().with_length_model(LearnedLength(model))
    brief, verbose = (
        budgeter.decide("Hello", info=RequestInfo(client=who)).expected_tokens for who in ("brief", "verbose")
    )
    assert brief < 8
    assert verbose > 700


def test_a_named_model_is_used_and_a_missing_one_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _Says(40).save(tmp_path)
    monkeypatch.setenv("SUFFICE_LENGTH_MODEL", str(tmp_path))
    assert 39 <= Budgeter.load().decide("Hello").expected_tokens <= 41
    with pytest.raises(DataError, match="suffice fit"):
        Budgeter.load(length_model=tmp_path / "nowhere")


def test_without_numpy_there_are_rules_only() -> None:
    code = (
        "import sys, importlib.util as u; sys.modules['numpy'] = None; real = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name == 'numpy' else real(name, *a)\n"
        "from suffice.budget import Budgeter; budget = Budgeter.load().decide('Hello'); print(budget.expected_tokens)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "250", done.stderr


def test_the_room_is_entered_without_numpy() -> None:
    code = "import sys, suffice, suffice.budget; suffice.budget.Budgeter.load(); print('numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


# suffice fit


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def test_reading_answers(tmp_path: Path) -> None:
    rows = [
        {"prompt": "a", "output_tokens": {"gpt-4": 5, "gpt-3": 7}},
        {"query": "b", "response": "one two three"},
        {"index": 0, "text": "hi", "answer_tokens": 9, "finish_reason": "length"},
        {"prompt": "c"},
        {"messages": [{"role": "user", "content": "d"}], "usage": {"completion_tokens": 4}, "user": "u", "model": "m"},
        {"index": 1, "error": "timed out"},
    ]
    summary = AnswerSummary()
    path = write(tmp_path / "a.jsonl", rows)
    path.write_text(path.read_text() + "{broken\n")
    records = list(read_answers(str(path), lambda text: len(text.split()), summary))
    assert [record["output_tokens"] for record in records] == [5, 7, 3, 9, 4]
    assert records[0]["model"] == "gpt-4"
    assert records[3]["finish"] == "length"
    assert "messages" not in records[3]
    assert (records[4]["client"], records[4]["model"]) == ("u", "m")
    assert (summary.rows, summary.counted, summary.estimated, summary.cut) == (7, 4, 1, 1)
    assert sum(summary.problems.values()) == 3


def test_fit_saves_a_model_and_keeps_a_better_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = write(tmp_path / "good.jsonl", asked(160))
    random_ = random.Random(3)
    noise = [
        {"prompt": f"{random_.random()}", "client": "x", "output_tokens": random_.randint(1, 900)} for _ in range(60)
    ]
    bad = write(tmp_path / "bad.jsonl", noise)
    output = tmp_path / "model"

    def fit(*arguments: str) -> int:
        with pytest.raises(SystemExit) as exit_:
            main(["fit", *arguments, "--output", str(output)])
        return int(exit_.value.code or 0)

    assert fit(str(good)) == 0
    shown = capsys.readouterr()
    assert "pinball loss" in shown.out
    assert "160 with token counts" in shown.err
    before = (output / "length_model.npz").read_bytes()
    assert fit(str(bad)) == 1
    assert "--force" in capsys.readouterr().err
    assert (output / "length_model.npz").read_bytes() == before
    assert fit(str(bad), "--force") == 0
    assert (output / "length_model.npz").read_bytes() != before
    assert fit(str(write(tmp_path / "few.jsonl", asked(3)))) == 2
    assert "too few" in capsys.readouterr().err


def test_the_reasons_say_by_how_much_answers_correct_the_prompt() -> None:
    model = Budgeter.load().learned_length.model  # type: ignore[union-attr]
    record = {"prompt": "Tell me about the sea.", "route": "/v1/chat/completions"}
    before = model.predict(record).quantile(0.5)
    for _ in range(60):
        model.observe({**record, "output_tokens": round(4 * before)})
    said = re.search(
        r"60 earlier answers to such requests \(answers are ([\d.]+) times as long", model.predict(record).source
    )
    assert said is not None
    assert 2 < float(said[1]) < 5
    for _ in range(60):
        model.observe({**record, "route": "other", "output_tokens": round(before)})
    assert "60 earlier answers to such requests (weight" in model.predict({**record, "route": "other"}).source
