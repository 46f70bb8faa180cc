"""A comparison as a picture: the throughput of both sides over the load, with intervals, and where they cross."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadbench.report.chart import svg
from loadbench.report.document import Chart, Mark, Series

if TYPE_CHECKING:
    from loadbench.results.compare import Comparison

_TOKENS = "output_tokens_per_s"


def compare_chart(comparison: Comparison) -> str:
    """Output tokens per second over users, or over the rate, as SVG."""
    return svg(throughput_of_sides(comparison))


def throughput_of_sides(comparison: Comparison) -> Chart:
    """Output tokens per second of both sides, and where they cross."""
    rows = [row for row in comparison.comparisons if row.metric == _TOKENS]
    rows.sort(key=lambda row: float(row.level.partition("=")[2]))
    loads = [float(row.level.partition("=")[2]) for row in rows]
    series = []
    for letter, side, values, intervals in (
        ("A", comparison.a, [row.a for row in rows], [row.a_interval for row in rows]),
        ("B", comparison.b, [row.b for row in rows], [row.b_interval for row in rows]),
    ):
        name = f"{letter} {side.model}" + (f" on {side.device}" if side.device else "")
        band = [(load, *ends) for load, ends in zip(loads, intervals, strict=True) if ends is not None]
        series.append(Series(name, list(zip(loads, values, strict=True)), band))
    crossing, down = comparison.crossover, []
    if crossing is not None:
        between = f"{crossing.low:.3g} to {crossing.high:.3g}"
        down.append(Mark(crossing.users, f"crossover at {crossing.users:.3g} users ({between})"))
    return Chart(
        name="throughput",
        series=series,
        title="Output tokens per second of A and B",
        x="requests per second" if any(row.level.startswith("rate=") for row in rows) else "users",
        y="output tokens/s",
        down=down,
    )
