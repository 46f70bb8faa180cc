"""The time left, against the engine in virtual time: what is said on the way is compared with how long it then took."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import anyio
import pytest

from loadbench.analyze.level.next_users import next_users
from loadbench.analyze.level.summary import summarize
from loadbench.client.client import Client, Endpoint
from loadbench.core.virtual import VirtualClock, run_virtual
from loadbench.engine.sweep import Sweep
from loadbench.live.time_left import Left, PlannedLevel, RunTime
from loadbench.plan.arrivals import parse_arrivals
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


def errors(said: Sequence[tuple[int, Left | None]], ended_ns: int) -> list[float]:
    """By how much what was said from a quarter of the run on was off, relative to what was left, but for a second or
    3 % of the run. Where it was a range, by how far the truth lay outside."""
    off = []
    for at_ns, left in said:
        if at_ns < ended_ns / 4:
            continue
        assert left is not None, f"nothing said at {at_ns / S} s of {ended_ns / S}"
        true_ns, spare_ns = ended_ns - at_ns, max(S, 0.03 * ended_ns)
        least_ns, most_ns = (0, left.ns) if left.at_most else left.span_ns
        off.append((max(least_ns - true_ns, true_ns - most_ns) - spare_ns) / max(true_ns, 1))
    return off


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


RUNS = {
    "fixed": ({"users": (1, 2, 4, 8), **FIXED}, "a"),
    "one level": ({"users": (8,), "duration": 60 * S, "warm_up": 5 * S}, "a"),
    "models": ({"users": (1, 2, 4, 8), **FIXED, "cool_down": 5 * S}, "ab"),
    "warm-up by responses": ({"users": (1, 4, 16), **FIXED, "warm_up": None}, "a"),
    "requests": ({"users": (1, 2, 4, 8), "requests": 40, "warm_up": 2 * S}, "a"),
    "one level of requests": ({"users": (4,), "requests": 100, "warm_up": 0}, "a"),
    "rates": ({"users": None, "rate": (0.1, 0.2, 0.4), "arrivals": parse_arrivals("constant"), **FIXED}, "a"),
    "longer than planned": ({"users": (1, 2, 4, 8, 16)}, "a"),
    "longer than planned, models": ({"users": (1, 2, 4, 8)}, "ab"),
    "users auto": ({"users": AUTO_USERS}, "a"),
}


@pytest.mark.slow
@pytest.mark.parametrize("service_s", [0.1, 1.0, 8.0])
@pytest.mark.parametrize("run", RUNS)
def test_time_left_is_right_within_a_fifth_from_a_quarter_of_the_run_on(run, service_s):
    """Whatever sets the length of its levels: the plan, the number of requests, or how long the server takes. What is
    said at 19 of 20 moments is: the others are just before something is known, and over soon."""
    load, models = RUNS[run]
    said, ended_ns, _ = swept(plan(**load), *models, service_s=service_s, auto=run == "users auto")
    off = errors(said, ended_ns)
    assert sum(error > 0.2 for error in off) <= len(off) / 20, max(off)


@pytest.mark.parametrize("service_s", [0.1, 1.0])
def test_a_plan_of_fixed_lengths_is_one_time_and_no_range(service_s):
    """Where responses are short beside the levels, what nobody can know does not matter."""
    said, ended_ns, _ = swept(plan(**RUNS["fixed"][0]), "a", service_s=service_s)
    later = [left for at_ns, left in said if left is not None and at_ns > ended_ns / 4]
    assert all(least == most for least, most in (left.span_ns for left in later))


def test_a_model_that_fails_and_levels_that_are_skipped_take_no_time():
    """What does not come any more is not counted."""
    scenario = plan(**RUNS["fixed"][0])
    levels = [PlannedLevel(model, load) for model in "abc" for load in scenario.loads]
    time = RunTime(scenario, levels, now_ns=lambda: 0)
    time.responded("a", S)
    all_ns = time.left(None).ns
    time.model_failed("b")
    without_b_ns = time.left(None).ns
    time.level_begins(PlannedLevel("c", scenario.loads[0]), 0)
    assert all_ns > 1.4 * without_b_ns > 2 * time.left(None).ns


def test_a_run_that_may_end_early_has_a_most():
    """A comparison that ends as soon as it knows enough, or when its budget has no room for another repeat."""
    scenario = plan(users=(1,), **FIXED)
    levels = [PlannedLevel(side, load) for load in scenario.loads for side in "AB"] * 10
    time = RunTime(scenario, levels, now_ns=lambda: 0, may_end_early=True, budget_ns=90 * S, in_order=False)
    time.responded("A", S)
    assert time.left(None) == Left(90 * S, 90 * S, at_most=True)


def test_while_nothing_has_responded_nothing_is_said():
    """No time left is better than a wrong one."""
    scenario = plan(**RUNS["fixed"][0])
    assert RunTime(scenario, [PlannedLevel("a", scenario.loads[0])], now_ns=lambda: 0).left(None) is None


def test_what_the_command_does_after_the_run_is_added():
    """By how long the whole run takes: of a grid's cell, the cells that come after it."""
    scenario = plan(users=(1, 2), duration=10 * S, warm_up=2 * S)
    levels = [PlannedLevel("a", load) for load in scenario.loads]
    alone, of_grid = (RunTime(scenario, levels, now_ns=lambda: 0) for _ in range(2))
    of_grid.then_ns = lambda whole_ns: 3 * whole_ns + 7 * S
    for time in (alone, of_grid):
        time.responded("a", S)
    assert of_grid.left(None).ns == 4 * alone.left(None).ns + 7 * S
