"""Rank tests, exact even with ties, and the shifts that belong to them.

*Mann and Whitney*, for two samples: if both came from one distribution, any choice of ranks for a would be equally
likely. *Wilcoxon's signed ranks*, for pairs: any choice of signs would be. The number of choices for a rank sum is
counted by adding one value after another, with midranks doubled so that ties stay whole numbers (Streitberg and Röhmel,
*Exact distributions for permutation and rank tests*, 1986). Differences of zero are dropped.

*Hodges and Lehmann*: the shift that would make the test see no difference is the median of all differences, or for
pairs of the averages of any two differences; its interval has the shifts that the test would not reject (Hollander and
Wolfe, *Nonparametric Statistical Methods*, chapters 3 and 4).

With few values no outcome is rare and there is no interval: 2 against 2 have a p of at least .333. With more values per
side than `_COUNTED` the choices are no longer counted: the rank sum is then taken as normal, with its variance under
ties (Hollander and Wolfe, section 4.1). Counting would take minutes and change a p of 1 % by a twentieth of itself.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    Values = np.ndarray[Any, np.dtype[np.float64]]
    Numbers = Sequence[float] | Values

# Sums of probabilities that should be equal differ by their rounding.
_ROUNDING = 1e-9
_COUNTED = 40


def mann_whitney(a: Numbers, b: Numbers, *, b_above: bool = False) -> float:
    """Two-sided p; with `b_above` that of "b does not lie above a"."""
    ranks = _doubled_midranks(np.concatenate([a, b]))
    rank_sum = int(ranks[: len(a)].sum())
    if max(len(a), len(b)) <= _COUNTED:
        chances = _sums_of_choices(ranks, len(a))
        return float(chances[: rank_sum + 1].sum()) if b_above else _two_sided(chances, rank_sum)
    # Normal approximation for the sum of doubled midranks, with a continuity correction of half a rank.
    n = len(ranks)
    variance = len(a) * len(b) / (n * (n - 1)) * float(((ranks - ranks.mean()) ** 2).sum())
    above = len(a) * float(ranks.mean()) - rank_sum
    if b_above:
        return math.erfc((above - 1) / math.sqrt(2 * variance)) / 2 if variance else 1.0
    return math.erfc(max(0.0, abs(above) - 1) / math.sqrt(2 * variance)) if variance else 1.0


def signed_ranks(differences: Numbers, *, above: bool = False) -> float:
    """Two-sided p of differences from one distribution around 0, with `above` that of "not above 0"; 1 if all are 0."""
    nonzero = np.asarray(differences, np.float64)
    nonzero = nonzero[nonzero != 0]
    if not len(nonzero):
        return 1.0
    ranks = _doubled_midranks(np.abs(nonzero))
    chances, rank_sum = _sums_of_signs(ranks), int(ranks[nonzero > 0].sum())
    return float(chances[rank_sum:].sum()) if above else _two_sided(chances, rank_sum)


def smallest_p(a: int, b: int, *, paired: bool) -> float:
    """The smallest p that samples of these sizes can have."""
    if paired:
        return min(1.0, 2.0 ** (1 - min(a, b)))
    return min(1.0, 2 / math.comb(a + b, a))


def shift(a: Numbers, b: Numbers, *, paired: bool, confidence: float) -> tuple[float, tuple[float, float] | None]:
    """How far b lies above a, and its interval if there is one; if paired, a[i] belongs to b[i]."""
    first, second = np.asarray(a, np.float64), np.asarray(b, np.float64)
    n, m = len(first), len(second)
    if paired:
        differences = second - first
        upper = np.triu_indices(n)
        candidates = (differences[upper[0]] + differences[upper[1]]) / 2
        chances = _sums_of_signs(np.arange(1, n + 1))
    else:
        candidates = np.subtract.outer(second, first).ravel()
        # The probability of each U, the rank sum above its minimum, where no two values are equal.
        if max(n, m) <= _COUNTED:
            chances = _sums_of_choices(np.arange(1, n + m + 1), n)[n * (n + 1) // 2 :]
        else:
            middle, spread = n * m / 2, math.sqrt(n * m * (n + m + 1) / 12)
            below = [math.erfc((middle - u - 0.5) / spread / math.sqrt(2)) / 2 for u in range(n * m + 1)]
            chances = np.diff(below, prepend=0.0)
    candidates.sort()
    # The k-th candidate bounds the shift if the probability of fewer than k below it is within the tail.
    k = int((np.cumsum(chances) <= (1 - confidence) / 2 * (1 + _ROUNDING)).sum())
    median = float(np.median(candidates))
    return median, None if k == 0 else (float(candidates[k - 1]), float(candidates[-k]))


def _doubled_midranks(values: Values) -> np.ndarray[Any, np.dtype[np.int64]]:
    ordered = np.sort(values)
    below, up_to = np.searchsorted(ordered, values, "left"), np.searchsorted(ordered, values, "right")
    return (below + up_to + 1).astype(np.int64)


def _sums_of_choices(ranks: Any, chosen: int) -> Values:
    """The probability of each sum of this number of the ranks."""
    ways = np.zeros((chosen + 1, int(np.sum(ranks)) + 1))
    ways[0, 0] = 1
    for rank in ranks:
        ways[1:, rank:] += ways[:-1, : ways.shape[1] - rank].copy()
    chances: Values = ways[chosen] / ways[chosen].sum()
    return chances


def _sums_of_signs(ranks: Any) -> Values:
    """The probability of each sum of the ranks with a positive sign."""
    ways: Values = np.zeros(int(np.sum(ranks)) + 1)
    ways[0] = 1
    for rank in ranks:
        ways[rank:] += ways[: len(ways) - rank].copy()
        ways /= 2
    return ways


def _two_sided(chances: Values, rank_sum: int) -> float:
    below, above = float(chances[: rank_sum + 1].sum()), float(chances[rank_sum:].sum())
    return min(1.0, 2 * min(below, above))
