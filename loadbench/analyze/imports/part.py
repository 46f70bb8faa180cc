"""What results of every tool become: a level, and its figures in the tool's own words.

The values of such a file are somebody else's. Their types say what a measurement can have, so that anything else is
refused with its place in the file: no number is negative, infinite, or true.
"""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple, TypeAlias, TypeGuard

import numpy as np
from msgspec import Meta

from loadbench.analyze.level.summary import metric as metric_of
from loadbench.analyze.stats.effective_n import CorrelatedSeries
from loadbench.record.histogram import Histogram
from loadbench.results.run import (
    ClientHealth,
    ClosedLoad,
    Concurrency,
    LevelResult,
    Metric,
    OpenLoad,
    Reason,
    Throughput,
    TokenCounts,
    Verdict,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from loadbench.results.imported import ForeignFigure

Tool = Literal["vllm bench serve", "sglang bench_serving", "guidellm", "aiperf"]
# What no measurement reaches: 2^53 is the last whole number that every JSON reader has exactly, 10^7 s are 115 days.
MOST, LONGEST_S = 2**53, 1e7
# Seconds since 1970: before 2100.
_LAST_S = 4_102_444_800
Count: TypeAlias = Annotated[int, Meta(ge=0, le=MOST)]
Number: TypeAlias = Annotated[float, Meta(ge=0, le=MOST)]
Seconds: TypeAlias = Annotated[float, Meta(ge=0, le=LONGEST_S)]
Epoch: TypeAlias = Annotated[float, Meta(ge=0, le=_LAST_S)]
# A tool may round what it writes, and take a time that begins or ends a little elsewhere.
_ROUNDED, WITHIN = 1e-6, 0.1
POINTS = ("p50", "p90", "p95", "p99", "p999")


class DamagedError(ValueError):
    """What no measurement has, at a place of its own."""

    def __init__(self, place: str, problem: str) -> None:
        super().__init__(problem)
        self.place = place


class Part(NamedTuple):
    """A level and its figures, which have no number of a level yet."""

    level: LevelResult
    figures: list[ForeignFigure]
    tool: Tool
    version: str
    started_at: str
    missing: list[str]


def level(
    *,
    tool: Tool,
    server: tuple[str, str],
    load: ClosedLoad | OpenLoad,
    window_s: float,
    outcomes: dict[str, int],
    throughput: tuple[float, float, float],
    concurrency: Concurrency,
    tokens: TokenCounts,
    metrics: Mapping[str, Metric | None],
) -> LevelResult:
    """The level that another tool measured, of a server and its model: INCONCLUSIVE, since its client is unknown."""
    sent = sum(outcomes.values())
    if not all(map(math.isfinite, (*throughput, concurrency.mean, sent / window_s))):
        raise ValueError("its duration, its counts or its rates are not those of a measurement")
    reason = Reason(
        "imported",
        f"measured by {tool}: how late its client sent and read is not known, so the level cannot be judged",
        "measure with loadbench to have a verdict",
    )
    return LevelResult(
        target=server[0],
        model=server[1],
        load=load,
        window_s=window_s,
        window_ns=(0, round(window_s * 1e9)),
        verdict=Verdict("INCONCLUSIVE", [reason]),
        outcomes={name: count for name, count in outcomes.items() if count},
        offered_per_s=load.rate_per_s if isinstance(load, OpenLoad) else sent / window_s,
        achieved_per_s=sent / window_s,
        missed=0,
        throughput=Throughput(
            requests_per_s=throughput[0], output_tokens_per_s=throughput[1], total_tokens_per_s=throughput[2]
        ),
        concurrency=concurrency,
        tokens=tokens,
        client=ClientHealth(
            stamp_source="unknown",
            stamp_error_s=None,
            loop_lag_s=None,
            lateness_s=None,
            gc_pause_max_s=None,
            cpu_share=None,
            merged_reads=None,
            reconnects=0,
            reused=0,
        ),
        metrics=dict(metrics),
    )


def open_load(rate: float, arrivals: str, spread: float | None = None) -> OpenLoad:
    """An open loop with this rate; `spread` is the shape of gamma arrivals, of which 1 is a Poisson process."""
    if not (0 < rate <= MOST and 0 < (spread or 1) <= MOST):
        raise ValueError(f"a rate of {rate:g} requests per second, or its burstiness, is not one of a measurement")
    if spread is not None:
        arrivals = "poisson" if spread == 1 else f"gamma:{1 / math.sqrt(spread):.4g}"
    return OpenLoad(rate_per_s=rate, arrivals=arrivals)


def is_number(value: object) -> TypeGuard[float]:
    """Whether a value of JSON is a number: Python takes true for one."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def in_order(points: Mapping[str, float], name: str) -> None:
    """Raise `ValueError` for quantiles of which a higher one is less than a lower one, and for a mean outside them."""
    ranks = {"min": 0.0, "median": 50.0, "max": 100.0}
    known = []
    for point, value in points.items():
        rank = ranks.get(point)
        if match := re.fullmatch(r"p(\d{1,2})\.?(\d*)", point):  # p999 is that of 99.9 %
            rank = float(f"{match[1]}.{match[2] or 0}")
        if rank is not None:
            known.append((rank, point, value))
    known.sort()
    for (_, low, value), (_, high, other) in pairwise(known):
        if value > other * (1 + 1e-9):
            raise ValueError(f"the {low} of {name} is {value:g}, and its {high} is {other:g}")
    mean = points.get("mean")
    if mean is None:
        return
    least, most = points.get("min", mean), points.get("max", mean)
    if not least * (1 - _ROUNDED) <= mean <= most * (1 + _ROUNDED):
        end = "min" if mean < least else "max"
        raise ValueError(f"the mean of {name} is {mean:g}, and its {end} is {points[end]:g}")


def rates_agree(name: str, rate: float, count: float, window_s: float, *, within: float) -> None:
    """Raise `ValueError` for a rate that is more than this part off the count over the time."""
    true = count / window_s
    if abs(rate - true) > within * max(rate, true):
        raise ValueError(f"{name} is {rate:g} per second, and {count:g} in {window_s:g} s are {true:g}")


def total_is_whole(name: str, total: float, output: float) -> None:
    """Raise `ValueError` for a rate of all tokens that is less than that of the output tokens among them."""
    if total < output * (1 - WITHIN):
        raise ValueError(f"{name} is {total:g} per second, and the output tokens alone are {output:g}")


def histogram_metric(values_s: Sequence[float], *, failed: int, users: int | None, many: bool) -> Metric | None:
    """A metric of the values of single requests in the order of their starts; of `many` a request without intervals."""
    values_ns = np.asarray(values_s, np.float64) * 1e9
    histogram = Histogram()
    histogram.record_many(np.rint(values_ns).astype(np.int64))
    correlated = None if many else CorrelatedSeries(values_ns.tolist(), users=users)
    return metric_of(histogram, failures=None if many else failed, correlated=correlated)


def iso_time(seconds: float) -> str:
    """Seconds since 1970 as `run.json` writes times. Raises `ValueError` for a time at which nobody measured."""
    if not 0 <= seconds <= _LAST_S:
        raise ValueError(f"{seconds:g} s since 1970 is not the time of a measurement")
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
