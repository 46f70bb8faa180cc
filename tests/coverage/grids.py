"""How often a grid names a best cell wrongly, or leaves the true best out, for cells whose true throughput is known:

    python -m tests.coverage.grids

Each level is measured with noise inside it, which its interval shows, and each cell while the machine is as fast as its
luck has it, which no interval shows.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import numpy as np

from loadbench.analyze.grid.cells import ASSUMED_DRIFT, concluded
from loadbench.analyze.stats.student import quantile
from loadbench.plan.load import Closed
from loadbench.results.grid import Cell, Grid, VariedName
from tests.building import a_level, a_run

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadbench.results.run import Run

USERS = (1, 4, 16)
# What a server gives at these users, as shares of its best: the last two loads are nearly alike.
CURVE = (0.3, 0.97, 1.0)
_LEVELS = [msgspec.structs.replace(a_level(load=Closed(users))) for users in USERS]
_BATCHES = 20


class Rates(NamedTuple):
    """Of many grids, the shares that named a wrong best cell, named any, and left the true best out."""

    wrong: float
    named: float
    lost: float


def a_grid(values: Sequence[str], *, status: str = "complete", **more: object) -> Grid:
    """A grid of one name with so many cells, all measured."""
    name = VariedName(name="slots", key=None, values=list(values))
    cells = [
        Cell(values={"slots": value}, folder=f"0{at}", content_hash=value, status=status)
        for at, value in enumerate(values)
    ]
    fields: dict[str, object] = {
        "name": "grid",
        "started_at": "2026-01-01T00:00:00Z",
        "loadbench_version": "1",
        "simulated": True,
        "complete": True,
        "vary": [name],
        "scenario": {},
        "cells": cells,
    }
    return Grid(**fields | more)


def a_cell_run(rates: Sequence[float], half_widths: Sequence[float]) -> Run:
    """A run with these output tokens/s at each of `USERS`, and their intervals."""
    levels = []
    for level, rate, half in zip(_LEVELS, rates, half_widths, strict=True):
        interval = {**level.throughput.interval, "output_tokens_per_s": (rate - half, rate + half)}
        throughput = msgspec.structs.replace(level.throughput, output_tokens_per_s=rate, interval=interval)
        valid = msgspec.structs.replace(level.verdict, status="VALID", reasons=[])
        outcomes = {"ok": 100}
        levels.append(msgspec.structs.replace(level, throughput=throughput, verdict=valid, outcomes=outcomes))
    return a_run(*levels)


def measured(speeds: Sequence[float], rng: np.random.Generator, *, noise: float, drift: float) -> Grid:
    """A grid whose cells have these true speeds, concluded."""
    runs = {}
    for place, speed in enumerate(speeds):
        luck = math.exp(rng.normal(0, drift)) if drift else 1.0
        rates, halves = [], []
        for share in CURVE:
            batches = speed * luck * share * (1 + rng.normal(0, noise * math.sqrt(_BATCHES), _BATCHES))
            rates.append(max(1e-3, float(batches.mean())))
            halves.append(quantile(0.975, _BATCHES - 1) * float(batches.std(ddof=1)) / math.sqrt(_BATCHES))
        runs[place] = a_cell_run(rates, halves)
    return concluded(a_grid([str(at) for at in range(len(speeds))]), runs)


def rates_of(speeds: Sequence[float], *, grids: int, noise: float, drift: float, seed: int = 1) -> Rates:
    """The shares over so many grids; of equal cells the first counts as the best, so that any name but it is wrong."""
    rng, best, wrong, named, lost = np.random.default_rng(seed), int(np.argmax(speeds)) + 1, 0, 0, 0
    equal = len({*speeds}) == 1
    for _ in range(grids):
        (found,) = measured(speeds, rng, noise=noise, drift=drift).best
        named += found.best is not None
        wrong += found.best is not None and (equal or found.best != best)
        lost += best not in found.candidates
    return Rates(wrong / grids, named / grids, lost / grids)


def main() -> None:
    """Print a table."""
    print(f"{'cells':32} {'noise':>6} {'drift':>6} {'wrong':>7} {'named':>7} {'lost':>7}")  # noqa: T201
    for speeds in ((1.0,) * 2, (1.0,) * 6, (1.0,) * 24, (1.05, *(1.0,) * 5), (1.2, *(1.0,) * 5), (1.5, *(1.0,) * 5)):
        for noise in (0.01, 0.05):
            for drift in (0.0, 0.02, ASSUMED_DRIFT, 0.1):
                rates = rates_of(speeds, grids=400, noise=noise, drift=drift)
                cells = f"{len(speeds)} cells, best {speeds[0]:g} of the others"
                print(f"{cells:32} {noise:6.0%} {drift:6.0%} {rates.wrong:7.1%} {rates.named:7.1%} {rates.lost:7.1%}")  # noqa: T201


if __name__ == "__main__":
    main()
