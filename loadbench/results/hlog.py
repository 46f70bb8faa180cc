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


def hlog(run: Run, started_at: datetime, parts: Mapping[tuple[int, str], Sequence[Interval]] | None = None) -> str:
    """The log of the run. Its intervals are the windows of the levels, or for a level's index and a metric's name their
    `parts`."""
    epoch_s = started_at.timestamp()
    head = [
        "#[Histogram log format version 1.3]",
        *(["#[Of the simulated server, not a real one]"] if run.simulated else []),
        f"#[StartTime: {epoch_s:.3f} (seconds since epoch), {started_at:%a %b %d %H:%M:%S} UTC {started_at:%Y}]",
        f"#[BaseTime: {epoch_s:.3f} (seconds since epoch)]",
        '"StartTimestamp","Interval_Length","Interval_Max","Interval_Compressed_Histogram"',
    ]
    lines: list[tuple[float, str]] = []
    begins_s = 0.0
    for number, level in enumerate(run.levels):
        # Older results do not say when a window opened.
        begins_s = begins_s if level.window_ns is None else level.window_ns[0] / 1e9
        for name, metric in level.metrics.items():
            if metric is None or not metric.hdr:
                continue
            # A tag has no commas and no white space.
            tag = printable(re.sub(r"[,\s]+", "_", f"{name}:{level.model}:{level.load.label}"))
            whole = [Interval(begins_s, level.window_s, metric.max, metric.hdr)]
            for one in (parts or {}).get((number, name)) or whole:
                line = f"Tag={tag},{one.begins_s:.3f},{one.length_s:.3f},{one.max_s * 1e3:.3f},{one.hdr}"
                lines.append((one.begins_s, line))
        begins_s += level.window_s
    # Readers that are asked for a stretch of time stop at the first interval after it.
    lines.sort(key=lambda line: line[0])
    return "\n".join([*head, *(line for _, line in lines)]) + "\n"
