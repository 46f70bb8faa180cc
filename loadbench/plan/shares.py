"""Shares by weight, and how users or requests are divided by them: exactly, over every short run."""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cache
from math import gcd, lcm
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_MAX_WEIGHT = 1e6  # weights are proportions
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
        try:
            weight = float(number)
        except ValueError:
            weight = 0.0
        if not 0 < weight <= _MAX_WEIGHT:
            raise ValueError(f"{part!r} has no weight above 0; write a name and its weight, as in {example}")
        shares.append(Share(name, weight, separator))
    return tuple(shares)


class _Assignment:
    """Assigns places to shares by weight, one after another, as far as needed: each to the share that is furthest
    behind. So every run of places is divided as exactly as its length allows, and the sequence repeats after as many
    places as the weights, as whole numbers, add up to. Rounding would break ties at random: the weights are integers.
    """

    def __init__(self, weights: tuple[float, ...]) -> None:
        ratios = [weight.as_integer_ratio() for weight in weights]
        common = lcm(*(below for _, below in ratios))
        self._weights = [above * (common // below) for above, below in ratios]
        self._total = sum(self._weights)
        self._counts = [0] * len(weights)
        self._assigned: list[tuple[int, int]] = []

    def of(self, place: int) -> tuple[int, int]:
        """The index of this place's share, and how many places before it are in that share."""
        while len(self._assigned) <= place:
            places = len(self._assigned) + 1
            behind = [
                weight * places - count * self._total for weight, count in zip(self._weights, self._counts, strict=True)
            ]
            share = behind.index(max(behind))
            self._assigned.append((share, self._counts[share]))
            self._counts[share] += 1
        return self._assigned[place]


assignment = cache(_Assignment)  # it remembers the places that it has assigned


@dataclass(frozen=True, slots=True)
class Rotation:
    """Which of several models and servers each request of a level goes to, whatever the timing.

    Every user goes through the models by weight, and each model's requests through the servers in turn; the next user
    is one place ahead. So the requests of each user, and those of all users at one time, are divided by the weights and
    among the servers, however unlike their speeds are. Given prompts are sent in turn too: with every `cycle` of them
    the rotation moves on by one place, so that no prompt always goes to the same model or server.
    """

    weights: tuple[float, ...] = (1.0,)
    servers: int = 1
    offset: int = 0
    cycle: int | None = None

    @classmethod
    def begin(cls, weights: Sequence[float], servers: int, *, key: str, prompts: int, users: int) -> Rotation:
        """The rotation of a level, by its key: of a number of given prompts, or 0, and of users, or 1."""
        offset = random.Random(f"{key}/mix").randrange(_MOST_OFFSET) if len(weights) > 1 else 0
        return cls(tuple(weights), servers, offset, prompts // gcd(prompts, users) if prompts else None)

    def of(self, place: int, user: int = 0) -> int:
        """The index of the endpoint, model by model, of a user's request at this place."""
        cycles, rest = (0, place) if self.cycle is None else divmod(place, self.cycle)
        model, turn = assignment(self.weights).of(self.offset + cycles + rest + user)
        return model * self.servers + (turn + model) % self.servers


UNMIXED = Rotation()  # one model at one server
