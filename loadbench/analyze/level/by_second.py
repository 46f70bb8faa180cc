"""The distributions of a level second by second, from its requests: what an HdrHistogram log has intervals for.

A value is of the second in which its request ended, as a recorder that is read once a second would have it. Seconds
count from where the window opens, and go on as long as measured requests end. So the intervals of a metric add up to
its histogram of the level.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING

from loadbench.core.units import NS_PER_S
from loadbench.plan.load import Phase
from loadbench.record.figures import FIGURES
from loadbench.record.histogram import Histogram
from loadbench.record.outcome import Outcome
from loadbench.results.hlog import Interval

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from loadbench.record.sample import Sample
    from loadbench.results.requests import RequestRecord
    from loadbench.results.run import LevelResult

# Requests are recorded in the order of their ends; those of workers may come a little later.
_OPEN_SECONDS = 3


def by_second(
    levels: Sequence[LevelResult], requests: Iterable[RequestRecord]
) -> Mapping[tuple[int, str], list[Interval]]:
    """The intervals of each metric of each level, by the level's index and the metric's name, in their order.

    Metrics whose intervals do not add up to the level's count have none: some of the requests are missing, or the
    window's start is not known. Takes the memory of a few seconds, however long the run is.
    """
    intervals: dict[tuple[int, str], list[Interval]] = defaultdict(list)
    counted: Counter[tuple[int, str]] = Counter()
    held: dict[tuple[int, int], dict[str, Histogram]] = {}

    def write(place: tuple[int, int]) -> None:
        number, second = place
        opens_ns, _ = levels[number].window_ns or (0, 0)
        for name, histogram in held.pop(place).items():
            if histogram.count:
                counted[number, name] += histogram.count
                interval = Interval(opens_ns / NS_PER_S + second, 1.0, (histogram.max or 0) / 1e9, histogram.encode())
                intervals[number, name].append(interval)

    for one in requests:
        if one.phase is not Phase.MEASURED or one.level >= len(levels):
            continue
        window_ns = levels[one.level].window_ns
        if window_ns is None:
            continue
        place = one.level, (one.end_ns - window_ns[0]) // NS_PER_S
        if place not in held:
            for old in [old for old in held if old[0] != place[0] or old[1] <= place[1] - _OPEN_SECONDS]:
                write(old)
            held[place] = defaultdict(Histogram)
        _add(held[place], one.sample())
    for place in list(held):
        write(place)
    return {
        (number, name): sorted(intervals[number, name])
        for number, level in enumerate(levels)
        for name, metric in level.metrics.items()
        if metric is not None and counted[number, name] == metric.count
    }


def _add(histograms: Mapping[str, Histogram], sample: Sample) -> None:
    """Add a measured request, as the recorder of a level does."""
    single: dict[str, float | None] = {"lateness": sample.lateness(), "connect": sample.connect_ns}
    if sample.outcome is Outcome.OK:
        single |= {name: figure(sample) for name, figure in FIGURES.items()}
        histograms["event_gap_s"].record_many(sample.event_gaps())
        paced = sample.inter_token_latencies()
        histograms["itl_s"].record_many([gap for gap, _ in paced], [weight for _, weight in paced])
    for name, value_ns in single.items():
        if value_ns is not None:
            histograms[f"{name}_s"].record(round(value_ns))
