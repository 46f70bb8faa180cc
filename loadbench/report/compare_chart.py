"""A comparison as charts: the figures of both sides over the load, their ratios, and where they cross."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from loadbench.core.text import some
from loadbench.report.chart import band_note, svg
from loadbench.report.document import Chart, Mark, Series

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadbench.results.compare import ComparedFigure, Comparison

_TOKENS = "output_tokens_per_s"
# What is longer fills a legend alone.
_ROOM = 32
# The sides that the reason of a level that is left out names.
_INVALID_SIDE = re.compile(r"(?:^|; )([ABab]): INVALID")
# What both sides are shown for, beside the throughput: a metric, and what it is.
_LATENCIES = {
    "ttft_p50": "TTFT p50",
    "ttft_p95": "TTFT p95",
    "tpot_p50": "TPOT p50",
    "tpot_p95": "TPOT p95",
    "e2e_p50": "E2E p50",
    "e2e_p95": "E2E p95",
}


def compare_chart(comparison: Comparison) -> str:
    """Output tokens per second over users, or over the rate, as SVG."""
    return svg(throughput_of_sides(comparison))


def throughput_of_sides(comparison: Comparison) -> Chart:
    """Output tokens per second of both sides, and where they cross."""
    crossing, down = comparison.crossover, []
    series = _sides(comparison, _TOKENS)
    if crossing is not None:
        between = f"{crossing.low:.3g} to {crossing.high:.3g}"
        down.append(Mark(crossing.users, f"crossover at {crossing.users:.3g} users ({between})"))
    return Chart(
        name="throughput",
        series=series,
        title="Output tokens per second of A and B",
        x=_axis(comparison),
        y="output tokens/s",
        down=down,
        switches="xy",
        note=_of_sides(comparison, series),
    )


def comparison_charts(comparison: Comparison) -> list[Chart]:
    """Throughput of both sides, the ratios with their intervals, and each latency of both sides."""
    known = {row.metric for row in comparison.comparisons}
    charts = [throughput_of_sides(comparison)] if _TOKENS in known else []
    ratios = []
    for metric, name in {_TOKENS: "output tokens/s", **_LATENCIES}.items():
        rows = [row for row in _rows(comparison, metric) if row.ratio is not None and row.ratio > 0]
        band = [(load_of(row), *row.interval) for row in rows if row.interval is not None and row.interval[0] > 0]
        if rows:
            ratios.append(Series(name, [(load_of(row), row.ratio) for row in rows], band, hidden=not _is_first(metric)))
    if ratios:
        charts.append(
            Chart(
                name="ratios",
                series=ratios,
                title="B relative to A",
                x=_axis(comparison),
                y="B / A",
                log_y=True,
                across=[Mark(1.0, "no difference")],
                switches="xy",
                note="More tokens/s are better, and so is less time: above 1 for throughput, below 1 for latencies. "
                + "Names that are struck through are hidden: choose one to show it. "
                * any(one.hidden for one in ratios)
                + "Band: the interval of each ratio, in which all figures of a load are counted together; it alone "
                "decides, and one that includes 1 shows no difference."
                * any(one.band for one in ratios)
                + _left_out(comparison),
            )
        )
    for metric, name in _LATENCIES.items():
        if metric in known:
            series = _sides(comparison, metric)
            charts.append(
                Chart(
                    name=metric.replace("_", "-"),
                    series=series,
                    title=f"{name} of A and B",
                    x=_axis(comparison),
                    y=name,
                    seconds=True,
                    switches="xy",
                    note=_of_sides(comparison, series),
                )
            )
    return charts


def _of_sides(comparison: Comparison, series: Sequence[Series]) -> str:
    """The caption of figures of both sides. Bands that lie apart look like a decision, and are none: one figure may lie
    apart by chance where there are many, and pairs of runs are no part of them."""
    band = band_note(series, f"the {100 * comparison.confidence:g} % interval of each side by itself")
    band += " Whether the sides differ is decided by their ratio alone (chart B relative to A)." * bool(band)
    return (band + _left_out(comparison)).strip()


def _left_out(comparison: Comparison) -> str:
    """The levels that are in no chart since a side is INVALID there, and which; other charts draw them hollow."""
    shown = {row.level for row in comparison.comparisons}
    sides: dict[str, set[str]] = {}
    for left in comparison.left_out:
        if left.code == "invalid" and left.level not in shown:
            sides.setdefault(left.level, set()).update(map(str.upper, _INVALID_SIDE.findall(left.message)))
    levels = [
        f"{level} (INVALID on {'both sides' if len(of) > 1 else f'side {min(of)}'})" if of else f"{level} (INVALID)"
        for level, of in sides.items()
    ]
    return f" Not compared, and so in no chart: {some(levels)}." if levels else ""


def _is_first(metric: str) -> bool:
    """Whether a ratio is shown at once; all of them would hide each other."""
    return metric in {_TOKENS, "ttft_p50", "tpot_p50"}


def _rows(comparison: Comparison, metric: str) -> list[ComparedFigure]:
    return sorted((row for row in comparison.comparisons if row.metric == metric), key=load_of)


def load_of(row: ComparedFigure) -> float:
    """The users or the rate of a row."""
    return float(row.level.partition("=")[2])


def _axis(comparison: Comparison) -> str:
    rates = any(row.level.startswith("rate=") for row in comparison.comparisons)
    return "requests per second" if rates else "users"


def _sides(comparison: Comparison, metric: str) -> list[Series]:
    rows = _rows(comparison, metric)
    series = []
    for letter, side, values, intervals in (
        ("A", comparison.a, [row.a for row in rows], [row.a_interval for row in rows]),
        ("B", comparison.b, [row.b for row in rows], [row.b_interval for row in rows]),
    ):
        name = f"{letter} {side.model}" + (f" on {side.device}" if side.device else "")
        # What tells sides of one model apart, as far as a legend has room for it.
        told = [one for one in side.apart if len(one) <= _ROOM][:2] if comparison.a.model == comparison.b.model else []
        name += f": {', '.join(told)}" if told else ""
        band = [(load_of(row), *ends) for row, ends in zip(rows, intervals, strict=True) if ends is not None]
        series.append(Series(name, [(load_of(row), value) for row, value in zip(rows, values, strict=True)], band))
    return series
