"""Where throughput stops growing.

The bend is the least load from which on no higher level surely brings a worthwhile gain: the first whose output
tokens/s reach 95 % of the most that any level had, or may well reach it, as far as its 95 % interval tells. It is a
reading of the measured levels and nothing more: between two levels and beyond the last it says nothing, and where the
last level still gains on those before, there is no bend yet.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadbench.results.run import LevelResult

# A gain below this is not worth more load, and about what two runs on one machine differ by.
WORTHWHILE = 0.05


def _highest(level: LevelResult) -> float:
    """What the level's throughput may well be, at the most."""
    throughput = level.throughput
    interval = throughput.interval.get("output_tokens_per_s")
    return throughput.output_tokens_per_s if interval is None else max(throughput.output_tokens_per_s, interval[1])


def knee(levels: Sequence[LevelResult]) -> int | None:
    """Position of the level where throughput stops growing; `None` if it still grows, or nobody can tell."""
    if len(levels) < 2:
        return None
    made = [level.throughput.output_tokens_per_s for level in levels]
    most = max(made)
    if most <= 0:
        return None
    first = next(position for position, level in enumerate(levels) if _highest(level) >= (1 - WORTHWHILE) * most)
    return first if first < len(levels) - 1 else None
