"""The JSON report of guidellm."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from loadbench.analyze.imports.part import (
    LONGEST_S,
    POINTS,
    Count,
    Epoch,
    Number,
    Part,
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

# Its figures, with their divisor to seconds.
_FIGURES = {
    "time_to_first_token_ms": ("ttft_s", 1e3, "from the start of a request to its first token"),
    "time_to_first_output_token_ms": (
        "ttfo_s",
        1e3,
        "from the start of a request to its first token that is no reasoning",
    ),
    "time_per_output_token_ms": ("e2e_per_token_s", 1e3, "(last token - start of the request) / N: it includes TTFT"),
    "inter_token_latency_ms": ("tpot_classic_s", 1e3, "(last - first token) / (N - 1), one value a request"),
    "request_latency": ("e2e_s", 1.0, "from the start of a request to its end"),
}


class _Summary(msgspec.Struct):
    count: Count | None = None
    mean: Number | None = None
    min: Number | None = None
    max: Number | None = None
    total_sum: Number | None = None
    percentiles: dict[str, Number | None] | None = None


class _Figure(msgspec.Struct):
    successful: _Summary | None = None
    total: _Summary | None = None


class _Metrics(msgspec.Struct):
    requests_per_second: _Figure | None = None
    output_tokens_per_second: _Figure | None = None
    tokens_per_second: _Figure | None = None
    request_concurrency: _Figure | None = None
    prompt_token_count: _Figure | None = None
    output_token_count: _Figure | None = None
    time_to_first_token_ms: _Figure | None = None
    time_to_first_output_token_ms: _Figure | None = None
    time_per_output_token_ms: _Figure | None = None
    inter_token_latency_ms: _Figure | None = None
    request_latency: _Figure | None = None


class _Strategy(msgspec.Struct):
    type_: str = ""
    rate: Any = None
    streams: Count | None = None
    max_concurrency: Count | None = None


class _Backend(msgspec.Struct):
    target: str | None = None
    model: str | None = None


class _Config(msgspec.Struct):
    strategy: _Strategy | None = None
    backend: _Backend | None = None


class _Made(msgspec.Struct):
    successful: Count
    errored: Count
    incomplete: Count


class _Scheduler(msgspec.Struct):
    requests_made: _Made


class _Benchmark(msgspec.Struct):
    duration: Annotated[float, Meta(gt=0, le=LONGEST_S)]
    start_time: Epoch
    config: _Config
    scheduler_metrics: _Scheduler
    metrics: _Metrics


class _Metadata(msgspec.Struct):
    guidellm_version: str | None = None


class _Report(msgspec.Struct):
    metadata: _Metadata
    benchmarks: list[_Benchmark]


def guidellm(document: dict[str, Any]) -> list[Part]:
    """A level for each benchmark. Raises `ValueError`, as `msgspec.ValidationError` is, for what no measurement has."""
    report = msgspec.convert(document, _Report)
    parts = []
    for one in report.benchmarks:
        figures, found = [], dict[str, Metric | None]({f"{name}_s": None for name in METRICS})
        for name, (metric, divisor, meaning) in _FIGURES.items():
            summary = _successful(one, name)
            if not summary.count:
                continue
            points = {
                "mean": summary.mean,
                "min": summary.min,
                "max": summary.max,
                **{point: (summary.percentiles or {}).get(point) for point in POINTS},
            }
            known = {point: float(value) for point, value in points.items() if value is not None}
            in_order(known, name)
            too_long = next((point for point, value in known.items() if value / divisor > LONGEST_S), None)
            if too_long is not None:
                unit = "ms" if divisor > 1 else "s"
                raise ValueError(f"the {too_long} of {name} is {known[too_long]:g} {unit}, longer than any measurement")
            whole = len(known) == len(points)
            if whole:
                seconds = {point: value / divisor for point, value in known.items()}
                interval = dict.fromkeys(POINTS)
                found[metric] = msgspec.convert(
                    {"count": summary.count, **seconds, "interval": interval, "hdr": ""}, Metric
                )
            figures.append(
                ForeignFigure(
                    level=0,
                    name=name,
                    unit="ms" if divisor > 1 else "s",
                    points=known,
                    meaning=meaning,
                    metric=metric if whole else None,
                )
            )
        strategy, backend = one.config.strategy or _Strategy(), one.config.backend or _Backend()
        made = one.scheduler_metrics.requests_made
        load: ClosedLoad | OpenLoad
        if strategy.type_ in {"constant", "poisson"} and is_number(strategy.rate):
            load = open_load(float(strategy.rate), strategy.type_)
        else:  # synchronous, concurrent, throughput
            streams = 1 if strategy.type_ == "synchronous" else strategy.streams or strategy.max_concurrency
            load = ClosedLoad(users=max(1, streams or made.successful + made.errored + made.incomplete))
        in_flight = (one.metrics.request_concurrency or _Figure()).total or _Summary()
        rates = ("requests_per_second", "output_tokens_per_second", "tokens_per_second")
        tokens = {
            name: _successful(one, name).total_sum or 0.0 for name in ("prompt_token_count", "output_token_count")
        }
        # Where it has no rate, its counts make one. Its own are means over a time that begins and ends elsewhere.
        computed = (made.successful, tokens["output_token_count"], sum(tokens.values()))
        written = [_successful(one, name).mean for name in rates]
        requests, output, total = (
            count / one.duration if rate is None else rate for rate, count in zip(written, computed, strict=True)
        )
        rates_agree(rates[0], requests, made.successful, one.duration, within=0.5)
        total_is_whole(rates[2], total, output)
        parts.append(
            Part(
                level(
                    tool="guidellm",
                    server=(shown_url(backend.target or ""), backend.model or "unknown"),
                    load=load,
                    window_s=one.duration,
                    outcomes={"ok": made.successful, "failed": made.errored, "cancelled": made.incomplete},
                    throughput=(requests, output, total),
                    concurrency=Concurrency(mean=in_flight.mean or 0.0, peak=int(in_flight.max or 0)),
                    tokens=TokenCounts(
                        input=round(tokens["prompt_token_count"]),
                        output=round(tokens["output_token_count"]),
                        source={"unknown": made.successful},
                    ),
                    metrics=found,
                ),
                figures,
                "guidellm",
                report.metadata.guidellm_version or "",
                iso_time(one.start_time),
                ["intervals and histograms: the file has summaries"],
            )
        )
    return parts


def _successful(benchmark: _Benchmark, name: str) -> _Summary:
    figure: _Figure | None = getattr(benchmark.metrics, name)
    return (figure and figure.successful) or _Summary()
