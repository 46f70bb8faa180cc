"""Results of other load testers as runs: `vllm bench serve`, SGLang's `bench_serving`, guidellm.

What a tool's figures mean is not what ours of the same name mean. A value goes into the metric of `run.json` whose
definition is nearest, with the tool's own definition in `imported`, and into none if none is near. Values of single
requests make histograms; a summary makes a metric only if it has every point of one. Nothing is known about the client
that measured: no level is VALID.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import msgspec
import numpy as np

from loadbench import __version__
from loadbench.analyze.level.summary import metric as metric_of
from loadbench.analyze.stats.effective_n import CorrelatedSeries
from loadbench.core.errors import BadInput
from loadbench.plan.server_url import shown_url
from loadbench.record.histogram import Histogram
from loadbench.record.recorder import METRICS
from loadbench.results.folder import read_plain
from loadbench.results.imported import ForeignFigure, Imported
from loadbench.results.run import (
    ClientHealth,
    ClosedLoad,
    Concurrency,
    LevelResult,
    Metric,
    ModelStatus,
    OpenLoad,
    Reason,
    Run,
    Throughput,
    TokenCounts,
    Verdict,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

Tool = Literal["vllm bench serve", "sglang bench_serving", "guidellm"]
# Files with the texts of many requests are large; more is no result of a load test.
_MOST_BYTES = 512 << 20
_HINT = "name a file of `vllm bench serve --save-result`, of SGLang's bench_serving --output-file, or guidellm's JSON"
_POINTS = ("p50", "p90", "p95", "p99", "p999")

# What the latencies of vLLM and SGLang are: their name, the metric of `run.json` with this definition, what they mean.
_SERVING = {
    "ttft": ("ttft_s", "from before the connection is made to the first frame, which may have a role and no text"),
    "tpot": ("tpot_classic_s", "(E2EL - TTFT) / (N - 1), one value a request"),
    "itl": ("event_gap_s", "between two frames with text, however many tokens a frame has"),
    "e2el": ("e2e_s", "from before the connection is made to the last frame"),
    "client_queue_time": (None, "from when a request was due to when it was sent"),
}
_SGLANG = _SERVING | {
    "itl": (None, "between two frames, in newer versions divided by the tokens of the later one"),
    "e2el": ("e2e_s", "from before the connection is made to the end of the response"),
}
# Those of guidellm, with their divisor to seconds.
_GUIDELLM = {
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


class _Part(NamedTuple):
    """A level and its figures, which have no number of a level yet."""

    level: LevelResult
    figures: list[ForeignFigure]
    tool: Tool
    version: str
    started_at: str
    missing: list[str]


def imported_run(paths: Sequence[Path], *, name: str) -> Run:
    """The results in these files, all of one tool, as a run with a level for each.

    Raises `BadInput` for a file that is not such a result, and for results of several tools.
    """
    parts: list[_Part] = []
    files: dict[str, str] = {}
    for path in paths:
        try:
            raw = read_plain(path, named=True, most_bytes=_MOST_BYTES)
        except OSError as error:
            raise BadInput(f"{path}: {error.strerror or error}", hint=_HINT) from None
        files[path.name] = hashlib.sha256(raw).hexdigest()
        for place, document in _documents(path, raw):
            try:
                if isinstance(document.get("benchmarks"), list) and "metadata" in document:
                    parts += _guidellm(document)
                elif {"duration", "completed", "request_throughput"} <= document.keys():
                    parts.append(_serving(document))
                else:
                    raise BadInput(f"{place}: not a result that can be imported", hint=_HINT)
            except (ArithmeticError, AttributeError, LookupError, OSError, TypeError, ValueError) as error:
                raise BadInput(f"{place}: a damaged result: {error}", hint="export it again") from None
    tools = {part.tool for part in parts}
    if len(tools) != 1:
        found = f"results of {' and '.join(sorted(tools))}" if tools else "no result"
        raise BadInput(f"{paths[0]}: {found}", hint="import the files of each tool for itself" if tools else _HINT)
    figures = [
        msgspec.structs.replace(figure, level=number) for number, part in enumerate(parts) for figure in part.figures
    ]
    tool = parts[0].tool
    return Run(
        name=name,
        started_at=min(part.started_at for part in parts),
        loadbench_version=__version__,
        simulated=False,
        complete=True,
        scenario={},
        environment={"measured_by": f"{tool} {parts[0].version}".strip()},
        models=[ModelStatus(model, "ok") for model in dict.fromkeys(part.level.model for part in parts)],
        levels=[part.level for part in parts],
        imported=Imported(
            tool=tool,
            version=parts[0].version,
            files=files,
            figures=figures,
            missing=list(dict.fromkeys(text for part in parts for text in part.missing)),
        ),
    )


def _documents(path: Path, raw: bytes) -> list[tuple[str, dict[str, Any]]]:
    """The objects of a JSON file, or one of each line, with their places."""

    def loaded(text: str, place: str) -> tuple[str, dict[str, Any]]:
        try:
            # Means of no value are written as NaN, which is unknown here.
            found = json.loads(text, parse_constant=lambda _: None)
        except (ValueError, RecursionError) as error:
            raise BadInput(f"{place}: not JSON: {error}", hint=_HINT) from None
        if not isinstance(found, dict):
            raise BadInput(f"{place}: not a result that can be imported", hint=_HINT)
        return place, found

    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise BadInput(f"{path}: not UTF-8", hint=_HINT) from None
    lines = [(number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
    # Results that were appended have a line each.
    if len(lines) > 1 and all(line.startswith("{") and line.rstrip().endswith("}") for _, line in lines):
        return [loaded(line, f"{path}, line {number}") for number, line in lines]
    return [loaded(text, str(path))]


class _Serving(msgspec.Struct):
    """The keys that vLLM's and SGLang's results share, and their details; times of requests in seconds."""

    duration: float
    completed: int
    request_throughput: float
    total_input_tokens: int = 0
    total_output_tokens: int = 0
    failed: int = 0
    num_prompts: int | None = None
    output_throughput: float | None = None
    total_token_throughput: float | None = None
    total_throughput: float | None = None
    request_rate: float | str | None = None
    burstiness: float | None = None
    max_concurrency: int | None = None
    concurrency: float | None = None
    max_concurrent_requests: int | None = None
    model_id: str | None = None
    date: str | None = None
    backend: str | None = None
    base_url: str | None = None
    input_lens: list[int] = []
    output_lens: list[int] = []
    ttfts: list[float] = []
    itls: list[list[float]] = []
    latencies: list[float] = []
    start_times: list[float] = []
    errors: list[str | None] = []


def _serving(document: dict[str, Any]) -> _Part:
    """A result of `vllm bench serve`, or of SGLang's `bench_serving`, which is its descendant."""
    one = msgspec.convert(document, _Serving, strict=False)
    is_sglang = "mean_e2e_latency_ms" in document or "input_throughput" in document
    tool: Tool = "sglang bench_serving" if is_sglang else "vllm bench serve"
    rate = math.inf if one.request_rate in (None, "inf") else float(one.request_rate or 0)
    load: ClosedLoad | OpenLoad
    if math.isfinite(rate):
        spread = one.burstiness or 1.0
        arrivals = "poisson" if spread == 1 else f"gamma:{1 / math.sqrt(spread):.4g}"
        load = OpenLoad(rate_per_s=rate, arrivals=arrivals)
    else:  # all at once, but no more than are allowed
        load = ClosedLoad(users=max(1, one.max_concurrency or one.num_prompts or one.completed + one.failed))
    users = load.users if isinstance(load, ClosedLoad) else None

    # Of the requests that ended ok, in the order in which they started.
    sizes = {len(part) for part in (one.ttfts, one.itls, one.output_lens) if part}
    detailed = len(sizes) == 1 and bool(one.ttfts)
    series: dict[str, list[float]] = {}
    if detailed:
        ok = [number for number, error in enumerate(one.errors or [""] * len(one.ttfts)) if not error]
        if len(one.start_times) == len(one.ttfts):
            ok.sort(key=lambda number: one.start_times[number])
        itls = [one.itls[number] if one.itls else [] for number in ok]
        series["ttft"] = [one.ttfts[number] for number in ok]
        has_latency = len(one.latencies) == len(one.ttfts)
        series["e2el"] = [
            one.latencies[number] if has_latency else one.ttfts[number] + math.fsum(gaps)
            for number, gaps in zip(ok, itls, strict=True)
        ]
        lengths = [
            one.output_lens[number] if one.output_lens else len(gaps) + 1 for number, gaps in zip(ok, itls, strict=True)
        ]
        series["tpot"] = [
            (e2e - ttft) / (n - 1)
            for e2e, ttft, n in zip(series["e2el"], series["ttft"], lengths, strict=True)
            if n > 1
        ]
        series["itl"] = [gap for gaps in itls for gap in gaps]

    metrics: dict[str, Metric | None] = {f"{name}_s": None for name in METRICS}
    figures = []
    for figure, (metric, meaning) in (_SGLANG if is_sglang else _SERVING).items():
        written = "e2e_latency" if is_sglang and figure == "e2el" else figure
        points = {
            match[1]: float(value)
            for key, value in document.items()
            if (match := re.fullmatch(rf"(mean|median|std|p[0-9.]+)_{written}_ms", key))
            and isinstance(value, int | float)
        }
        held = metric if metric is not None and series.get(figure) else None
        if held is not None:
            metrics[held] = _histogram_metric(series[figure], failed=one.failed, users=users, many=figure == "itl")
        if points:
            figures.append(
                ForeignFigure(level=0, name=figure.upper(), unit="ms", points=points, meaning=meaning, metric=held)
            )
    rates = {"Request throughput": one.request_throughput, "Output token throughput": one.output_throughput}
    figures += [
        ForeignFigure(
            level=0,
            name=name,
            unit="1/s",
            points={"value": value},
            meaning="over the time from the first start to the last end, ramp and drain included",
        )
        for name, value in rates.items()
        if value is not None
    ]
    output = one.output_throughput if one.output_throughput is not None else one.total_output_tokens / one.duration
    total = one.total_token_throughput if one.total_token_throughput is not None else one.total_throughput
    mean_e2e = document.get("mean_e2e_latency_ms" if is_sglang else "mean_e2el_ms")
    if series.get("e2el"):
        busy = math.fsum(series["e2el"]) / one.duration
    elif one.concurrency is not None:
        busy = one.concurrency
    elif isinstance(mean_e2e, int | float):
        busy = one.request_throughput * mean_e2e / 1e3
    elif users is not None and not isinstance(document.get("mean_tpot_ms"), int | float):
        busy = float(users)
    else:  # Little's law, from what a usual result has
        first, rest = (document.get(f"mean_{name}_ms") or 0.0 for name in ("ttft", "tpot"))
        busy = one.request_throughput * (first + rest * (one.total_output_tokens / max(1, one.completed) - 1)) / 1e3
    missing = [
        "intervals and the distributions of single requests: export with --save-detailed (SGLang: --output-details)"
    ]
    return _Part(
        _level(
            tool=tool,
            server=(shown_url(one.base_url or "") or one.backend or "", one.model_id or "unknown"),
            load=load,
            window_s=one.duration,
            outcomes={"ok": one.completed, "failed": one.failed},
            throughput=(
                one.request_throughput,
                output,
                total if total is not None else output + one.total_input_tokens / one.duration,
            ),
            concurrency=Concurrency(mean=busy, peak=one.max_concurrent_requests or math.ceil(busy)),
            tokens=TokenCounts(
                input=one.total_input_tokens, output=one.total_output_tokens, source={"unknown": one.completed}
            ),
            metrics=metrics,
        ),
        figures,
        tool,
        "",
        _written_time(one.date),
        [] if detailed else missing,
    )


def _guidellm(document: dict[str, Any]) -> list[_Part]:
    """The benchmarks of guidellm's JSON report, a level each."""
    metadata = document["metadata"]
    parts = []
    for one in document["benchmarks"]:
        figures, metrics = [], {f"{name}_s": None for name in METRICS}
        found: dict[str, Metric | None] = dict(metrics)
        for name, (metric, divisor, meaning) in _GUIDELLM.items():
            summary = (one["metrics"].get(name) or {}).get("successful")
            if not isinstance(summary, dict) or not summary.get("count"):
                continue
            points = {
                "mean": summary.get("mean"),
                "min": summary.get("min"),
                "max": summary.get("max"),
                **{point: (summary.get("percentiles") or {}).get(point) for point in _POINTS},
            }
            known = {point: float(value) for point, value in points.items() if isinstance(value, int | float)}
            whole = len(known) == len(points)
            if whole:
                seconds = {point: value / divisor for point, value in known.items()}
                interval = dict.fromkeys(_POINTS)
                found[metric] = msgspec.convert(
                    {"count": summary["count"], **seconds, "interval": interval, "hdr": ""}, Metric
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
        config = one["config"]
        strategy, backend = config.get("strategy") or {}, config.get("backend") or {}
        made = one["scheduler_metrics"]["requests_made"]
        kind, rate = str(strategy.get("type_")), strategy.get("rate")
        load: ClosedLoad | OpenLoad
        if kind in {"constant", "poisson"} and isinstance(rate, int | float):
            load = OpenLoad(rate_per_s=float(rate), arrivals=kind)
        else:  # synchronous, concurrent, throughput
            streams = 1 if kind == "synchronous" else strategy.get("streams") or strategy.get("max_concurrency")
            load = ClosedLoad(users=max(1, int(streams or made["total"])))

        def mean(name: str, benchmark: Mapping[str, Any] = one) -> float:
            return float(((benchmark["metrics"].get(name) or {}).get("successful") or {}).get("mean") or 0.0)

        def total(name: str, benchmark: Mapping[str, Any] = one) -> int:
            summary = (benchmark["metrics"].get(name) or {}).get("successful") or {}
            return round(float(summary.get("total_sum") or 0.0))

        in_flight = ((one["metrics"].get("request_concurrency") or {}).get("total")) or {}
        level = _level(
            tool="guidellm",
            server=(shown_url(str(backend.get("target") or "")), str(backend.get("model") or "unknown")),
            load=load,
            window_s=float(one["duration"]),
            outcomes={
                "ok": int(made["successful"]),
                "failed": int(made["errored"]),
                "cancelled": int(made["incomplete"]),
            },
            throughput=(mean("requests_per_second"), mean("output_tokens_per_second"), mean("tokens_per_second")),
            concurrency=Concurrency(mean=float(in_flight.get("mean") or 0.0), peak=int(in_flight.get("max") or 0)),
            tokens=TokenCounts(
                input=total("prompt_token_count"),
                output=total("output_token_count"),
                source={"unknown": int(made["successful"])},
            ),
            metrics=found,
        )
        started = datetime.fromtimestamp(float(one["start_time"]), UTC)
        parts.append(
            _Part(
                level,
                figures,
                "guidellm",
                str(metadata.get("guidellm_version") or ""),
                started.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
                ["intervals and histograms: the file has summaries"],
            )
        )
    return parts


def _level(
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
    if (
        not 0 < window_s < 1e9
        or min(outcomes.values()) < 0
        or not all(map(math.isfinite, (*throughput, concurrency.mean)))
    ):
        raise ValueError("its duration, its counts or its rates are not those of a measurement")
    sent = sum(outcomes.values())
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


def _histogram_metric(values_s: Sequence[float], *, failed: int, users: int | None, many: bool) -> Metric | None:
    """A metric of the values of single requests in the order of their starts; of `many` a request without intervals."""
    values_ns = np.asarray(values_s, np.float64) * 1e9
    if not np.isfinite(values_ns).all() or (values_ns < 0).any():
        raise ValueError("a time of a request is negative or infinite")
    histogram = Histogram()
    histogram.record_many(np.rint(values_ns).astype(np.int64))
    correlated = None if many else CorrelatedSeries(values_ns.tolist(), users=users)
    return metric_of(histogram, failures=None if many else failed, correlated=correlated)


def _written_time(text: str | None) -> str:
    """`20251105-123456`, a local time without its zone, as UTC; empty where there is none."""
    try:
        moment = datetime.strptime(text or "", "%Y%m%d-%H%M%S").replace(tzinfo=UTC)
    except ValueError:
        return ""
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
