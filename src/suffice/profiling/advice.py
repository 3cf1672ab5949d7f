"""From lengths to settings: which cap, which tier, what it saves, and how sure n rows make us.

An answer that a limit ended would have been longer, by an unknown amount. It counts as longer than every cap here, so
that the advice errs on the safe side. An answer that was stopped in a loop does not count: no cap suffices for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from suffice.profiling.accumulators import GroupLengths, Lengths
from suffice.profiling.histogram import Histogram
from suffice.profiling.intervals import quantile_ranks, rows_needed, share_interval

__all__ = ["TOLERANCE", "Advice", "CapAdvice", "RowLimit", "TierShare", "advise", "cap_advice", "row_limits"]

TOLERANCE = 0.01
"""Share of the answers that a cap may cut."""
BASELINE = 2048
"""A common cap where lengths are unknown (and Suffice's largest tier)."""
_ROUND_TO = 64  # caps are suggested in multiples of this
_ROW_LIMITS = (512, 1024, 2048, 4096, 8192, 16384, 32768)


@dataclass(frozen=True, slots=True)
class Needs:
    ended: Histogram
    """Answers that a cap of their length would not have cut."""
    cut: int
    """Answers that needed more than they got."""

    @classmethod
    def of(cls, group: GroupLengths) -> Needs:
        """Of a group: a spike at the longest length counts as cut where no finish reason is known."""
        spike = group.spike()
        at_limit = {spike[0]: spike[1]} if spike else dict(group.cut.items())
        looped = dict(group.looped.items())
        ended = Histogram()
        for tokens, times in group.answer.items():
            left = times - at_limit.get(tokens, 0) - looped.get(tokens, 0)
            if left > 0:
                ended.add(min(tokens, group.answer.largest), left)
        return cls(ended, sum(at_limit.values()))

    @property
    def rows(self) -> int:
        return self.ended.rows + self.cut

    def over(self, cap: int) -> int:
        return self.ended.over(cap) + self.cut

    def at_rank(self, rank: int | None) -> int | None:
        """The `rank`-th smallest need; None where it is not known."""
        return self.ended.at_rank(rank) if rank is not None and 1 <= rank <= self.ended.rows else None


@dataclass(frozen=True, kw_only=True, slots=True)
class CapAdvice:
    """The cap that cuts at most 1 % of the answers."""

    rows: int
    already_cut: int
    observed: int | None
    """The least cap that cuts at most 1 % of these answers; None where a limit cut more than that already."""
    lower: int | None
    upper: int | None
    """Where that cap lies with 95 % confidence for all traffic like this; None where the rows allow no bound."""
    ended: int | None
    """What 99 % of the answers that no limit cut do not exceed; None where all were cut."""
    rows_needed: int
    """Rows that an upper bound takes, if no answer is cut."""

    @property
    def suggested(self) -> int | None:
        """The upper bound, rounded up to a multiple of 64; None without one."""
        return None if self.upper is None else -(-self.upper // _ROUND_TO) * _ROUND_TO


@dataclass(frozen=True, kw_only=True, slots=True)
class TierShare:
    name: str
    max_new_tokens: int
    cut: int
    """Answers longer than the tier's cap."""
    share: float
    interval: tuple[float, float]
    """Of `share`, 95 %."""
    needed_by: float
    """Share of the answers for which this is the smallest tier that holds them."""

    @property
    def verdict(self) -> str:
        """`serves` (at most 1 % cut, surely), `perhaps` (the rows do not decide it) or `cuts`."""
        low, high = self.interval
        return "serves" if high <= TOLERANCE else "cuts" if low > TOLERANCE else "perhaps"


@dataclass(frozen=True, slots=True)
class Savings:
    """What a cap saves against another where a request's whole worst case is reserved."""

    before: int
    """The cap that it is compared with."""
    after: int
    prompt_tokens: float
    """Mean; 0 where prompts are not known."""
    answer_tokens: float
    """Mean."""

    @property
    def reserved(self) -> tuple[float, float]:
        return self.prompt_tokens + self.before, self.prompt_tokens + self.after

    @property
    def memory(self) -> float:
        """Share of the reservation that is saved; negative where the cap is larger."""
        before, after = self.reserved
        return 1 - after / before

    @property
    def worst_time(self) -> float:
        """How many times as long the longest possible answer would take before."""
        return self.before / self.after

    @property
    def used(self) -> float:
        """Share of the reservation before that answers and prompts used on average."""
        return (self.prompt_tokens + self.answer_tokens) / self.reserved[0]


@dataclass(frozen=True, slots=True)
class Advice:
    cap: CapAdvice
    tiers: tuple[TierShare, ...]
    savings: Savings | None
    by_group: Mapping[str, Mapping[str, tuple[CapAdvice, str | None]]]
    """By column and value: the cap, and the smallest tier that cuts at most 1 % of these rows."""

    @property
    def tier(self) -> TierShare | None:
        """The smallest tier that cuts at most 1 % of these answers."""
        return next((tier for tier in self.tiers if tier.share <= TOLERANCE), None)


@dataclass(frozen=True, kw_only=True, slots=True)
class RowLimit:
    max_length: int
    over: int
    """Rows that are longer: dropped, or cut so that their answers do not end any more."""
    share: float
    prompts_over: int
    """Rows whose prompt alone fills it: nothing is learned from them even when they are cut."""
    tokens_dropped: int
    tokens_cut: int


def cap_advice(group: GroupLengths) -> CapAdvice | None:
    needs = Needs.of(group)
    if not needs.rows:
        return None
    rank = needs.rows - int(TOLERANCE * needs.rows + 1e-9)  # 0.01 x 2900 is 28.999...
    low, high = quantile_ranks(needs.rows, 1 - TOLERANCE)
    return CapAdvice(
        rows=needs.rows,
        already_cut=needs.cut,
        observed=needs.at_rank(rank),
        lower=needs.at_rank(low),
        upper=needs.at_rank(high),
        ended=needs.ended.quantile(1 - TOLERANCE) if needs.ended.rows else None,
        rows_needed=rows_needed(1 - TOLERANCE),
    )


def tier_shares(group: GroupLengths, tiers: Sequence[tuple[str, int]]) -> tuple[TierShare, ...]:
    needs = Needs.of(group)
    shares = []
    above = needs.rows  # answers that no smaller tier holds
    for name, cap in sorted(tiers, key=lambda tier: tier[1]):
        cut = needs.over(cap)
        share, interval = cut / needs.rows, share_interval(cut, needs.rows)
        needed_by = (above - cut) / needs.rows
        shares.append(
            TierShare(name=name, max_new_tokens=cap, cut=cut, share=share, interval=interval, needed_by=needed_by)
        )
        above = cut
    return tuple(shares)


def advise(
    everything: Lengths,
    groups: Mapping[str, Mapping[str, GroupLengths]],
    tiers: Sequence[tuple[str, int]],
    baseline: int = BASELINE,
) -> Advice | None:
    """Advice for a measurement, and for its groups by column and value; None without answers.

    Args:
        tiers: (name, cap) of each.
        baseline: the cap that savings are compared with.
    """
    cap = cap_advice(everything)
    if cap is None:
        return None
    after = cap.suggested or cap.observed
    savings = Savings(baseline, after, everything.prompt.mean, everything.answer.mean) if after else None
    by_group = {
        column: {value: (own, _tier_of(group, tiers)) for value, group in table.items() if (own := cap_advice(group))}
        for column, table in groups.items()
    }
    return Advice(cap, tier_shares(everything, tiers), savings, by_group)


def row_limits(everything: Lengths, limits: Sequence[int] = _ROW_LIMITS) -> tuple[RowLimit, ...]:
    """What each `max_length` does to these rows: the usual values up to the first that holds every row."""
    whole = everything.whole
    if not whole.rows:
        return ()
    quantiles = {-(-whole.quantile(p) // _ROUND_TO) * _ROUND_TO for p in (0.5, 0.9, 0.99, 1.0)}
    last = min((limit for limit in limits if limit >= whole.largest), default=whole.largest)
    chosen = sorted({limit for limit in (*limits, *quantiles) if limit <= last})
    return tuple(_row_limit(everything, limit) for limit in chosen)


def _row_limit(everything: Lengths, limit: int) -> RowLimit:
    whole, over = everything.whole, everything.whole.over(limit)
    cut = whole.tokens_over(limit)
    return RowLimit(
        max_length=limit,
        over=over,
        share=over / whole.rows,
        prompts_over=everything.prompt.over(limit - 1),
        tokens_dropped=cut + over * limit,
        tokens_cut=cut,
    )


def _tier_of(group: GroupLengths, tiers: Sequence[tuple[str, int]]) -> str | None:
    return next((tier.name for tier in tier_shares(group, tiers) if tier.share <= TOLERANCE), None)
