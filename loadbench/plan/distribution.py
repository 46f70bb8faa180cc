"""Lengths and pauses that vary: how they are written, drawn and averaged.

    10s                     always the same
    uniform:5s,15s          anything between, equally likely
    normal:512,128          mean and standard deviation; what falls below the least possible is drawn again
    normal:512,128,64,1024  and so is what falls below 64 or above 1024
    lognormal:20s,0.5       the mean, and the standard deviation of the logarithm: many short ones, a few long
    exponential:10s         the mean; memoryless

The same forms serve durations (`parse_duration`) and numbers of tokens (`parse_tokens`); what a number means is its
parser's to say. Drawing takes the generator as an argument: who draws decides what repeats.
"""

from __future__ import annotations

import difflib
import math
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Sequence

# exp(10 z) spans as many powers of ten as anybody will ever mean, and cannot overflow a float.
_WIDEST_SIGMA = 10.0
# A prompt or an answer longer than any model reads or writes: a slip of the pen.
_MOST_TOKENS = 10_000_000


class Distribution(Protocol):
    """What can be drawn from. `str()` gives the text that parses to the same distribution."""

    @property
    def mean(self) -> float:
        """The mean of what is drawn."""
        ...

    def sample(self, rng: random.Random) -> float:
        """One value, in the unit of the parser."""
        ...


@dataclass(frozen=True, slots=True)
class _Written:
    """The text that it was parsed from: a number has lost its unit, and the text has not."""

    written: str = field(default="", kw_only=True, compare=False)

    def __str__(self) -> str:
        if self.written:
            return self.written
        kind = type(self).__name__.lower()
        names = _KINDS[kind].partition(":")[2].lower().split(",")
        values = [getattr(self, name) for name in names]
        numbers = ",".join(repr(int(value) if value == int(value) else value) for value in values)
        return numbers if kind == "constant" else f"{kind}:{numbers}"


@dataclass(frozen=True, slots=True)
class Constant(_Written):
    """Always `value`."""

    value: float

    @property
    def mean(self) -> float:
        """The value."""
        return self.value

    def sample(self, rng: random.Random) -> float:  # noqa: ARG002 - it needs no chance
        """The value."""
        return self.value


@dataclass(frozen=True, slots=True)
class Uniform(_Written):
    """Between `low` and `high`."""

    low: float
    high: float

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise ValueError("the lower bound is above the upper one; write the lower one first")

    @property
    def mean(self) -> float:
        """Half-way."""
        return (self.low + self.high) / 2

    def sample(self, rng: random.Random) -> float:
        """One value; both bounds can come."""
        return rng.uniform(self.low, self.high)


@dataclass(frozen=True, slots=True)
class Normal(_Written):
    """A normal distribution of centre `centre` and deviation `deviation`, cut off outside `least` and `most`.

    A draw beyond a bound is thrown away and drawn again, never clamped, so that no heap of values sits there. The mean
    of what is left lies a little off the centre; `mean` says where.
    """

    centre: float
    deviation: float
    least: float = 0.0
    most: float = math.inf

    def __post_init__(self) -> None:
        if self.centre < self.least:
            raise ValueError(f"the mean is below {self.least:g}, the least that can be drawn")
        if self.centre > self.most:
            raise ValueError(f"the mean is above {self.most:g}, the most that can be drawn")

    def __str__(self) -> str:
        if self.written or self.most == math.inf:
            return _Written.__str__(self)
        return f"normal:{self.centre!r},{self.deviation!r},{self.least!r},{self.most!r}"

    @property
    def mean(self) -> float:
        """That of the truncated normal distribution: `centre + deviation (φ(a) - φ(b)) / (Φ(b) - Φ(a))`."""
        if self.deviation == 0 or self.least == self.most:
            return self.centre
        low, high = self._bounds()
        inside = _below(high) - _below(low)
        return self.centre + self.deviation * (_density(low) - _density(high)) / inside

    def _bounds(self) -> tuple[float, float]:
        """In standard deviations from the centre."""
        return (self.least - self.centre) / self.deviation, (self.most - self.centre) / self.deviation

    def sample(self, rng: random.Random) -> float:
        """One value. Between two bounds hardly a draw might be kept: there, only what lies inside is drawn."""
        if self.most == math.inf:
            while (value := rng.gauss(self.centre, self.deviation)) < self.least:
                pass
            return value
        if self.deviation == 0:
            return self.centre
        low, high = map(_below, self._bounds())
        share = low + (high - low) * rng.random()
        value = NormalDist(self.centre, self.deviation).inv_cdf(share) if 0 < share < 1 else self.centre
        return min(max(value, self.least), self.most)  # what rounding alone has put outside


@dataclass(frozen=True, slots=True)
class LogNormal(_Written):
    """The logarithm is normal, of deviation `sigma`; `mean` is that of the values, not of the logarithm."""

    mean: float
    sigma: float

    def __post_init__(self) -> None:
        if self.mean <= 0:
            raise ValueError("the mean must be above 0")
        if not 0 <= self.sigma <= _WIDEST_SIGMA:
            raise ValueError(f"sigma, the deviation of the logarithm, must lie between 0 and {_WIDEST_SIGMA:g}")

    def sample(self, rng: random.Random) -> float:
        """One value: exp of a normal one whose mean is `ln mean - sigma^2 / 2`."""
        return rng.lognormvariate(math.log(self.mean) - self.sigma**2 / 2, self.sigma)


@dataclass(frozen=True, slots=True)
class Exponential(_Written):
    """The time between events that know nothing of each other."""

    mean: float

    def __post_init__(self) -> None:
        if self.mean <= 0:
            raise ValueError("the mean must be above 0")

    def sample(self, rng: random.Random) -> float:
        """One value."""
        return rng.expovariate(1 / self.mean)


@dataclass(frozen=True, slots=True)
class Think:
    """The pauses of a mix, by persona; in ns. As one distribution it is that of a user who is drawn by weight."""

    by_persona: dict[str, Distribution | None]
    weights: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Over the users."""
        means = [0.0 if pause is None else pause.mean for pause in self.by_persona.values()]
        return sum(mean * weight for mean, weight in zip(means, self.weights, strict=True)) / sum(self.weights)

    def sample(self, rng: random.Random) -> float:
        """The pause of anybody."""
        (pause,) = rng.choices(list(self.by_persona.values()), self.weights)
        return 0.0 if pause is None else pause.sample(rng)

    def of(self, persona: str | None) -> Distribution | None:
        """The pause of this persona."""
        return self.by_persona.get(persona or "")

    def __str__(self) -> str:
        return ", ".join(f"{name} {pause or '0s'}" for name, pause in self.by_persona.items())


def _density(z: float) -> float:
    """Of the standard normal distribution."""
    return math.exp(-z * z / 2) / math.sqrt(2 * math.pi)


def _below(z: float) -> float:
    """The share of the standard normal distribution below."""
    return math.erfc(-z / math.sqrt(2)) / 2


_KINDS = {
    "constant": "constant:VALUE",
    "uniform": "uniform:LOW,HIGH",
    "normal": "normal:CENTRE,DEVIATION",
    "lognormal": "lognormal:MEAN,SIGMA",
    "exponential": "exponential:MEAN",
}
# Numbers of a normal distribution that has its bounds too.
_BOUNDED = 4


def parse_distribution(text: str, *, parse_value: Callable[[str], float], least: float = 0.0) -> Distribution:
    """The distribution that `text` describes; its numbers are read by `parse_value`, sigma apart.

    `least` is where `normal` is cut off: 0 for durations, 1 for tokens. Raises `ValueError` with the reason.
    """
    kind, colon, rest = (part.strip() for part in text.strip().lower().partition(":"))
    if not colon:
        kind, rest = "constant", kind
    if kind not in _KINDS:
        raise ValueError(f"{text!r} is of the unknown kind {kind!r}; {_nearest(kind)}")
    numbers = [number.strip() for number in rest.split(",")] if colon else [rest]
    form = _KINDS[kind]
    bounded = kind == "normal" and len(numbers) == _BOUNDED
    if colon and ((len(numbers) != form.count(",") + 1 and not bounded) or not all(numbers)):
        raise ValueError(f"{text!r} has not the form {form}")
    written = f"{kind}:{','.join(numbers)}" if colon and kind != "constant" else numbers[0]
    try:
        return _build(kind, numbers, parse_value, least=least, written=written)
    except ValueError as error:
        raise ValueError(f"{text!r}: {error}" if colon else str(error)) from None


def _build(
    kind: str, numbers: Sequence[str], parse_value: Callable[[str], float], *, least: float, written: str
) -> Distribution:
    first = parse_value(numbers[0])
    match kind:
        case "uniform":
            return Uniform(first, parse_value(numbers[1]), written=written)
        case "normal":
            low, high = map(parse_value, numbers[2:]) if len(numbers) == _BOUNDED else (least, math.inf)
            return Normal(first, parse_value(numbers[1]), max(least, low), high, written=written)
        case "lognormal":
            return LogNormal(first, _parse_sigma(numbers[1]), written=written)
        case "exponential":
            return Exponential(first, written=written)
        case _:
            return Constant(first, written=written)


def _parse_sigma(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a number; sigma has no unit") from None


def _nearest(kind: str) -> str:
    close = difflib.get_close_matches(kind, _KINDS, n=1)
    known = ", ".join(form for name, form in _KINDS.items() if name != "constant")
    return f"do you mean {_KINDS[close[0]]}?" if close else f"known are {known}, or a value alone"


def parse_tokens(text: str) -> int:
    """A number of tokens, 1 at least. Raises `ValueError` with the reason."""
    written = text.strip()
    if not (written.isascii() and written.isdigit()):
        raise ValueError(f"{text!r} is not a number of tokens; write a whole number, as in 128")
    if not 1 <= int(written[:20]) <= _MOST_TOKENS:
        raise ValueError(f"{text!r} tokens are too {'few' if int(written[:20]) < 1 else 'many'}; write 1 or more")
    return int(written)
