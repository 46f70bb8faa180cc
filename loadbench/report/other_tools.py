"""What other load testers would say of the same requests, beside what is said here: definitions, not their code.

Two tools that watch one server seldom print the same numbers, since "TTFT", "ITL" or "throughput" are different things
to them. Here each tool's definition is applied to the requests of a level, as they stand in `requests.jsonl`, so that
what is left of a difference is the measurement. The measured requests that ended ok are taken for that tool's whole
benchmark: it begins as the first of them starts and is over when the last has ended. Where a definition needs what is
not recorded (the arrival of a delta without text, another tokenizer's count) the line says so, and what stands there
is the nearest thing, or nothing.

A tool starts its stopwatch before it has a connection; so `start = sent - connect` for all of them but LoadGen, which
counts from when the request was due.
"""

from __future__ import annotations

import math
from itertools import accumulate
from typing import TYPE_CHECKING

from loadbench.core.units import NS_PER_S
from loadbench.report.tool_figures import (
    ToolComparison,
    ToolFigure,
    between,
    by_weight,
    each,
    first_frame,
    first_token,
    first_visible,
    gaps,
    input_of,
    last_token,
    output_of,
    over,
    per_s,
    rest,
    start_of,
    told,
    truncated,
    weighted,
    whole,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from loadbench.results.requests import RequestRecord
    from loadbench.results.run import LevelResult

_DRAIN = "over the time from the first start to the last end, drain included; here what arrived in the window"


def _throughputs(
    found: ToolComparison,
    level: LevelResult,
    requests: Sequence[RequestRecord],
    *,
    names: Sequence[str],
    why: str,
    count: Callable[[RequestRecord], int | None] = told,
) -> None:
    """Requests, output tokens and all tokens per second, by these names."""
    ours, output = level.throughput, output_of(requests, count)
    amounts = (len(requests), output, output + input_of(requests))
    here = (ours.requests_per_s, ours.output_tokens_per_s, ours.total_tokens_per_s)
    for name, amount, own in zip(names, amounts, here, strict=True):
        found.rate(name, per_s(amount, requests), own, why=why)


def vllm(level: LevelResult, requests: Sequence[RequestRecord]) -> ToolComparison:
    """`vllm bench serve`, chat route."""
    found, ours = ToolComparison([], {}), level.metrics
    names = ("Request throughput", "Output token throughput", "Total token throughput")
    _throughputs(found, level, requests, names=names, why=_DRAIN)
    found.rate("Peak output token throughput", _busiest_second(requests), None, why=_PEAK)
    found.add(
        "Peak concurrent requests",
        "of the answered requests alone; here of all, those of the warm-up and failed ones too",
        [ToolFigure("Peak concurrent requests", "", "", float(_most_at_once(requests)), float(level.concurrency.peak))],
    )
    found.latency(
        "TTFT",
        each(requests, first_frame),
        ours.get("ttft_s"),
        why="up to the first frame, which may be a role without text; and from before the connection was made",
    )
    tpot = each(requests, lambda one: over(between(one.first_byte_ns, one.last_token_ns), rest(one.output_tokens)))
    found.latency(
        "TPOT",
        tpot,
        ours.get("tpot_s"),
        why="(E2EL - TTFT) / (N - 1) from that TTFT on; here over the tokens that came after the first event",
    )
    with_role = gaps(requests) + [
        (float(one.first_token_ns - one.first_byte_ns), 1.0)
        for one in requests
        if one.first_token_ns is not None and one.first_byte_ns is not None and one.first_byte_ns < one.first_token_ns
    ]
    found.latency(
        "ITL",
        sorted(with_role),
        ours.get("itl_s"),
        why="one per frame, however many tokens it holds, the role's included (the closing frame's is not recorded); "
        "here per token",
    )
    found.latency(
        "E2EL",
        each(requests, last_token),
        ours.get("e2e_s"),
        why="from before the connection was made; up to the closing frame, of which the last token stands in for",
    )
    return found


_PEAK = "the fullest second, in frames and not in tokens: it can lie below the mean; not a figure here"


def _busiest_second(requests: Sequence[RequestRecord]) -> float | None:
    """Frames with text in the fullest of the seconds that are counted from the first start."""
    if not requests:
        return None
    begins_ns = min(start_of(request) for request in requests)
    seconds: dict[int, int] = {}
    for request in requests:
        if request.first_token_ns is None:
            continue
        for at_ns in accumulate(request.event_gaps_ns, initial=request.first_token_ns):
            second = (at_ns - begins_ns) // NS_PER_S
            seconds[second] = seconds.get(second, 0) + 1
    return float(max(seconds.values(), default=0))


def _most_at_once(requests: Sequence[RequestRecord]) -> int:
    """An end goes before a start at the same moment."""
    changes = [(start_of(one), 1) for one in requests] + [(one.last_token_ns or one.end_ns, -1) for one in requests]
    return max(accumulate(change for _, change in sorted(changes)), default=0)


def sglang(level: LevelResult, requests: Sequence[RequestRecord]) -> ToolComparison:
    """`sglang.bench_serving`, OpenAI chat route."""
    found, ours = ToolComparison([], {}), level.metrics
    names = ("Request throughput", "Output token throughput", "Total token throughput")
    why = f"{_DRAIN}; where usage is missing, N is what was asked for"
    _throughputs(found, level, requests, names=names, why=why, count=_asked_or_told)
    busy_ns = sum(whole(request) for request in requests)
    found.add(
        "Concurrency",
        "the sum of all latencies over the whole time: it sinks with the drain; here weighted by time in the window",
        [ToolFigure("Concurrency", "", "", _per_s_of_ns(busy_ns, requests), level.concurrency.mean)],
    )
    found.latency(
        "E2E Latency", each(requests, whole), ours.get("e2e_s"), why="up to [DONE]; here up to the last token"
    )
    found.latency("TTFT", each(requests, first_token), ours.get("ttft_s"), why="from before the connection was made")
    found.latency(
        "TPOT",
        each(requests, lambda one: over(between(one.first_token_ns, one.end_ns), rest(_asked_or_told(one)))),
        ours.get("tpot_s"),
        why="(E2E up to [DONE] - TTFT) / (N - 1); here up to the last token, over the tokens after the first event",
    )
    found.latency(
        "ITL",
        gaps(requests),
        ours.get("itl_s"),
        why="one per frame with text on the OpenAI routes, one per token on its own; here per token",
    )
    return found


def _per_s_of_ns(busy_ns: int, requests: Sequence[RequestRecord]) -> float | None:
    busy = per_s(busy_ns, requests)
    return None if busy is None else busy / NS_PER_S


def _asked_or_told(request: RequestRecord) -> int | None:
    return request.output_tokens if request.token_source == "usage" else request.asked_output_tokens


def guidellm(level: LevelResult, requests: Sequence[RequestRecord]) -> ToolComparison:
    """guidellm, 0.4 and later."""
    found, ours = ToolComparison([], {}), level.metrics
    why = "a distribution of rates over time of its own making: not computed here"
    found.rate("Requests per second", None, level.throughput.requests_per_s, why=why)
    found.rate("Output tokens per second", None, level.throughput.output_tokens_per_s, why=why)
    found.latency(
        "TTFT",
        each(requests, first_token),
        ours.get("ttft_s"),
        why="from before the connection was made",
        pick=weighted,
    )
    found.latency(
        "TPOT",
        by_weight(requests, lambda one: over(last_token(one), one.output_tokens), lambda one: one.output_tokens),
        ours.get("tpot_s"),
        why="(last token - start) / N, the TTFT in it, and each request weighs as many times as it has tokens",
        pick=weighted,
    )
    found.latency(
        "ITL",
        by_weight(
            requests,
            lambda one: over(between(one.first_token_ns, one.last_token_ns), rest(one.output_tokens)),
            lambda one: rest(one.output_tokens),
        ),
        ours.get("itl_s"),
        why="each request's mean, which others call TPOT, weighing N - 1 times: no single gap is in it, so no stall",
        pick=weighted,
    )
    found.latency(
        "Request latency", each(requests, whole), ours.get("e2e_s"), why="up to the stream's end", pick=weighted
    )
    return found


def aiperf(level: LevelResult, requests: Sequence[RequestRecord]) -> ToolComparison:
    """AIPerf."""
    found, ours = ToolComparison([], {}), level.metrics
    names = ("Request Throughput", "Output Token Throughput", "Total Token Throughput")
    _throughputs(found, level, requests, names=names, why=f"{_DRAIN}; {_OWN_TOKENIZER}")
    found.latency(
        "Time to First Token",
        each(requests, first_token),
        ours.get("ttft_s"),
        why="from before the connection was made",
    )
    found.latency(
        "Inter Token Latency",
        each(
            requests,
            lambda one: (
                over(between(one.first_token_ns, one.last_token_ns), rest(one.output_tokens))
                if one.event_gaps_ns
                else None
            ),
        ),
        ours.get("itl_s"),
        why=f"(latency - TTFT) / (N - 1), one a request: others' TPOT; {_OWN_TOKENIZER}",
    )
    found.latency(
        "Inter Chunk Latency",
        gaps(requests),
        ours.get("event_gap_s"),
        why="the same: the time between frames with text",
    )
    found.latency(
        "Request Latency",
        each(requests, last_token),
        ours.get("e2e_s"),
        why="from before the connection was made, up to the last frame with text",
    )
    return found


_OWN_TOKENIZER = "its N is counted by a tokenizer of its own, here it is the server's"


def llmperf(level: LevelResult, requests: Sequence[RequestRecord]) -> ToolComparison:
    """llmperf, `token_benchmark_ray.py`."""
    found, ours = ToolComparison([], {}), level.metrics
    found.rate(
        "Overall Output Throughput",
        per_s(output_of(requests), requests),
        level.throughput.output_tokens_per_s,
        why=f"{_DRAIN}; it also has what its actors need to start, which is not recorded; {_OWN_TOKENIZER}",
    )
    found.latency(
        "ttft_s",
        each(requests, first_visible),
        ours.get("ttft_s"),
        why="up to the first answer text: reasoning is not seen; from before the connection was made",
    )
    found.latency(
        "inter_token_latency_s",
        each(requests, lambda one: over(last_token(one), one.output_tokens)),
        ours.get("itl_s"),
        why=f"(last text - start) / N, one a request: the TTFT is in it; {_OWN_TOKENIZER}",
    )
    found.latency(
        "end_to_end_latency_s",
        each(requests, whole),
        ours.get("e2e_s"),
        why="up to the end of the stream; here up to the last token",
    )
    return found


def loadgen(level: LevelResult, requests: Sequence[RequestRecord]) -> ToolComparison:
    """MLPerf LoadGen, Server scenario with token latencies."""
    found, ours = ToolComparison([], {}), level.metrics
    until_ns = _last_asked_is_done(requests)
    found.rate(
        "Completed samples per second",
        (len(requests) - 1) * NS_PER_S / until_ns if until_ns else None,
        level.throughput.requests_per_s,
        why="all but one, until the request that was due last is done, whichever ends after it; here in the window",
    )
    found.rate(
        "Completed tokens per second",
        output_of(requests) * NS_PER_S / until_ns if until_ns else None,
        level.throughput.output_tokens_per_s,
        why="all tokens over that same time; here those that arrived in the window",
    )
    found.latency(
        "Latency",
        each(requests, lambda one: between(one.due_ns, one.last_token_ns)),
        ours.get("e2e_response_s"),
        why=_FROM_DUE,
        pick=truncated,
    )
    found.latency(
        "First token latency",
        each(requests, lambda one: between(one.due_ns, one.first_token_ns)),
        ours.get("ttft_response_s"),
        why=_FROM_DUE,
        pick=truncated,
    )
    found.latency(
        "Time per output token",
        each(requests, _whole_tpot),
        ours.get("tpot_s"),
        why="(latency - first token latency) / (N - 1) in whole ns; one-token answers are an error there",
        pick=truncated,
    )
    return found


_FROM_DUE = (
    "from when it was due, as our response times; a quantile is the value at n * p rounded down, one rank higher"
)


def _last_asked_is_done(requests: Sequence[RequestRecord]) -> int:
    """From the first due moment until the request that was due last has its last token, in ns; 0 for none."""
    if not requests:
        return 0
    last = max(requests, key=lambda one: one.due_ns)
    return (last.last_token_ns or last.end_ns) - min(one.due_ns for one in requests)


def _whole_tpot(request: RequestRecord) -> float | None:
    value = over(between(request.first_token_ns, request.last_token_ns), rest(request.output_tokens))
    return None if value is None else math.floor(value)


TOOLS: dict[str, Callable[[LevelResult, Sequence[RequestRecord]], ToolComparison]] = {
    "vllm": vllm,
    "sglang": sglang,
    "guidellm": guidellm,
    "aiperf": aiperf,
    "llmperf": llmperf,
    "loadgen": loadgen,
}
NAMES = {
    "vllm": "vLLM's `vllm bench serve`",
    "sglang": "SGLang's `sglang.bench_serving`",
    "guidellm": "guidellm",
    "aiperf": "AIPerf",
    "llmperf": "llmperf's `token_benchmark_ray.py`",
    "loadgen": "MLPerf LoadGen, in its Server scenario,",
}


def compared(tool: str, level: LevelResult, requests: Sequence[RequestRecord]) -> ToolComparison:
    """A level as the tool would tell it; `requests` are all of the level's."""
    return TOOLS[tool](level, [one for one in requests if one.phase == "measured" and one.outcome == "ok"])
