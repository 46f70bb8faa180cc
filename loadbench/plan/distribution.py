"""Lengths and pauses that vary: how they are written, drawn and averaged.

    10s                     always the same
    uniform:5s,15s          anything between, equally likely
    normal:512,128          mean and standard deviation; values below the minimum are drawn again
    normal:512,128,64,1024  the same, and values below 64 or above 1024 are drawn again
    lognormal:20s,0.5       the mean, and the standard deviation of the logarithm: many short ones, a few long
    exponential:10s         the mean; memoryless

The same forms serve durations (`parse_duration`) and numbers of tokens (`parse_tokens`); the parser of the numbers
gives them their unit. Drawing takes the random generator as an argument, so that the caller decides what repeats.
"""

from __future__ import annotations

import difflib
import math
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

# exp(10 z) spans more powers of ten than any real distribution, and cannot overflow a float.
_MAX_SIGMA = 10.0
# No model reads or writes more: a larger number is a typing error.
_MAX_TOKENS = 10_000_000


class Distribution(Protocol):
    """Values that can be drawn. `str()` gives a text that parses to the same distribution."""

    @property
    def mean(self) -> float:
        """The mean of the drawn values."""
        ...

    def sample(self, rng: random.Random) -> float:
        """One value, in the unit of the parser."""
        ...


@dataclass(frozen=True, slots=True)
class _Written:
    """A distribution with the text that it was parsed from, which has the unit that its numbers have lost."""

    written: str = field(default="", kw_only=True, compare=False)

    def __str__(self) -> str:
        if self.written:
            return self.written
        kind = type(self).__name__.lower()
        values = [getattr(self, each.name) for each in fields(self) if each.name != "written"]
        if values[-1] == math.inf:  # a normal distribution without an upper bound is written without bounds
            values = values[:2]
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

    def sample(self, rng: random.Random) -> float:  # noqa: ARG002 - nothing is random
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
        """The middle."""
        return (self.low + self.high) / 2

    def sample(self, rng: random.Random) -> float:
        """One value; both bounds can be drawn."""
        return rng.uniform(self.low, self.high)


@dataclass(frozen=True, slots=True)
class Normal(_Written):
    """A normal distribution with mean `centre` and standard deviation `deviation`, truncated to `low` and `high`.

    A value beyond a bound is drawn again, never clamped, so that values do not pile up at the bound. The mean of the
    truncated distribution differs a little from the centre; `mean` has it.
    """

    centre: float
    deviation: float
    low: float = 0.0
    high: float = math.inf

    def __post_init__(self) -> None:
        if self.centre < self.low:
            raise ValueError(f"the mean is below {self.low:g}, the least that can be drawn")
        if self.centre > self.high:
            raise ValueError(f"the mean is above {self.high:g}, the most that can be drawn")

    @property
    def mean(self) -> float:
        """The mean of the truncated normal distribution: `centre + deviation (φ(a) - φ(b)) / (Φ(b) - Φ(a))`."""
        if self.deviation == 0 or self.low == self.high:
            return self.centre
        low, high = self._bounds()
        inside = _below(high) - _below(low)
        return self.centre + self.deviation * (_density(low) - _density(high)) / inside

    def _bounds(self) -> tuple[float, float]:
        """The bounds in standard deviations from the centre."""
        return (self.low - self.centre) / self.deviation, (self.high - self.centre) / self.deviation

    def sample(self, rng: random.Random) -> float:
        """One value. With two bounds it is drawn by the inverse of the distribution: redrawing could take long."""
        if self.high == math.inf:
            while (value := rng.gauss(self.centre, self.deviation)) < self.low:
                pass
            return value
        if self.deviation == 0:
            return self.centre
        low, high = map(_below, self._bounds())
        share = low + (high - low) * rng.random()
        from statistics import NormalDist  # noqa: PLC0415 - the help of every command would wait for it

        value = NormalDist(self.centre, self.deviation).inv_cdf(share) if 0 < share < 1 else self.centre
        return min(max(value, self.low), self.high)  # rounding alone can put it outside


@dataclass(frozen=True, slots=True)
class LogNormal(_Written):
    """The logarithm is normal with standard deviation `sigma`; `mean` is the mean of the values themselves."""

    mean: float
    sigma: float

    def __post_init__(self) -> None:
        if self.mean <= 0:
            raise ValueError("the mean must be above 0")
        if not 0 <= self.sigma <= _MAX_SIGMA:
            raise ValueError(f"sigma, the deviation of the logarithm, must be between 0 and {_MAX_SIGMA:g}")

    def sample(self, rng: random.Random) -> float:
        """One value: exp of a normal value with mean `ln mean - sigma^2 / 2`."""
        return rng.lognormvariate(math.log(self.mean) - self.sigma**2 / 2, self.sigma)


@dataclass(frozen=True, slots=True)
class Exponential(_Written):
    """The time between independent events."""

    mean: float

    def __post_init__(self) -> None:
        if self.mean <= 0:
            raise ValueError("the mean must be above 0")

    def sample(self, rng: random.Random) -> float:
        """One value."""
        return rng.expovariate(1 / self.mean)


@dataclass(frozen=True, slots=True)
class Think:
    """The think times of a mix by persona, in ns. As one distribution: those of a user who is drawn by weight."""

    by_persona: dict[str, Distribution | None]
    weights: tuple[float, ...]

    @property
    def mean(self) -> float:
        """The mean over the users."""
        means = [0.0 if pause is None else pause.mean for pause in self.by_persona.values()]
        return sum(mean * weight for mean, weight in zip(means, self.weights, strict=True)) / sum(self.weights)

    def sample(self, rng: random.Random) -> float:
        """A pause of a user who is drawn by weight."""
        (pause,) = rng.choices(list(self.by_persona.values()), self.weights)
        return 0.0 if pause is None else pause.sample(rng)

    def of(self, persona: str | None) -> Distribution | None:
        """The pauses of this persona; `None` for no pause."""
        return self.by_persona.get(persona or "")

    def __str__(self) -> str:
        return ", ".join(f"{name} {pause or '0s'}" for name, pause in self.by_persona.items())


def _density(z: float) -> float:
    """The density of the standard normal distribution."""
    return math.exp(-z * z / 2) / math.sqrt(2 * math.pi)


def _below(z: float) -> float:
    """The share of the standard normal distribution below `z`."""
    return math.erfc(-z / math.sqrt(2)) / 2


_KINDS = {
    "constant": "constant:VALUE",
    "uniform": "uniform:LOW,HIGH",
    "normal": "normal:CENTRE,DEVIATION",
    "lognormal": "lognormal:MEAN,SIGMA",
    "exponential": "exponential:MEAN",
}


def parse_distribution(text: str, *, parse_value: Callable[[str], float], least: float = 0.0) -> Distribution:
    """The distribution that `text` describes; `parse_value` reads its numbers, except sigma.

    `least` is the lower bound of `normal`: 0 for durations, 1 for tokens. Raises `ValueError` with the reason.
    """
    kind, colon, rest = (part.strip() for part in text.strip().lower().partition(":"))
    if not colon:
        kind, rest = "constant", kind
    if kind not in _KINDS:
        close = difflib.get_close_matches(kind, _KINDS, n=1)
        known = ", ".join(form for name, form in _KINDS.items() if name != "constant")
        hint = f"do you mean {_KINDS[close[0]]}?" if close else f"known are {known}, or a value alone"
        raise ValueError(f"{text!r} is of the unknown kind {kind!r}; {hint}")
    numbers = [number.strip() for number in rest.split(",")] if colon else [rest]
    form = _KINDS[kind]
    has_bounds = kind == "normal" and len(numbers) == 4
    if colon and ((len(numbers) != form.count(",") + 1 and not has_bounds) or not all(numbers)):
        raise ValueError(f"{text!r} does not have the form {form}")
    written = f"{kind}:{','.join(numbers)}" if colon and kind != "constant" else numbers[0]

    try:
        first = parse_value(numbers[0])
        match kind:
            case "uniform":
                return Uniform(first, parse_value(numbers[1]), written=written)
            case "normal":
                low, high = map(parse_value, numbers[2:]) if has_bounds else (least, math.inf)
                return Normal(first, parse_value(numbers[1]), max(least, low), high, written=written)
            case "lognormal":
                return LogNormal(first, _parse_sigma(numbers[1]), written=written)
            case "exponential":
                return Exponential(first, written=written)
            case _:
                return Constant(first, written=written)
    except ValueError as error:
        raise ValueError(f"{text!r}: {error}" if colon else str(error)) from None


def _parse_sigma(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a number; sigma has no unit") from None


def parse_tokens(text: str) -> int:
    """A number of tokens, at least 1. Raises `ValueError` with the reason."""
    written = text.strip()
    if not (written.isascii() and written.isdigit()):
        raise ValueError(f"{text!r} is not a number of tokens; write a whole number, as in 128")
    if not 1 <= int(written[:20]) <= _MAX_TOKENS:
        raise ValueError(f"{text!r} tokens are too {'few' if int(written[:20]) < 1 else 'many'}; write 1 or more")
    return int(written)
