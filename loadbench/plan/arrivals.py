"""When requests become due under an open load: absolute offsets from the level's beginning, in ns.

    constant      one every 1/rate seconds, the first at once
    poisson       independent arrivals: exponential gaps, the first after a gap
    gamma:CV      gamma-distributed gaps of coefficient of variation CV, the first after a gap

CV is the standard deviation of the gaps over their mean. CV 1 is Poisson, and draws the same numbers; above it
arrivals come in bursts, below it they are more even. The gamma distribution's shape is `1 / CV^2`, which some tools
call "burstiness", the wrong way round: less of it is burstier.

The schedule is never stretched to hit the rate exactly within a level: that takes out the very variance that was asked
for. A level's offered rate is what was drawn.
"""

from __future__ import annotations

import difflib
import math
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from itertools import count
from typing import TYPE_CHECKING, assert_never

from loadbench.core.units import NS_PER_S

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator

# Gaps are added up as integers of femtoseconds: a day of a million requests is then exact to a nanosecond.
_FS_PER_NS = 1_000_000
# Beyond it a level is one burst and silence; the gamma shape of 1e-4 is about what floats can draw from.
_MOST_CV = 100.0


class Spacing(StrEnum):
    """The kinds of arrivals."""

    CONSTANT = "constant"
    POISSON = "poisson"
    GAMMA = "gamma"


@dataclass(frozen=True, slots=True)
class Arrivals:
    """How arrivals are spaced; `cv` is the coefficient of variation of the gaps, meant for `GAMMA` only."""

    spacing: Spacing
    cv: float = 1.0

    @property
    def planned(self) -> bool:
        """The rate stays what it is."""
        return False

    @property
    def rows(self) -> int:
        """They go on without end."""
        return 0

    @property
    def peak(self) -> float:
        """None is planned."""
        return 1.0

    def offsets_ns(self, rate_per_s: float, rng: random.Random, *, lead_ns: int = 0) -> Iterator[int]:  # noqa: ARG002 - it is the same at all times
        """Offsets from the beginning in ns, ascending, without end. Rates below 1 per second are as good as others.

        Raises `ValueError` for a rate that is not above 0.
        """
        if not 0 < rate_per_s < math.inf:
            raise ValueError(f"a rate is above 0 requests per second, not {rate_per_s}")
        match self.spacing:
            case Spacing.CONSTANT:
                return _even(rate_per_s)
            case Spacing.POISSON:
                return _random(rate_per_s, 1.0, rng)
            case Spacing.GAMMA:
                return _random(rate_per_s, self.cv, rng)
            case _ as never:
                assert_never(never)

    def __str__(self) -> str:
        return f"gamma:{self.cv!r}".removesuffix(".0") if self.spacing is Spacing.GAMMA else self.spacing.value


def _even(rate_per_s: float) -> Iterator[int]:
    """The n-th at `n / rate`, worked out in whole numbers from the rate as it is written: 0.3 is three tenths."""
    period = NS_PER_S / Fraction(str(rate_per_s))
    for number in count():
        yield round(number * period)


def _random(rate_per_s: float, cv: float, rng: random.Random) -> Iterator[int]:
    """Gaps of mean `1 / rate` and deviation `CV / rate`: gamma of shape `1 / CV^2`."""
    shape, gap_fs = 1 / cv**2, NS_PER_S * _FS_PER_NS / rate_per_s
    at_fs = 0
    while True:
        at_fs += round(rng.gammavariate(shape, 1 / shape) * gap_fs)
        yield at_fs // _FS_PER_NS


def parse_arrivals(text: str) -> Arrivals:
    """Arrivals from `constant`, `poisson` or `gamma:CV`. Raises `ValueError` with the reason."""
    kind, colon, cv = (part.strip() for part in text.strip().lower().partition(":"))
    if kind not in set(Spacing):
        close = difflib.get_close_matches(kind, list(Spacing), n=1)
        known = f"do you mean {close[0]}?" if close else "known are constant, poisson and gamma:CV"
        raise ValueError(f"{text!r} is no known kind of arrivals; {known}")
    spacing = Spacing(kind)
    if spacing is Spacing.GAMMA:
        return Arrivals(spacing, _parse_cv(cv))
    if colon:
        raise ValueError(f"{text!r} has a number that {spacing} arrivals do not have; write {spacing}, or gamma:CV")
    return Arrivals(spacing)


def _parse_cv(text: str) -> float:
    try:
        cv = float(text)
    except ValueError:
        raise ValueError(
            f"gamma arrivals need their coefficient of variation, not {text!r}; write gamma:2, say"
        ) from None
    if not 0 < cv <= _MOST_CV:
        raise ValueError(f"a coefficient of variation lies above 0 and up to {_MOST_CV:g}, not at {text}")
    return cv
