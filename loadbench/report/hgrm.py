"""Distributions as `.hgrm`: the percentile tables that HdrHistogram's plotters read, values in ms.

The format is that of the Java `outputPercentileDistribution` with five ticks per half distance: the steps between
percentiles halve whenever the rest up to 100 % has halved, so that the tail has as many rows as the middle.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from loadbench.core.text import printable
from loadbench.record.histogram import DIGITS, Histogram
from loadbench.results.folder import slug

if TYPE_CHECKING:
    from collections.abc import Iterator

    from loadbench.results.run import Run

_TICKS = 5
_NS_PER_MS = 1e6
# A plotter's columns; the third counts the values up to there.
_HEAD = f"{'Value':>12} {'Percentile':>14} {'TotalCount':>10} {'1/(1-Percentile)':>14}"


def hgrm(run: Run, *, prefix: str = "") -> dict[str, str]:
    """By file name, the distribution of each metric at each level; its first line says what it is of. `prefix` tells
    the run from others."""
    tables = {}
    for number, level in enumerate(run.levels, start=1):
        for name, metric in level.metrics.items():
            if metric is not None and metric.hdr:
                file = slug(f"{prefix}{number}-{name}-{level.load.label}-{level.model}")
                tag = f"{prefix.replace('-', ' ')}{name} of {level.model} at {level.load.label}, in ms"
                tag += ", simulated" if run.simulated else ""
                tables[f"{file}.hgrm"] = f"#[{printable(tag)}]\n{distribution(Histogram.decode(metric.hdr))}"
    return tables


def distribution(histogram: Histogram) -> str:
    """The table of a histogram of ns that is not empty."""
    lines = [_HEAD, ""]
    for value_ns, share, up_to in _ticks(histogram):
        tail = "" if share >= 1 else f" {1 / (1 - share):14.2f}"
        lines.append(f"{value_ns / _NS_PER_MS:12.{DIGITS}f} {share:2.12f} {up_to:10d}{tail}")
    mean, deviation = (histogram.mean or 0) / _NS_PER_MS, (histogram.stddev or 0) / _NS_PER_MS
    maximum = (histogram.max or 0) / _NS_PER_MS
    lines.append(f"#[Mean    = {mean:12.{DIGITS}f}, StdDeviation   = {deviation:12.{DIGITS}f}]")
    lines.append(f"#[Max     = {maximum:12.{DIGITS}f}, Total count    = {histogram.count:12d}]")
    return "\n".join(lines) + "\n"


def _ticks(histogram: Histogram) -> Iterator[tuple[int, float, int]]:
    """(value, percentile as a share, number of values up to it); the maximum has the last tick, and 1."""
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
