"""How sure can n rows make us? Confidence intervals of shares and of quantiles, from counts alone.

Both hold for rows that are independent draws of the traffic they are to speak for; nothing else is assumed.
"""

from __future__ import annotations

import math

__all__ = ["CONFIDENCE", "quantile_ranks", "rows_needed", "share_interval"]

CONFIDENCE = 0.95
"""Of the two-sided intervals; 2.5 % on each side."""
_TAIL = (1 - CONFIDENCE) / 2
_Z = 1.959963984540054  # the 97.5 % quantile of the standard normal distribution
_NEGLIGIBLE = 12.0  # standard deviations from the mean beyond which a binomial's probabilities do not matter


def share_interval(hits: int, rows: int) -> tuple[float, float]:
    """The 95 % interval of a share of which `hits` of `rows` were seen.

    Wilson 1927, recommended by Brown, Cai & DasGupta 2001, "Interval Estimation for a Binomial Proportion".

    Raises:
        ValueError: not 0 <= hits <= rows, or no rows.
    """
    if not 0 <= hits <= rows or rows < 1:
        raise ValueError(f"{hits} of {rows} rows")
    share, z2 = hits / rows, _Z * _Z
    middle = (share + z2 / (2 * rows)) / (1 + z2 / rows)
    half = _Z / (1 + z2 / rows) * math.sqrt(share * (1 - share) / rows + z2 / (4 * rows * rows))
    low = 0.0 if hits == 0 else max(0.0, middle - half)
    return low, 1.0 if hits == rows else min(1.0, middle + half)


def quantile_ranks(rows: int, p: float) -> tuple[int | None, int | None]:
    """The ranks between whose rows the true `p`-quantile lies with 95 % confidence, whatever the distribution.

    Order statistics: Hahn & Meeker 1991, "Statistical Intervals", section 5.2; David & Nagaraja 2003, "Order
    Statistics", section 7.1. The number of rows below the quantile is binomial(rows, p).

    Returns:
        1-based ranks; None for a side on which so few rows allow no bound.
    """
    lower = _least_over_tail(rows, p)  # P(B <= lower - 1) <= 2.5 %, and lower is the largest such rank
    upper = rows - _least_over_tail(rows, 1 - p) + 1  # the same, counted from the other end
    return (lower if lower >= 1 else None), (upper if upper <= rows else None)


def rows_needed(p: float) -> int:
    """The fewest rows that allow an upper bound of the `p`-quantile: the longest of them is one when p^n <= 2.5 %."""
    return math.ceil(math.log(_TAIL) / math.log(p))


def _least_over_tail(rows: int, p: float) -> int:
    """The least k for which P(Binomial(rows, p) <= k) is above 2.5 %."""
    if rows < 1 or not 0 < p < 1:
        raise ValueError(f"{rows} rows, p = {p}")
    spread = math.sqrt(rows * p * (1 - p))
    k = max(0, math.floor(rows * p - _NEGLIGIBLE * spread - _NEGLIGIBLE))
    probability = math.exp(
        math.lgamma(rows + 1)
        - math.lgamma(k + 1)
        - math.lgamma(rows - k + 1)
        + k * math.log(p)
        + (rows - k) * math.log1p(-p)
    )
    below = probability
    while below <= _TAIL and k < rows:
        probability *= (rows - k) / (k + 1) * p / (1 - p)
        k += 1
        below += probability
    return k
