"""When requests become due under an open load: absolute offsets from the level's beginning, in ns.

    constant      one every 1/rate seconds, the first at once
    poisson       independent arrivals: exponential gaps, the first after a gap
    gamma:CV      gamma-distributed gaps of coefficient of variation CV, the first after a gap

CV is the standard deviation of the gaps over their mean. CV 1 is Poisson, and draws the same numbers; above it
arrivals come in bursts, below it they are more even. The gamma distribution's shape is `1 / CV^2`. Some tools call this
shape "burstiness", although a smaller value is burstier.

The schedule is never stretched to reach the exact rate within a level: that would remove the requested variance. The
offered rate of a level is the rate that was drawn.
"""

from __future__ import annotations

import difflib
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from itertools import count
from typing import TYPE_CHECKING, assert_never

from loadbench.core.units import NS_PER_S

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator

# Gaps are summed as integers of femtoseconds: a day with a million requests is then exact to a nanosecond.
_FS_PER_NS = 1_000_000
# Above this a level is one burst and silence; floats can hardly draw from a gamma shape below 1e-4.
_MAX_CV = 100.0


class Spacing(StrEnum):
    """The kinds of arrivals."""

    CONSTANT = "constant"
    POISSON = "poisson"
    GAMMA = "gamma"


class Schedule(ABC):
    """When the requests of an open loop become due. `str()` describes it in a few words."""

    __slots__ = ()

    @property
    def rate_varies(self) -> bool:
        """Whether the rate is planned to change within a level."""
        return False

    @property
    def request_count(self) -> int:
        """The number of requests, all of which are sent; 0 for an endless schedule."""
        return 0

    @property
    def peak_factor(self) -> float:
        """The highest planned rate, divided by the mean rate."""
        return 1.0

    @abstractmethod
    def offsets_ns(self, rate_per_s: float, rng: random.Random, *, lead_ns: int = 0) -> Iterator[int]:
        """Offsets from the level's beginning in ns, ascending. Where they end, the load ends.

        The window opens `lead_ns` after the level's beginning.
        """


@dataclass(frozen=True, slots=True)
class Arrivals(Schedule):
    """How arrivals are spaced; `cv` is the coefficient of variation of the gaps, used by `GAMMA` only."""

    spacing: Spacing
    cv: float = 1.0

    def offsets_ns(self, rate_per_s: float, rng: random.Random, *, lead_ns: int = 0) -> Iterator[int]:  # noqa: ARG002 - the rate is constant
        """Offsets from the level's beginning in ns, ascending and endless. The rate may be below 1 per second.

        Raises `ValueError` for a rate that is not above 0.
        """
        if not 0 < rate_per_s < math.inf:
            raise ValueError(f"a rate is above 0 requests per second, not {rate_per_s}")
        match self.spacing:
            case Spacing.CONSTANT:
                period_ns = NS_PER_S / Fraction(str(rate_per_s))  # exact for the rate as written: 0.3 is three tenths
                return (round(number * period_ns) for number in count())
            case Spacing.POISSON:
                return _random(rate_per_s, 1.0, rng)
            case Spacing.GAMMA:
                return _random(rate_per_s, self.cv, rng)
            case _ as never:
                assert_never(never)

    def __str__(self) -> str:
        return f"gamma:{self.cv!r}".removesuffix(".0") if self.spacing is Spacing.GAMMA else self.spacing.value


def _random(rate_per_s: float, cv: float, rng: random.Random) -> Iterator[int]:
    """Gaps with mean `1 / rate` and standard deviation `CV / rate`: gamma-distributed with shape `1 / CV^2`."""
    shape, gap_fs = 1 / cv**2, NS_PER_S * _FS_PER_NS / rate_per_s
    at_fs = 0
    while True:
        at_fs += round(rng.gammavariate(shape, 1 / shape) * gap_fs)
        yield at_fs // _FS_PER_NS


def parse_arrivals(text: str) -> Arrivals:
    """Arrivals from `constant`, `poisson` or `gamma:CV`. Raises `ValueError` with the reason."""
    kind, colon, number = (part.strip() for part in text.strip().lower().partition(":"))
    if kind not in set(Spacing):
        close = difflib.get_close_matches(kind, list(Spacing), n=1)
        known = f"do you mean {close[0]}?" if close else "known are constant, poisson and gamma:CV"
        raise ValueError(f"{text!r} is not a kind of arrivals; {known}")
    spacing = Spacing(kind)
    if spacing is not Spacing.GAMMA:
        if colon:
            raise ValueError(f"{text!r}: {spacing} arrivals have no number; write {spacing}, or gamma:CV")
        return Arrivals(spacing)
    try:
        cv = float(number)
    except ValueError:
        raise ValueError(f"gamma arrivals need a coefficient of variation, not {number!r}; write gamma:2") from None
    if not 0 < cv <= _MAX_CV:
        raise ValueError(f"a coefficient of variation is above 0 and up to {_MAX_CV:g}, not {number}")
    return Arrivals(spacing, cv)
