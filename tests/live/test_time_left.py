"""The time left, against the engine in virtual time: what is said on the way is compared with how long it then took."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import anyio
import pytest

from loadbench.analyze.level.next_users import next_users
from loadbench.analyze.level.summary import summarize
from loadbench.client.client import Client, Endpoint, Timeouts
from loadbench.core.virtual import VirtualClock, run_virtual
from loadbench.engine.paired import Paired, PairedSide
from loadbench.engine.sweep import Sweep
from loadbench.live.time_left import Left, PlannedLevel, RunTime
from loadbench.plan.arrivals import parse_arrivals
from loadbench.plan.pairs import Pairing
from loadbench.plan.scenario import Scenario
from loadbench.plan.setting_types import AUTO_USERS
from loadbench.plan.settings import LoadSettings, WorkSettings
from tests.engine.scripted import PATIENT, URL, Act, Scripted, ScriptedSession

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadbench.record.sample import Sample

S = 1_000_000_000


@dataclass
class Watched:
    """Tells the time left what an observer of the run sees, and keeps what it says: (moment, what was left)."""

    time: RunTime
    clock: VirtualClock
    said: list[tuple[int, Left | None]] = field(default_factory=list)
    results: list = field(default_factory=list)
    level: object = None
    side: str = ""

    def model_prepared(self, subject):
        self.time.responded(self.side or subject.model, subject.response_ns)

    def level_planned(self, load, model, number):
        pass

    def level_begins(self, level, model, number):
        self.level = level
        self.time.level_begins(PlannedLevel(self.side or model, level.load), level.begin_ns)

    def sample_ended(self, sample, number):
        pass

    def level_ended(self, recording, model, load):
        self.level = None
        self.time.level_ended(recording)
        self.results.append(summarize(recording, target="t", model=model, load=load, failure_limit=1.0))

    def model_failed(self, model, reason):
        self.time.model_failed(model)

    async def listen(self):
        """Four times a second, as the terminal shows it."""
        while True:
            self.said.append((self.clock.now_ns(), self.time.left(self.level)))
            await anyio.sleep(0.25)


def worst(said: Sequence[tuple[int, Left | None]], ended_ns: int) -> float:
    """By how much what was said from a quarter of the run on was off, relative to what was left, but for a second or
    3 % of the run: the largest. Where it was a range, by how far the truth lay outside."""
    off = [0.0]
    for at_ns, left in said:
        if at_ns < ended_ns / 4:
            continue
        assert left is not None, f"nothing said at {at_ns / S} s of {ended_ns / S}"
        true_ns, spare_ns = ended_ns - at_ns, max(S, 0.03 * ended_ns)
        least_ns, most_ns = (0, left.ns) if left.at_most else left.span_ns
        outside_ns = max(least_ns - true_ns, true_ns - most_ns) - spare_ns
        off.append(outside_ns / max(true_ns, 1))
    return max(off)


def swept(plan: Scenario, *models: str, service_s: float = 1.0, slots: int = 4, auto: bool = False):
    """Sweep a server that serves so many requests at once, each in so long, a fifth longer or shorter by chance; the
    second model takes half as long again. Returns what was said, when the run ended, and the levels."""
    kept = {}

    async def main() -> None:
        clock, drawn = VirtualClock(), random.Random(1)

        def served(times: float) -> Scripted:
            def act(_: int) -> Act:
                return Act(first_ns=round(times * service_s * S * drawn.uniform(0.8, 1.2)), tokens=3)

            return Scripted(clock, act, workers=slots)

        servers = {model: served(1.5**place) for place, model in enumerate(models)}

        def client_for(model: str) -> Client:
            return Client(Endpoint(base_url=URL, model=model), servers[model], clock=clock, timeouts=PATIENT)

        most = plan.most_in_flight if auto else 0
        time = RunTime(
            plan,
            [PlannedLevel(model, load) for model in models for load in (plan.loads[:1] if auto else plan.loads)],
            now_ns=clock.now_ns,
            most_ns=plan.load.max_total if plan.waits_for_answers else None,
            most_users=most,
        )
        watched = Watched(time, clock)

        def following(model: str) -> int | None:
            return next_users([one for one in watched.results if one.model == model], most=most)

        class Session(ScriptedSession):
            async def first_response(self, model: str, **request) -> Sample:
                sample = await super().first_response(model, **request)
                time.responded(model, sample.end_ns - sample.due_ns)
                return sample

        session = Session(clock, client_for)
        sweep = Sweep(plan, session, models=models, observer=watched, next_users=following if auto else None)
        async with anyio.create_task_group() as beside:
            beside.start_soon(watched.listen)
            await sweep.run()
            beside.cancel_scope.cancel()
        kept.update(said=watched.said, ended=clock.now_ns(), results=watched.results)

    run_virtual(main)
    return kept["said"], kept["ended"], kept["results"]


def plan(**load) -> Scenario:
    """A sweep with fixed durations, unless it says otherwise."""
    return Scenario(load=LoadSettings(**load), work=WorkSettings(max_tokens=5))


FIXED = {"duration": 20 * S, "warm_up": 5 * S}


@pytest.mark.parametrize(
    ("load", "models"),
    [
        ({"users": (1, 2, 4, 8), **FIXED}, ["a"]),
        ({"users": (8,), "duration": 60 * S, "warm_up": 5 * S}, ["a"]),
        ({"users": (1, 2, 4, 8), **FIXED, "cool_down": 5 * S}, ["a", "b"]),
        ({"users": (1, 4, 16), **FIXED, "warm_up": None}, ["a"]),
        ({"users": (1, 2, 4, 8), "duration": None, "requests": 40, "warm_up": 2 * S}, ["a"]),
        ({"users": (4,), "duration": None, "requests": 100, "warm_up": 0}, ["a"]),
        ({"users": None, "rate": (0.5, 1.0, 2.0), "arrivals": parse_arrivals("constant"), **FIXED}, ["a"]),
        ({"users": (1, 2, 4, 8, 16)}, ["a"]),
        ({"users": (1, 2, 4, 8)}, ["a", "b"]),
    ],
    ids=["fixed", "one level", "models", "warm-up by responses", "requests", "one level of requests", "rates",
         "lengths by responses", "lengths by responses, models"],
)
@pytest.mark.parametrize("service_s", [0.1, 1.0, 8.0])
def test_time_left_is_right_within_a_fifth_from_a_quarter_of_the_run_on(load, models, service_s):
    """Whatever sets the length of its levels: the plan, the number of requests, or how long the server takes."""
    said, ended_ns, _ = swept(plan(**load), *models, service_s=service_s)
    assert worst(said, ended_ns) <= 0.2
