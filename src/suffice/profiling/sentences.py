"""Which sentences a report needs, with their values. How they read, in English and Chinese, stands in report.toml."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict

from suffice.profiling.advice import TOLERANCE, Advice, CapAdvice, RowLimit, Savings
from suffice.profiling.bilingual import Bilingual, human_size, percent, say
from suffice.profiling.report import Report

__all__ = ["advice_sentences", "finish_sentences"]


def finish_sentences(report: Report) -> Iterator[Bilingual]:
    """How the answers ended, where that is known, and what looks as if a limit had cut it."""
    everything = report.profile.all
    if known := everything.known_finishes:
        cut, looped = everything.finishes["length"], everything.finishes["repetition"]
        loops = say("loops", share=percent(looped / known), looped=looped) if looped else say("no-loops")
        yield say("ends", known=known, cut=cut, cut_share=percent(cut / known), loops=loops)
    failed, cancelled = everything.finishes["error"], everything.finishes["cancelled"]
    if failed or cancelled:
        yield say("lost", failed=failed, cancelled=cancelled)
    if spike := everything.spike():
        longest, rows = spike
        yield say("spike", rows=rows, share=percent(rows / everything.answer.rows), longest=longest)


def advice_sentences(report: Report) -> Iterator[Bilingual]:
    """What to set, how sure that is, and what it saves; the answer to "which max_new_tokens?" first."""
    advice = report.advice
    if advice is None:
        yield say("no-answers")
        return
    yield _cap(advice.cap, report.profile.all.answer.largest)
    if report.prompts_answered:
        yield say("several-answers", answers=advice.cap.rows, prompts=report.prompts_answered)
    if advice.tiers:
        yield _tier(advice)
    if advice.savings is not None:
        yield _savings(advice.savings, report)
    if report.row_limits:
        yield _training(report)


def _cap(cap: CapAdvice, longest: int) -> Bilingual:
    """The cap; or why there is none: too few rows, too many of the long ones cut, more cut than any cap may cut."""
    if cap.observed is None:
        ended = say("ended", ended=cap.ended) if cap.ended is not None else ""
        return say("cut", share=percent(cap.already_cut / cap.rows), rows=cap.rows, ended=ended, longest=longest)
    about = "cap" if cap.suggested is not None else "too-few" if cap.rows < cap.rows_needed else "no-upper-bound"
    return say(about, **{**asdict(cap), "lower": cap.lower or 0, "suggested": cap.suggested})


def _tier(advice: Advice) -> Bilingual:
    tier = advice.tier or advice.tiers[-1]
    low, high = map(percent, tier.interval)
    return say(
        "no-tier" if advice.tier is None else "tier",
        name=tier.name,
        cap=tier.max_new_tokens,
        share=percent(tier.share),
        low=low,
        high=high,
        doubt=say("perhaps" if tier.verdict == "perhaps" else "sure"),
    )


def _savings(savings: Savings, report: Report) -> Bilingual:
    if savings.after > savings.before:
        answers = report.profile.all.answer
        over = answers.over(savings.before)
        return say("larger-cap", before=savings.before, over=over, share=percent(over / answers.rows))
    kv, seconds = report.memory.kv_bytes_per_token, report.worst_seconds
    old, new = (human_size(tokens * kv) if kv else f"{tokens:,.0f}" for tokens in savings.reserved)
    return say(
        "savings",
        before=savings.before,
        memory=percent(savings.memory),
        old=old,
        new=new,
        unit="" if kv else say("tokens"),
        used=percent(savings.used),
        time=say("seconds", before=seconds[0], after=seconds[1])
        if seconds
        else say("times", factor=savings.worst_time),
    )


def _training(report: Report) -> Bilingual:
    """The `max_length` that keeps nearly every row, and the one that keeps all."""
    whole = next(limit for limit in report.row_limits if not limit.over)
    nearly = next(limit for limit in report.row_limits if limit.share <= TOLERANCE)
    sizes = report.memory.training

    def size(limit: RowLimit) -> str:
        return f" ({human_size(sizes[limit.max_length])})" if limit.max_length in sizes else ""

    return say(
        "training-whole" if nearly is whole else "training",
        nearly=nearly.max_length,
        nearly_size=size(nearly),
        over=nearly.over,
        share=percent(nearly.share),
        whole=whole.max_length,
        whole_size=size(whole),
    )
