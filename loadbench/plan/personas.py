"""Personas: kinds of users, each with its own lengths of prompts and responses and its own think time.

The lengths are those that other tools use. No source publishes think times; those here are assumptions:

    persona     prompt, tokens                output, tokens   source
    chat        normal 512, 128               normal 256, 64   guidellm, scenarios/chat.json
    rag         normal 4096, 512, 2048-6144   normal 512, 128  guidellm, scenarios/rag.json
    summariser  normal 10000, 5000, to 12000  normal 50, 10    inference-benchmarker, src/profiles.rs, classification
    code        uniform 3000-6000             normal 50, 10    inference-benchmarker, src/profiles.rs, code generation

Think times: a chat user reads 200 words in less than a minute and then writes again (log-normal, mean 30 s); a rag
user reads as long; code is completed while it is typed, every few seconds; a batch of summaries has no pauses.

A *mix* is a set of personas with weights. In a closed loop a user keeps one persona, and the first n users are divided
by the weights as exactly as n allows: each next user goes to the persona that is furthest behind its share. In an open
loop the persona of each arrival is drawn by seed, level and number. Neither depends on how long anything takes.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

from loadbench.core.units import parse_duration
from loadbench.plan.distribution import Think, parse_distribution, parse_tokens
from loadbench.plan.shares import assignment

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from loadbench.plan.distribution import Distribution
    from loadbench.plan.shares import Share


@dataclass(frozen=True, slots=True, kw_only=True)
class Persona:
    """One kind of user. The scenario's settings apply where a field is `None`; `think` is in ns, lengths in tokens."""

    name: str
    input_tokens: Distribution | None = None
    output_tokens: Distribution | None = None
    think: Distribution | None = None
    turns: Distribution | None = None

    def settings(self) -> dict[str, str]:
        """Its settings as people write them, without those that it does not have."""
        return {name: str(value) for name in PERSONA_SETTINGS if (value := getattr(self, name)) is not None}


PERSONA_SETTINGS = tuple(field.name for field in fields(Persona) if field.name != "name")

PERSONAS = {
    name: Persona(
        name=name,
        input_tokens=parse_distribution(prompt, parse_value=parse_tokens, least=1),
        output_tokens=parse_distribution(output, parse_value=parse_tokens, least=1),
        think=None if think is None else parse_distribution(think, parse_value=parse_duration),
    )
    for name, prompt, output, think in (
        ("chat", "normal:512,128", "normal:256,64", "lognormal:30s,0.6"),
        ("rag", "normal:4096,512,2048,6144", "normal:512,128", "lognormal:30s,0.6"),
        ("summariser", "normal:10000,5000,8000,12000", "normal:50,10", None),
        ("code", "uniform:3000,6000", "normal:50,10", "uniform:2s,5s"),
    )
}


@dataclass(frozen=True, slots=True)
class Cast:
    """The personas of a run, each with its weight."""

    personas: tuple[Persona, ...]
    weights: tuple[float, ...]

    def of_user(self, user: int) -> int:
        """The index of a virtual user's persona."""
        return assignment(self.weights).of(user)[0]

    def of_arrival(self, number: int, key: str) -> int:
        """The index of the persona drawn for arrival `number`; `key` makes the draws of each level different."""
        at = random.Random(f"{key}/{number}/persona").random() * sum(self.weights)
        for index, weight in enumerate(self.weights[:-1]):
            if at < weight:
                return index
            at -= weight
        return len(self.weights) - 1

    @property
    def think(self) -> Think | None:
        """The think times of the personas; `None` if none has one."""
        think = {persona.name: persona.think for persona in self.personas}
        return Think(think, self.weights) if any(think.values()) else None


def cast_of(
    shares: Sequence[Share], known: Mapping[str, Persona], overrides: Persona, *, idle: Sequence[str] = ()
) -> Cast:
    """The personas that the shares name, with `overrides` in place of their own settings and without the idle ones."""
    changes = {name: getattr(overrides, name) for name in overrides.settings()} | dict.fromkeys(idle)
    personas = tuple(replace(known[share.name], **changes) for share in shares)
    return Cast(personas, tuple(share.weight for share in shares))
