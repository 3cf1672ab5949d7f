"""Budgets: what a prompt asks for, what limits it, and what is said about it."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import FrozenInstanceError, dataclass, replace
from pathlib import Path
from typing import Any

import pytest

import suffice.budget
from suffice.budget import (
    Budgeter,
    EngineInfo,
    Expectation,
    LengthQuery,
    Limits,
    TextRatios,
    estimate_tokens,
)
from suffice.budget.length_constraints.find import find_constraints
from suffice.budget.length_constraints.numbers import parse_number
from suffice.errors import PromptTooLongError, UsageError
from suffice.numerals import chinese_number
from suffice.prompt import instructions
from suffice.token_ratios import CHINESE_REFERENCE, ENGLISH_REFERENCE


@pytest.fixture(autouse=True)
def _no_settings_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SUFFICE_BUDGET_FILE", raising=False)


@pytest.fixture
def budgeter() -> Budgeter:
    return Budgeter.load()


def constraints(prompt: str) -> list[tuple[str, float, str]]:
    return [(found.unit, found.amount, found.bound) for found in find_constraints(instructions(prompt))]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("800", 800),
        ("1,500", 1500),
        ("2k", 2000),
        ("two hundred", 200),
        ("twenty-five", 25),
        ("a thousand", 1000),
        ("三", 3),
        ("两百", 200),
        ("一千五", 1500),
        ("一千零五", 1005),
        ("二十五", 25),
        ("十五", 15),
        ("三千", 3000),
        ("1万", 10_000),
        ("1.5万", 15_000),
        ("三万五", 35_000),
        ("两万", 20_000),
        ("hello", None),
    ],
)
def test_numbers_as_people_write_them(text: str, value: float | None) -> None:
    assert parse_number(text) == value


@pytest.mark.parametrize(
    ("numerals", "exact", "spoken"),
    [
        ("一千五", 1005, 1500),
        ("一百五", 105, 150),
        ("一百零五", 105, 105),
        ("三万五", 30_005, 35_000),
        ("二十五", 25, 25),
        ("十", 10, 10),
        ("万", 10_000, 0),
        ("一万二千", 12_000, 12_000),
        ("两百k", None, None),
    ],
)
def test_loops_and_budgets_read_the_same_numerals_each_in_its_way(
    numerals: str, exact: int | None, spoken: int | None
) -> None:
    assert chinese_number(numerals) == exact
    assert chinese_number(numerals, elided=True) == spoken


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("用一句话解释什么是 KV 缓存", ("sentence", 1, "about")),
        ("用三句话介绍北京", ("sentence", 3, "about")),
        ("50字以内介绍一下你自己", ("hanzi", 50, "at most")),
        ("什么是通货膨胀？不超过100字", ("hanzi", 100, "at most")),
        ("写一篇800字的作文", ("hanzi", 800, "about")),
        ("写一篇关于春天的作文，800字左右", ("hanzi", 800, "about")),
        ("谈谈你的家乡，至少500字", ("hanzi", 500, "at least")),
        ("写一篇一千字的游记", ("hanzi", 1000, "about")),
        ("请用两百字介绍杭州", ("hanzi", 200, "about")),
        ("写一个三千字的故事", ("hanzi", 3000, "about")),
        ("写一部1.5万字的小说", ("hanzi", 15_000, "about")),
        ("写一部1万字的小说", ("hanzi", 10_000, "about")),
        ("文章字数请控制在3000-4000字之间", ("hanzi", 4000, "at most")),
        ("2500字以上，详细介绍", ("hanzi", 2500, "at least")),
        ("列出三点理由", ("item", 3, "about")),
        ("请给出五条建议", ("item", 5, "about")),
        ("推荐10个适合冬天去的城市", ("item", 10, "about")),
        ("写三段文字描述大海", ("paragraph", 3, "about")),
        ("写两页的报告", ("page", 2, "about")),
        ("Describe your hometown in 200 words", ("word", 200, "about")),
        ("Write a 200-word essay on bees", ("word", 200, "about")),
        ("How do bees fly? 150 to 200 words", ("word", 200, "about")),
        ("Write a bio under 100 characters", ("character", 100, "at most")),
        ("Explain DNS in one sentence", ("sentence", 1, "about")),
        ("Answer in two paragraphs: why is the sky blue?", ("paragraph", 2, "about")),
        ("Why is the sky blue? Give 5 bullet points", ("item", 5, "about")),
        ("list ten animals", ("item", 10, "about")),
        ("What are the top 10 movies of 1999?", ("item", 10, "about")),
        ("Write a report of 10 pages about trees", ("page", 10, "about")),
        ("Tell me about Rome with at least 300 words", ("word", 300, "at least")),
        ("Write a 300+ word summary of Hamlet", ("word", 300, "at least")),
        ("Who was Nero? No more than 3 sentences", ("sentence", 3, "at most")),
        ("Write three hundred words about the sea", ("word", 300, "about")),
        ("Should contain between 1,500 and 2,000 words", ("word", 2000, "about")),
    ],
)
def test_constraints(prompt: str, expected: tuple[str, float, str]) -> None:
    assert expected in constraints(prompt)


@pytest.mark.parametrize(
    "prompt",
    [
        "I have 200 words in my file, what is the best way to count them?",
        "What is the 100-word limit of Twitter?",
        "translate: 他写了一篇800字的文章",
        "把“他写了一篇800字的文章”翻译成英文",
        "他写了一篇800字的文章，老师会怎么看？",
        "count from 1 to 50",
        "从1数到50",
        "In 1999 he paid 3000 dollars for 200 pounds of rice. How much is that today?",
        "How many words are in 200 pages?",
        'Explain why "write 500 words" is a bad exercise',
        "What does this do?\n```\nprint('write 500 words in 3 paragraphs')\n```",
        "Write a Python function that truncates a string to at most 100 characters",
        "Use at least 2 words in all capital letters",
        "The word forest should appear at least 3 times",
        "同样是一句我喜欢你，为什么别人可以收获女朋友",
        "为什么这两个字读音不同？",
        "第三段是什么意思？",
        "狗看见我们两条腿走路会觉得我们残疾吗？",
        "经过一段时间的恢复，我的眼皮自然了",
        "26个字母两两组合，要多背676个字母吗？",
    ],
)
def test_numbers_that_are_not_constraints(prompt: str) -> None:
    assert constraints(prompt) == []


def test_a_limit_does_not_cut_the_reasoning_before_the_answer() -> None:
    assert constraints("Think step by step, then answer in one word: is 91 prime?") == []
    assert constraints("请一步一步思考，最后用一句话回答。") == []
    assert constraints("（1）说明原因。（2）请给老师写一封信，150字以内。") == []
    assert constraints("Think step by step and write at least 500 words.") == [("word", 500, "at least")]


def test_a_constraint_counts_at_the_ends_of_a_long_prompt_and_not_in_its_middle() -> None:
    filler = "The river was calm and the boats were white. " * 200
    assert constraints(f"Summarise the report in 50 words.\n\n{filler}") == [("word", 50, "about")]
    assert constraints(f"{filler}\n\nSummarise the report in 50 words.") == [("word", 50, "about")]
    assert constraints(f"{filler} Answer in 50 words. {filler}") == []


@pytest.mark.parametrize(
    "prompt",
    ["用一句话解释 DNA", "50字以内介绍北京", "in at most 10 words", "Tell me a joke", "讲个笑话", "Hello"],
)
def test_a_guess_never_lowers_the_cap(budgeter: Budgeter, prompt: str) -> None:
    for default in (300, 2048, 9000):
        budget = replace(budgeter, default_max_new_tokens=default).decide(prompt)
        assert budget.max_new_tokens >= default
        assert budgeter.decide(prompt, engine=EngineInfo(default_max_new_tokens=default)).max_new_tokens >= default
    assert (budget.max_new_tokens, budget.limited_by) == (9000, "model")
    assert budget.reasons[-1] == "the cap is the default: 9000"
    assert budget.reservation < 1000


def test_a_constraint_above_the_default_raises_the_cap_up_to_policy(budgeter: Budgeter) -> None:
    at_most = budgeter.decide("Describe your hometown in at most 2000 words")
    at_least = budgeter.decide("Describe your hometown in at least 2000 words")
    assert at_most.expected_tokens == at_least.expected_tokens
    assert 2 * at_most.expected_tokens < at_most.max_new_tokens < at_least.max_new_tokens
    assert (at_most.limited_by, at_least.limited_by) == ("auto", "auto")
    assert at_most.reasons[-1] == f"room for that raises the default of 2048: {at_most.max_new_tokens}"
    novel = "写一篇5000字的小说"
    assert budgeter.decide(novel).max_new_tokens > 2 * 5000 * 0.67
    assert budgeter.decide(novel).reservation > 5000 * 0.67
    tier = budgeter.decide(novel, tier="long")
    assert (tier.max_new_tokens, tier.limited_by) == (1024, "tier")
    context = budgeter.decide(novel, engine=EngineInfo(context_tokens=4096, prompt_tokens=96))
    assert (context.max_new_tokens, context.limited_by) == (4000, "context")
    assert budgeter.decide(novel, max_new_tokens=700).max_new_tokens == 700


def test_of_several_constraints_the_most_generous_counts(budgeter: Budgeter) -> None:
    alone = budgeter.decide("Write a 5-page report.")
    both = budgeter.decide("Write a 5-page report. Explain its idea in one sentence.")
    assert alone.limited_by == "auto"
    assert both.max_new_tokens == alone.max_new_tokens


def test_parts_multiply(budgeter: Budgeter) -> None:
    each = budgeter.decide("Write three paragraphs of 100 words each about bees")
    assert each.expected_tokens == budgeter.decide("Write 300 words about bees").expected_tokens
    assert budgeter.decide("写三段，每段100字").expected_tokens >= 300 * 0.67


def test_the_language_of_the_answer_counts(budgeter: Budgeter) -> None:
    english = budgeter.decide("Write 200 words about bees").expected_tokens
    assert budgeter.decide("Write 200 words about bees in Hindi").expected_tokens > 3 * english


def test_repeating_the_request_is_added(budgeter: Budgeter) -> None:
    prompt = "Answer in one sentence: why do bees dance? First repeat the request above word for word."
    assert budgeter.decide(prompt).expected_tokens > budgeter.decide("Answer in one sentence").expected_tokens


def test_conversation(budgeter: Budgeter) -> None:
    system = {"role": "system", "content": "You are kind. Always answer in one sentence."}
    old = [{"role": "user", "content": "Write 900 words"}, {"role": "assistant", "content": "No."}]
    asked = budgeter.decide([system, *old, {"role": "user", "content": "What is DNA?"}])
    assert "system prompt" in asked.reasons[1]
    assert "1 sentence" in asked.reasons[1]
    own = budgeter.decide([system, {"role": "user", "content": "What is DNA? Use 300 words."}])
    assert "300 words" in own.reasons[1]
    parts: list[dict[str, Any]] = [
        {"type": "image_url", "image_url": {}},
        {"type": "text", "text": "用一句话描述这张图"},
    ]
    assert "1 sentence" in budgeter.decide([{"role": "user", "content": parts}]).reasons[1]


@pytest.mark.parametrize("message", ["text", {"content": "no role"}, {"role": "user", "content": 3}])
def test_a_malformed_message_is_named(budgeter: Budgeter, message: Any) -> None:
    with pytest.raises(UsageError, match="message 0"):
        budgeter.decide([message])


def test_translation_follows_the_text(budgeter: Budgeter) -> None:
    text = "The cat sat on the mat and looked at the rain. "
    short = budgeter.decide(f"Translate into French: {text * 5}")
    long = budgeter.decide(f"Translate into French: {text * 200}")
    assert long.expected_tokens > 20 * short.expected_tokens
    assert long.max_new_tokens > 2 * long.expected_tokens
    assert budgeter.decide(f"Summarize: {text * 200}").expected_tokens < long.expected_tokens


@pytest.mark.parametrize(
    ("prompt", "expected", "room"),
    [
        ("Tell me a joke", 70, 512),
        ("讲个笑话", 70, 512),
        ("Write an email to my landlord", 260, 1024),
        ("简短介绍一下长城", 260, 1024),
        ("Explain gravity in detail", 600, 4096),
        ("写一篇关于长城的文章", 600, 4096),
        ("Tell me a joke in detail", 600, 4096),
    ],
)
def test_keywords(budgeter: Budgeter, prompt: str, expected: int, room: int) -> None:
    alone = budgeter.with_length_model(None).decide(prompt, engine=EngineInfo(default_max_new_tokens=77))
    assert "keyword" in alone.reasons[1]
    assert (alone.expected_tokens, alone.max_new_tokens, alone.limited_by) == (expected, room, "auto")
    learned = budgeter.decide(prompt, engine=EngineInfo(default_max_new_tokens=4096))
    assert not any("keyword" in reason for reason in learned.reasons)  # it neither raised the cap nor is expected
    raised = budgeter.decide(prompt, engine=EngineInfo(default_max_new_tokens=77))
    assert any("keyword" in reason for reason in raised.reasons)


def test_keywords_are_whole_words_and_constraints_come_first(budgeter: Budgeter) -> None:
    assert budgeter.decide("Who owned these historyless lands?").limited_by == "model"
    assert not any("keyword" in reason for reason in budgeter.decide("Tell me a story in 50 words").reasons)


def test_the_model_default_is_the_cap_where_it_has_one(budgeter: Budgeter) -> None:
    assert budgeter.decide("Hello").max_new_tokens == 2048
    budget = budgeter.decide("Hello", engine=EngineInfo(default_max_new_tokens=777))
    assert (budget.max_new_tokens, budget.limited_by) == (777, "model")
    assert budget.reasons[-1] == "the cap is the model's default: 777"


def test_the_callers_number_and_what_limits_it(budgeter: Budgeter) -> None:
    free = budgeter.decide("Hello", max_new_tokens=300)
    assert (free.max_new_tokens, free.limited_by, free.clamped_from) == (300, "caller", None)
    tier = budgeter.decide("Hello", max_new_tokens=300, tier="short")
    assert (tier.max_new_tokens, tier.limited_by, tier.clamped_from) == (128, "tier", 300)
    assert tier.reasons[-1] == "clipped to tier short: 128"
    context = budgeter.decide(
        "Hello",
        Limits(max_new_tokens=300, tier="short"),
        engine=EngineInfo(context_tokens=100, prompt_tokens=10),
    )
    assert (context.max_new_tokens, context.limited_by, context.clamped_from) == (90, "context", 300)
    auto = budgeter.decide("Hello", tier="standard")
    assert (auto.max_new_tokens, auto.limited_by, auto.clamped_from) == (512, "tier", None)


@pytest.mark.parametrize("asked", ["auto", 1, 5000])
@pytest.mark.parametrize(("max_length", "context"), [(100, None), (None, 100), (100, 4096), (4096, 100)])
def test_prompt_and_answer_fit(budgeter: Budgeter, asked: Any, max_length: int | None, context: int | None) -> None:
    limits = Limits(max_new_tokens=asked, max_length=max_length)
    budget = budgeter.decide("写一篇800字的作文", limits, engine=EngineInfo(context_tokens=context, prompt_tokens=99))
    assert budget.max_new_tokens == budget.context_left == 1
    with pytest.raises(PromptTooLongError, match="100 tokens"):
        budgeter.decide("x", limits, engine=EngineInfo(context_tokens=context, prompt_tokens=100))


def test_budget_is_ordered_clipped_immutable_and_json(budgeter: Budgeter) -> None:
    for prompt in ("Hello", "写一篇800字的作文", "Write an essay", "用一句话解释 DNA"):
        for cap in (1, 20, 100_000):
            budget = budgeter.decide(prompt, max_new_tokens=cap)
            tokens = [count for _, count in budget.quantiles]
            assert [p for p, _ in budget.quantiles] == [0.5, 0.9, 0.95, 0.99]
            assert tokens == sorted(tokens)
            assert 1 <= budget.expected_tokens == tokens[0]
            assert tokens[-1] <= budget.max_new_tokens
    with pytest.raises(FrozenInstanceError):
        budget.max_new_tokens = 3  # type: ignore[misc]
    data = json.loads(json.dumps(budget.to_dict()))
    assert data["quantiles"]["p99"] == budget.quantiles[-1][1]
    assert data["reasons"] == list(budget.reasons)
    assert data["reservation"] == budget.reservation == data["quantiles"]["p90"]


@pytest.mark.parametrize("bad", [0, -1, 1.5, "many", None, True])
def test_a_bad_number_names_itself(budgeter: Budgeter, bad: Any) -> None:
    with pytest.raises(UsageError, match="max_new_tokens is"):
        budgeter.decide("Hello", max_new_tokens=bad)
    if bad is not None:
        with pytest.raises(UsageError, match="max_length is"):
            budgeter.decide("Hello", max_length=bad)


def test_an_unknown_tier_names_the_known_ones(budgeter: Budgeter) -> None:
    with pytest.raises(UsageError, match=r"'gold'; there are: short, standard, long, unlimited"):
        budgeter.decide("Hello", tier="gold")


def test_an_estimated_prompt_length_is_said(budgeter: Budgeter) -> None:
    assert any("estimated" in reason for reason in budgeter.decide("Hello").reasons)
    assert not any(
        "estimated" in reason for reason in budgeter.decide("Hello", engine=EngineInfo(prompt_tokens=3)).reasons
    )


def test_the_packaged_tiers(budgeter: Budgeter) -> None:
    assert [tier.max_new_tokens for tier in budgeter.tiers.values()] == [128, 512, 1024, 2048]
    assert [name for name, tier in budgeter.tiers.items() if tier.needs_key] == ["unlimited"]
    with pytest.warns(DeprecationWarning, match="DEFAULT_TIERS is deprecated: use suffice.budget.Budgeter"):
        assert dict(suffice.budget.DEFAULT_TIERS) == dict(budgeter.tiers)


def test_a_settings_file_changes_what_it_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(
        "[settings]\ndefault_max_new_tokens = 600\n[tiers.short]\nmax_new_tokens = 99\n"
        "[tiers.gold]\nmax_new_tokens = 9000\n"
        'needs_key = true\n[keywords.tiny]\nexpected_tokens = 5\nmax_new_tokens = 700\nwords = ["天气", "weather"]\n',
        encoding="utf-8",
    )
    monkeypatch.setenv("SUFFICE_BUDGET_FILE", str(path))
    for budgeter in (Budgeter.load(), Budgeter.load(path)):
        assert budgeter.tiers["short"].max_new_tokens == 99
        assert budgeter.tiers["gold"].needs_key
        assert budgeter.tiers["standard"].max_new_tokens == 512
        assert budgeter.decide("今天天气怎么样").max_new_tokens == 700
        assert budgeter.decide("Tell me a joke").max_new_tokens == 600
        assert budgeter.decide("Hello").max_new_tokens == 600


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("colour = 1", "unknown key colour"),
        ("[settings]\nspeed = 1", "unknown key settings.speed"),
        ("[settings]\nreasoning_tokens = 9", "settings.reasoning_tokens is gone, .* delete it"),
        ("[tiers.short]\ncap = 1", "unknown key tiers.short.cap"),
        ("[keywords.short]\nword = ['a']", "unknown key keywords.short.word"),
        ("[tiers.new]\nneeds_key = true", "tiers.new.max_new_tokens must be"),
        ('[tiers."two\\nlines"]\nmax_new_tokens = 5', "cannot name a tier"),
        ("[tiers.'短']\nmax_new_tokens = 5", "'短' cannot name a tier"),
        ("[tiers.auto]\nmax_new_tokens = 5", "'auto' cannot name a tier"),
        ("[tiers.short]\nmax_new_tokens = 'x'", "tiers.short.max_new_tokens: 'x' is not a number of tokens"),
        ("[tiers.short]\nneeds_key = 1", "tiers.short.needs_key must be"),
        ("[keywords.short]\nwords = [1]", "keywords.short.words must be"),
        ("[presets.new]\ntier = 'gold'", "presets.new.tier is 'gold'; there are: short"),
        ("[presets.short]\nmax_length = 0", "presets.short.max_length must be a number of tokens"),
        ("[presets.short]\ntop_p = 2", "presets.short.top_p must be above 0 and at most 1"),
        ("tiers = 3", "tiers must be a table"),
        ("[settings", "not valid TOML"),
    ],
)
def test_a_bad_settings_file_is_explained(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=complaint) as caught:
        Budgeter.load(path)
    assert str(path) in str(caught.value)


def test_a_missing_settings_file_is_explained(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        Budgeter.load(tmp_path / "none.toml")


def test_another_estimator_fits_in(budgeter: Budgeter) -> None:
    @dataclass(frozen=True)
    class Learned:
        def estimate(self, query: LengthQuery) -> Expectation | None:
            if "weather" not in query.prompt.user:
                return None
            return Expectation.around(40, 0.5, "learned from 100 answers")

    learned = budgeter.with_estimator(Learned())
    assert "learned from 100 answers" in learned.decide("weather?").reasons
    assert learned.decide("Hello") == budgeter.decide("Hello")


_OWN = """
from suffice.budget import Expectation

class Invoices:
    def estimate(self, query):
        return Expectation.around(33, 0.2, "an invoice") if "invoice" in query.prompt.user else None

class Picky:
    def __init__(self, name):
        self.name = name

ready = Invoices()
nothing = 3
"""


@pytest.fixture
def own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "own_lengths.py").write_text(_OWN)
    (tmp_path / "broken_lengths.py").write_text("raise RuntimeError('no database\\nat all')")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("own_lengths", "broken_lengths"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return "own_lengths"


@pytest.mark.parametrize("attribute", ["Invoices", "ready"])
def test_the_budget_file_names_estimators_of_ones_own(own_module: str, attribute: str, tmp_path: Path) -> None:
    path = tmp_path / "budget.toml"
    path.write_text(f'[estimators]\nfirst = ["{own_module}:{attribute}"]\n')
    budgeter = Budgeter.load(path)
    budget = budgeter.decide("Check this invoice in 500 words")
    assert "an invoice" in budget.reasons
    assert budget.expected_tokens == 33
    assert budgeter.decide("Hello") == Budgeter.load().decide("Hello")


@pytest.mark.parametrize(
    ("named", "complaint"),
    [
        ('"own_lengths"', "names 'own_lengths': write module:attribute"),
        ('"no_such_module:Thing"', "cannot be loaded .ModuleNotFoundError: No module named 'no_such_module'"),
        ('"own_lengths:Missing"', "cannot be loaded .AttributeError: .* has no attribute 'Missing'"),
        ('"own_lengths:Picky"', "cannot be loaded .TypeError: .*'name'"),
        ('"broken_lengths:Any"', r"cannot be loaded .RuntimeError: no database\)"),
        ('"own_lengths:nothing"', "has no method estimate"),
        ("3", "must be a list of texts"),
    ],
)
def test_an_estimator_that_cannot_be_used_is_explained_in_one_line(
    own_module: str, named: str, complaint: str, tmp_path: Path
) -> None:
    path = tmp_path / "budget.toml"
    path.write_text(f"[estimators]\nfirst = [{named}]\n")
    with pytest.raises(UsageError, match=complaint) as caught:
        Budgeter.load(path)
    assert str(caught.value).startswith(f"{path}: estimators.first")
    assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_an_estimator_of_an_earlier_release_still_works(budgeter: Budgeter) -> None:
    seen: list[Any] = []

    class Old:
        def estimate(self, question: Any) -> Any:
            seen.append((question.text, question.system, question.instructions, question.conversation, question.more))
            seen.append((question.model, question.client, question.route, question.model_default))
            seen.append((question.prompt_tokens, question.ratios.word, question.system_instructions))
            return suffice.budget.LengthEstimate.around(40, 0.5, "as before", room=9000)

    turns = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi there"}]
    budget = budgeter.with_estimator(Old()).decide(
        turns, prompt_tokens=9, model="m", client="c", route="r", model_default=700, more={"tools": [{"a": 1}]}
    )
    assert (budget.expected_tokens, budget.max_new_tokens, budget.limited_by) == (40, 9000, "auto")
    assert seen[0][:4] == ("Hi there", "Be kind.", "Hi there", tuple(turns))
    assert seen[0][4]["tools"] == ({"a": 1},)
    assert seen[1:] == [("m", "c", "r", 700), (9, TextRatios().word, "Be kind.")]
    with pytest.raises(TypeError, match="no keyword 'max_tokens'"):
        budgeter.decide("Hello", max_tokens=3)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("keywords", "instead"),
    [
        ({"context": 4096}, r"EngineInfo\(context_tokens=...\)"),
        ({"client": "anna"}, r"RequestInfo\(client=...\)"),
        ({"more": {}}, r"Prompt\(tools=...\) and RequestInfo"),
    ],
)
def test_a_keyword_of_an_earlier_release_names_the_new_one(
    budgeter: Budgeter, keywords: dict[str, Any], instead: str
) -> None:
    with pytest.warns(DeprecationWarning, match=instead) as caught:
        budgeter.decide("Hello", **keywords)
    assert [warning.filename for warning in caught] == [__file__]


def test_ratios_of_a_finer_tokenizer_need_more_tokens(budgeter: Budgeter) -> None:
    by_character = TextRatios.measured(len)
    assert estimate_tokens(ENGLISH_REFERENCE, by_character) > 3 * estimate_tokens(ENGLISH_REFERENCE)
    prompt = "用50字介绍杭州"
    assert (
        budgeter.decide(prompt, engine=EngineInfo(ratios=by_character)).expected_tokens
        > budgeter.decide(prompt).expected_tokens
    )


def test_estimated_tokens_are_close_to_the_qwen2_tokenizer() -> None:
    assert estimate_tokens("") == 0
    assert estimate_tokens(ENGLISH_REFERENCE) == pytest.approx(91, rel=0.2)
    assert estimate_tokens(CHINESE_REFERENCE) == pytest.approx(88, rel=0.2)
    assert estimate_tokens(ENGLISH_REFERENCE * 1000) == pytest.approx(91_000, rel=0.2)


@pytest.mark.parametrize(
    "text",
    [
        "1",
        "一",
        "a ",
        "1 a ",
        '"',
        "```",
        "至少",
        "\n",
        "write 3 ",
        "translate ",
        "please ",
        "in a ",
        "请",
        "（1",
        "每 ",
    ],
)
def test_adversarial_prompts_return(budgeter: Budgeter, text: str) -> None:
    # A pattern that backtracks more than linearly in these would not come back within the suite's time limit.
    assert budgeter.decide(text * (1_000_000 // len(text))).max_new_tokens > 0
    assert budgeter.decide(text * (2400 // len(text))).max_new_tokens > 0


def test_importing_the_room_loads_nothing_heavy() -> None:
    script = "import sys, suffice.budget; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "transformers", "numpy", "tomllib", "aiohttp"} & set(loaded)
