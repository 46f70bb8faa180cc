"""The parts that the definitions of other tools are made of (`loadbench.report.other_tools`).

Spans of a request, ways to take a quantile, and pairs of figures: the tool's and ours.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import accumulate
from typing import TYPE_CHECKING, TypeAlias

from loadbench.core.units import NS_PER_S

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from loadbench.results.requests import RequestRecord
    from loadbench.results.run import LevelResult

    # (value in ns, weight), ascending.
    Values: TypeAlias = list[tuple[float, float]]
    Pick: TypeAlias = Callable[[Values, float], float]
    Reading: TypeAlias = Callable[[RequestRecord], float | None]

POINTS = {"p50": 0.50, "p99": 0.99}


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

    def latency(self, name: str, values: Values, ours: str, *, why: str, pick: Pick | None = None) -> None:
        """The mean and quantiles of a distribution; `ours` is our metric, `pick` how the tool takes a quantile."""
        pick, metric = pick or linear, self.level.metrics.get(ours)
        total = sum(weight for _, weight in values)
        theirs = {"mean": sum(value * weight for value, weight in values) / total if total else None}
        theirs |= {point: pick(values, p) if values else None for point, p in POINTS.items()}
        for point, ns in theirs.items():
            seconds = None if ns is None else ns / NS_PER_S
            self.figures.append(
                ToolFigure(name, point, "s", seconds, None if metric is None else getattr(metric, point))
            )
        self.reasons[name] = why
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


# How tools take a quantile of (value, weight) pairs in ascending order.


def linear(values: Values, p: float) -> float:
    """Between neighbours, as numpy and pandas do by default; weights are not used."""
    place = p * (len(values) - 1)
    below = math.floor(place)
    above = min(below + 1, len(values) - 1)
    return values[below][0] + (values[above][0] - values[below][0]) * (place - below)


def truncated(values: Values, p: float) -> float:
    """The value at position `n * p`, rounded down and counted from 0; weights are not used."""
    return values[int(len(values) * p)][0]


def weighted(values: Values, p: float) -> float:
    """The first value up to which the share `p` of all weight lies."""
    reached = list(accumulate(weight for _, weight in values))
    return next(value for (value, _), sum_ in zip(values, reached, strict=True) if sum_ >= p * reached[-1])


_HOW: dict[Pick, str] = {
    linear: "between two neighbours, which may be far apart",
    truncated: "the value after the first n * p, rounded down",
    weighted: "the value up to which that share of all weight lies",
}


# Spans of a request, in ns.


def start_of(request: RequestRecord) -> int:
    """When tools start timing: before there is a connection."""
    sent_ns = request.due_ns if request.sent_ns is None else request.sent_ns
    return sent_ns - (request.connect_ns or 0)


def first_frame(request: RequestRecord) -> int | None:
    """To the first byte of the body, and so to the first frame."""
    return None if request.first_byte_ns is None else request.first_byte_ns - start_of(request)


def first_token(request: RequestRecord) -> int | None:
    """To the first frame with text."""
    return None if request.first_token_ns is None else request.first_token_ns - start_of(request)


def first_visible(request: RequestRecord) -> int | None:
    """To the first response text, reasoning not included."""
    return None if request.first_visible_ns is None else request.first_visible_ns - start_of(request)


def last_token(request: RequestRecord) -> int | None:
    """To the last frame with text."""
    return None if request.last_token_ns is None else request.last_token_ns - start_of(request)


def whole(request: RequestRecord) -> int:
    """To the end of the stream."""
    return request.end_ns - start_of(request)


def over(span_ns: int | None, tokens: int | None) -> float | None:
    """A span over a number of tokens; none where there is nothing to divide by."""
    return None if span_ns is None or tokens is None or tokens < 1 else span_ns / tokens


def between(first_ns: int | None, last_ns: int | None) -> int | None:
    """A span, if both marks happened."""
    return None if first_ns is None or last_ns is None else last_ns - first_ns


def rest(tokens: int | None) -> int | None:
    """The tokens after the first."""
    return None if tokens is None else tokens - 1


def each(requests: Sequence[RequestRecord], read: Reading) -> Values:
    """The values that are known, ascending."""
    return sorted((value, 1.0) for request in requests if (value := read(request)) is not None)


def by_weight(requests: Sequence[RequestRecord], read: Reading, weigh: Callable[[RequestRecord], int | None]) -> Values:
    """The values that are known and have a weight, ascending."""
    pairs = [(read(request), weigh(request)) for request in requests]
    return sorted((value, float(weight)) for value, weight in pairs if value is not None and weight)


def gaps(requests: Sequence[RequestRecord]) -> Values:
    """The time between frames with text, of all requests together, ascending."""
    return sorted((float(gap), 1.0) for request in requests for gap in request.event_gaps_ns)


def per_s(amount: int, requests: Sequence[RequestRecord]) -> float | None:
    """Per second of the time from the first start to the last end."""
    if not requests:
        return None
    span_ns = max(request.end_ns for request in requests) - min(start_of(request) for request in requests)
    return amount * NS_PER_S / span_ns if span_ns > 0 else None


def output_tokens(request: RequestRecord) -> int | None:
    """The response's tokens as they were counted here."""
    return request.output_tokens


def output_of(requests: Sequence[RequestRecord], count: Callable[[RequestRecord], int | None] = output_tokens) -> int:
    """All output tokens, as `count` counts them."""
    return sum(count(request) or 0 for request in requests)


def input_of(requests: Sequence[RequestRecord]) -> int:
    """All reported input tokens."""
    return sum(request.input_tokens or 0 for request in requests)
