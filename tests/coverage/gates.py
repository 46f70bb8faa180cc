"""How often gates are decided, and how often wrongly, on servers whose true quantiles are known. Takes some minutes:

    python -m tests.coverage.gates [LEVELS [WORD]]

`WORD` chooses the systems with it in their name.
Each level lasts 10 s (closed loops) or 1,000 requests (open loops). For a rule on a percentile p, four bounds are
tried: 1.2 times the true percentile, which the level should pass; the true percentile one below p, where a PASS is
wrong; and the true percentile one above, where a FAIL is wrong (half a percent for p99). The truth is that of all
levels of a system together. *Near-deterministic* levels are those whose coefficient of variation is at most 5 %.
"""

from __future__ import annotations

import math
import sys
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from loadbench.analyze.stats.hits import HitSeries
from loadbench.record.attainment import KeptHits
from tests.coverage.systems import SimulatedLevel, batching, constant, exponential, lognormal, queue, sharing, slots

if TYPE_CHECKING:
    from collections.abc import Callable

# Of a level in an open loop; short ones last 10 s at 4 to 20 requests/s.
REQUESTS = 1000
FEW_REQUESTS = (40, 100, 200)
FIGURES = ("ttft", "e2e", "tpot")
PERCENTILES = (0.5, 0.9, 0.95, 0.99)
# Coefficient of variation up to which a level is near-deterministic.
NEAR_DETERMINISTIC = 0.05


class System(NamedTuple):
    """A server and its load; `users` are `None` in an open loop."""

    name: str
    users: int | None
    level: Callable[[int], SimulatedLevel]


def systems() -> list[System]:
    """Closed loops with batching and with slots, and queues."""
    thinks = {"exponential": exponential(1.0), "constant": constant(0.7)}
    plain = [(f"{n} users", n, {}) for n in (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32)]
    plain += [(f"{n} users, lognormal", n, {"tokens": lognormal(64, 0.7)}) for n in (1, 2, 4, 8, 16, 32)]
    plain += [(f"{n} users, {name} think", n, {"think": how}) for n in (4, 8, 16, 32) for name, how in thinks.items()]
    made = [System(name, n, partial(_batching, n, how)) for name, n, how in plain]
    made += [System(f"{n} users, 6 slots", n, partial(_slots, n)) for n in (3, 7, 13, 26)]
    for load in (0.5, 0.7, 0.8, 0.9):
        for name, how in (("M/M/1", {}), ("M/D/4", {"servers": 4, "constant_service": True})):
            made.append(System(f"{name} at {load:g}", None, partial(_queue, REQUESTS, load, how)))
        made.append(System(f"sharing at {load:g}", None, partial(_sharing, REQUESTS, load)))
    for load in (0.7, 0.9):
        for requests in FEW_REQUESTS:
            made.append(System(f"M/M/1 at {load:g}, {requests} requests", None, partial(_queue, requests, load, {})))
            made.append(System(f"sharing at {load:g}, {requests} requests", None, partial(_sharing, requests, load)))
    return made


def _batching(users: int, how: dict[str, Any], seed: int) -> SimulatedLevel:
    return batching(users, seed=seed, **how)


def _slots(users: int, seed: int) -> SimulatedLevel:
    return slots(users, seed=seed, service=lognormal(0.6, 0.02), count=6)


def _queue(requests: int, load: float, how: dict[str, Any], seed: int) -> SimulatedLevel:
    return queue(requests, seed=seed, load=load, **how)


def _sharing(requests: int, load: float, seed: int) -> SimulatedLevel:
    return sharing(requests, seed=seed, load=load)


def decided(values: np.ndarray, bound: float, p: float, users: int | None) -> str:
    """What becomes of a rule, as an objective decides it."""
    hits = values < bound
    rows = np.column_stack((hits, np.ones(len(values)), values / bound))
    low, high = HitSeries(KeptHits(rows), users).interval(int(hits.sum()), len(hits), p, by_distance=True)
    return "PASS" if low >= p else "FAIL" if high < p else "UNDECIDED"


class Cell(NamedTuple):
    """One figure of one system under one rule; the last three are shares of its levels."""

    system: str
    figure: str
    p: float
    requests: int
    spread: float
    passed: float
    false_pass: float
    false_fail: float

    @property
    def name(self) -> str:
        """As a table names it."""
        return f"{self.system} {self.figure}"


def study(system: System, levels: int) -> list[Cell]:
    """One system: each figure under each rule."""
    cells = []
    made = [system.level(seed) for seed in range(levels)]
    for figure in FIGURES:
        series = [getattr(level, figure) for level in made]
        truth = np.sort(np.concatenate(series))
        requests = int(np.median([len(values) for values in series]))
        spread = float(np.median([values.std() / values.mean() for values in series]))
        for p in PERCENTILES:
            step = 0.01 if p < 0.99 else 0.005
            ranks = [min(len(truth), math.ceil(len(truth) * share)) - 1 for share in (p, p - step, p + step)]
            exact, inside, outside = truth[ranks].tolist()
            shares = []
            for bound, word, holds in ((1.2 * exact, "PASS", True), (inside, "PASS", False), (outside, "FAIL", True)):
                # Where many requests share a value, no bound lies between two percentiles, and no decision is wrong.
                if not bound or ((truth < bound).mean() >= p) != holds:
                    shares.append(0.0)
                    continue
                shares.append(sum(decided(values, bound, p, system.users) == word for values in series) / levels)
            cells.append(Cell(system.name, figure, p, requests, spread, *shares))
    return cells


def main(levels: int, word: str) -> None:
    """Print a table of the cells at p95, each as soon as it is known, and one of all rules."""
    _print("| system | requests | figure | spread | PASS at 1.2 × p95 | false PASS at p94 | false FAIL at p96 |")
    _print("|---|---|---|---|---|---|---|")
    cells: list[Cell] = []
    for system in (system for system in systems() if word in system.name):
        cells += study(system, levels)
        for cell in cells[-len(FIGURES) * len(PERCENTILES) :]:
            if cell.p == 0.95:
                shares = " | ".join(f"{100 * share:.1f} %" for share in cell[4:])
                _print(f"| {cell.system} | {cell.requests} | {cell.figure} | {shares} |")
    _print("\n| rule | near-deterministic levels at 1.2 × | false PASS above 5 % | false FAIL above 10 % |")
    _print("|---|---|---|---|")
    for p in PERCENTILES:
        under = [cell for cell in cells if cell.p == p]
        near = [cell for cell in under if cell.spread <= NEAR_DETERMINISTIC]
        passed = sum(cell.passed >= 0.95 for cell in near)
        short = [cell for cell in near if cell.passed < 0.95]
        less = "".join(f"; {cell.name} {100 * cell.passed:.0f} %" for cell in short)
        wrong = []
        for of, most in (("false_pass", 0.05), ("false_fail", 0.10)):
            over = [cell for cell in under if getattr(cell, of) > most]
            named = "".join(f"; {cell.name} {100 * getattr(cell, of):.0f} %" for cell in over)
            wrong.append(f"{len(over)} of {len(under)}{named}")
        _print(f"| p{100 * p:g} | {passed} of {len(near)} pass in ≥ 95 %{less} | {' | '.join(wrong)} |")


def _print(line: str) -> None:
    print(line, flush=True)  # noqa: T201 - what it is for


if __name__ == "__main__":
    number, *words = [*sys.argv[1:]] or ["200"]
    main(int(number), " ".join(words))
