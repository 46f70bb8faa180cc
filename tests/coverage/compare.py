"""How often comparisons are right, for simulated servers whose true ratio is known. All of it takes some minutes:

    python -m tests.coverage.compare

Each run is of a server that is as fast as its luck has it, apart from the noise of each step: so differ real runs. The
two servers differ by one factor in every duration, so that each ratio but that of failures is known.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from loadbench.analyze.compare.compare import compare
from loadbench.analyze.compare.crossover import crossover
from loadbench.analyze.compare.effect import BetweenRuns, plan_repeats
from loadbench.analyze.level.summary import summarize
from loadbench.client.client import Client, Endpoint, Timeouts
from loadbench.core.virtual import VirtualClock, run_virtual
from loadbench.plan.gate import parse_gate
from loadbench.plan.load import Closed
from loadbench.plan.objective import RATES
from loadbench.plan.sim_profile import PROFILES
from loadbench.sim.transport import SimTransport
from tests.building import a_run
from tests.coverage.drift import lines
from tests.engine.scripted import S, run_level

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from loadbench.plan.sim_profile import Profile
    from loadbench.results.compare import Comparison
    from loadbench.results.run import LevelResult, Run

SERVER = PROFILES["slot-server"]
# The coefficient of variation of a run's speed.
LUCK = 0.02
USERS = (1, 4)
TOKENS = 6
# Requests of a single run: it lasts for four seconds, long enough for an interval of throughput.
ONE_RUN = 400


def level(profile: Profile, users: int, *, seed: int, requests: int) -> LevelResult:
    """One level in virtual time."""

    async def run() -> LevelResult:
        clock = VirtualClock()
        async with SimTransport(profile, clock=clock, seed=seed).serving() as transport:
            endpoint = Endpoint(base_url="http://simulated/v1", model=profile.model)
            client = Client(endpoint, transport, clock=clock, timeouts=Timeouts())
            # All times scale with the server's speed, the warm-up too.
            warm_up_ns = round(20 * profile.decode_base_s * S)
            plan = {"max_tokens": TOKENS}
            ran = await run_level(
                client, Closed(users), clock=clock, plan=plan, warm_up_ns=warm_up_ns, requests=requests
            )
        return summarize(ran.recording, target="simulated", model=profile.model, load=Closed(users), failure_limit=0.01)

    return run_virtual(run)


def side(
    profile: Profile, *, runs: int, seed: int, users: Sequence[int] = USERS, requests: int = 30, luck: float = LUCK
) -> list[Run]:
    """Runs of one server, each with its own random speed."""
    made = []
    for number, speed in enumerate(np.random.default_rng(seed).lognormal(0, luck, runs)):
        lucky = profile.faster(float(speed))
        levels = [level(lucky, load, seed=1000 * seed + number, requests=requests) for load in users]
        # Each run is a session of its own.
        started = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=2 * number + seed % 2)
        made.append(msgspec.structs.replace(a_run(*levels), started_at=started.isoformat()))
    return made


def sides_of(seed: int, *slower: float, runs: int, **how: object) -> list[list[Run]]:
    """The runs of servers that take these multiples of the time, each with its own random speed and noise."""
    return [
        side(SERVER.faster(1 / times), runs=runs, seed=len(slower) * seed + number, **how)
        for number, times in enumerate(slower)
    ]


@dataclass
class Held:
    """The number of intervals, and how many of them held the truth."""

    intervals: int = 0
    held: int = 0

    def count(self, interval: tuple[float, float] | None, truth: float) -> None:
        """Count an interval, if there is one."""
        if interval is not None:
            self.intervals += 1
            self.held += bool(interval[0] <= truth <= interval[1])

    @property
    def share(self) -> float:
        """The share of intervals that held the truth."""
        return self.held / self.intervals


@dataclass
class Tally:
    """Comparisons of one kind: by figure how often the interval held; how often a gate failed, and passed."""

    comparisons: int = 0
    held: dict[str, Held] = field(default_factory=dict)
    claimed: int = 0  # comparisons that show any difference at any level
    failed: int = 0
    passed: int = 0

    def add(self, comparison: Comparison, *, slower: float) -> None:
        """Add a comparison with a server that takes `slower` times as long for everything."""
        self.comparisons += 1
        for row in comparison.comparisons:
            if row.metric != "failures":
                truth = 1 / slower if row.metric in RATES else slower
                self.held.setdefault(row.metric, Held()).count(row.interval, truth)
        self.claimed += any(row.decision != "~" for row in comparison.comparisons)
        self.failed += any(gate.passed is False for gate in comparison.gates)
        self.passed += bool(comparison.gates) and all(gate.passed for gate in comparison.gates)

    def pooled(self) -> Held:
        """The counts over all figures."""
        return Held(sum(one.intervals for one in self.held.values()), sum(one.held for one in self.held.values()))


def tallied(
    pairs: Iterable[tuple[list[Run], list[Run]]], *, slower: float, rules: Sequence[str] = (), paired: bool = False
) -> Tally:
    """All pairs of sides compared; the second side takes `slower` times as long."""
    tally, gates = Tally(), [parse_gate(rule) for rule in rules]
    for a, b in pairs:
        tally.add(compare(a, b, gates=gates, paired=paired), slower=slower)
    return tally


def crossings(seeds: range, *, runs: int = 6) -> Held:
    """How often the interval holds the true crossover of 4 users, for runs with random speed."""
    users, truth = (1, 2, 4, 8, 16), 4.0
    held = Held()
    for seed in seeds:
        rng = np.random.default_rng(seed)
        levels = [
            BetweenRuns(
                math.log(30 * load) + rng.normal(0, LUCK, runs),
                math.log(30 * load) + 0.04 * math.log2(load / truth) + rng.normal(0, LUCK, runs),
                paired=True,
            )
            for load in users
        ]
        found = crossover(users, levels, [_decided(one) for one in levels], confidence=0.95)
        held.count(None if found is None else (found.low, found.high), truth)
    return held


def _decided(one: BetweenRuns) -> str:
    effect = one.effect()
    assert effect is not None
    return "~" if effect.p_value() > 0.05 else "faster" if effect.value > 0 else "slower"


def by_bootstrap(*, runs: int, times: int, seed: int = 0) -> tuple[float, float]:
    """How often intervals of a mean hold the truth: by Student's t, and by a percentile bootstrap."""
    rng = np.random.default_rng(seed)
    student, percentile = Held(), Held()
    for _ in range(times):
        values = rng.normal(0, 1, runs)
        effect = BetweenRuns(np.zeros(runs), values, paired=True).effect()
        assert effect is not None
        student.count(effect.interval(0.95), 0.0)
        means = values[rng.integers(0, runs, (1000, runs))].mean(axis=1)
        low, high = np.quantile(means, [0.025, 0.975])
        percentile.count((low, high), 0.0)
    return student.share, percentile.share


def main(seeds: int) -> None:
    """Print the results; of single runs, which are long, there are fewer, and of drawn ones more."""
    for line in lines(seeds):
        print(line, flush=True)  # noqa: T201 - what it is for
    print()  # noqa: T201
    several_runs(seeds)
    one_run(max(1, seeds // 4))
    crossing = crossings(range(10 * seeds))
    _say("cross at 4 users", "6 pairs", f"its interval holds that: {_share(crossing.held, crossing.intervals)}")
    student, percentile = by_bootstrap(runs=6, times=5000)
    _say("6 normal values", "", f"Student's t holds the mean: {student:.1%}, a percentile bootstrap: {percentile:.1%}")


def several_runs(seeds: int) -> None:
    """Intervals and gates from the spread of runs."""
    planned = {
        paired: plan_repeats(LUCK, 0.1, bound=0.05, checks=len(USERS), paired=paired) for paired in (False, True)
    }
    made = [sides_of(seed, 1.0, 1.0, 1.1, runs=max(6, *planned.values())) for seed in range(seeds)]
    for paired, runs in planned.items():
        same, slow = ([(one[0][:6], one[other][:6]) for one in made] for other in (1, 2))
        found = tallied(same, slower=1.0, rules=["ttft_p95>0%"], paired=paired)
        kind = "6 pairs" if paired else "6 a side"
        _say("no difference", kind, f"intervals hold it: {_held(found)}")
        _say("no difference", kind, f"gate ttft_p95>0% fails: {_share(found.failed, seeds)}")
        _say("no difference", kind, f"any difference is shown at any level: {_share(found.claimed, seeds)}")
        _say("10 % slower", kind, f"intervals hold it: {_held(tallied(slow, slower=1.1, paired=paired))}")
        kind = f"{runs} {'pairs' if paired else 'a side'}"
        for truth, other, slower in (("10 % slower", 2, 1.1), ("no difference", 1, 1.0)):
            pairs = [(one[0][:runs], one[other][:runs]) for one in made]
            found = tallied(pairs, slower=slower, rules=["ttft_p95>5%"], paired=paired)
            told = f"fails: {_share(found.failed, seeds)}, passes: {_share(found.passed, seeds)}"
            _say(truth, kind, f"as planned; gate ttft_p95>5% {told}")


def one_run(seeds: int) -> None:
    """Intervals from within one run a side: for servers of constant speed, and for runs with random speed."""
    for luck in (0.0, LUCK):
        alone = (sides_of(seed, 1.0, 1.1, runs=1, luck=luck, users=(4,), requests=ONE_RUN) for seed in range(seeds))
        told = _held(tallied(((a, b) for a, b in alone), slower=1.1))
        _say("10 % slower", "1 a side", f"runs that differ by {luck:.0%}; intervals hold it: {told}")


def _say(truth: str, kind: str, result: str) -> None:
    print(f"{truth:16}  {kind:8}  {result}", flush=True)  # noqa: T201 - what it is for


def _share(part: int, whole: int) -> str:
    return f"{part} of {whole} ({part / whole:.1%})"


def _held(tally: Tally) -> str:
    with_intervals = [(metric, one) for metric, one in tally.held.items() if one.intervals]
    if not with_intervals:
        return "none has one"
    metric, worst = min(with_intervals, key=lambda item: item[1].share)
    pooled = tally.pooled()
    return f"{_share(pooled.held, pooled.intervals)}; least often {metric}, {worst.share:.1%}"


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
