"""`histograms.hlog`: the HdrHistogram log, version 1.3, with one tag per model, level and metric.

The library's own writer drops tags and cannot write a start time. The format is that of HdrHistogram's Java
`HistogramLogWriter`; values are in ns, and the column of maxima in ms, as its viewers expect.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from loadbench.core.text import printable

if TYPE_CHECKING:
    from datetime import datetime

    from loadbench.results.run import Run


def hlog(run: Run, started_at: datetime) -> str:
    """The log of the run; its intervals are the windows of the levels."""
    epoch_s = started_at.timestamp()
    lines = [
        "#[Histogram log format version 1.3]",
        *(["#[Of the simulated server, not a real one]"] if run.simulated else []),
        f"#[StartTime: {epoch_s:.3f} (seconds since epoch), {started_at:%a %b %d %H:%M:%S} UTC {started_at:%Y}]",
        f"#[BaseTime: {epoch_s:.3f} (seconds since epoch)]",
        '"StartTimestamp","Interval_Length","Interval_Max","Interval_Compressed_Histogram"',
    ]
    begins_s = 0.0
    for level in run.levels:
        # Older results do not say when a window opened.
        begins_s = begins_s if level.window_ns is None else level.window_ns[0] / 1e9
        for name, metric in level.metrics.items():
            if metric is not None:
                # A tag has no commas and no white space.
                tag = printable(re.sub(r"[,\s]+", "_", f"{name}:{level.model}:{level.load.label}"))
                lines.append(f"Tag={tag},{begins_s:.3f},{level.window_s:.3f},{metric.max * 1e3:.3f},{metric.hdr}")
        begins_s += level.window_s
    return "\n".join(lines) + "\n"
