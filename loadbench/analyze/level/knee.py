"""The knee: the load at which throughput stops growing.

It is the lowest load whose output tokens/s no higher load clearly exceeds by more than 5 %: the first level whose
throughput, or the upper end of its 95 % interval, reaches 95 % of the largest of all levels. It describes the measured
levels only, not what lies between or beyond them. Where the last level still gains on the others there is no knee yet.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadbench.results.run import LevelResult

# A smaller gain is not worth more load, and is about the difference between two runs on one machine.
WORTHWHILE = 0.05
# A server that was not there has no throughput.
_GONE = frozenset({"no_answers", "server_stopped"})


def complete_levels(levels: Sequence[LevelResult]) -> list[LevelResult]:
    """Those that show the server's throughput: not cut short, and with a server up to the end."""
    return [
        level
        for level in levels
        if not level.interrupted and not any(reason.code in _GONE for reason in level.verdict.reasons)
    ]


def knee(levels: Sequence[LevelResult]) -> int | None:
    """Index of the level where throughput stops growing; `None` if it still grows, or if that is unknown."""
    most = max((level.throughput.output_tokens_per_s for level in levels), default=0.0)
    if most <= 0:
        return None
    for index, level in enumerate(levels[:-1]):
        interval = level.throughput.interval.get("output_tokens_per_s")
        highest = max(level.throughput.output_tokens_per_s, interval[1] if interval else 0.0)
        if highest >= (1 - WORTHWHILE) * most:
            return index
    return None
