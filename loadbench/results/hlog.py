"""`histograms.hlog`: the HdrHistogram log, version 1.3, with one tag per model, level and metric.

The library's own writer drops tags and cannot write a start time. The format is that of HdrHistogram's Java
`HistogramLogWriter`; values are in ns, and the column of maxima in ms, as its viewers expect. Times count from the
start of the run.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from loadbench.core.text import printable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from loadbench.results.run import Run


class Interval(NamedTuple):
    """A part of a level: when it begins after the start of the run, its length, its largest value, all in seconds, and
    its histogram, encoded."""

    begins_s: float
    length_s: float
    max_s: float
    hdr: str


class LoggedRun(NamedTuple):
    """A run of a log, and when it started. Its intervals are the windows of the levels, or for a level's index and a
    metric's name their `parts`. `prefix` begins its tags, where the log has several runs."""

    run: Run
    started_at: datetime
    parts: Mapping[tuple[int, str], Sequence[Interval]] = {}
    prefix: str = ""


def hlog(run: Run, started_at: datetime) -> str:
    """The log of a run, with the windows of its levels as intervals."""
    return hlog_of([LoggedRun(run, started_at)])


def hlog_of(logged: Sequence[LoggedRun]) -> str:
    """The log of runs. Its times count from the start of the first of them."""
    started_at = min(one.started_at for one in logged)
    epoch_s = started_at.timestamp()
    head = [
        "#[Histogram log format version 1.3]",
        *(["#[Of the simulated server, not a real one]"] if any(one.run.simulated for one in logged) else []),
        f"#[StartTime: {epoch_s:.3f} (seconds since epoch), {started_at:%a %b %d %H:%M:%S} UTC {started_at:%Y}]",
        f"#[BaseTime: {epoch_s:.3f} (seconds since epoch)]",
        '"StartTimestamp","Interval_Length","Interval_Max","Interval_Compressed_Histogram"',
    ]
    lines: list[tuple[float, str]] = []
    for run, run_started_at, parts, prefix in logged:
        later_s = (run_started_at - started_at).total_seconds()
        begins_s = 0.0
        for number, level in enumerate(run.levels):
            # Older results do not say when a window opened.
            begins_s = begins_s if level.window_ns is None else level.window_ns[0] / 1e9
            for name, metric in level.metrics.items():
                if metric is None or not metric.hdr:
                    continue
                # A tag has no commas and no white space.
                tag = printable(re.sub(r"[,\s]+", "_", f"{prefix}{name}:{level.model}:{level.load.label}"))
                whole = [Interval(begins_s, level.window_s, metric.max, metric.hdr)]
                for one in parts.get((number, name)) or whole:
                    at_s = later_s + one.begins_s
                    lines.append((at_s, f"Tag={tag},{at_s:.3f},{one.length_s:.3f},{one.max_s * 1e3:.3f},{one.hdr}"))
            begins_s += level.window_s
    # Readers that are asked for a stretch of time stop at the first interval after it.
    lines.sort(key=lambda line: line[0])
    return "\n".join([*head, *(line for _, line in lines)]) + "\n"
