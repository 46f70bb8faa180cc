"""How often the ranges of the capacity search hold the true capacity, over many seeds, in virtual time.

python -m tests.coverage.capacity            all 200 seeds of every server
python -m tests.coverage.capacity 20         fewer
"""

from __future__ import annotations

import math
import statistics
import sys
from dataclasses import dataclass, field, replace
from functools import cache, partial
from types import SimpleNamespace
from typing import TYPE_CHECKING

from loadbench.analyze.capacity.answer import answer, verification
from loadbench.analyze.capacity.search_evidence import SearchEvidence
from loadbench.analyze.stats.intervals import binomial_cdf
from loadbench.client.client import Client, Endpoint, Timeouts
from loadbench.core.virtual import VirtualClock, run_virtual
from loadbench.engine.capacity import CapacitySearch, grid_of
from loadbench.engine.level import Level
from loadbench.plan.distribution import Constant, Exponential, LogNormal
from loadbench.plan.objective import parse_objective
from loadbench.plan.scenario import Scenario
from loadbench.plan.search import Purpose
from loadbench.plan.settings import CapacitySettings, LoadSettings, ObjectiveSettings, WorkSettings
from loadbench.session.capacity import Resumed
from tests.coverage.servers import S, Sharing, Slots, queue_miss, sharing_miss, simulated_miss, slot_miss
from tests.engine.scripted import ScriptedSession

if TYPE_CHECKING:
    from collections.abc import Callable

    from loadbench.plan.search import Search
    from loadbench.results.capacity import Capacity, CapacityAnswer

PATIENT = Timeouts(connect_ns=None, first_token_ns=None, idle_ns=None, total_ns=None)


@dataclass
class Searched:
    """The results of a search."""

    search: Search
    evidence: SearchEvidence
    answer: CapacityAnswer | None
    requests: int
    spent_s: float
    out_of_time: bool
    taken: int = 0
    wants: list = field(default_factory=list)
    recordings: list = field(default_factory=list)
    plans: list = field(default_factory=list)


class SearchJudge:
    """The judge of a search, without a run folder."""

    def __init__(self, evidence: SearchEvidence) -> None:
        self.evidence = evidence
        self.wants = []
        self.recordings = []
        self.plans = []

    async def misses_alone(self, _subject):
        return False

    def monitor(self, probe, load, *, opens_ns):
        return self.evidence.monitor(probe, load, opens_ns=opens_ns)

    def probe_ended(self, probe, load, recording, monitor, *, spent_ns):
        self.wants.append(probe.expects)
        return self.evidence.add_probe(probe, load, recording, monitor, level=len(self.wants) - 1)

    def next_load(self, standing):
        return self.evidence.next_load(standing)

    def step_ended(self, load, recording, *, spent_ns, took_ns):
        raise AssertionError("these searches have no throughput curve")

    def predicted_users(self):
        return None

    def model_prepared(self, subject):
        pass

    def level_ended(self, recording, model, load):
        self.recordings.append(recording)

    def level_planned(self, load, model, number):
        pass

    def level_begins(self, level, model, number):
        if isinstance(level, Level):
            self.plans.append(level.plan)

    def sample_ended(self, sample, number):
        pass


def searched(scenario: Scenario, server: Callable[[], object], *, before: Capacity | None = None, **about) -> Searched:
    """One whole search in virtual time; it goes on from what is known `before`."""

    async def main() -> Searched:
        clock = VirtualClock()
        transport = server()
        client = Client(Endpoint(base_url="http://scripted/v1", model="m"), transport, clock=clock, timeouts=PATIENT)
        judge = SearchJudge(
            SearchEvidence(
                scenario.objectives,
                grid_of(scenario),
                confidence=scenario.capacity.confidence,
                closed=scenario.capacity.by == "users",
                think_s=None if scenario.think is None else scenario.think.mean / 1e9,
            )
        )
        if before is not None:
            judge.evidence.resume(before)
            resumed = Resumed(None, before, SimpleNamespace(levels=before.probes))
            about["earlier"] = resumed.earlier(judge.evidence.standing())
        search = CapacitySearch(
            scenario, ScriptedSession(clock, lambda _: client), model="m", judge=judge, observer=judge, **about
        )
        await search.run()
        verified = [probe for probe in judge.evidence.probes if probe.purpose is Purpose.VERIFY]
        agrees = bool(verified) and verification(judge.evidence).agrees
        return Searched(
            search.search,
            judge.evidence,
            answer(search.search, scenario.capacity.confidence, None, agrees=agrees),
            sum(probe.requests for probe in judge.evidence.probes),
            search.spent_ns / 1e9,
            search.out_of_time,
            transport.taken,
            judge.wants,
            judge.recordings,
            judge.plans,
        )

    return run_virtual(main)


def a_scenario(
    *rules: str, think_s: float | None = None, think=None, seed: int = 0, warm_up=None, **capacity
) -> Scenario:
    """A scenario for a search; without a throughput curve unless that is set. Users think exponentially, or as said."""
    if think is None and think_s is not None:
        think = Exponential(think_s * S)
    return Scenario(
        load=LoadSettings(think=think, warm_up=warm_up, ramp=None),
        work=WorkSettings(prompt="why?", seed=seed, unique=False),
        slo=ObjectiveSettings(objectives=tuple(parse_objective(rule) for rule in rules)),
        capacity=replace(CapacitySettings(curve=False), **capacity),
    )


def shared(n: int) -> float:
    """The speed of one server, shared among n requests."""
    return 1 / n


def halved_beyond_12(n: int) -> float:
    """The speed where memory is enough for twelve requests."""
    return 1.0 if n <= 12 else 0.5


@dataclass(frozen=True)
class Case:
    """A server, the objectives, and the true capacity."""

    name: str
    rules: tuple[str, ...]
    server: Callable[..., object]
    miss: Callable[[float], float]  # the share of misses at a load, of the limiting rule
    asked: float
    think_s: float | None = None
    think: object | None = None  # where it is not exponential
    by: str = "users"
    budget_s: int = 1200

    def scenario(self, seed: int, **capacity) -> Scenario:
        """A search of this server."""
        capacity = {"by": self.by, "budget": self.budget_s * S, "at_most": 200.0, **capacity}
        return a_scenario(*self.rules, think_s=self.think_s, think=self.think, seed=seed, **capacity)

    @cache  # noqa: B019 - of the few cases below
    def truth(self) -> float:
        """The highest load whose share of misses is allowed."""
        if self.by == "users":
            low, high = 0, 200
            while high - low > 1:
                middle = (low + high) // 2
                low, high = (middle, high) if self.miss(middle) <= 1 - self.asked else (low, middle)
            return low
        low, high = 1e-3, 200.0
        while high / low > 1.002:
            middle = math.sqrt(low * high)
            low, high = (middle, high) if self.miss(middle) <= 1 - self.asked else (low, middle)
        return low


def within(low: float | None, high: float | None, truth: float) -> bool:
    """Whether a range holds the truth; an end that is not known does not count."""
    return (low is None or low <= truth * (1 + 1e-9)) and (high is None or truth <= high * (1 + 1e-9))


def holds(found: Searched, truth: float) -> bool:
    """Whether the proven range holds the truth, and the likely one, where that is the answer."""
    if found.answer is None:
        return truth < found.search.grid.amount(found.search.grid.lowest)
    one = found.answer
    likely = one.strength != "likely" or within(one.likely_low, one.likely_high, truth)
    return likely and within(one.low, one.high, truth)


def fixed(seconds: float):
    """Always as long."""
    return lambda rng: seconds


def exponential(seconds: float):
    """With this mean."""
    return lambda rng: rng.expovariate(1 / seconds)


def lognormal(median: float, sigma: float):
    """With this median."""
    return lambda rng: rng.lognormvariate(math.log(median), sigma)


def batched(n: int) -> float:
    """The speed of each of n requests where a step takes 0.85, plus 0.15 per request in it."""
    return 1 / (0.85 + 0.15 * n)


CASES = (
    Case(
        "4 slots, M/M/4//N, 2 s of work, think 20 s",
        ("ttft_p95<1s",),
        partial(Slots, 4, 2.0),
        lambda users: slot_miss(int(users), slots=4, work_s=2.0, think_s=20.0, bound_s=1.0),
        0.95,
        think_s=20.0,
        budget_s=3600,
    ),
    Case(
        "8 slots, fast, almost no think time",
        ("ttft_p90<100ms",),
        partial(Slots, 8, 0.2),
        lambda users: slot_miss(int(users), slots=8, work_s=0.2, think_s=0.5, bound_s=0.1),
        0.9,
        think_s=0.5,
        budget_s=150,
    ),
    Case(
        "sharing, 0.5 s of work alone, think 10 s",
        ("e2e_p90<3s",),
        partial(Sharing, shared, 0.5),
        lambda users: sharing_miss(int(users), shared, work_s=0.5, think_s=10.0, bound_s=3.0),
        0.9,
        think_s=10.0,
    ),
    Case(
        "memory for 12, half as fast beyond; 1 s of work, think 5 s",
        ("e2e_p95<4s",),
        partial(Sharing, halved_beyond_12, 1.0),
        lambda users: sharing_miss(int(users), halved_beyond_12, work_s=1.0, think_s=5.0, bound_s=4.0),
        0.95,
        think_s=5.0,
    ),
    Case(
        "4 slots, M/M/4, 2 s of work, by rate",
        ("ttft_p95<1s",),
        partial(Slots, 4, 2.0),
        lambda rate: queue_miss(rate, slots=4, work_s=2.0, bound_s=1.0),
        0.95,
        by="rate",
        budget_s=3600,
    ),
    Case(
        "4 slots, fixed 2 s, think 30 s (README)",
        ("ttft_p95<1s",),
        partial(Slots, 4, 2.0, fixed=True),
        partial(simulated_miss, bound_s=1.0, work=fixed(2.0), think=exponential(30.0), slots=4),
        0.95,
        think_s=30.0,
    ),
    Case(
        "4 slots, fixed 2 s, think lognormal 15 s",
        ("ttft_p90<1s",),
        partial(Slots, 4, 2.0, fixed=True),
        partial(simulated_miss, bound_s=1.0, work=fixed(2.0), think=lognormal(15.0 * math.exp(-0.18), 0.6), slots=4),
        0.9,
        think=LogNormal(15.0 * S, 0.6),
    ),
    Case(
        "4 slots, exponential 2 s, think always 15 s",
        ("ttft_p90<1s",),
        partial(Slots, 4, 2.0),
        partial(simulated_miss, bound_s=1.0, work=exponential(2.0), think=fixed(15.0), slots=4),
        0.9,
        think=Constant(15 * S),
    ),
    Case(
        "batching, fixed 1 s alone, think 8 s",
        ("e2e_p90<2s",),
        partial(Sharing, batched, 1.0, fixed=True),
        partial(simulated_miss, bound_s=2.0, work=fixed(1.0), think=exponential(8.0), speed=batched, of="e2e"),
        0.9,
        think_s=8.0,
    ),
    Case(
        "batching, fixed 1 s alone, no think time (lockstep)",
        ("e2e_p95<2s",),
        partial(Sharing, batched, 1.0, fixed=True),
        lambda users: float(0.85 + 0.15 * users >= 2.0),
        0.95,
        budget_s=300,
    ),
    Case(
        "8 slots, fixed 0.5 s, no think time (lockstep)",
        ("ttft_p95<470ms",),
        partial(Slots, 8, 0.5, fixed=True),
        lambda users: float(users >= 16),
        0.95,
        budget_s=300,
    ),
    Case(
        "fails above 10 in flight; sharing, exponential 0.5 s, think 4 s",
        ("failures<5%",),
        partial(Sharing, batched, 0.5, most=10),
        partial(simulated_miss, bound_s=1e9, work=exponential(0.5), think=exponential(4.0), speed=batched, most=10),
        0.95,
        think_s=4.0,
    ),
    Case(
        "4 slots, M/D/4, fixed 1 s, by rate",
        ("ttft_p95<500ms",),
        partial(Slots, 4, 1.0, fixed=True),
        partial(simulated_miss, bound_s=0.5, work=fixed(1.0), slots=4),
        0.95,
        by="rate",
        budget_s=1200,
    ),
)


HEAD = (
    "| server | truth | answered: proven, likely | range holds it | likely holds it | high / low: proven, likely "
    "| requests | time | longest |\n|---|---|---|---|---|---|---|---|---|\n"
)


def least_held(runs: int, share: float = 0.95) -> int:
    """The number of ranges that hold, at least, with a probability of 99.9 % if each holds with this one."""
    first, cumulative = binomial_cdf(runs, share)
    return first + next(k for k, below in enumerate(cumulative) if below > 0.001)


def tried(case: Case, seeds: int) -> str:
    """A line of the table: one case over this number of seeds."""
    truth, users = case.truth(), case.by == "users"
    found = [searched(case.scenario(seed), partial(case.server, seed=seed + 1)) for seed in range(seeds)]
    answers = [one.answer for one in found]
    proven = [(one.low, one.high) for one in answers if one is not None and one.strength == "proven"]
    likely = [(one.likely_low, one.likely_high) for one in answers if one is not None and one.strength == "likely"]

    def width(ranges) -> str:
        if not ranges:
            return "-"
        low, high = statistics.median_low(sorted(ranges, key=lambda pair: pair[1] / pair[0])[len(ranges) // 2 :][:1])
        return f"{high / low:.2f}" + (" (one user)" if users and high - low <= 1 else "")

    requests, spent_s = (
        statistics.median(part) for part in zip(*((one.requests, one.spent_s) for one in found), strict=True)
    )
    longest_s = max(one.spent_s for one in found)
    held = sum(within(*pair, truth) for pair in likely)
    return (
        f"| {case.name} | {truth:.4g} | {len(proven)} + {len(likely)} of {seeds} "
        f"| {sum(holds(one, truth) for one in found)} | {held} of {len(likely)} | {width(proven)}, {width(likely)} "
        f"| {requests:.0f} | {spent_s:.0f} s | {longest_s:.0f} of {case.budget_s} s |"
    )


def main(seeds: int = 200, only: int | None = None) -> None:
    """Run every case, or one, and print the results."""
    write = sys.stdout.write
    write(HEAD)
    for case in CASES if only is None else CASES[only : only + 1]:
        write(tried(case, seeds) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:]))
