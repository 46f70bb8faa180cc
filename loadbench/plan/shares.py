"""Shares by weight, and how users or requests are divided by them: exactly, over every short run."""

from __future__ import annotations

import random
from array import array
from dataclasses import dataclass
from functools import cache
from math import gcd, lcm
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_WEIGHT = 1e6  # weights are proportions
# Levels begin at different places of the sequence, far enough into it that no two seeds often agree.
_MOST_OFFSET = 1000


@dataclass(frozen=True, slots=True)
class Share:
    """A part of a whole, by its weight; people write the weight behind the separator."""

    name: str
    weight: float
    separator: str = ":"

    def __str__(self) -> str:
        return f"{self.name}{self.separator}{self.weight:g}"


def parse_shares(text: str, *, separator: str, what: str, example: str) -> tuple[Share, ...]:
    """The shares of `chat:3,rag:1`, or with another separator; the last one in a part counts, and a name alone has
    weight 1. Raises `ValueError` with the reason.
    """
    shares = []
    for part in text.split(","):
        name, found, number = (word.strip() for word in part.rpartition(separator))
        name, number = (name, number) if found else (number, "1")
        if not name:
            raise ValueError(f"{part!r} names no {what}; write a name and its weight, as in {example}")
        shares.append(read_share(name, number, separator=separator))
    return tuple(shares)


def read_share(name: str, weight: object, *, separator: str) -> Share:
    """A share whose weight may be a text; raises `ValueError` with the reason."""
    try:
        number = float(str(weight))
    except ValueError:
        also = f"; a name with {separator!r} needs its weight behind it, as in {name}{separator}{weight}{separator}1"
        raise ValueError(f"{name}: the weight {str(weight)!r} is not a number" + also * (separator == "=")) from None
    if not 0 < number <= MAX_WEIGHT:
        raise ValueError(f"{name}: the weight is {number:g}, want more than 0 and at most {MAX_WEIGHT:g}")
    return Share(name, number, separator)


class _Assignment:
    """Assigns places to shares by weight, one after another, as far as needed: each to the share that is furthest
    behind. So every run of places is divided as exactly as its length allows, and the sequence repeats after as many
    places as the weights, as whole numbers, add up to. Rounding would break ties at random: the weights are integers.
    """

    def __init__(self, weights: tuple[float, ...]) -> None:
        # As they were written: 0.1 is a tenth.
        from decimal import Decimal  # noqa: PLC0415 - the help needs nothing of it

        ratios = [Decimal(str(weight)).as_integer_ratio() for weight in weights]
        common = lcm(*(below for _, below in ratios))
        whole = [above * (common // below) for above, below in ratios]
        self._weights = [weight // gcd(*whole) for weight in whole]
        self._total = sum(self._weights)
        self._counts = [0] * len(weights)
        self._shares, self._before = array("L"), array("L")  # by place, up to where the sequence repeats

    def of(self, place: int) -> tuple[int, int]:
        """The index of this place's share, and how many places before it are in that share."""
        times, place = divmod(place, self._total)
        while len(self._shares) <= place:
            places = len(self._shares) + 1
            behind = [
                weight * places - count * self._total for weight, count in zip(self._weights, self._counts, strict=True)
            ]
            share = behind.index(max(behind))
            self._shares.append(share)
            self._before.append(self._counts[share])
            self._counts[share] += 1
        share = self._shares[place]
        return share, times * self._weights[share] + self._before[place]

    def before(self, place: int, share: int) -> int:
        """About how many places before this one are in the share."""
        return place * self._weights[share] // self._total


assignment = cache(_Assignment)  # it remembers the places that it has assigned


@dataclass(frozen=True, slots=True)
class Rotation:
    """Which of several models and servers each request of a level goes to, whatever the timing.

    Every user goes through the models by weight, and each model's requests through the servers in turn, however unlike
    their speeds are. The next user is one place ahead. Users who are too few for one more at every server begin
    at equal distances, so that they do not go round in a crowd. Given prompts are sent in turn too: with every `cycle`
    of them the rotation moves on by one place, so that no prompt always goes to the same model or server.
    """

    weights: tuple[float, ...] = (1.0,)
    servers: int = 1
    users: int = 1
    offset: int = 0
    cycle: int | None = None

    @classmethod
    def begin(cls, weights: Sequence[float], servers: int, *, key: str, prompts: int, users: int) -> Rotation:
        """The rotation of a level, by its key: of a number of given prompts, or 0, and of users, or 1."""
        offset = random.Random(f"{key}/mix").randrange(_MOST_OFFSET) if len(weights) > 1 else 0
        return cls(tuple(weights), servers, users, offset, prompts // gcd(prompts, users) if prompts else None)

    def of(self, place: int, user: int = 0) -> int:
        """The index of the endpoint, model by model, of a user's request at this place."""
        if self.servers == len(self.weights) == 1:
            return 0
        cycles, further = (0, place) if self.cycle is None else divmod(place, self.cycle)
        models, begins = assignment(self.weights), self.offset + user
        model, turn = models.of(begins + cycles + further)
        rest = self.users % self.servers
        if rest and user >= self.users - rest:
            turn += (user - self.users + rest) * self.servers // rest - models.before(begins, model)
        return model * self.servers + (turn + model) % self.servers


UNMIXED = Rotation()  # one model at one server
