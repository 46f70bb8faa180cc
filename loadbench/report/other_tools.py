"""What other load testers would report for the same requests: their definitions, not their code.

Two tools that measure one server seldom print the same numbers, because they define "TTFT", "ITL" and "throughput"
differently. Here each tool's definition is applied to the requests of a level, as `requests.jsonl` has them, so that
only differences of the measurement remain. The measured requests that ended ok stand for that tool's whole benchmark:
it begins when the first of them starts and ends when the last has ended. If a definition needs something that is not
recorded (the arrival of a delta without text, another tokenizer's count), the reason says so, and the nearest figure
is used, or none.

These tools start timing before they have a connection; so `start = sent - connect` for all of them except LoadGen,
which counts from when the request was due.
"""

from __future__ import annotations

import math
from itertools import accumulate
from typing import TYPE_CHECKING

from loadbench.core.units import NS_PER_S
from loadbench.report.tool_figures import (
    ToolComparison,
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
    output_tokens,
    over,
    per_s,
    rest,
    start_of,
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
    tool: ToolComparison,
    requests: Sequence[RequestRecord],
    *,
    names: Sequence[str],
    why: str,
    count: Callable[[RequestRecord], int | None] = output_tokens,
) -> None:
    """Requests, output tokens and all tokens per second, under these names."""
    ours, output = tool.level.throughput, output_of(requests, count)
    amounts = (len(requests), output, output + input_of(requests))
    here = (ours.requests_per_s, ours.output_tokens_per_s, ours.total_tokens_per_s)
    for name, amount, own in zip(names, amounts, here, strict=True):
        tool.rate(name, per_s(amount, requests), own, why=why)


def vllm(level: LevelResult, requests: Sequence[RequestRecord]) -> ToolComparison:
    """`vllm bench serve`, chat route."""
    tool = ToolComparison(level)
    names = ("Request throughput", "Output token throughput", "Total token throughput")
    _throughputs(tool, requests, names=names, why=_DRAIN)
    tool.rate("Peak output token throughput", _busiest_second(requests), None, why=_PEAK)
    # Sorted, an end comes before a start at the same moment.
    changes = [(start_of(r), 1) for r in requests] + [(r.last_token_ns or r.end_ns, -1) for r in requests]
    peak = max(accumulate(change for _, change in sorted(changes)), default=0)
    tool.number(
        "Peak concurrent requests",
        float(peak),
        float(level.concurrency.peak),
        why="of the completed requests alone; here of all, including those of the warm-up and failed ones",
    )
    tool.latency(
        "TTFT",
        each(requests, first_frame),
        "ttft_s",
        why="up to the first frame, which may be a role without text; and from before the connection was made",
    )
    tpot = each(requests, lambda r: over(between(r.first_byte_ns, r.last_token_ns), rest(r.output_tokens)))
    tool.latency(
        "TPOT",
        tpot,
        "tpot_s",
        why="(E2EL - TTFT) / (N - 1) from that TTFT on; here over the tokens that came after the first event",
    )
    with_role = gaps(requests) + [
        (float(r.first_token_ns - r.first_byte_ns), 1.0)
        for r in requests
        if r.first_token_ns is not None and r.first_byte_ns is not None and r.first_byte_ns < r.first_token_ns
    ]
    tool.latency(
        "ITL",
        sorted(with_role),
        "itl_s",
        why="one per frame, however many tokens it has, including the role's (the closing frame's is not recorded); "
        "here per token",
    )
    tool.latency(
        "E2EL",
        each(requests, last_token),
        "e2e_s",
        why="from before the connection was made; up to the closing frame, for which the last token is taken",
    )
    return tool


_PEAK = "the stream chunks, not tokens, of the busiest second; loadbench reports no such figure"


def _busiest_second(requests: Sequence[RequestRecord]) -> float | None:
    """Frames with text in the fullest second; seconds count from the first start."""
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


def sglang(level: LevelResult, requests: Sequence[RequestRecord]) -> ToolComparison:
    """`sglang.bench_serving`, OpenAI chat route."""
    tool = ToolComparison(level)
    names = ("Request throughput", "Output token throughput", "Total token throughput")
    why = f"{_DRAIN}; where usage is missing, N is what was requested"
    _throughputs(tool, requests, names=names, why=why, count=_usage_or_requested)
    busy = per_s(sum(whole(request) for request in requests), requests)
    tool.number(
        "Concurrency",
        None if busy is None else busy / NS_PER_S,
        level.concurrency.mean,
        why="the sum of all latencies over the whole time, which falls with the drain; here the mean over the window",
    )
    tool.latency("E2E Latency", each(requests, whole), "e2e_s", why="up to [DONE]; here up to the last token")
    tool.latency("TTFT", each(requests, first_token), "ttft_s", why="from before the connection was made")
    tool.latency(
        "TPOT",
        each(requests, lambda r: over(between(r.first_token_ns, r.end_ns), rest(_usage_or_requested(r)))),
        "tpot_s",
        why="(E2E up to [DONE] - TTFT) / (N - 1); here up to the last token, over the tokens after the first event",
    )
    tool.latency(
        "ITL",
        gaps(requests),
        "itl_s",
        why="one per frame with text on the OpenAI routes, one per token on its own; here per token",
    )
    return tool


def _usage_or_requested(request: RequestRecord) -> int | None:
    return request.output_tokens if request.token_source == "usage" else request.asked_output_tokens


def guidellm(level: LevelResult, requests: Sequence[RequestRecord]) -> ToolComparison:
    """guidellm, 0.4 and later."""
    tool = ToolComparison(level)
    why = "guidellm builds its own distribution of rates over time, which is not computed here"
    tool.rate("Requests per second", None, level.throughput.requests_per_s, why=why)
    tool.rate("Output tokens per second", None, level.throughput.output_tokens_per_s, why=why)
    tool.latency(
        "TTFT", each(requests, first_token), "ttft_s", why="from before the connection was made", pick=weighted
    )
    tool.latency(
        "TPOT",
        by_weight(requests, lambda r: over(last_token(r), r.output_tokens), lambda r: r.output_tokens),
        "tpot_s",
        why="(last token - start) / N, TTFT included; each request has the weight of its tokens",
        pick=weighted,
    )
    tool.latency(
        "ITL",
        by_weight(
            requests,
            lambda r: over(between(r.first_token_ns, r.last_token_ns), rest(r.output_tokens)),
            lambda r: rest(r.output_tokens),
        ),
        "itl_s",
        why="each request's mean, which others call TPOT, with weight N - 1: single gaps, and so stalls, do not show",
        pick=weighted,
    )
    tool.latency("Request latency", each(requests, whole), "e2e_s", why="up to the stream's end", pick=weighted)
    return tool


def aiperf(level: LevelResult, requests: Sequence[RequestRecord]) -> ToolComparison:
    """AIPerf."""
    tool = ToolComparison(level)
    names = ("Request Throughput", "Output Token Throughput", "Total Token Throughput")
    _throughputs(tool, requests, names=names, why=f"{_DRAIN}; {_OWN_TOKENIZER}")
    tool.latency(
        "Time to First Token", each(requests, first_token), "ttft_s", why="from before the connection was made"
    )
    tool.latency(
        "Inter Token Latency",
        each(
            requests,
            lambda r: (
                over(between(r.first_token_ns, r.last_token_ns), rest(r.output_tokens)) if r.event_gaps_ns else None
            ),
        ),
        "itl_s",
        why=f"(latency - TTFT) / (N - 1), one a request: others' TPOT; {_OWN_TOKENIZER}",
    )
    tool.latency(
        "Inter Chunk Latency", gaps(requests), "event_gap_s", why="the same: the time between frames with text"
    )
    tool.latency(
        "Request Latency",
        each(requests, last_token),
        "e2e_s",
        why="from before the connection was made, up to the last frame with text",
    )
    return tool


_OWN_TOKENIZER = "its own tokenizer counts N, here the server does"


def llmperf(level: LevelResult, requests: Sequence[RequestRecord]) -> ToolComparison:
    """llmperf, `token_benchmark_ray.py`."""
    tool = ToolComparison(level)
    tool.rate(
        "Overall Output Throughput",
        per_s(output_of(requests), requests),
        level.throughput.output_tokens_per_s,
        why=f"{_DRAIN}; it includes the start of its actors, which is not recorded; {_OWN_TOKENIZER}",
    )
    tool.latency(
        "ttft_s",
        each(requests, first_visible),
        "ttft_s",
        why="up to the first response text, without reasoning; from before the connection was made",
    )
    tool.latency(
        "inter_token_latency_s",
        each(requests, lambda r: over(last_token(r), r.output_tokens)),
        "itl_s",
        why=f"(last text - start) / N, one a request, TTFT included; {_OWN_TOKENIZER}",
    )
    tool.latency(
        "end_to_end_latency_s",
        each(requests, whole),
        "e2e_s",
        why="up to the end of the stream; here up to the last token",
    )
    return tool


def loadgen(level: LevelResult, requests: Sequence[RequestRecord]) -> ToolComparison:
    """MLPerf LoadGen, Server scenario with token latencies."""
    tool = ToolComparison(level)
    # From the first due time to the last token of the request that was due last.
    until_ns = 0
    if requests:
        last = max(requests, key=lambda r: r.due_ns)
        until_ns = (last.last_token_ns or last.end_ns) - min(r.due_ns for r in requests)
    tool.rate(
        "Completed samples per second",
        (len(requests) - 1) * NS_PER_S / until_ns if until_ns else None,
        level.throughput.requests_per_s,
        why="all but one, until the request that was due last is done, even if others end later; here in the window",
    )
    tool.rate(
        "Completed tokens per second",
        output_of(requests) * NS_PER_S / until_ns if until_ns else None,
        level.throughput.output_tokens_per_s,
        why="all tokens over the same time; here those that arrived in the window",
    )
    tool.latency(
        "Latency",
        each(requests, lambda r: between(r.due_ns, r.last_token_ns)),
        "e2e_response_s",
        why=_FROM_DUE,
        pick=truncated,
    )
    tool.latency(
        "First token latency",
        each(requests, lambda r: between(r.due_ns, r.first_token_ns)),
        "ttft_response_s",
        why=_FROM_DUE,
        pick=truncated,
    )
    spans = each(requests, lambda r: over(between(r.first_token_ns, r.last_token_ns), rest(r.output_tokens)))
    tool.latency(
        "Time per output token",
        [(float(math.floor(value)), weight) for value, weight in spans],
        "tpot_s",
        why="(latency - first token latency) / (N - 1) in whole ns; one-token responses are an error there",
        pick=truncated,
    )
    return tool


_FROM_DUE = (
    "from when it was due, like our response times; a quantile is the value at n * p rounded down, one rank higher"
)

TOOLS: dict[str, Callable[[LevelResult, Sequence[RequestRecord]], ToolComparison]] = {
    "vllm": vllm,
    "sglang": sglang,
    "guidellm": guidellm,
    "aiperf": aiperf,
    "llmperf": llmperf,
    "loadgen": loadgen,
}
NAMES = {
    "vllm": "vllm bench serve",
    "sglang": "sglang.bench_serving",
    "guidellm": "guidellm",
    "aiperf": "AIPerf",
    "llmperf": "llmperf (token_benchmark_ray.py)",
    "loadgen": "MLPerf LoadGen (Server scenario)",
}


def compared(tool: str, level: LevelResult, requests: Sequence[RequestRecord]) -> ToolComparison:
    """A level as the tool would report it; `requests` are all those of the level."""
    return TOOLS[tool](level, [r for r in requests if r.phase == "measured" and r.outcome == "ok"])
