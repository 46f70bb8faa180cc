"""How often the models' 95 % intervals hold the truth, over many measurements of servers whose truth is known.

python -m tests.coverage.models [MEASUREMENTS]
"""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING

import numpy as np

from loadbench.analyze.capacity.scaling import fit_scaling
from tests.analyze.capacity.test_prediction import by_hand, drawn_levels, exact_shares, fit_of, slotted, true_users
from tests.analyze.capacity.test_scaling import USERS, batch, levels, noisy, usl

if TYPE_CHECKING:
    from collections.abc import Iterator

RULE, BOUND_S, SHARE = "ttft_p50<1.1s", 1.1, 0.5


def theory() -> list[str]:
    """Four memoryless slots, measured for 300 s a level without think time, against the theory of M/M/4//N."""
    measured = [slotted(users, seconds=300) for users in (1, 2, 4, 6, 8, 12, 18)]
    lines = []
    for rule, bound_s, share in (("ttft_p95<5s", 5.0, 0.05), ("ttft_p50<1.5s", 1.5, 0.5)):
        for think_s in (5.0, 10.0, 20.0):
            fit = fit_of(measured, rule, think_s)
            span = f"{fit.low} or more" if fit.high is None else f"{fit.low} to {fit.high}"
            told = f"at least {fit.users}" if fit.at_least else f"{fit.users} ({span})"
            lines.append(f"{rule}, think {think_s:g} s: {told}; theory {true_users(bound_s, share, think_s)}")
    return lines


def prediction(measurements: int, think_s: float) -> str:
    """Users by the finite source, from five levels of four slots with 150 responses and an error of 2 % each."""
    truth = by_hand(exact_shares(BOUND_S), SHARE, think_s)
    rng = np.random.default_rng(11)
    fits = [fit_of(drawn_levels(rng), RULE, think_s) for _ in range(measurements)]
    held = sum(fit.low <= truth <= (fit.high or math.inf) for fit in fits)
    widths = [(fit.high or fit.users) - fit.low for fit in fits]
    return f"users, think {think_s:g} s: {truth} fit; held {held} of {measurements}, median width {np.median(widths):g}"


def law(measurements: int, name: str, per_s: np.ndarray, truths: dict[str, float]) -> str:
    """The coefficients of a law, from eight levels with an error of 3 % each."""
    chosen, held = 0, dict.fromkeys(truths, 0)
    for seed in range(measurements):
        scaling = fit_scaling(levels(noisy(per_s, 1000 + seed, 0.03), reach=0.06))
        if scaling.model == name:
            chosen += 1
            for part, truth in truths.items():
                estimate = scaling.parameters[part]
                held[part] += (estimate.low or 0.0) <= truth <= (estimate.high or math.inf)
    told = ", ".join(f"{part} held {count}" for part, count in held.items())
    return f"{name}: recognised {chosen} of {measurements}; of those {told}"


def report(measurements: int) -> Iterator[str]:
    """Print each line as soon as it is known."""
    yield from theory()
    for think_s in (5.0, 10.0):
        yield prediction(measurements, think_s)
    yield law(measurements, "batch", batch(1.0, 0.3), {"a": 1.0, "b": 0.3})
    yield law(measurements, "usl", usl(1.0, 0.02, 0.01), {"lambda": 1.0, "alpha": 0.02, "beta": 0.01})
    yield law(measurements, "slots", batch(1.0, 0.1, np.minimum(USERS, 10)), {"c": 10.0})


if __name__ == "__main__":
    for line in report(int(sys.argv[1]) if len(sys.argv) > 1 else 200):
        print(line, flush=True)  # noqa: T201 - what it is for
