"""The course of a level whose rate was meant to change, as a pattern or a trace has it: parts of its window."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from loadbench.core.units import NS_PER_S
from loadbench.plan.load import Open
from loadbench.record.slices import SLICE_NS
from loadbench.results.run import CoursePart

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadbench.plan.load import Load
    from loadbench.record.recorder import LevelRecording

    Values = np.ndarray[Any, np.dtype[np.float64]]

# An hour of a day each.
_MOST_PARTS = 24


def course(recording: LevelRecording, load: Load) -> list[CoursePart]:
    """24 parts of whole slices, or as many as there are slices; none where the rate was to stay."""
    if not (isinstance(load, Open) and load.arrivals.planned):
        return []
    told = recording.course
    slices = min(len(told.in_flight), len(recording.answers_by_slice), len(recording.tokens_by_slice))
    parts = min(_MOST_PARTS, slices)
    edges = [index * slices // parts for index in range(parts + 1)] if parts else []
    series = (recording.answers_by_slice, recording.tokens_by_slice, told.in_flight, told.ttft_ns, told.ttft_count)
    sums = [np.cumsum([0.0, *values]) for values in series]
    return [_part(sums, begin, end) for begin, end in pairwise(edges)]


def _part(sums: Sequence[Values], begin: int, end: int) -> CoursePart:
    """From one slice to before another; what has no more slices had nothing in them."""
    within = [float(total[min(end, len(total) - 1)] - total[min(begin, len(total) - 1)]) for total in sums]
    answers, tokens, in_flight, ttft_ns, count = within
    part_s = (end - begin) * SLICE_NS / NS_PER_S
    return CoursePart(
        from_s=begin * SLICE_NS / NS_PER_S,
        answers_per_s=answers / part_s,
        output_tokens_per_s=tokens / part_s,
        in_flight=in_flight / (end - begin),
        ttft_mean_s=ttft_ns / count / 1e9 if count else None,
    )
