"""How often the knee of a sweep is right, and how often both its ends are known.

    python -m tests.coverage.knee [SWEEPS]

Sweeps over 1 to 64 users of servers whose throughput is known, measured with noise: the interval of each level is that
of the noise, or there is none.
"""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from loadbench.analyze.level.knee import WORTHWHILE, knee
from loadbench.plan.load import Closed
from loadbench.results.run import ClosedLoad, Throughput, Verdict
from tests.building import a_level

if TYPE_CHECKING:
    from collections.abc import Callable

LOADS = (1, 2, 4, 8, 16, 32, 64)
# Output tokens/s by users, for one user's 1.
SERVERS: dict[str, Callable[[float], float]] = {
    "1 slot": lambda users: min(users, 1),
    "6 slots": lambda users: min(users, 6),
    "8 slots": lambda users: min(users, 8),
    "50 slots": lambda users: min(users, 50),
    "batching, soft knee": lambda users: users / math.sqrt(1 + (users / 8) ** 2),
    "batching, softer": lambda users: users / (users + 6),
    "slower beyond 8": lambda users: min(users, 8) * (1 - 0.004 * max(0, users - 8)),
    "no faster with two": lambda users: min(max(1, users * 0.6), 5),
}
NOISES = (0.01, 0.02, 0.05, 0.1)


def outcome(
    server: Callable[[float], float], noise: float, rng: np.random.Generator, *, known: bool
) -> tuple[bool, bool]:
    """(whether a sweep's knee is right, whether both its ends are known, or its first load is the knee)."""
    rates = [server(users) for users in LOADS]
    true = next(index for index, rate in enumerate(rates) if max(rates[index:]) <= (1 + WORTHWHILE) * rate)
    levels = []
    for users, rate in zip(LOADS, rates, strict=True):
        seen = 100 * rate * math.exp(noise * rng.standard_normal())
        interval = (seen - 1.96 * noise * seen, seen + 1.96 * noise * seen) if known else None
        throughput = Throughput(
            requests_per_s=seen,
            output_tokens_per_s=seen,
            total_tokens_per_s=seen,
            interval={"output_tokens_per_s": interval},
        )
        level = msgspec.structs.replace(_LEVEL, load=ClosedLoad(users), throughput=throughput)
        levels.append(level)
    rng.shuffle(levels)  # type: ignore[arg-type]
    found = knee(levels)
    assert found is not None
    low = -1 if found.low is None else LOADS.index(found.low.users)  # type: ignore[union-attr]
    high = len(LOADS) if found.high is None else LOADS.index(found.high.users)  # type: ignore[union-attr]
    return low < true <= high, found.high is not None


_LEVEL = msgspec.structs.replace(a_level(load=Closed(1)), verdict=Verdict("VALID"))


def main(sweeps: int) -> None:
    """Print the table."""
    print("| server | noise | right | upper end known | right, no intervals |\n|---|---|---|---|---|")  # noqa: T201
    for name, server in SERVERS.items():
        for noise in NOISES:
            shares = []
            for known in (True, False):
                rng = np.random.default_rng(1)
                seen = [outcome(server, noise, rng, known=known) for _ in range(sweeps)]
                shares.append([sum(column) / sweeps for column in zip(*seen, strict=True)])
            (right, whole), (blind, _) = shares
            print(f"| {name} | {noise:.0%} | {right:.1%} | {whole:.0%} | {blind:.1%} |", flush=True)  # noqa: T201


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 500)
