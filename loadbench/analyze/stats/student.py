"""Student's t: its distribution and quantiles, for any degrees of freedom ν.

    P(|T| > t) = I(ν / (ν + t²); ν/2, 1/2)

I is the regularised incomplete beta function, by its continued fraction as evaluated by Lentz (DLMF 8.17.22, and
Thompson and Barnett, *Coulomb and Bessel functions of complex arguments and order*, 1986). With infinitely many degrees
of freedom T is normal.

If the true difference is d standard errors, T has the non-central distribution. The normal approximation to it (Johnson
and Welch, *Applications of the non-central t-distribution*, 1940) says how large d must be to be detected. It is right
to within a hundredth of power from three degrees of freedom on; the sum of two t quantiles is not.
"""

from __future__ import annotations

import math
from functools import lru_cache

_TINY = 1e-300
_ENOUGH = 1e-15
# The fraction converges in about sqrt(ν) steps.
_MAX_STEPS = 10_000
# With more degrees of freedom T differs from a normal by less than 1e-6.
_NORMAL_FROM = 1e6


def two_sided(t: float, freedom: float) -> float:
    """P(|T| > |t|)."""
    if math.isinf(t):
        return 0.0
    if freedom > _NORMAL_FROM:
        return math.erfc(abs(t) / math.sqrt(2))
    return _incomplete_beta(freedom / (freedom + t * t), freedom / 2, 0.5)


def above(t: float, freedom: float) -> float:
    """P(T > t)."""
    both = two_sided(t, freedom) / 2
    return both if t >= 0 else 1 - both


@lru_cache(maxsize=1024)
def quantile(p: float, freedom: float) -> float:
    """The t that T is below with probability p; by bisection to float precision."""
    if not 0 < p < 1 or not freedom > 0:
        raise ValueError(f"no quantile of {p} with {freedom} degrees of freedom")
    if p < 0.5:
        return -quantile(1 - p, freedom)
    low, high = 0.0, 1.0
    while above(high, freedom) > 1 - p:
        low, high = high, 2 * high
    while low < (middle := (low + high) / 2) < high and high - low > _ENOUGH * high:
        low, high = (middle, high) if above(middle, freedom) > 1 - p else (low, middle)
    return high


def detectable_difference(tail: float, power: float, freedom: float) -> float:
    """The true difference, in standard errors, whose T exceeds the quantile of this tail with probability `power`."""
    t = quantile(1 - tail, freedom)
    return t * (1 - 1 / (4 * freedom)) + quantile(power, math.inf) * math.sqrt(1 + t * t / (2 * freedom))


def _incomplete_beta(x: float, a: float, b: float) -> float:
    if x <= 0 or x >= 1:
        return float(x >= 1)
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x))
    # On each side of the mean one of the two fractions converges fast.
    if x < (a + 1) / (a + b + 2):
        return front * _fraction(x, a, b) / a
    return 1 - front * _fraction(1 - x, b, a) / b


def _fraction(x: float, a: float, b: float) -> float:
    c, d = 1.0, 1 / _nonzero(1 - (a + b) * x / (a + 1))
    value = d
    for m in range(1, _MAX_STEPS):
        before = value
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for term in (even, odd):
            d = 1 / _nonzero(1 + term * d)
            c = _nonzero(1 + term / c)
            value *= c * d
        if abs(value - before) <= _ENOUGH * abs(value):
            break
    return value


def _nonzero(value: float) -> float:
    """The value, or a tiny one in place of zero, which cannot be divided by."""
    return value if abs(value) > _TINY else _TINY
