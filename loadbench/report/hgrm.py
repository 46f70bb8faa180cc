"""One distribution as `.hgrm`: the percentile table that HdrHistogram's plotters read, values in ms.

The format is that of the Java `outputPercentileDistribution` with five ticks per half distance: from each percentile to
100 % the steps halve whenever what is left has halved, so that the tail is as finely told as the middle.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from loadbench.core.errors import BadInput
from loadbench.core.text import printable
from loadbench.record.histogram import DIGITS, Histogram

if TYPE_CHECKING:
    from collections.abc import Iterator

    from loadbench.results.run import LevelResult, Run

_TICKS = 5
_NS_PER_MS = 1e6
# Of a plotter's columns: value, percentile, how many up to there, and 1 / (1 - percentile).
_HEAD = f"{'Value':>12} {'Percentile':>14} {'TotalCount':>10} {'1/(1-Percentile)':>14}"


def hgrm(run: Run, *, metric: str, level: str | None) -> str:
    """The distribution of one metric at one level, named as tables name it (`users=8`); raises `BadInput` for none."""
    chosen = _chosen(run, level)
    told = chosen.metrics.get(metric)
    if told is None:
        there_are = ", ".join(name for name, one in chosen.metrics.items() if one is not None)
        raise BadInput(f"--metric {metric}: this level has none of it", hint=f"there are {there_are}")
    of = f"{metric} of {chosen.model} at {chosen.load.label}, in ms" + (", simulated" if run.simulated else "")
    return f"#[{printable(of)}]\n{distribution(Histogram.decode(told.hdr))}"


def _chosen(run: Run, label: str | None) -> LevelResult:
    """The level that is meant: the only one, or the only one of this label."""
    meant = [level for level in run.levels if label in {None, level.load.label, f"{level.model}@{level.load.label}"}]
    if len(meant) == 1:
        return meant[0]
    named = ", ".join(dict.fromkeys(f"{level.model}@{level.load.label}" for level in run.levels)) or "none"
    what = "which level?" if label is None else f"--level {label}: {'no' if not meant else 'more than one'} such level"
    raise BadInput(f"{what} A .hgrm holds one distribution", hint=f"say it with --level; there are {named}")


def distribution(histogram: Histogram) -> str:
    """The table of a histogram of ns that is not empty."""
    lines = [_HEAD, ""]
    for value_ns, share, up_to in _ticks(histogram):
        tail = "" if share >= 1 else f" {1 / (1 - share):14.2f}"
        lines.append(f"{value_ns / _NS_PER_MS:12.{DIGITS}f} {share:2.12f} {up_to:10d}{tail}")
    mean, spread = (histogram.mean or 0) / _NS_PER_MS, (histogram.stddev or 0) / _NS_PER_MS
    most = (histogram.max or 0) / _NS_PER_MS
    lines.append(f"#[Mean    = {mean:12.{DIGITS}f}, StdDeviation   = {spread:12.{DIGITS}f}]")
    lines.append(f"#[Max     = {most:12.{DIGITS}f}, Total count    = {histogram.count:12d}]")
    return "\n".join(lines) + "\n"


def _ticks(histogram: Histogram) -> Iterator[tuple[int, float, int]]:
    """(value, percentile as a share, values up to it); the greatest value has the last tick, and 1."""
    values, counts = histogram.nonzero()
    total, up_to, percentile = histogram.count, 0, 0.0
    for value, count in zip(values.tolist(), counts.tolist(), strict=True):
        up_to += count
        while up_to < total and percentile <= 100 * up_to / total:
            yield value, percentile / 100, up_to
            halves = 2 ** (math.floor(math.log2(100 / (100 - percentile))) + 1)
            percentile += 100 / (_TICKS * halves)
    yield value, percentile / 100, total
    yield value, 1.0, total
