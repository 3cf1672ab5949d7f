"""What a report says in sentences, in English and in Chinese."""

from __future__ import annotations

from typing import Literal

from suffice.profiling.advice import TOLERANCE, Advice, CapAdvice, Savings
from suffice.profiling.report import Report

__all__ = ["Language", "advice_sentences", "finish_sentences", "human_size", "percent"]

Language = Literal["en", "zh"]


def percent(share: float) -> str:
    """A share for a person: `12 %`, `1.3 %`, `0.04 %`, and never 0 or 100 for what is neither."""
    value = 100 * share
    if value in (0.0, 100.0):
        return f"{value:.0f} %"
    if value < 0.095:
        return f"{max(value, 0.01):.2f} %" if value >= 0.005 else "< 0.01 %"
    return f"{value:.1f} %" if value < 9.95 or value >= 99.5 else f"{value:.0f} %"


def human_size(size: float) -> str:
    """Bytes in powers of 1,024."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if abs(size) < 1000:
            return f"{size:.3g} {unit}" if unit != "bytes" else f"{size:.0f} bytes"
        size /= 1024
    return f"{size:.3g} TiB"


def finish_sentences(report: Report, language: Language = "en") -> list[str]:
    """How the answers ended, where that is known, and what looks as if a limit had cut it."""
    everything, said, zh = report.profile.all, [], language == "zh"
    if known := everything.known_finishes:
        said.append(_known_ends(known, everything.finishes["length"], everything.finishes["repetition"], zh))
    lost = everything.finishes["error"], everything.finishes["cancelled"]
    if any(lost):
        said.append(
            f"{lost[0]:,} 次请求失败，{lost[1]:,} 次被取消；它们的长度不计入。"
            if zh
            else f"{lost[0]:,} requests failed and {lost[1]:,} were cancelled; their lengths are not counted."
        )
    if spike := everything.spike():
        longest, rows, share = f"{spike[0]:,}", f"{spike[1]:,}", percent(spike[1] / everything.answer.rows)
        said.append(
            f"{rows} 条回答（{share}）恰好是最长的 {longest} 个 token：看来是被上限截断的，按截断计算。"
            if zh
            else f"{rows} answers ({share}) have exactly the longest length, {longest} tokens: it seems that a limit "
            "cut them, and so they count as cut."
        )
    return said


def _known_ends(known: int, cut: int, looped: int, zh: bool) -> str:
    loops = f"{percent(looped / known)} ({looped:,})"
    if zh:
        end = f"因循环被停止 {loops}。" if looped else "没有标记为循环的。"
        return f"已知结束原因的 {known:,} 条回答中：被上限截断 {percent(cut / known)}（{cut:,} 条），{end}"
    end = f"and {loops} were stopped in a loop." if looped else "and none is marked as a loop."
    return f"Of {known:,} answers whose end is known, a limit cut {percent(cut / known)} ({cut:,}), {end}"


def advice_sentences(report: Report, language: Language = "en") -> list[str]:
    """What to set, how sure that is, and what it saves; the answer to "which max_new_tokens?" first."""
    zh, advice = language == "zh", report.advice
    if advice is None:
        return [
            "数据中没有回答，无法建议 max_new_tokens。"
            if zh
            else "There are no answers here, so nothing can be said about max_new_tokens."
        ]
    if advice.cap.observed is None:
        said = [_cut_sentence(advice.cap, report.profile.all.answer.largest, zh)]
    elif advice.cap.suggested is None:
        said = [_unsure_sentence(advice.cap, zh)]
    else:
        said = [_cap_sentence(advice.cap, zh)]
    if report.prompts_answered:
        answers, prompts = f"{advice.cap.rows:,}", f"{report.prompts_answered:,}"
        said.append(
            f"这 {answers} 条回答只对应 {prompts} 个不同的提示；置信区间把它们当作彼此独立，因此偏窄。"
            if zh
            else f"These {answers} answers are to {prompts} distinct prompts; the confidence takes them for "
            "independent, and is narrower than it should be."
        )
    if advice.tiers:
        said.append(_tier_sentence(advice, zh))
    if advice.savings is not None:
        said.append(_saving_sentence(advice.savings, report, zh))
    if report.row_limits:
        said.append(_training_sentence(report, zh))
    return said


def _training_sentence(report: Report, zh: bool) -> str:
    """The `max_length` that keeps nearly every row, and the one that keeps all."""
    whole = next(limit for limit in report.row_limits if not limit.over)
    nearly = next(limit for limit in report.row_limits if limit.share <= TOLERANCE)
    memory = report.memory.training if report.memory else None
    sizes = [
        f" ({human_size(memory[limit.max_length])})" if memory and limit.max_length in memory else ""
        for limit in (nearly, whole)
    ]
    if nearly is whole:
        return (
            f"训练：max_length {whole.max_length:,} 即可保留全部行{sizes[1]}。"
            if zh
            else f"For training, max_length {whole.max_length:,} keeps every row{sizes[1]}."
        )
    return (
        f"训练：max_length {nearly.max_length:,}{sizes[0]} 会丢弃或截断 {nearly.over:,} 行（{percent(nearly.share)}）；"
        f"{whole.max_length:,}{sizes[1]} 保留全部。"
        if zh
        else f"For training, max_length {nearly.max_length:,}{sizes[0]} drops or cuts {nearly.over:,} rows "
        f"({percent(nearly.share)}), and {whole.max_length:,}{sizes[1]} keeps every row."
    )


def _cap_sentence(cap: CapAdvice, zh: bool) -> str:
    assert cap.suggested is not None
    assert cap.upper is not None
    between = f"{cap.lower or 0:,}", f"{cap.upper:,}"
    if zh:
        return (
            f"建议 max_new_tokens = {cap.suggested:,}：{cap.rows:,} 条回答中 99 % 不超过 {cap.observed:,} 个 token；"
            f"对同类流量，至多截断 1 % 的上限有 95 % 的把握在 {between[0]} 到 {between[1]} 之间"
            "（建议值取其上端，按 64 的倍数取整）。"
        )
    return (
        f"Set max_new_tokens to {cap.suggested:,}. Of {cap.rows:,} answers 99 % have at most {cap.observed:,} tokens; "
        f"for traffic like this, the cap that cuts at most 1 % lies between {between[0]} and {between[1]} with 95 % "
        "confidence, and the suggestion is the upper end in multiples of 64."
    )


def _unsure_sentence(cap: CapAdvice, zh: bool) -> str:
    """The rows allow no upper bound: there are too few, or too many of the long ones were cut."""
    rows, fits = f"{cap.rows:,}", f"{cap.observed:,}"
    if cap.rows < cap.rows_needed:
        return (
            f"{rows} 条回答太少，不能断定哪个 max_new_tokens 至多截断 1 %：至少需要 {cap.rows_needed} 条。"
            f"这些回答中 99 % 不超过 {fits} 个 token。"
            if zh
            else f"{rows} answers are too few to say which max_new_tokens cuts at most 1 %: that takes "
            f"{cap.rows_needed} or more. Of these, 99 % have at most {fits} tokens."
        )
    return (
        f"{rows} 条回答中 99 % 不超过 {fits} 个 token，但其余中有 {cap.already_cut:,} 条被上限截断，"
        f"给不出有 95 % 把握的上界；真值不低于 {cap.lower or 0:,}。"
        if zh
        else f"Of {rows} answers 99 % have at most {fits} tokens, but a limit cut {cap.already_cut:,} of the rest, too "
        f"many for an upper bound with 95 % confidence; the true value is not below {cap.lower or 0:,}."
    )


def _cut_sentence(cap: CapAdvice, longest: int, zh: bool) -> str:
    """More were cut than any cap may cut: what can be said is what the others needed."""
    share = percent(cap.already_cut / cap.rows)
    if zh:
        rest = f"自行结束的回答中 99 % 不超过 {cap.ended:,} 个 token。" if cap.ended is not None else ""
        return (
            f"这些数据不能断定哪个 max_new_tokens 至多截断 1 %：{cap.rows:,} 条回答中已有 {share} 被上限截断，"
            f"它们本来需要多长无从得知。{rest}请把上限提高到 {longest:,} 以上再测，并启用循环检测，因为其中可能有循环。"
        )
    rest = (
        f"Of those that ended by themselves 99 % have at most {cap.ended:,} tokens. " if cap.ended is not None else ""
    )
    return (
        f"This data cannot say which max_new_tokens cuts at most 1 %: a limit cut {share} of the {cap.rows:,} answers "
        f"already, and nobody knows how long they would have been. {rest}Measure again with a limit above {longest:,}, "
        "and with runaway detection, since some of the cut ones may be loops."
    )


def _tier_sentence(advice: Advice, zh: bool) -> str:
    tier = advice.tier
    if tier is None:
        last = advice.tiers[-1]
        name, share = f"{last.name} ({last.max_new_tokens:,})", percent(last.share)
        return (
            f"没有足够大的档位：最大的 {name} 也会截断 {share}。"
            if zh
            else f"No tier is large enough: the largest, {name}, cuts {share}."
        )
    low, high = (percent(end) for end in tier.interval)
    name, share, doubt = f"{tier.name} ({tier.max_new_tokens:,})", percent(tier.share), tier.verdict == "perhaps"
    if zh:
        end = "；行数还不足以断定它不超过 1 %。" if doubt else "。"
        return f"档位 {name} 足以服务这些流量：截断 {share} 的回答（95 %：{low} 至 {high}）{end}"
    end = "; the rows do not settle that it is at most 1 %." if doubt else "."
    return f"The tier {name} serves this traffic: it cuts {share} of the answers (95 %: {low} to {high}){end}"


def _saving_sentence(savings: Savings, report: Report, zh: bool) -> str:
    before = f"{savings.before:,}"
    if savings.after > savings.before:
        answers = report.profile.all.answer
        over = answers.over(savings.before)
        share = percent(over / answers.rows)
        return (
            f"上限 {before} 至少截断其中 {over:,} 条回答（{share}），比建议值小。"
            if zh
            else f"A cap of {before} cuts {over:,} of these answers ({share}) at least; the suggestion is larger."
        )
    kv = report.memory.kv_bytes_per_token if report.memory else None
    old, new = (human_size(tokens * kv) if kv else f"{tokens:,.0f}" for tokens in savings.reserved)
    unit = "" if kv else " tokens"
    seconds, factor = report.worst_seconds, f"1/{savings.worst_time:.1f}"
    if zh:
        time = f"从 {seconds[0]:,.1f} 秒降到 {seconds[1]:,.1f} 秒" if seconds else f"降到 {factor}"
        return (
            f"与上限 {before} 相比，在按最坏情况预留的引擎上，每个请求少占 {percent(savings.memory)} 的 KV 缓存"
            f"（平均从 {old} 降到 {new}{' token' * bool(unit)}；原预留平均只用到 {percent(savings.used)}），"
            f"最长回答的时间{time}。"
        )
    time = f"{seconds[1]:,.1f} instead of {seconds[0]:,.1f} s" if seconds else f"{factor} of the time"
    return (
        f"Against a cap of {before}, an engine that reserves the worst case sets aside {percent(savings.memory)} less "
        f"KV cache for each request (on average {new} instead of {old}{unit}; {percent(savings.used)} of what was "
        f"reserved before gets used), and the longest answer possible takes {time}."
    )
