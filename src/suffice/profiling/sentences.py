"""What a report says in sentences: a table of them, and which ones a report needs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from suffice.profiling.advice import TOLERANCE, Advice, CapAdvice, RowLimit, Savings
from suffice.profiling.bilingual import Text, human_size, percent
from suffice.profiling.report import Report

__all__ = ["advice_sentences", "finish_sentences"]

_SENTENCES = {
    "ends": (
        "Of {known} answers whose end is known, a limit cut {cut_share} ({cut}), {loops}",
        "已知结束原因的 {known} 条回答中：被上限截断 {cut_share}（{cut} 条），{loops}",
    ),
    "loops": ("and {share} ({looped}) were stopped in a loop.", "因循环被停止 {share} ({looped})。"),
    "no loops": ("and none is marked as a loop.", "没有标记为循环的。"),
    "lost": (
        "{failed} requests failed and {cancelled} were cancelled; their lengths are not counted.",
        "{failed} 次请求失败，{cancelled} 次被取消；它们的长度不计入。",
    ),
    "spike": (
        "{rows} answers ({share}) have exactly the longest length, {longest} tokens: it seems that a limit cut them, "
        "and so they count as cut.",
        "{rows} 条回答（{share}）恰好是最长的 {longest} 个 token：看来是被上限截断的，按截断计算。",
    ),
    "no answers": (
        "There are no answers here, so nothing can be said about max_new_tokens.",
        "数据中没有回答，无法建议 max_new_tokens。",
    ),
    "several answers": (
        "These {answers} answers are to {prompts} distinct prompts; the confidence takes them for independent, and is "
        "narrower than it should be.",
        "这 {answers} 条回答只对应 {prompts} 个不同的提示；置信区间把它们当作彼此独立，因此偏窄。",
    ),
    "cap": (
        "Set max_new_tokens to {suggested}. Of {rows} answers 99 % have at most {observed} tokens; for traffic like "
        "this, the cap that cuts at most 1 % lies between {lower} and {upper} with 95 % confidence, and the "
        "suggestion is the upper end in multiples of 64.",
        "建议 max_new_tokens = {suggested}：{rows} 条回答中 99 % 不超过 {observed} 个 token；对同类流量，至多截断 1 % "
        "的上限有 95 % 的把握在 {lower} 到 {upper} 之间（建议值取其上端，按 64 的倍数取整）。",
    ),
    "too few": (
        "{rows} answers are too few to say which max_new_tokens cuts at most 1 %: that takes {rows_needed} or more. "
        "Of these, 99 % have at most {observed} tokens.",
        "{rows} 条回答太少，不能断定哪个 max_new_tokens 至多截断 1 %：至少需要 {rows_needed} 条。这些回答中 99 % 不超"
        "过 {observed} 个 token。",
    ),
    "no upper bound": (
        "Of {rows} answers 99 % have at most {observed} tokens, but a limit cut {already_cut} of the rest, too many "
        "for an upper bound with 95 % confidence; the true value is not below {lower}.",
        "{rows} 条回答中 99 % 不超过 {observed} 个 token，但其余中有 {already_cut} 条被上限截断，给不出有 95 % 把握的"
        "上界；真值不低于 {lower}。",
    ),
    "cut": (
        "This data cannot say which max_new_tokens cuts at most 1 %: a limit cut {share} of the {rows} answers "
        "already, and how long they would have been is unknown. {ended}Measure again with a limit above {longest}, "
        "and with runaway detection, since some of the cut answers may be loops.",
        "这些数据不能断定哪个 max_new_tokens 至多截断 1 %：{rows} 条回答中已有 {share} 被上限截断，它们本来需要多长无"
        "从得知。{ended}请把上限提高到 {longest} 以上再测，并启用循环检测，因为其中可能有循环。",
    ),
    "ended": (
        "Of those that ended by themselves 99 % have at most {ended} tokens. ",
        "自行结束的回答中 99 % 不超过 {ended} 个 token。",
    ),
    "no tier": (
        "No tier is large enough: the largest, {name} ({cap}), cuts {share}.",
        "没有足够大的档位：最大的 {name} ({cap}) 也会截断 {share}。",
    ),
    "tier": (
        "The tier {name} ({cap}) serves this traffic: it cuts {share} of the answers (95 %: {low} to {high}){doubt}",
        "档位 {name} ({cap}) 足以服务这些流量：截断 {share} 的回答（95 %：{low} 至 {high}）{doubt}",
    ),
    "sure": (".", "。"),
    "perhaps": ("; the rows do not settle that it is at most 1 %.", "；行数还不足以断定它不超过 1 %。"),
    "larger cap": (
        "A cap of {before} cuts at least {over} of these answers ({share}); the suggestion is larger.",
        "上限 {before} 至少截断其中 {over} 条回答（{share}），比建议值小。",
    ),
    "savings": (
        "Against a cap of {before}, an engine that reserves the worst case sets aside {memory} less KV cache for each "
        "request (on average {new} instead of {old}{unit}; {used} of what was reserved before gets used), and the "
        "longest answer possible takes {time}.",
        "与上限 {before} 相比，在按最坏情况预留的引擎上，每个请求少占 {memory} 的 KV 缓存（平均从 {old} 降到 {new}"
        "{unit}；原预留平均只用到 {used}），最长回答的时间{time}。",
    ),
    "tokens": (" tokens", " token"),
    "seconds": ("{after:,.1f} instead of {before:,.1f} s", "从 {before:,.1f} 秒降到 {after:,.1f} 秒"),
    "times": ("1/{factor:.1f} of the time", "降到 1/{factor:.1f}"),
    "training": (
        "For training, max_length {nearly}{nearly_size} drops or cuts {over} rows ({share}), and {whole}{whole_size} "
        "keeps every row.",
        "训练：max_length {nearly}{nearly_size} 会丢弃或截断 {over} 行（{share}）；{whole}{whole_size} 保留全部。",
    ),
    "training whole": (
        "For training, max_length {whole} keeps every row{whole_size}.",
        "训练：max_length {whole} 即可保留全部行{whole_size}。",
    ),
}
"""By what they are about: in English, in Chinese. A value may itself be in both languages."""


def _say(about: str, **values: Any) -> Text:
    def in_language(place: int) -> str:
        own = {name: value[place] if isinstance(value, Text) else value for name, value in values.items()}
        own = {name: f"{value:,}" if isinstance(value, int) else value for name, value in own.items()}
        return _SENTENCES[about][place].format(**own)

    return Text(in_language(0), in_language(1))


def finish_sentences(report: Report) -> Iterator[Text]:
    """How the answers ended, where that is known, and what looks as if a limit had cut it."""
    everything = report.profile.all
    if known := everything.known_finishes:
        cut, looped = everything.finishes["length"], everything.finishes["repetition"]
        loops = _say("loops", share=percent(looped / known), looped=looped) if looped else _say("no loops")
        yield _say("ends", known=known, cut=cut, cut_share=percent(cut / known), loops=loops)
    failed, cancelled = everything.finishes["error"], everything.finishes["cancelled"]
    if failed or cancelled:
        yield _say("lost", failed=failed, cancelled=cancelled)
    if spike := everything.spike():
        longest, rows = spike
        yield _say("spike", rows=rows, share=percent(rows / everything.answer.rows), longest=longest)


def advice_sentences(report: Report) -> Iterator[Text]:
    """What to set, how sure that is, and what it saves; the answer to "which max_new_tokens?" first."""
    advice = report.advice
    if advice is None:
        yield _say("no answers")
        return
    yield _cap(advice.cap, report.profile.all.answer.largest)
    if report.prompts_answered:
        yield _say("several answers", answers=advice.cap.rows, prompts=report.prompts_answered)
    if advice.tiers:
        yield _tier(advice)
    if advice.savings is not None:
        yield _savings(advice.savings, report)
    if report.row_limits:
        yield _training(report)


def _cap(cap: CapAdvice, longest: int) -> Text:
    """The cap; or why there is none: too few rows, too many of the long ones cut, more cut than any cap may cut."""
    if cap.observed is None:
        ended = _say("ended", ended=cap.ended) if cap.ended is not None else ""
        return _say("cut", share=percent(cap.already_cut / cap.rows), rows=cap.rows, ended=ended, longest=longest)
    about = "cap" if cap.suggested is not None else "too few" if cap.rows < cap.rows_needed else "no upper bound"
    return _say(
        about,
        rows=cap.rows,
        rows_needed=cap.rows_needed,
        observed=cap.observed,
        already_cut=cap.already_cut,
        lower=cap.lower or 0,
        upper=cap.upper,
        suggested=cap.suggested,
    )


def _tier(advice: Advice) -> Text:
    tier = advice.tier or advice.tiers[-1]
    low, high = (percent(end) for end in tier.interval)
    return _say(
        "no tier" if advice.tier is None else "tier",
        name=tier.name,
        cap=tier.max_new_tokens,
        share=percent(tier.share),
        low=low,
        high=high,
        doubt=_say("perhaps" if tier.verdict == "perhaps" else "sure"),
    )


def _savings(savings: Savings, report: Report) -> Text:
    if savings.after > savings.before:
        answers = report.profile.all.answer
        over = answers.over(savings.before)
        return _say("larger cap", before=savings.before, over=over, share=percent(over / answers.rows))
    kv, seconds = report.memory.kv_bytes_per_token if report.memory else None, report.worst_seconds
    old, new = (human_size(tokens * kv) if kv else f"{tokens:,.0f}" for tokens in savings.reserved)
    return _say(
        "savings",
        before=savings.before,
        memory=percent(savings.memory),
        old=old,
        new=new,
        unit="" if kv else _say("tokens"),
        used=percent(savings.used),
        time=_say("seconds", before=seconds[0], after=seconds[1])
        if seconds
        else _say("times", factor=savings.worst_time),
    )


def _training(report: Report) -> Text:
    """The `max_length` that keeps nearly every row, and the one that keeps all."""
    whole = next(limit for limit in report.row_limits if not limit.over)
    nearly = next(limit for limit in report.row_limits if limit.share <= TOLERANCE)
    memory = (report.memory.training if report.memory else None) or {}

    def size(limit: RowLimit) -> str:
        return f" ({human_size(memory[limit.max_length])})" if limit.max_length in memory else ""

    return _say(
        "training whole" if nearly is whole else "training",
        nearly=nearly.max_length,
        nearly_size=size(nearly),
        over=nearly.over,
        share=percent(nearly.share),
        whole=whole.max_length,
        whole_size=size(whole),
    )
