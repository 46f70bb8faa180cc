"""Personas: kinds of users, each with its own lengths of prompts and answers, and its own pause between two requests.

The lengths are those with which other tools ask; pauses nobody publishes, and ours are assumptions:

    persona     prompt, tokens                answer, tokens   source
    chat        normal 512, 128               normal 256, 64   guidellm, scenarios/chat.json
    rag         normal 4096, 512, 2048-6144   normal 512, 128  guidellm, scenarios/rag.json
    summariser  normal 10000, 5000, to 12000  normal 50, 10    inference-benchmarker, src/profiles.rs, classification
    code        uniform 3000-6000             normal 50, 10    inference-benchmarker, src/profiles.rs, code generation

The pauses: who chats reads an answer of 200 words in less than a minute and asks again (log-normal, mean 30 s); a rag
user reads as long; code is completed as it is typed, every few seconds; a batch of summaries does not think at all.

A *mix* is personas with weights. In a closed loop a user has one persona for life, and the first n users are split as
nearly by the weights as n allows: at each step the persona that is furthest behind its share gets the next user. In an
open loop each arrival draws its own, by seed, level and number. Neither depends on how long anything takes.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, fields, replace
from functools import cache
from typing import TYPE_CHECKING

from loadbench.core.units import parse_duration
from loadbench.plan.distribution import Think, parse_distribution, parse_tokens

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from loadbench.plan.distribution import Distribution


@dataclass(frozen=True, slots=True, kw_only=True)
class Persona:
    """One kind of user. What is `None` is left to the scenario's own settings; `think` is in ns, lengths in tokens."""

    name: str
    input_tokens: Distribution | None = None
    output_tokens: Distribution | None = None
    think: Distribution | None = None
    turns: Distribution | None = None

    def shown(self) -> dict[str, str]:
        """Its settings as people write them, those left out that it does not have."""
        return {name: str(value) for name in PERSONA_SETTINGS if (value := getattr(self, name)) is not None}

    def but(self, over: Persona) -> Persona:
        """This persona with whatever the other has of its own."""
        given = {name: value for name in PERSONA_SETTINGS if (value := getattr(over, name)) is not None}
        return replace(self, **given)


PERSONA_SETTINGS = tuple(field.name for field in fields(Persona) if field.name != "name")


def _tokens(text: str) -> Distribution:
    return parse_distribution(text, parse_value=parse_tokens, least=1)


def _pause(text: str) -> Distribution:
    return parse_distribution(text, parse_value=parse_duration)


PERSONAS = {
    persona.name: persona
    for persona in (
        Persona(
            name="chat",
            input_tokens=_tokens("normal:512,128"),
            output_tokens=_tokens("normal:256,64"),
            think=_pause("lognormal:30s,0.6"),
        ),
        Persona(
            name="rag",
            input_tokens=_tokens("normal:4096,512,2048,6144"),
            output_tokens=_tokens("normal:512,128"),
            think=_pause("lognormal:30s,0.6"),
        ),
        Persona(
            name="summariser",
            input_tokens=_tokens("normal:10000,5000,8000,12000"),
            output_tokens=_tokens("normal:50,10"),
        ),
        Persona(
            name="code",
            input_tokens=_tokens("uniform:3000,6000"),
            output_tokens=_tokens("normal:50,10"),
            think=_pause("uniform:2s,5s"),
        ),
    )
}


@dataclass(frozen=True, slots=True)
class Share:
    """A persona's part of a mix, by its weight."""

    name: str
    weight: float

    def __str__(self) -> str:
        return f"{self.name}:{self.weight:g}"


@dataclass(frozen=True, slots=True)
class Cast:
    """The personas of a run, each with its weight; `key` sets the draws of a level apart from those of others."""

    personas: tuple[Persona, ...]
    weights: tuple[float, ...]

    def of_user(self, user: int) -> int:
        """Which persona a virtual user is, by its place among them."""
        return _deal(self.weights).of(user)

    def of_arrival(self, number: int, key: str) -> int:
        """Which persona arrival `number` is, drawn."""
        at = random.Random(f"{key}/{number}/persona").random() * sum(self.weights)
        for index, weight in enumerate(self.weights[:-1]):
            if at < weight:
                return index
            at -= weight
        return len(self.weights) - 1

    @property
    def think(self) -> Think | None:
        """Their pauses; `None` where nobody has one."""
        pauses = {persona.name: persona.think for persona in self.personas}
        return Think(pauses, self.weights) if any(pauses.values()) else None


class _Deal:
    """Users dealt to weights, one after another, as far as it has been asked for."""

    def __init__(self, weights: Sequence[float]) -> None:
        self._shares = [weight / sum(weights) for weight in weights]
        self._counts = [0] * len(weights)
        self._dealt: list[int] = []

    def of(self, user: int) -> int:
        """Whose it is."""
        while len(self._dealt) <= user:
            due = len(self._dealt) + 1
            behind = [share * due - count for share, count in zip(self._shares, self._counts, strict=True)]
            chosen = behind.index(max(behind))
            self._counts[chosen] += 1
            self._dealt.append(chosen)
        return self._dealt[user]


@cache
def _deal(weights: tuple[float, ...]) -> _Deal:
    return _Deal(weights)


def parse_mix(text: str) -> tuple[Share, ...]:
    """The shares of a mix such as `chat:3,rag:1`; a name alone weighs 1. Raises `ValueError` with the reason."""
    return tuple(_share(part) for part in text.split(","))


def _share(text: str) -> Share:
    name, colon, written = (part.strip() for part in text.partition(":"))
    if not name:
        raise ValueError(f"{text!r} names no persona; write a name and its weight, as in chat:3")
    try:
        weight = float(written) if colon else 1.0
    except ValueError:
        weight = 0.0
    if not 0 < weight <= _MOST_WEIGHT:
        raise ValueError(f"{text!r} has no weight above 0; write a name and its weight, as in chat:3")
    return Share(name, weight)


# Weights are proportions of people.
_MOST_WEIGHT = 1e6


def cast_of(shares: Iterable[Share], known: Mapping[str, Persona], over: Persona) -> Cast:
    """The personas that these shares name, with what the scenario itself says put in place of theirs."""
    shares = tuple(shares)
    personas = tuple(known[share.name].but(over) for share in shares)
    return Cast(personas, tuple(share.weight for share in shares))
