"""Levels of a simulated server in virtual time: minutes of load in a moment, and the truth in its profile."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from loadbench.analyze.level.summary import summarize
from loadbench.client.client import Client, Endpoint, Timeouts
from loadbench.core.virtual import VirtualClock, run_virtual
from loadbench.engine.level import Level as Running
from loadbench.engine.level import LevelPlan
from loadbench.plan.load import Closed, LevelDuration
from loadbench.plan.prompts import Prompt
from loadbench.sim.transport import SimTransport
from tests.engine.no_health import NoHealth

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadbench.plan.distribution import Distribution
    from loadbench.plan.objective import Objective
    from loadbench.plan.sim_profile import Profile
    from loadbench.results.run import LevelResult

S = 1_000_000_000
# What a chat's frame adds to the words of a prompt, as the simulated server counts.
FRAME = 4


class Words:
    """Prompts of so many words; answers of so many tokens, or of a geometric number with that mean."""

    def __init__(self, words: int, tokens: int, *, varied: bool = False, seed: int = 0) -> None:
        self._words, self._tokens = words, tokens
        self._rng = random.Random(seed) if varied else None

    def next(self, number: int, user: int | None) -> Prompt:
        """The next one."""
        tokens = self._tokens
        if self._rng is not None:
            tokens = 1 + int(self._rng.expovariate(1 / (self._tokens - 0.5)))
        return Prompt(" ".join(["word"] * self._words), output_tokens=tokens)

    def calibration_prompts(self) -> list[Prompt]:
        """None is needed."""
        return []

    def calibrate(self, tokens: object) -> None:
        """Nothing to find out."""


def served(
    profile: Profile,
    users: int,
    *,
    words: int = 46,
    tokens: int = 32,
    varied: bool = False,
    seconds: int = 120,
    warm_up: int = 30,
    think: Distribution | None = None,
    objectives: Sequence[Objective] = (),
    seed: int = 0,
) -> LevelResult:
    """One closed level, as `run.json` has it."""
    load = Closed(users, think)

    async def main() -> LevelResult:
        clock = VirtualClock()
        async with SimTransport(profile, clock=clock, seed=seed).serving() as transport:
            endpoint = Endpoint(base_url="http://simulated/v1", model=profile.model)
            client = Client(endpoint, transport, clock=clock, timeouts=Timeouts())
            plan = LevelPlan(
                load=load,
                duration=LevelDuration(duration_ns=seconds * S, warm_up_ns=warm_up * S, cool_down_ns=warm_up * S // 4),
                prompts=Words(words, tokens, varied=varied, seed=seed),
                max_tokens=10 * tokens,
                seed=seed,
                ramp_ns=warm_up * S // 2,
                objectives=tuple(objectives),
            )
            recording = await Running(plan, client=client, clock=clock, health=NoHealth()).run()
        return summarize(recording, target="http://simulated/v1", model=profile.model, load=load, failure_limit=1.0)

    return run_virtual(main)


def sweep(profile: Profile, users: Sequence[int], **settings: object) -> list[LevelResult]:
    """A level for each number of users."""
    return [served(profile, n, seed=n, **settings) for n in users]  # type: ignore[arg-type]
