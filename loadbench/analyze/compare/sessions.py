"""Which saved runs are one session: measured on one machine, one soon after the other, with no run of the other side.

A machine is faster or slower for a while: its heat, its other work, where memory was placed. Runs that follow each
other share this, and tell no more about the server than one long run would. So the runs of each machine are put in the
order of their time, and a session ends

* where more than `GAP` passes between the end of a run and the start of the next, or
* where the next run is one of the other side: A, B, A, B are four sessions, and A, A, B, B are two.

A run's name starts no session. Runs without a time are one session.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadbench.results.run import Run

# Drift lasts from minutes to hours, and the runs of one command follow each other within minutes.
GAP = timedelta(minutes=30)


def sessions(a: Sequence[Run], b: Sequence[Run]) -> tuple[list[int], list[int]]:
    """The number of the session of each run of both sides."""
    runs = []
    for side, of_side in enumerate((a, b)):
        for place, run in enumerate(of_side):
            try:
                started = datetime.fromisoformat(run.started_at)
            except ValueError:
                started = datetime.min.replace(tzinfo=UTC)
            started = started if started.tzinfo is not None else started.replace(tzinfo=UTC)
            ends_ns = [level.window_ns[1] for level in run.levels if level.window_ns is not None]
            lasts = timedelta(microseconds=max(ends_ns, default=0) / 1000)
            runs.append((str(run.environment.get("host")), started, side, place, lasts))
    numbers = ([0] * len(a), [0] * len(b))
    number, before, until = -1, ("", -1), datetime.max.replace(tzinfo=UTC)
    for host, started, side, place, lasts in sorted(runs, key=lambda run: run[:4]):
        if (host, side) != before or started - until > GAP:
            number += 1
        numbers[side][place] = number
        before, until = (host, side), started + lasts
    return numbers
