"""How often comparisons are right on a machine that drifts, of saved sessions and of live pairs: part of
`python -m tests.coverage.compare`.

A run's speed is that of its session, times a drift from run to run (an autoregressive process with lag-1 correlation
.9), times its own noise. All figures of a run share the speed; each has noise of its own, larger in the tail.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from loadbench.analyze.compare.compare import compare
from loadbench.analyze.compare.comparison_rows import HEADLINE_SHARE
from loadbench.analyze.compare.effect import BetweenRuns, Effect, RankTest
from loadbench.plan.gate import parse_gate
from loadbench.plan.settings import USUAL_REPEATS
from tests.analyze.comparing import VALID
from tests.building import a_level, a_run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from loadbench.results.run import Run

    Draw = Callable[[np.random.Generator, int], np.ndarray]

_TOKENS = "output_tokens_per_s"
_BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
# The noise of a figure of one run, apart from its speed.
_NOISE = {"p50": 0.003, "p95": 0.01, "p99": 0.03}
_CORRELATION = 0.9
# At which the figure of the conclusion is decided.
_ALPHA = 0.05 * HEADLINE_SHARE


@dataclass(frozen=True)
class Machine:
    """Standard deviations of the logarithm of speed; by `within` at most a session is faster or slower, and by
    `two_speeds` every other one is slower."""

    between: float = 0.03
    run_to_run: float = 0.03
    within: float = 0.0
    two_speeds: float = 0.0
    noise: float = 0.003

    def session(self, rng: np.random.Generator, runs: int) -> np.ndarray:
        """The logarithms of the speeds of one session's runs."""
        step = rng.normal(0, self.between) + math.log1p(rng.uniform(-self.within, self.within))
        step += math.log1p(-self.two_speeds) * float(rng.integers(2))
        drift = [rng.normal(0, self.run_to_run)]
        while len(drift) < runs:
            own = math.sqrt(1 - _CORRELATION**2) * rng.normal(0, self.run_to_run)
            drift.append(_CORRELATION * drift[-1] + own)
        return step + np.array(drift) + rng.normal(0, self.noise, runs)


# Without the figures that are compared only in an open loop or where a gate names them.
_WHOLE = a_level()
_LEVEL = msgspec.structs.replace(
    _WHOLE, verdict=VALID, metrics={name: _WHOLE.metrics[name] for name in ("ttft_s", "tpot_s", "e2e_s")}
)


def run(rng: np.random.Generator, log_speed: float, started: datetime) -> Run:
    """A run of one level, every figure of which follows the speed."""
    speed = math.exp(log_speed)
    metrics = {}
    for name, metric in _LEVEL.metrics.items():
        if metric is not None:
            points = {
                point: getattr(metric, point) / speed * math.exp(rng.normal(0, sd)) for point, sd in _NOISE.items()
            }
            interval = {point: (value * 0.98, value * 1.02) for point, value in points.items()}
            metrics[name] = msgspec.structs.replace(metric, **points, interval=interval)
    rates = {"output_tokens_per_s": 100 * speed, "requests_per_s": 5 * speed}
    throughput = msgspec.structs.replace(
        _LEVEL.throughput, **rates, interval={name: (rate * 0.99, rate * 1.01) for name, rate in rates.items()}
    )
    level = msgspec.structs.replace(_LEVEL, metrics=metrics, throughput=throughput)
    return msgspec.structs.replace(a_run(level), started_at=started.isoformat())


def saved(
    rng: np.random.Generator, machine: Machine, sessions: tuple[int, int], *, runs: int, slower: float = 1.0
) -> tuple[list[Run], list[Run]]:
    """Sessions of A, then those of B, each on a day of its own; B takes `slower` times as long."""
    sides: tuple[list[Run], list[Run]] = ([], [])
    for day in range(sum(sessions)):
        side = int(day >= sessions[0])
        speeds = machine.session(rng, runs) - side * math.log(slower)
        begin = _BEGIN + timedelta(days=day)
        sides[side].extend(run(rng, speed, begin + timedelta(minutes=3 * place)) for place, speed in enumerate(speeds))
    return sides


def one_session(rng: np.random.Generator, machine: Machine, order: str) -> tuple[list[Run], list[Run]]:
    """Runs of one server in one go, in an order as AAABBB."""
    made = [
        run(rng, speed, _BEGIN + timedelta(minutes=3 * place))
        for place, speed in enumerate(machine.session(rng, len(order)))
    ]
    a, b = ([one for one, side in zip(made, order, strict=True) if side == name] for name in "AB")
    return a, b


def shown(sides: tuple[list[Run], list[Run]], *, paired: bool = False, rule: str = f"{_TOKENS}<0%") -> Counter[str]:
    """What a comparison shows: a difference in the headline, in any figure, and a gate that fails."""
    found = compare(*sides, paired=paired, gates=[parse_gate(rule)])
    headline = next(row for row in found.comparisons if row.metric == _TOKENS)
    return Counter(
        headline=headline.decision != "~",
        any=any(row.decision != "~" for row in found.comparisons),
        gate=found.gates[0].passed is False,
    )


def sessions_table(seeds: int) -> Iterator[tuple[str, ...]]:
    """Saved runs: the machine, the sessions, the truth, and the shares of comparisons that show a difference."""
    steady = Machine(between=0.0)
    steps, worse = Machine(), Machine(within=0.15)
    lone, two = Machine(run_to_run=0.0), Machine(between=0.0, run_to_run=0.005, two_speeds=0.15)
    cells: list[tuple[str, Machine, tuple[int, int] | str, int, float]] = [
        *(("AR(.9) 3 %", steady, runs * "A" + runs * "B", runs, 1.0) for runs in (6, 12)),
        ("AR(.9) 3 %", steady, 4 * "AABB", 8, 1.0),
        *(("AR(.9) 3 %, steps 3 %", steps, each, 4, 1.0) for each in ((1, 1), (2, 2), (5, 1), (8, 1), (4, 4))),
        *(("AR(.9) 3 %, steps up to 15 %", worse, each, 4, 1.0) for each in ((1, 1), (2, 2), (5, 1), (8, 1), (4, 4))),
        *(("one of two speeds, 15 % apart", two, each, 4, 1.0) for each in ((1, 1), (5, 1), (3, 3), (4, 4))),
        *(("AR(.9) 3 %", steady, each, 4, 1.1) for each in ((5, 1), (4, 4))),
        *(("steps 3 %", lone, each, 4, 1.1) for each in ((8, 1), (3, 3), (4, 4))),
        *(("AR(.9) 3 %, steps 3 %", steps, each, 4, 1.1) for each in ((1, 1), (4, 4), (5, 5))),
        ("AR(.9) 3 %, steps 3 %", steps, (1, 1), 1, 2.0),
        ("AR(.9) 3 %, steps 3 %", steps, (1, 1), 4, 2.0),
        ("AR(.9) 3 %, steps up to 15 %", worse, (1, 1), 1, 2.0),
        ("AR(.9) 3 %, steps up to 15 %", worse, (1, 1), 4, 2.0),
        ("AR(.9) 3 %, steps up to 15 %", worse, (1, 1), 4, 3.0),
    ]
    for number, (machine, model, sessions, runs, slower) in enumerate(cells):
        counts: Counter[str] = Counter()
        for seed in range(seeds):
            rng = np.random.default_rng((number, seed))
            if isinstance(sessions, str):
                counts += shown(one_session(rng, model, sessions))
            else:
                counts += shown(saved(rng, model, sessions, runs=runs, slower=slower))
        where = sessions if isinstance(sessions, str) else f"{sessions[0]} and {sessions[1]} of {runs}"
        shares = (f"{100 * counts[key] / seeds:.1f} %" for key in ("headline", "any", "gate"))
        yield (machine, where, "none" if slower == 1 else f"{slower:g} x slower", *shares)


def _slow_run(rng: np.random.Generator, n: int) -> np.ndarray:
    """One run in ten takes 15 to 50 % longer."""
    return rng.normal(0, 0.02, n) + (rng.random(n) < 0.1) * rng.uniform(0.15, 0.5, n)


_NOISES: dict[str, Draw] = {
    "normal, 2 %": lambda rng, n: rng.normal(0, 0.02, n),
    "one slow run in ten": _slow_run,
    "t with 3 degrees of freedom": lambda rng, n: 0.02 * rng.standard_t(3, n),
    "uniform": lambda rng, n: rng.uniform(-0.03, 0.03, n),
}


def ranks_table(seeds: int) -> Iterator[tuple[str, ...]]:
    """One figure at 4 %: by Student's t alone, by ranks alone, and by both as a comparison uses them."""
    for paired in (True, False):
        for n in (4, 8, 12, 16):
            for noise, draw in _NOISES.items():
                counts = Counter[tuple[str, float]]()
                for seed in range(seeds):
                    rng = np.random.default_rng((paired, n, seed))
                    a, b = draw(rng, n), draw(rng, n)
                    for slower in (0.0, 0.03):
                        effect = BetweenRuns(a, b + slower, paired).effect()
                        assert effect is not None
                        alone = Effect(effect.value, effect.below, effect.above, effect.freedom)
                        counts["t", slower] += alone.p_value() <= _ALPHA
                        counts["ranks", slower] += RankTest(a, b + slower, paired).p_value() <= _ALPHA
                        counts["both", slower] += effect.p_value() <= _ALPHA
                shares = (
                    " / ".join(f"{100 * counts[test, slower] / seeds:.1f}" for test in ("t", "ranks", "both")) + " %"
                    for slower in (0.0, 0.03)
                )
                yield (f"{n} pairs" if paired else f"{n} a side", noise, *shares)


def until_table(seeds: int) -> Iterator[tuple[str, ...]]:
    """Pairs until the ratio is known to 3 %, or 40 pairs are measured."""
    wide = {"normal, 5 %": lambda rng, n: rng.normal(0, 0.05, n), "normal, 10 %": lambda rng, n: rng.normal(0, 0.1, n)}
    for noise, draw in {**_NOISES, **wide}.items():
        for rule in ("an ordinary interval", "as `--until`"):
            shown_at_all = held = reached = pairs = 0
            for seed in range(seeds):
                differences = np.diff([draw(np.random.default_rng((seed, side)), 40) for side in (0, 1)], axis=0)[0]
                for n in range(USUAL_REPEATS, 41):
                    first = 0 if rule.startswith("an") else USUAL_REPEATS
                    effect = BetweenRuns(np.zeros(n), differences[:n], paired=True, first=first).effect()
                    assert effect is not None
                    low, high = Effect(effect.value, effect.below, effect.above, effect.freedom).interval(1 - _ALPHA)
                    if (high - low) / 2 <= math.log(1.03):
                        reached += 1
                        break
                pairs += n
                held += low <= 0 <= high
                shown_at_all += not low <= 0 <= high
            shares = (f"{100 * part / seeds:.1f} %" for part in (reached, held, shown_at_all))
            yield (noise, rule, *shares, f"{pairs / seeds:.1f}")


def table(headers: Sequence[str], rows: Iterator[tuple[str, ...]]) -> Iterator[str]:
    """The lines of a Markdown table, as soon as they are known."""
    yield f"\n| {' | '.join(headers)} |\n|{'---|' * len(headers)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"


def lines(seeds: int) -> Iterator[str]:
    """All tables; those of one figure alone are cheap."""
    yield from table(
        ("machine", "sessions of runs", "difference", "shown in tokens/s", "in any figure", "gate at 0 % fails"),
        sessions_table(2 * seeds),
    )
    yield from table(
        ("runs", "noise", "no difference: t / ranks / both show one", "3 %: t / ranks / both"), ranks_table(5 * seeds)
    )
    yield from table(("noise", "rule", "reached", "interval holds", "false alarms", "pairs"), until_table(5 * seeds))
