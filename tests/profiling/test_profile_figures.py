"""What `suffice profile` computes: figures against NumPy, advice and its uncertainty, words."""

from __future__ import annotations

import math
import random
from typing import Any

import numpy as np
import pytest

from suffice.profiling import Histogram, LengthReader, LengthRecord, Profile, advise, measure, row_limits
from suffice.profiling.advice import cap_advice
from suffice.profiling.intervals import quantile_ranks, rows_needed, share_interval
from suffice.profiling.report import Report
from suffice.profiling.terminal import report_lines
from suffice.profiling.words import WordSample

QUANTILES = (0.5, 0.9, 0.95, 0.99)
TIERS = [("short", 128), ("standard", 512), ("long", 1024), ("unlimited", 2048)]


def histogram(lengths: Any) -> Histogram:
    made = Histogram()
    for tokens in lengths:
        made.add(int(tokens))
    return made


def profile_of(lengths: Any, finish: str | None = None) -> Profile:
    return measure(LengthRecord(10, int(tokens), finish) for tokens in lengths)


def lines_of(profile: Profile, **settings: Any) -> list[str]:
    reader = LengthReader()
    groups = profile.groups()
    advice = advise(profile.all, groups, TIERS)
    report = Report(
        sources=("x.jsonl",),
        found=reader.summary,
        profile=profile,
        groups=groups,
        words=profile.words.splitting(),
        advice=advice,
        **settings,
    )
    return list(report_lines(report))


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
