from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from suffice.budget import Budgeter, LengthQuery
from suffice.budget.estimators import Keywords
from suffice.budget.length_profile import FILE_NAME, LengthProfile, ProfileEstimator
from suffice.errors import DataError
from suffice.prompt import Prompt

TRAIN = Path(__file__).parents[2] / "src" / "suffice" / "train"


def read(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (TRAIN / name).read_text(encoding="utf-8").splitlines()]


def profile_of_self_cognition() -> LengthProfile:
    return LengthProfile.measure((row["query"], len(row["response"])) for row in read("self_cognition.jsonl"))


def query(text: str) -> LengthQuery:
    return LengthQuery(Prompt(raw=text))


def test_quantiles_are_the_least_length_that_so_many_answers_do_not_exceed() -> None:
    lengths = list(range(1, 201))
    random.Random(0).shuffle(lengths)
    overall = LengthProfile.measure(("who are you", tokens) for tokens in lengths).overall
    assert overall.rows == 200
    assert overall.quantiles == ((0.5, 100), (0.9, 180), (0.95, 190), (0.99, 198))
    assert overall.longest == 200


def test_it_splits_by_what_tells_long_from_short_answers() -> None:
    rows = [(f"What is thing {n}?", 10 + n % 5) for n in range(30)]
    rows += [(f"Tell a tale of hero {n}.", 300 + n % 50) for n in range(30)]
    profile = LengthProfile.measure(rows)
    assert profile.split == "form"
    assert set(profile.parts) == {"question", "request"}
    short, kind = profile.lengths_for(query("What is thing 7?"))
    assert kind == "form: question"
    assert short.longest == 14


def test_it_splits_by_language_and_keeps_no_small_part() -> None:
    rows = [(f"你是第{n}个谁？", 20 + n % 3) for n in range(40)] + [
        (f"Who is number {n}?", 90 + n % 3) for n in range(40)
    ]
    rows += [(f"Кто ты {n}?", 500) for n in range(5)]
    profile = LengthProfile.measure(rows)
    assert profile.split == "language"
    assert set(profile.parts) == {"en", "zh"}
    assert profile.lengths_for(query("Кто ты 3?")) == (profile.overall, None)


def test_it_does_not_split_where_nothing_is_explained_or_parts_are_small() -> None:
    rng = random.Random(0)
    same = [
        (text, rng.randrange(10, 100))
        for text in ("Who are you?", "你是谁？", "Introduce yourself.")
        for _ in range(40)
    ]
    assert LengthProfile.measure(same).split is None
    few = [("Who are you?", 10)] * 15 + [("你是谁？", 500)] * 15
    assert LengthProfile.measure(few).split is None
    assert LengthProfile.measure([("Who are you?", 10)] * 50).parts == {}


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    rows = [(f"What is thing {n}?", 10 + n % 5) for n in range(30)] + [
        (f"写一个第{n}号故事", 300 + n) for n in range(30)
    ]
    profile = LengthProfile.measure(rows)
    assert profile.split is not None
    assert profile.save(tmp_path) == tmp_path / FILE_NAME
    assert LengthProfile.load(tmp_path) == profile


def test_a_folder_without_a_profile_has_none(tmp_path: Path) -> None:
    assert LengthProfile.load(tmp_path) is None
    assert LengthProfile.load(tmp_path / "nowhere") is None


@pytest.mark.parametrize(
    "damage",
    [
        lambda record: "{",
        lambda record: "[]",
        lambda record: json.dumps({**record, "version": 99}),
        lambda record: json.dumps({**record, "split": "moon"}),
        lambda record: json.dumps({**record, "overall": {**record["overall"], "p50": -1}}),
        lambda record: json.dumps({**record, "overall": {**record["overall"], "p50": 10**6}}),
        lambda record: json.dumps({name: value for name, value in record.items() if name != "overall"}),
        lambda record: json.dumps({**record, "terms": 3}),
    ],
)
def test_a_damaged_profile_is_an_error_that_names_the_file(tmp_path: Path, damage: Any) -> None:
    path = profile_of_self_cognition().save(tmp_path)
    path.write_text(damage(json.loads(path.read_text(encoding="utf-8"))), encoding="utf-8")
    with pytest.raises(DataError, match=FILE_NAME):
        LengthProfile.load(tmp_path)


def test_a_budgeter_knows_the_profiles_of_its_adapters(tmp_path: Path) -> None:
    (tmp_path / "with").mkdir()
    (tmp_path / "without").mkdir()
    profile_of_self_cognition().save(tmp_path / "with")
    budgeter = Budgeter.load().with_profiles([tmp_path / "without", tmp_path / "with"])
    assert any("the adapter was trained on" in reason for reason in budgeter.decide("Who made you?").reasons)
    assert len(budgeter.estimators) == len(Budgeter.load().estimators) + 1


def test_rows_that_cannot_be_measured_are_refused() -> None:
    with pytest.raises(DataError, match="no rows"):
        LengthProfile.measure([])
    with pytest.raises(DataError, match="row 2"):
        LengthProfile.measure([("a", 1), ("b", 0)])


def test_there_is_room_above_every_answer_that_was_learned() -> None:
    estimator = ProfileEstimator(profile_of_self_cognition())
    estimate = estimator.estimate(query("Who are you?"))
    assert estimate is not None
    learned, _ = estimator.profile.lengths_for(query("Who are you?"))
    assert estimate.room > learned.longest
    assert estimate.room >= 2 * dict(learned.quantiles)[0.99]
    assert estimate.quantiles == learned.quantiles
    assert f"trained on {learned.rows} answers" in estimate.reason


def test_other_wordings_are_familiar_and_other_tasks_are_not() -> None:
    estimator = ProfileEstimator(profile_of_self_cognition())
    heldout = [row["query"] for row in read("self_cognition_heldout.jsonl")]
    known = sum(estimator.estimate(query(text)) is not None for text in heldout)
    assert known >= 0.85 * len(heldout)
    for text in (
        "Count from 1 to 150.",
        "请从1数到150。",
        "Tell me a story about a fox.",
        "讲一个关于狐狸的故事。",
        "",
        "?!",
    ):
        assert estimator.estimate(query(text)) is None, text


def test_in_a_budgeter_constraints_come_first_then_the_profile_then_keywords() -> None:
    budgeter = Budgeter.load().with_estimator(ProfileEstimator(profile_of_self_cognition()), before=Keywords)
    learned = budgeter.decide("Who made you?")
    assert any("the adapter was trained on" in reason for reason in learned.reasons)
    assert (learned.max_new_tokens, learned.limited_by) == (2048, "model")
    assert learned.reservation < 100
    explicit = budgeter.decide("Introduce yourself in 500 words.")
    assert any("asks for" in reason for reason in explicit.reasons)
    other = budgeter.decide("Explain how rockets reach orbit around the moon.")
    assert not any("adapter" in reason for reason in other.reasons)


def test_the_bundled_rows_are_sound() -> None:
    rows, heldout = read("self_cognition.jsonl"), read("self_cognition_heldout.jsonl")
    assert len(rows) >= 130
    assert abs(sum(row["language"] == "zh" for row in rows) - len(rows) / 2) <= len(rows) * 0.1
    assert len({row["query"] for row in rows}) == len(rows)
    assert all("{{NAME}}" in row["response"] and "{{" not in row["query"] for row in rows)
    assert sum("{{AUTHOR}}" in row["response"] for row in rows) > 0.9 * len(rows)
    assert [row["language"] for row in heldout].count("zh") == [row["language"] for row in heldout].count("en") == 20
    assert all(row["expects"] in (["NAME"], ["NAME", "AUTHOR"]) for row in heldout)

    def bare(text: str) -> str:
        return "".join(filter(str.isalnum, text.casefold()))

    assert not {bare(row["query"]) for row in rows} & {bare(row["query"]) for row in heldout}
