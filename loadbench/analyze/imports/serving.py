"""Results of `vllm bench serve`, and of SGLang's `bench_serving`, which is its descendant."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from loadbench.analyze.imports.part import (
    LONGEST_S,
    WITHIN,
    Count,
    Number,
    Part,
    Seconds,
    Tool,
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
# Of these a timer that is a little early makes a negative one.
_SIGNED = "client_queue_time"


class _Serving(msgspec.Struct):
    """The keys that both results share, and their details; times of requests in seconds."""

    duration: Annotated[float, Meta(gt=0, le=LONGEST_S)]
    completed: Count
    request_throughput: Number
    total_input_tokens: Count = 0
    total_output_tokens: Count = 0
    failed: Count | None = None
    num_prompts: Count | None = None
    output_throughput: Number | None = None
    total_token_throughput: Number | None = None
    total_throughput: Number | None = None
    request_rate: Number | str | None = None
    burstiness: Number | None = None
    max_concurrency: Count | None = None
    concurrency: Number | None = None
    max_concurrent_requests: Count | None = None
    model_id: str | None = None
    date: str | None = None
    backend: str | None = None
    base_url: str | None = None
    input_lens: list[Count] = []
    output_lens: list[Count] = []
    ttfts: list[Seconds] = []
    itls: list[list[Seconds]] = []
    latencies: list[Seconds] = []
    start_times: list[Number] = []
    errors: list[str | None] = []


def serving(document: dict[str, Any]) -> Part:
    """The level of one result. Raises `ValueError`, as `msgspec.ValidationError` is, for what no measurement has."""
    # Counts are written as 40.0 too.
    whole = {
        key: int(value) if isinstance(value, float) and value.is_integer() else value for key, value in document.items()
    }
    one = msgspec.convert(whole, _Serving)
    is_sglang = "mean_e2e_latency_ms" in document or "input_throughput" in document
    tool: Tool = "sglang bench_serving" if is_sglang else "vllm bench serve"
    rate = math.inf if one.request_rate in (None, "inf") else float(one.request_rate or 0)
    load: ClosedLoad | OpenLoad
    if rate != math.inf:
        load = open_load(rate, "poisson", one.burstiness or 1.0)
    else:  # all at once, but no more than are allowed
        load = ClosedLoad(users=max(1, one.max_concurrency or one.num_prompts or one.completed + (one.failed or 0)))
    users = load.users if isinstance(load, ClosedLoad) else None

    # Of the requests that ended ok, in the order in which they started.
    details = ("ttfts", "itls", "input_lens", "output_lens", "latencies", "start_times", "errors")
    lengths = {name: len(getattr(one, name)) for name in details if getattr(one, name)}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"its details have different lengths: {', '.join(f'{n} {c}' for n, c in lengths.items())}")
    detailed = bool(one.ttfts)
    failed = one.failed or 0
    series: dict[str, list[float]] = {}
    if detailed:
        ok = [number for number, error in enumerate(one.errors or [""] * len(one.ttfts)) if not error]
        if len(ok) != one.completed:  # some failures have no words, and no first token
            ok = [number for number in ok if one.ttfts[number] > 0]
        if len(ok) != one.completed:
            raise ValueError(f"completed is {one.completed}, and the details have {len(ok)} requests without an error")
        failed = len(one.ttfts) - len(ok) if one.failed is None else failed
        if one.start_times:
            ok.sort(key=lambda number: one.start_times[number])
        itls = [one.itls[number] if one.itls else [] for number in ok]
        series["ttft"] = [one.ttfts[number] for number in ok]
        series["e2el"] = [
            one.latencies[number] if one.latencies else one.ttfts[number] + math.fsum(gaps)
            for number, gaps in zip(ok, itls, strict=True)
        ]
        tokens = [
            one.output_lens[number] if one.output_lens else len(gaps) + 1 for number, gaps in zip(ok, itls, strict=True)
        ]
        series["tpot"] = [
            max(0.0, e2e - ttft) / (n - 1)
            for e2e, ttft, n in zip(series["e2el"], series["ttft"], tokens, strict=True)
            if n > 1
        ]
        series["itl"] = [gap for gaps in itls for gap in gaps]

    metrics: dict[str, Metric | None] = {f"{name}_s": None for name in METRICS}
    figures = []
    for figure, (metric, meaning) in (_SGLANG if is_sglang else _SERVING).items():
        written = "e2e_latency" if is_sglang and figure == "e2el" else figure
        points = {}
        for key, value in document.items():
            match = re.fullmatch(rf"(mean|median|std|p[0-9.]{{1,8}})_{written}_ms", key)
            if match is None or value is None:
                continue
            if not is_number(value) or not (-LONGEST_S if figure == _SIGNED else 0) <= value / 1e3 <= LONGEST_S:
                raise ValueError(f"{key} is {value!r}, which is no latency in ms")
            points[match[1]] = float(value)
        held = metric if metric is not None and series.get(figure) else None
        if held is not None:
            metrics[held] = histogram_metric(series[figure], failed=failed, users=users, many=figure == "itl")
        in_order(points, figure.upper())
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
    rates_agree("request_throughput", one.request_throughput, one.completed, one.duration, within=WITHIN)
    if total is not None:
        total_is_whole("the throughput of all tokens", total, output)
    mean_ms = {figure.name: figure.points["mean"] for figure in figures if "mean" in figure.points}
    if series.get("e2el"):
        busy = math.fsum(series["e2el"]) / one.duration
    elif one.concurrency is not None:
        busy = one.concurrency
    elif "E2EL" in mean_ms:
        busy = one.request_throughput * mean_ms["E2EL"] / 1e3
    elif users is not None and "TPOT" not in mean_ms:
        busy = float(users)
    else:  # Little's law, from what a usual result has
        rest = mean_ms.get("TPOT", 0.0) * (one.total_output_tokens / max(1, one.completed) - 1)
        busy = max(0.0, one.request_throughput * (mean_ms.get("TTFT", 0.0) + rest) / 1e3)
    missing = [
        "intervals and the distributions of single requests: export with --save-detailed (SGLang: --output-details)"
    ]
    return Part(
        level(
            tool=tool,
            server=(shown_url(one.base_url or "") or one.backend or "", one.model_id or "unknown"),
            load=load,
            window_s=one.duration,
            outcomes={"ok": one.completed, "failed": failed},
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


def _written_time(text: str | None) -> str:
    """`20251105-123456`, a local time without its zone, as UTC; empty where there is none."""
    try:
        moment = datetime.strptime(text or "", "%Y%m%d-%H%M%S").replace(tzinfo=UTC)
    except ValueError:
        return ""
    return iso_time(moment.timestamp())
