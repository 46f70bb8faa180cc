"""What a run exports while it goes on: requests that have ended, as histograms and counters, once a second.

The event loop only appends each sample to a list, and once a second reads what the progress line reads too. A thread
counts them, a few requests at a time, so that it never keeps the event loop from its work for long.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeAlias
from urllib.parse import urlsplit

import anyio
import numpy as np

from loadbench.core.text import printable
from loadbench.live.conventions import IN_FLIGHT, INFO, LEVEL, REQUESTS, TOKEN_TYPES, TOKENS, TTFT, conventions
from loadbench.record.outcome import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from loadbench.engine.observers import RunningLevel
    from loadbench.live.conventions import Instrument
    from loadbench.record.sample import Sample

PERIOD_S = 1.0
# What the end of a run waits for those that export the last metrics.
_END_S = 2.0
# Requests that are counted before the event loop gets its turn: about a millisecond of work.
_AT_A_TIME = 16
# More series than a usual run has; a server that answers with a new model name each time gets no more.
_MOST_SERIES = 2_000
Values: TypeAlias = np.ndarray[tuple[int, ...], np.dtype[np.float64]]
Attributes: TypeAlias = tuple[tuple[str, str | int], ...]
# OpenTelemetry's names of what an API does.
_OPERATIONS = {"completions": "text_completion"}


@dataclass(slots=True)
class Distribution:
    """Counts of values by bucket; a value that equals a bound is in the bucket below it."""

    bounds: tuple[float, ...]
    counts: list[int] = field(default_factory=list)
    sum: float = 0.0
    min: float = float("inf")
    max: float = float("-inf")

    def add(self, values: Values) -> None:
        """Count some values."""
        counts = np.bincount(np.searchsorted(self.bounds, values, side="left"), minlength=len(self.bounds) + 1)
        self.counts = (counts + (self.counts or 0)).tolist()
        self.sum += float(values.sum())
        self.min, self.max = min(self.min, float(values.min())), max(self.max, float(values.max()))


class Point(NamedTuple):
    """The value of a metric for some attributes: a number, or a distribution that nobody changes any more."""

    attributes: Attributes
    value: float | Distribution


class Metric(NamedTuple):
    """A metric with all its points; `kind` is as Prometheus names it."""

    instrument: Instrument
    kind: str  # "histogram", "counter" or "gauge"
    points: Sequence[Point]


class ExportError(Exception):
    """Why the metrics were not taken, for the user."""


class Exporter(Protocol):
    """Takes what has been counted so far. `name` is the flag and its place, for messages."""

    name: str

    def export(self, metrics: Sequence[Metric], *, last: bool) -> None:
        """Called about once a second in a thread of its own, and a `last` time. What comes while it takes its time is
        replaced by what comes after that. Raises `ExportError` if they are not taken."""
        ...

    def close(self) -> None:
        """Nothing comes any more. Called in another thread, maybe while an export goes on, which then ends."""
        ...


class _Lane:
    """An exporter with its thread, and the newest metrics that wait for it."""

    def __init__(self, exporter: Exporter, say: Callable[[str], None]) -> None:
        self._exporter, self._say = exporter, say
        self._has_failed = False
        self._waiting: tuple[Sequence[Metric], bool] = ((), False)
        self._wake = threading.Event()
        self.thread = threading.Thread(target=self._export, name="export", daemon=True)

    def put(self, metrics: Sequence[Metric], *, last: bool) -> None:
        """Have these exported as soon as the exporter has time."""
        self._waiting = metrics, last
        self._wake.set()

    def _export(self) -> None:
        last = False
        while not last:
            self._wake.wait()
            self._wake.clear()
            metrics, last = self._waiting
            try:
                self._exporter.export(metrics, last=last)
            except ExportError as error:
                self._failure(str(error))
            except Exception as error:  # noqa: BLE001 - a run does not end for its metrics
                self._failure(f"{type(error).__name__}: {error}")

    def close(self) -> None:
        """Close the exporter; an export that still goes on is cut."""
        if self.thread.is_alive():
            self._failure(f"the last metrics were not taken within {_END_S:g} s")
        try:
            self._exporter.close()
        except Exception as error:  # noqa: BLE001 - likewise
            self._failure(f"{type(error).__name__}: {error}")

    def _failure(self, words: str) -> None:
        if not self._has_failed:
            self._has_failed = True
            self._say(f"{self._exporter.name}: {printable(words)}; the run goes on without it")


class MetricsFeed:
    """Follows the runs of one command; enter it for their length.

    `environment` chooses the conventions; `about` are attributes of the program and its run. No exporter waits for
    another. What goes wrong in one is reported once with `say`, and concerns neither the others nor the run.
    """

    def __init__(
        self,
        exporters: Sequence[Exporter],
        environment: Mapping[str, str],
        *,
        about: Mapping[str, str],
        say: Callable[[str], None],
    ) -> None:
        self._lanes = [_Lane(exporter, say) for exporter in exporters]
        self._say = say
        self._about: Attributes = tuple(about.items())
        self._instruments = conventions(environment)
        self._ended: list[tuple[Sample, str, str, str]] = []
        self._levels: dict[str, tuple[RunningLevel, str, int]] = {}  # by server
        self._gauges: Sequence[tuple[Instrument, Attributes, float]] = ()
        self._tokens: dict[Attributes, int] = {}
        self._distributions: dict[tuple[str, Attributes], Distribution] = {}
        self._requests: dict[Attributes, int] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._count_and_export, name="metrics", daemon=True)

    def __enter__(self) -> MetricsFeed:
        for thread in (self._thread, *(lane.thread for lane in self._lanes)):
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        ends_s = time.monotonic() + _END_S
        try:
            for thread in (self._thread, *(lane.thread for lane in self._lanes)):
                thread.join(max(0.0, ends_s - time.monotonic()))
        finally:
            for lane in self._lanes:
                lane.close()

    # In the event loop.

    def level_begins(self, level: RunningLevel, model: str, number: int, url: str) -> None:
        """A level is about to start at the server with this URL."""
        self._levels[url] = level, model, number

    def sample_ended(self, sample: Sample, model: str, url: str, api: str) -> None:
        """A request has ended."""
        self._ended.append((sample, model, url, api))

    async def poll(self) -> None:
        """Read once a second what goes on, until cancelled."""
        while True:
            gauges: list[tuple[Instrument, Attributes, float]] = []
            for url, (level, model, number) in self._levels.items():
                where = (*_server(url), ("gen_ai.request.model", model), ("loadbench.load", level.label))
                gauges += [(IN_FLIGHT, where, level.in_flight), (LEVEL, where, number + 1)]
                self._tokens[where] = max(self._tokens.get(where, 0), level.tokens_so_far)
            self._gauges = gauges
            await anyio.sleep(PERIOD_S)

    # In a thread.

    def _count_and_export(self) -> None:
        metrics: Sequence[Metric] = ()
        try:
            while not self._stop.wait(PERIOD_S):
                metrics = self._counted()
                for lane in self._lanes:
                    lane.put(metrics, last=False)
            metrics = self._counted()
        except Exception as error:  # noqa: BLE001 - a run does not end for its metrics
            self._say(f"metrics: {type(error).__name__}: {printable(str(error))}; no more of this run are exported")
        finally:
            for lane in self._lanes:
                lane.put(metrics, last=True)

    def _counted(self) -> Sequence[Metric]:
        ended, self._ended = self._ended, []
        for begin in range(0, len(ended), _AT_A_TIME):
            self._count(ended[begin : begin + _AT_A_TIME])
            time.sleep(0)  # the event loop, if it waits, goes on here
        return self._metrics()

    def _count(self, ended: Sequence[tuple[Sample, str, str, str]]) -> None:
        """Add these requests."""
        values: dict[tuple[str, Attributes], list[Values]] = {}
        for sample, level_model, level_url, api in ended:
            to = sample.request.destination
            ok = sample.outcome is Outcome.OK
            attributes: Attributes = (
                ("gen_ai.operation.name", _OPERATIONS.get(api, "chat")),
                ("gen_ai.provider.name", "openai"),
                ("gen_ai.request.model", printable(to.model or level_model)),
                *((("gen_ai.response.model", printable(sample.model)),) if sample.model else ()),
                *_server(to.server or level_url),
                *(() if ok else (("error.type", str(sample.outcome)),)),
            )
            phase = (("loadbench.outcome", str(sample.outcome)), ("loadbench.phase", str(sample.phase)))
            counter = (*attributes, *phase)
            if counter in self._requests or len(self._requests) < _MOST_SERIES:
                self._requests[counter] = self._requests.get(counter, 0) + 1

            times = sample.timings
            found: dict[str, float | None] = {
                "duration": sample.since_sent(sample.end_ns),
                "first_chunk": sample.since_sent(sample.first_byte_ns),
                "ttft": sample.since_sent(sample.first_token_ns),
            }
            if times is not None and ok:
                found["server_first_token"] = times.first_token_ns
                if times.first_token_ns is not None and times.decode_ns is not None:
                    found["server_duration"] = times.first_token_ns + times.decode_ns
                    tokens = times.output_tokens or sample.output_tokens or 0
                    found["server_per_token"] = times.decode_ns / (tokens - 1) if tokens > 1 else None
            for kind, value_ns in found.items():
                if value_ns is not None:
                    values.setdefault((kind, attributes), []).append(np.array([value_ns / 1e9]))
            if len(sample.event_ns) > 1:
                gaps = np.diff(np.frombuffer(sample.event_ns, np.int64)).astype(np.float64) / 1e9
                values.setdefault(("chunk_gap", attributes), []).append(gaps)
            for kind, count in (("input_tokens", sample.input_tokens), ("output_tokens", sample.output_tokens)):
                if count is not None:
                    place = kind, (*attributes, ("gen_ai.token.type", TOKEN_TYPES[kind]))
                    values.setdefault(place, []).append(np.array([float(count)]))
        for place, parts in values.items():
            if place not in self._distributions and len(self._distributions) >= _MOST_SERIES:
                continue
            bounds = (TTFT if place[0] == "ttft" else self._instruments[place[0]]).bounds
            self._distributions.setdefault(place, Distribution(bounds)).add(np.concatenate(parts))

    def _metrics(self) -> Sequence[Metric]:
        by_name: dict[str, tuple[Instrument, str, list[Point]]] = {}

        def add(instrument: Instrument, kind: str, attributes: Attributes, value: float | Distribution) -> None:
            by_name.setdefault(instrument.name, (instrument, kind, []))[2].append(Point(attributes, value))

        for (kind, attributes), counted in self._distributions.items():
            instrument = TTFT if kind == "ttft" else self._instruments[kind]
            frozen = Distribution(counted.bounds, counted.counts, counted.sum, counted.min, counted.max)
            add(instrument, "histogram", attributes, frozen)
        for attributes, number in self._requests.items():
            add(REQUESTS, "counter", attributes, number)
        for attributes, number in list(self._tokens.items()):
            add(TOKENS, "counter", attributes, number)
        for instrument, attributes, value in self._gauges:
            add(instrument, "gauge", attributes, value)
        add(INFO, "gauge", self._about, 1)
        return [Metric(instrument, kind, points) for instrument, kind, points in by_name.values()]


def _server(url: str) -> Attributes:
    """The attributes of a server; an adapter's URL is its name."""
    parts = urlsplit(url)
    port = parts.port or {"https": 443, "http": 80}.get(parts.scheme)
    return (("server.address", printable(parts.hostname or url)), *((("server.port", port),) if port else ()))
