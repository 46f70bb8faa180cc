"""A comparison as a picture: what both sides make over the load, each with its interval, and where they cross."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadbench.report.chart import Mark, Series, chart

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadbench.results.compare import Compared, Comparison, Crossover
    from loadbench.results.run import Interval

_TOKENS = "output_tokens_per_s"


def compare_chart(comparison: Comparison) -> str:
    """Output tokens per second over users, or over the rate, as SVG."""
    rows = [row for row in comparison.comparisons if row.metric == _TOKENS]
    open_loop = any(row.level.startswith("rate=") for row in rows)
    names = [
        f"{letter} {side.model}" + (f" on {side.device}" if side.device else "")
        for letter, side in (("A", comparison.a), ("B", comparison.b))
    ]
    crossing = comparison.crossover
    return chart(
        [
            _series(names[0], [(row, row.a, row.a_interval) for row in rows]),
            _series(names[1], [(row, row.b, row.b_interval) for row in rows]),
        ],
        title="Output tokens per second of A and B",
        x="requests per second" if open_loop else "users",
        y="output tokens/s",
        down=() if crossing is None else (Mark(crossing.users, _crossed(crossing)),),
    )


def _crossed(crossing: Crossover) -> str:
    return f"crossover at {crossing.users:.3g} users ({crossing.low:.3g} to {crossing.high:.3g})"


def _series(name: str, values: Sequence[tuple[Compared, float, Interval | None]]) -> Series:
    ordered = sorted((float(row.level.partition("=")[2]), value, interval) for row, value, interval in values)
    return Series(
        name,
        [(load, value) for load, value, _ in ordered],
        [(load, *interval) for load, _, interval in ordered if interval is not None],
    )
