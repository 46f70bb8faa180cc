"""Rank tests, exact also with ties, and the shifts that belong to them.

*Mann and Whitney* for two samples: were both from one distribution, each choice of which ranks are a's would be as
likely as any other. *Wilcoxon's signed ranks* for pairs: each sign would be. The number of choices that come to a rank
sum is counted by adding one value after another, with midranks doubled so that ties stay whole numbers (Streitberg and
Röhmel, *Exact distributions for permutation and rank tests*, 1986). Differences of nothing are dropped.

*Hodges and Lehmann*: the shift that makes the test see nothing is the median of all differences, or for pairs of all
averages of two; the shifts that the test would not reject are its interval (Hollander and Wolfe, *Nonparametric
Statistical Methods*, chapters 3 and 4).

With few values no outcome is rare, and no interval exists: 2 against 2 have a p of .333 at the least. Of more values a
side than `_COUNTED` the choices are not counted any more: there the rank sum is taken as normal, with its variance
under ties (Hollander and Wolfe, section 4.1), for counting would take minutes and change a p of 1 % by a twentieth of
itself.
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


def mann_whitney(a: Numbers, b: Numbers) -> float:
    """Two-sided p."""
    ranks = _doubled_midranks(np.concatenate([a, b]))
    seen = int(ranks[: len(a)].sum())
    if max(len(a), len(b)) > _COUNTED:
        return _two_sided_normal(ranks, len(a), seen)
    return _two_sided(_of_choices(ranks, len(a)), seen)


def signed_ranks(differences: Numbers) -> float:
    """Two-sided p of differences that are all of one distribution around 0; 1 where all are 0."""
    found = np.asarray(differences, np.float64)
    found = found[found != 0]
    if not len(found):
        return 1.0
    ranks = _doubled_midranks(np.abs(found))
    return _two_sided(_of_signs(ranks), int(ranks[found > 0].sum()))


def smallest_p(a: int, b: int, *, paired: bool) -> float:
    """The least p that so many values can have."""
    if paired:
        return min(1.0, 2.0 ** (1 - min(a, b)))
    return min(1.0, 2 / math.comb(a + b, a))


def shift(a: Numbers, b: Numbers, *, paired: bool, confidence: float) -> tuple[float, tuple[float, float] | None]:
    """How far b lies above a, and its interval if there is one; paired, the first of a belongs to the first of b."""
    one, other = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if paired:
        differences = other - one
        upper = np.triu_indices(len(differences))
        candidates = (differences[upper[0]] + differences[upper[1]]) / 2
        chances = _of_signs(np.arange(1, len(one) + 1))
    else:
        candidates = np.subtract.outer(other, one).ravel()
        chances = _of_u(len(one), len(other))
    candidates.sort()
    # The k-th candidate bounds the shift if fewer than k would be below it with a probability within the tail.
    k = int((np.cumsum(chances) <= (1 - confidence) / 2 * (1 + _ROUNDING)).sum())
    median = float(np.median(candidates))
    return median, None if k == 0 else (float(candidates[k - 1]), float(candidates[-k]))


def _doubled_midranks(values: Values) -> np.ndarray[Any, np.dtype[np.int64]]:
    ordered = np.sort(values)
    below, up_to = np.searchsorted(ordered, values, "left"), np.searchsorted(ordered, values, "right")
    return (below + up_to + 1).astype(np.int64)


def _two_sided_normal(ranks: Any, chosen: int, seen: int) -> float:
    """Of a sum of doubled midranks; half a rank is taken off for its steps."""
    n, rest = len(ranks), len(ranks) - chosen
    variance = chosen * rest / (n * (n - 1)) * float(((ranks - ranks.mean()) ** 2).sum())
    away = max(0.0, abs(seen - chosen * float(ranks.mean())) - 1)
    return math.erfc(away / math.sqrt(2 * variance)) if variance else 1.0


def _of_u(a: int, b: int) -> Values:
    """The probability of each U, the rank sum over the least that it can be, where no two values are equal."""
    if max(a, b) <= _COUNTED:
        return _of_choices(np.arange(1, a + b + 1), a)[a * (a + 1) // 2 :]
    middle, spread = a * b / 2, math.sqrt(a * b * (a + b + 1) / 12)
    below = [math.erfc((middle - u - 0.5) / spread / math.sqrt(2)) / 2 for u in range(a * b + 1)]
    return np.diff(below, prepend=0.0)


def _of_choices(ranks: Any, chosen: int) -> Values:
    """The probability of each sum of so many of these ranks."""
    ways = np.zeros((chosen + 1, int(np.sum(ranks)) + 1))
    ways[0, 0] = 1
    for rank in ranks:
        ways[1:, rank:] += ways[:-1, : ways.shape[1] - rank].copy()
    chances: Values = ways[chosen] / ways[chosen].sum()
    return chances


def _of_signs(ranks: Any) -> Values:
    """The probability of each sum of those ranks whose sign is plus."""
    ways: Values = np.zeros(int(np.sum(ranks)) + 1)
    ways[0] = 1
    for rank in ranks:
        ways[rank:] += ways[: len(ways) - rank].copy()
        ways /= 2
    return ways


def _two_sided(chances: Values, seen: int) -> float:
    below, above = float(chances[: seen + 1].sum()), float(chances[seen:].sum())
    return min(1.0, 2 * min(below, above))
