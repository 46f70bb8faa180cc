"""How often the ranges of the capacity search hold the true capacity, over many seeds, in virtual time.

python -m tests.coverage.capacity            all 200 seeds of every server, as docs/capacity.md shows them
python -m tests.coverage.capacity 20         fewer
"""

from __future__ import annotations

import math
import statistics
import sys
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

from loadbench.analyze.capacity.answer import answer
from loadbench.analyze.capacity.search_evidence import SearchEvidence
from loadbench.analyze.stats.intervals import binomial_cdf
from loadbench.client.client import Client, Endpoint, Timeouts
from loadbench.core.virtual import VirtualClock, run_virtual
from loadbench.engine.capacity import CapacitySearch
from loadbench.engine.level import Level
from loadbench.plan.distribution import Exponential
from loadbench.plan.objective import parse_objective
from loadbench.plan.scenario import Scenario
from loadbench.plan.settings import CapacitySettings, LoadSettings, ObjectiveSettings, WorkSettings
from tests.coverage.servers import S, Sharing, Slots, queue_miss, sharing_miss, slot_miss
from tests.engine.scripted import ScriptedSession

if TYPE_CHECKING:
    from collections.abc import Callable

    from loadbench.plan.search import Search
    from loadbench.results.capacity import CapacityAnswer

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

    @property
    def together(self) -> float:
        """How many requests carry as much information as one independent request."""
        shared = [one for probe in self.evidence.probes for one in probe.attainment.values()]
        return sum(one.requests for one in shared) / sum(one.effective for one in shared)


class SearchJudge:
    """The judge of a search, without a run folder."""

    def __init__(self, evidence: SearchEvidence) -> None:
        self.evidence = evidence
        self.wants = []
        self.recordings = []
        self.plans = []

    async def misses_alone(self, _subject):
        return False

    def search_begins(self, *, most_loads):
        self.evidence.start(most_loads=most_loads)

    def monitor(self, load, *, opens_ns):
        return self.evidence.monitor(load, opens_ns=opens_ns)

    def probe_ended(self, probe, load, recording, monitor, *, spent_ns):
        self.wants.append(probe.expects)
        return self.evidence.add_probe(probe, load, recording, monitor, level=len(self.wants) - 1)

    def aim(self, search, requests, *, passes):
        return self.evidence.aim(search, requests, passes=passes)

    def step_ended(self, load, recording, *, spent_ns, took_ns):
        raise AssertionError("these searches have no throughput curve")

    def predicted_users(self):
        return None

    def best_estimate(self, search):
        return self.evidence.best_estimate(search)

    def model_prepared(self, subject):
        pass

    def level_ended(self, recording, model, load):
        self.recordings.append(recording)

    def level_begins(self, level, model, number):
        if isinstance(level, Level):
            self.plans.append(level.plan)

    def sample_ended(self, sample, number):
        pass


def searched(scenario: Scenario, server: Callable[[], object], **about) -> Searched:
    """One whole search in virtual time."""

    async def main() -> Searched:
        clock = VirtualClock()
        transport = server()
        client = Client(Endpoint(base_url="http://scripted/v1", model="m"), transport, clock=clock, timeouts=PATIENT)
        judge = SearchJudge(
            SearchEvidence(
                scenario.objectives, confidence=scenario.capacity.confidence, closed=scenario.capacity.by == "users"
            )
        )
        search = CapacitySearch(
            scenario, ScriptedSession(clock, lambda _: client), model="m", judge=judge, observer=judge, **about
        )
        await search.run()
        return Searched(
            search.search,
            judge.evidence,
            answer(judge.evidence, search.search, confidence=scenario.capacity.confidence, think_s=None),
            sum(probe.requests for probe in judge.evidence.probes),
            search.spent_ns / 1e9,
            search.out_of_time,
            transport.taken,
            judge.wants,
            judge.recordings,
            judge.plans,
        )

    return run_virtual(main)


def a_scenario(*rules: str, think_s: float | None = None, seed: int = 0, warm_up=None, **capacity) -> Scenario:
    """A scenario for a search; without a throughput curve unless that is set."""
    return Scenario(
        load=LoadSettings(think=None if think_s is None else Exponential(think_s * S), warm_up=warm_up, ramp=None),
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
    by: str = "users"
    budget_s: int = 1200

    def scenario(self, seed: int) -> Scenario:
        return a_scenario(
            *self.rules, think_s=self.think_s, seed=seed, by=self.by, budget=self.budget_s * S, at_most=200.0
        )

    def truth(self) -> float:
        """The highest load whose share of misses is allowed."""
        if self.by == "users":
            low, high = 0, 200
            while high - low > 1:
                middle = (low + high) // 2
                low, high = (middle, high) if self.miss(middle) <= 1 - self.asked else (low, middle)
            return low
        low, high = 1e-3, 200.0
        for _ in range(60):
            middle = math.sqrt(low * high)
            low, high = (middle, high) if self.miss(middle) <= 1 - self.asked else (low, middle)
        return low


def holds(found: Searched, truth: float) -> bool:
    """Whether the range holds the truth; an end that was not proven does not count."""
    if found.answer is None:
        return truth < found.search.grid.amount(found.search.grid.lowest)
    low, high = found.answer.low, found.answer.high
    return (low is None or low <= truth) and (high is None or truth <= high)


CASES = (
    Case(
        "4 slots, M/M/4//N, 2 s of work, 20 s of thinking",
        ("ttft_p95<1s",),
        partial(Slots, 4, 2.0),
        lambda users: slot_miss(int(users), slots=4, work_s=2.0, think_s=20.0, bound_s=1.0),
        0.95,
        think_s=20.0,
        budget_s=3600,
    ),
    Case(
        "8 slots, quick, no thinking worth the name",
        ("ttft_p90<100ms",),
        partial(Slots, 8, 0.2),
        lambda users: slot_miss(int(users), slots=8, work_s=0.2, think_s=0.5, bound_s=0.1),
        0.9,
        think_s=0.5,
        budget_s=150,
    ),
    Case(
        "sharing, 0.5 s of work alone, 10 s of thinking",
        ("e2e_p90<3s",),
        partial(Sharing, shared, 0.5),
        lambda users: sharing_miss(int(users), shared, work_s=0.5, think_s=10.0, bound_s=3.0),
        0.9,
        think_s=10.0,
    ),
    Case(
        "memory for 12, half as fast beyond; 1 s of work, 5 s of thinking",
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
)


HEAD = (
    "| server | truth | range holds it | both ends proven | high / low | requests | fixed grid | time | longest |\n"
    "|---|---|---|---|---|---|---|---|---|\n"
)


def fixed_grid(case: Case, *, steps: float = 1.25, power: float = 0.8) -> int:
    """The independent requests of a sweep with the same confidence, on a grid fixed beforehand.

    Its levels are a quarter apart up to the first that is sure to fail. Each has as many requests, for nobody knows
    beforehand which will matter: as many as decide, with this power, at the level nearest below the border and at that
    nearest above which are still decided by 20,000; the error is shared among the levels.
    """
    levels, amount = [], 1.0 if case.by == "users" else 0.05
    while not levels or (case.miss(levels[-1]) < 2 * (1 - case.asked) and amount < 300):
        levels.append(round(amount) if case.by == "users" else amount)
        amount *= steps
    levels = sorted(set(levels))
    sizes = [decides(1 - case.miss(level), case.asked, 0.05 / len(levels), power=power) for level in levels]
    truth = case.truth()
    below = min(size for level, size in zip(levels, sizes, strict=True) if level <= truth / steps**0.5)
    above = min(size for level, size in zip(levels, sizes, strict=True) if level > truth)
    return len(levels) * max(below, above)


def decides(share: float, asked: float, alpha: float, *, power: float) -> int:
    """The independent requests of a decision, by the normal approximation of a binomial test."""
    normal = statistics.NormalDist()
    reach = normal.inv_cdf(1 - alpha) * math.sqrt(asked * (1 - asked))
    reach += normal.inv_cdf(power) * math.sqrt(share * (1 - share))
    fewest = math.log(alpha) / math.log(asked) if share > asked else 1.0
    return math.ceil(max(fewest, (reach / max(abs(share - asked), 1e-9)) ** 2))


def least_held(runs: int, share: float = 0.95) -> int:
    """The number of ranges that hold, at least, with a probability of 99.9 % if each holds with this one."""
    first, cumulative = binomial_cdf(runs, share)
    return first + next(k for k, below in enumerate(cumulative) if below > 0.001)


def tried(case: Case, seeds: int) -> str:
    """A line of the table: one case over this number of seeds."""
    truth = case.truth()
    found = [searched(case.scenario(seed), partial(case.server, seed=seed + 1)) for seed in range(seeds)]
    both = [one.answer for one in found if one.answer is not None and None not in {one.answer.low, one.answer.high}]
    width = statistics.median(one.high / one.low for one in both) if both else math.nan
    held = sum(holds(one, truth) for one in found)
    requests, spent_s = (
        statistics.median(part) for part in zip(*((one.requests, one.spent_s) for one in found), strict=True)
    )
    together = statistics.median(one.together for one in found)
    longest_s = max(one.spent_s for one in found)
    return (
        f"| {case.name} | {truth:.4g} | {held} of {seeds} | {len(both)} | {width:.2f} | {requests:.0f} "
        f"| {fixed_grid(case) * together:.0f} | {spent_s:.0f} s | {longest_s:.0f} of {case.budget_s} s |"
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
