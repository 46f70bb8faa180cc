"""The parts that the definitions of other tools are made of (`loadbench.report.other_tools`).

The requests of a level as columns, ways to take a quantile, and pairs of figures: the tool's and ours. Columns are
arrays of float64 in ns or tokens, NaN where a mark did not happen or a number is unknown; ns since the start of a run
are exact in them for a hundred days. So a run of any length is read line by line, and costs eight bytes a value.
"""

from __future__ import annotations

import math
from array import array
from dataclasses import dataclass, field
from functools import partial
from itertools import takewhile
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from loadbench.analyze.stats.intervals import bound_holds, fewest_requests
from loadbench.core.units import NS_PER_S

if TYPE_CHECKING:
    from collections.abc import Callable

    from loadbench.results.requests import RequestRecord
    from loadbench.results.run import LevelResult

    Floats: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]
    # Values in ns in ascending order with their weights, and a quantile of them.
    Pick: TypeAlias = Callable[[Floats, Floats, float], float]

POINTS = {"p50": 0.50, "p99": 0.99}
EARLY_STOPPING = {"p90": 0.90, "p95": 0.95, "p97": 0.97, "p99": 0.99, "p999": 0.999}
_COLUMNS = (
    *("due_ns", "sent_ns", "connect_ns", "first_byte_ns", "first_token_ns", "first_visible_ns", "last_token_ns"),
    *("end_ns", "output_tokens", "input_tokens", "asked_output_tokens"),
)


class RequestColumns:
    """The measured requests of one level: those that ended ok as columns, the others counted."""

    def __init__(self) -> None:
        self.failed = 0  # neither ok, nor cut by the user or given up
        self._columns = {name: array("d") for name in _COLUMNS}
        self._by_usage = array("d")
        self._gaps = array("d")
        self._gap_counts = array("q")

    def add(self, request: RequestRecord) -> None:
        """Add a request; those of other phases are left out."""
        if request.phase != "measured":
            return
        if request.outcome != "ok":
            self.failed += request.outcome.failed
            return
        for name, column in self._columns.items():
            value = getattr(request, name)
            column.append(math.nan if value is None else value)
        self._by_usage.append(request.token_source == "usage")
        self._gaps.extend(request.event_gaps_ns)
        self._gap_counts.append(len(request.event_gaps_ns))

    def column(self, name: str) -> Floats:
        """One of `due_ns`, `sent_ns`, …, `output_tokens`, as in `requests.jsonl`."""
        return np.frombuffer(self._columns[name], np.float64)

    @property
    def count(self) -> int:
        """Requests that ended ok."""
        return len(self._gap_counts)

    @property
    def start(self) -> Floats:
        """When tools start timing: before there is a connection."""
        sent = self.column("sent_ns")
        return np.where(np.isnan(sent), self.column("due_ns"), sent) - np.nan_to_num(self.column("connect_ns"))

    @property
    def last_text(self) -> Floats:
        """The last token, or the end where there is none."""
        last = self.column("last_token_ns")
        return np.where(np.isnan(last), self.column("end_ns"), last)

    @property
    def by_usage(self) -> Floats:
        """1 where the output tokens are those of the server's usage, else 0."""
        return np.frombuffer(self._by_usage, np.float64)

    @property
    def gaps(self) -> Floats:
        """The time between frames with text, of all requests together."""
        return np.frombuffer(self._gaps, np.float64)

    @property
    def gap_counts(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """The number of gaps of each request."""
        return np.frombuffer(self._gap_counts, np.int64)

    def since_start(self, mark: str) -> Floats:
        """From the start until this mark."""
        return self.column(mark) - self.start

    def per_s(self, amount: float) -> float | None:
        """Per second of the time from the first start to the last end."""
        if not self.count:
            return None
        span_ns = float(self.column("end_ns").max() - self.start.min())
        return amount * NS_PER_S / span_ns if span_ns > 0 else None


def over(spans: Floats, tokens: Floats) -> Floats:
    """Spans over numbers of tokens; NaN where there is nothing to divide by."""
    return spans / np.where(tokens >= 1, tokens, math.nan)


@dataclass(frozen=True, slots=True)
class ToolFigure:
    """One figure of the other tool, by its name, and ours; in seconds, per second, or requests. `None`: not known."""

    name: str
    point: str  # `mean`, a quantile, or nothing
    unit: str  # `s`, `/s`, or nothing
    theirs: float | None
    ours: float | None


@dataclass(frozen=True, slots=True)
class ToolComparison:
    """A level as another tool would report it: figures, and for each of their names why the two differ."""

    level: LevelResult
    figures: list[ToolFigure] = field(default_factory=list)
    reasons: dict[str, str] = field(default_factory=dict)

    def latency(
        self,
        name: str,
        values: Floats,
        ours: str,
        *,
        why: str,
        pick: Pick | None = None,
        weights: Floats | None = None,
        failures: bool = False,
    ) -> None:
        """The mean and quantiles of the values that are known; `ours` is our metric, `pick` how the tool takes a
        quantile. With `failures` ours are those in which each failed request is infinitely slow."""
        pick, metric = pick or linear, self.level.metrics.get(ours)
        known = ~np.isnan(values)
        if weights is None:
            ordered = values if known.all() else values[known]
            ordered = np.sort(ordered)
            weighing = np.broadcast_to(np.float64(1.0), ordered.shape)
        else:
            known &= weights > 0
            order = np.argsort(values[known])
            ordered, weighing = values[known][order], weights[known][order]
        total = float(weighing.sum())
        theirs = {"mean": float(ordered @ weighing) / total if total else None}
        theirs |= {point: pick(ordered, weighing, p) if len(ordered) else None for point, p in POINTS.items()}
        here: dict[str, float | None] = {}
        if metric is not None:
            here = {point: getattr(metric, point) for point in theirs}
            if failures and metric.with_failures is not None:
                infinite = {point: metric.with_failures[point] for point in POINTS}
                here = {point: math.inf if value is None else value for point, value in infinite.items()}
                here["mean"] = math.inf if math.isinf(theirs["mean"] or 0.0) else metric.mean
        for point, ns in theirs.items():
            self.figures.append(ToolFigure(name, point, "s", None if ns is None else ns / NS_PER_S, here.get(point)))
        self.reasons[name] = why
        if pick in _HOW:
            quantiles = ", ".join(POINTS)
            self.reasons.pop(quantiles, None)  # it holds for all of them, and comes last
            self.reasons[quantiles] = f"{_HOW[pick]}; here the value of rank n * p, rounded up"

    def rate(self, name: str, theirs: float | None, ours: float | None, *, why: str) -> None:
        """An amount per second."""
        self.figures.append(ToolFigure(name, "", "/s", theirs, ours))
        self.reasons[name] = why

    def number(self, name: str, theirs: float | None, ours: float, *, why: str) -> None:
        """A number of requests."""
        self.figures.append(ToolFigure(name, "", "", theirs, ours))
        self.reasons[name] = why

    def early_stopping(self, name: str, values: Floats, ours: str) -> None:
        """LoadGen's early-stopping estimates (`early_stopping.cc`; its SingleStream summary): the t-th largest of n
        values for the largest t with which it would still be a bound at 99 % confidence, or how many n it takes."""
        ordered, metric = np.sort(values[~np.isnan(values)]), self.level.metrics.get(ours)
        n = len(ordered)
        for point, p in EARLY_STOPPING.items() if n else ():
            largest = sum(1 for _ in takewhile(partial(bound_holds, n, p=p, confidence=0.99), range(1, n + 1)))
            here = None if metric is None else getattr(metric, point, None)
            if largest:
                estimate = ordered[n - largest] / NS_PER_S
                self.figures.append(ToolFigure(f"Early stopping estimate, {name}", point, "s", estimate, here))
                self.reasons[f"Early stopping estimate, {name}"] = _EARLY_STOPPING
            elif name == "Latency":
                self.figures.append(ToolFigure("Early stopping, queries needed", point, "", fewest_requests(1, p), n))
                self.reasons["Early stopping, queries needed"] = "for its estimate; here those that there are"


_EARLY_STOPPING = "a value that the percentile is below with 99 % confidence, if requests were independent"

# How tools take a quantile of values in ascending order.


def linear(values: Floats, _weights: Floats, p: float) -> float:
    """Between neighbours, as numpy and pandas do by default."""
    return float(np.quantile(values, p))


def nearest(values: Floats, _weights: Floats, p: float) -> float:
    """The neighbour that is nearer, which may be infinite."""
    return float(np.quantile(values, p, method="nearest"))


def truncated(values: Floats, _weights: Floats, p: float) -> float:
    """The value at position `n * p`, rounded down and counted from 0."""
    return float(values[int(len(values) * p)])


def weighted(values: Floats, weights: Floats, p: float) -> float:
    """The first value up to which the share `p` of all weight lies."""
    reached = np.cumsum(weights)
    return float(values[int(np.searchsorted(reached, p * reached[-1]))])


# What holds for all figures of a tool.
_HOW: dict[Pick, str] = {
    linear: "between two neighbours, which may be far apart",
    truncated: "the value after the first n * p, rounded down",
    weighted: "the value up to which that share of all weight lies",
}
