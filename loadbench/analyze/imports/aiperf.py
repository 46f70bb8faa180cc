"""What aiperf writes: a summary, `profile_export_aiperf.json`, and a line for each request, `profile_export.jsonl`."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from itertools import accumulate
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from msgspec import Meta

from loadbench.analyze.imports.part import (
    LONGEST_S,
    MOST,
    WITHIN,
    DamagedError,
    Number,
    Part,
    histogram_metric,
    in_order,
    is_number,
    iso_time,
    level,
    open_load,
    rates_agree,
    total_is_whole,
)
from loadbench.plan.server_url import shown_url
from loadbench.record.recorder import METRICS
from loadbench.results.imported import ForeignFigure
from loadbench.results.run import ClosedLoad, Concurrency, Metric, OpenLoad, TokenCounts

if TYPE_CHECKING:
    from collections.abc import Sequence

# Its latencies: the metric of `run.json` with this definition, and what they mean.
_LATENCIES = {
    "time_to_first_token": ("ttft_s", "from before the connection is made to the first frame with text"),
    "time_to_first_output_token": (
        "ttfo_s",
        "from before the connection is made to the first frame with text that is no reasoning",
    ),
    "inter_token_latency": ("tpot_classic_s", "(request latency - TTFT) / (N - 1), one value a request"),
    "inter_chunk_latency": ("event_gap_s", "between two frames with text, however many tokens a frame has"),
    "request_latency": ("e2e_s", "from before the connection is made to the last frame with text"),
}
# Of its summary, with what is computed where it is missing.
_RATES = {
    "request_throughput": "Request throughput",
    "output_token_throughput": "Output token throughput",
    "total_token_throughput": "Total token throughput",
}
_SECONDS = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0, "sec": 1.0, "seconds": 1.0}
_POINTS = {"avg": "mean", **{name: name for name in ("min", "p50", "p75", "p90", "p95", "p99", "max", "std")}}
# Nanoseconds since 1970, before 2100; a float in a file that only Python's own reader takes.
_Moment = Annotated[int, Meta(ge=0, le=4_102_444_800_000_000_000)] | Annotated[float, Meta(ge=0, le=4.1024448e18)]


class _Stats(msgspec.Struct):
    unit: str
    avg: Number | None = None
    min: Number | None = None
    max: Number | None = None
    std: Number | None = None
    p50: Number | None = None
    p75: Number | None = None
    p90: Number | None = None
    p95: Number | None = None
    p99: Number | None = None


class _Summary(msgspec.Struct):
    request_throughput: _Stats | None = None
    output_token_throughput: _Stats | None = None
    total_token_throughput: _Stats | None = None
    request_count: _Stats | None = None
    error_request_count: _Stats | None = None
    benchmark_duration: _Stats | None = None
    effective_concurrency: _Stats | None = None
    total_isl: _Stats | None = None
    total_osl: _Stats | None = None
    time_to_first_token: _Stats | None = None
    time_to_first_output_token: _Stats | None = None
    inter_token_latency: _Stats | None = None
    inter_chunk_latency: _Stats | None = None
    request_latency: _Stats | None = None
    input_config: dict[str, Any] = {}
    aiperf_version: str | None = None
    start_time: str | None = None


class _Value(msgspec.Struct):
    value: Number | None
    unit: str


class _Several(msgspec.Struct):
    value: list[Number] | None
    unit: str


class _Values(msgspec.Struct):
    time_to_first_token: _Value | None = None
    time_to_first_output_token: _Value | None = None
    inter_token_latency: _Value | None = None
    inter_chunk_latency: _Several | None = None
    request_latency: _Value | None = None
    input_sequence_length: _Value | None = None
    output_sequence_length: _Value | None = None


class _Metadata(msgspec.Struct):
    request_start_ns: _Moment
    request_end_ns: _Moment
    benchmark_phase: str = "profiling"
    was_cancelled: bool = False


class _Record(msgspec.Struct):
    metadata: _Metadata
    metrics: _Values | None = None
    error: Any = None


def is_summary(document: dict[str, Any]) -> bool:
    """Whether it is aiperf's summary: its throughput has a unit, and its version or its configuration is with it."""
    rate = document.get("request_throughput")
    return isinstance(rate, dict) and "unit" in rate and bool({"aiperf_version", "input_config"} & document.keys())


def is_record(document: dict[str, Any]) -> bool:
    """Whether it is the line of a request."""
    metadata = document.get("metadata")
    return isinstance(metadata, dict) and "request_start_ns" in metadata


def records_name(name: str) -> str:
    """The name of the file of requests beside a summary of this name; `--profile-export-prefix` sets both."""
    stem = name.removesuffix(".json")
    return f"{'profile_export' if stem == 'profile_export_aiperf' else stem}.jsonl"


def aiperf(document: dict[str, Any], lines: Sequence[tuple[str, dict[str, Any]]]) -> Part:
    """The level of a summary, of the lines of its requests with their places, or of both.

    Raises `ValueError`, as `msgspec.ValidationError` is, for what no measurement has; in a line, `DamagedError`.
    """
    summary = msgspec.convert(document, _Summary)
    records = []
    for place, line in lines:
        try:
            record = msgspec.convert(line, _Record)
        except msgspec.ValidationError as error:
            raise DamagedError(place, str(error)) from None
        if record.metadata.request_end_ns < record.metadata.request_start_ns:
            raise DamagedError(place, "the request ends before it begins")
        if record.metadata.benchmark_phase != "warmup":
            records.append((place, record))
    records.sort(key=lambda pair: pair[1].metadata.request_start_ns)
    ended = [(place, one) for place, one in records if one.error is None and not one.metadata.was_cancelled]
    cancelled = sum(one.metadata.was_cancelled for _, one in records)
    failed = len(records) - len(ended) - cancelled if records else _count(summary, "error_request_count")
    completed = _count(summary, "request_count") if summary.request_count is not None else len(ended)
    if records and completed != len(ended):
        raise ValueError(f"request_count is {completed}, and {len(ended)} requests ended without an error")

    begins = [one.metadata.request_start_ns for _, one in records]
    if summary.benchmark_duration is not None:
        window_s = _seconds(summary.benchmark_duration.avg or 0.0, summary.benchmark_duration.unit)
    else:
        window_s = (max(one.metadata.request_end_ns for _, one in records) - begins[0]) / 1e9 if records else 0.0
    if window_s <= 0:
        raise ValueError("how long it measured is not there")
    busy = math.fsum(one.metadata.request_end_ns - one.metadata.request_start_ns for _, one in records) / 1e9 / window_s
    if summary.effective_concurrency is not None:
        in_flight = summary.effective_concurrency
        busy, peak = in_flight.avg or 0.0, math.ceil(in_flight.max or in_flight.avg or 0.0)
    else:
        if not records and summary.request_latency is not None:  # Little's law
            latency_s = _seconds(summary.request_latency.avg or 0.0, summary.request_latency.unit)
            busy = latency_s * completed / window_s
        # An end counts before a start at the same time.
        steps = sorted(
            step
            for _, one in records
            for step in ((one.metadata.request_start_ns, 1), (one.metadata.request_end_ns, -1))
        )
        peak = max(accumulate(step for _, step in steps), default=math.ceil(busy))
    load = _load(summary.input_config, peak or completed + failed + cancelled)
    users = load.users if isinstance(load, ClosedLoad) else None

    metrics: dict[str, Metric | None] = {f"{name}_s": None for name in METRICS}
    figures = []
    for name, (metric, meaning) in _LATENCIES.items():
        values = _values(ended, name)
        many = name == "inter_chunk_latency"
        if values:
            metrics[metric] = histogram_metric(values, failed=failed + cancelled, users=users, many=many)
        stats: _Stats | None = getattr(summary, name)
        if stats is not None:
            points = {ours: value for theirs, ours in _POINTS.items() if (value := getattr(stats, theirs)) is not None}
            for value in points.values():
                _seconds(value, stats.unit)
            in_order(points, name)
            figures.append(
                ForeignFigure(
                    level=0,
                    name=name,
                    unit=stats.unit,
                    points=points,
                    meaning=meaning,
                    metric=metric if values else None,
                )
            )
    tokens = []
    for total, each in (("total_isl", "input_sequence_length"), ("total_osl", "output_sequence_length")):
        written = [getattr(one.metrics, each, None) for _, one in ended]
        summed = round(math.fsum(one.value or 0 for one in written if one is not None))
        tokens.append(_count(summary, total) if getattr(summary, total) is not None else summed)
    rates = [completed / window_s, tokens[1] / window_s, sum(tokens) / window_s]
    for number, (name, shown) in enumerate(_RATES.items()):
        rate: _Stats | None = getattr(summary, name)
        if rate is not None and rate.avg is not None:
            rates[number] = rate.avg
            figures.append(
                ForeignFigure(
                    level=0,
                    name=shown,
                    unit="1/s",
                    points={"value": rate.avg},
                    meaning="over the time from the first start to the last end, ramp and drain included",
                )
            )
    rates_agree("request_throughput", rates[0], completed, window_s, within=WITHIN)
    total_is_whole("total_token_throughput", rates[2], rates[1])
    missing = [] if records else ["intervals and the distributions of single requests: profile_export.jsonl has them"]
    if not document:
        missing.append("the load, the server and the model: profile_export_aiperf.json has them")
    urls = _at(summary.input_config, "endpoint", "urls") or [_at(summary.input_config, "endpoint", "url")]
    models = _at(summary.input_config, "models", "items") or _at(summary.input_config, "endpoint", "model_names")
    model = models[0] if isinstance(models, list) and models else None
    return Part(
        level(
            tool="aiperf",
            server=(shown_url(str(urls[0] or "")) if isinstance(urls, list) else "", _name(model)),
            load=load,
            window_s=window_s,
            outcomes={"ok": completed, "failed": failed, "cancelled": cancelled},
            throughput=(rates[0], rates[1], rates[2]),
            concurrency=Concurrency(mean=busy, peak=peak),
            tokens=TokenCounts(input=tokens[0], output=tokens[1], source={"unknown": completed}),
            metrics=metrics,
        ),
        figures,
        "aiperf",
        summary.aiperf_version or "",
        _started(summary.start_time, begins),
        missing,
    )


def _load(config: dict[str, Any], in_flight: int) -> ClosedLoad | OpenLoad:
    """The load of its profiling phase, in the words of newer and of older versions."""
    phases = config.get("phases")
    found = [phase for phase in phases if isinstance(phase, dict)] if isinstance(phases, list) else []
    phase = next((one for one in found if "profiling" in (one.get("kind"), one.get("name"))), {})
    old = config.get("loadgen")
    old = old if isinstance(old, dict) else {}
    kind, rate = phase.get("type") or old.get("request_rate_mode"), phase.get("rate") or old.get("request_rate")
    if is_number(rate) and kind != "concurrency_burst":
        spread = next((one for one in (phase.get("smoothness"), old.get("arrival_smoothness")) if is_number(one)), 1.0)
        return open_load(rate, "constant") if kind == "constant" else open_load(rate, "poisson", spread)
    users = phase.get("concurrency") or old.get("concurrency") or max(1, in_flight)
    if not (is_number(users) and 1 <= users <= MOST):
        raise ValueError(f"a concurrency of {users!r} is not one of a measurement")
    return ClosedLoad(users=int(users))


def _count(summary: _Summary, name: str) -> int:
    stats: _Stats | None = getattr(summary, name)
    count = (stats and stats.avg) or 0.0
    if not float(count).is_integer():
        raise ValueError(f"{name} is {count:g}, which is no count")
    return int(count)


def _values(records: Sequence[tuple[str, _Record]], name: str) -> list[float]:
    """A latency of each of these requests, or all of them where each has several, in seconds."""
    found = []
    for place, one in records:
        written: _Value | _Several | None = getattr(one.metrics, name, None)
        if written is None or written.value is None:
            continue
        try:
            each = written.value if isinstance(written.value, list) else [written.value]
            found += [_seconds(value, written.unit) for value in each]
        except ValueError as error:
            raise DamagedError(place, f"{name}: {error}") from None
    return found


def _seconds(value: float, unit: str) -> float:
    if unit not in _SECONDS:
        raise ValueError(f"{unit!r} is not a unit of time that is known")
    seconds = value * _SECONDS[unit]
    if seconds > LONGEST_S:
        raise ValueError(f"{value:g} {unit} is longer than any measurement")
    return seconds


def _at(config: dict[str, Any], section: str, key: str) -> Any:
    part = config.get(section)
    return part.get(key) if isinstance(part, dict) else None


def _name(model: Any) -> str:
    name = model.get("name") if isinstance(model, dict) else model
    return name if isinstance(name, str) and name else "unknown"


def _started(text: str | None, begins: Sequence[float]) -> str:
    """When it began: as the summary says, which is UTC without saying so, or as its first request did."""
    if text is None:
        return iso_time(begins[0] / 1e9) if begins else ""
    moment = datetime.fromisoformat(text)
    return iso_time((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())
