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
from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from loadbench.core.units import NS_PER_S
from loadbench.plan.objective import parse_objective
from loadbench.report.tool_figures import ToolComparison, nearest, over, truncated, weighted

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from loadbench.report.tool_figures import Floats, RequestColumns
    from loadbench.results.run import LevelResult

_DRAIN = "over the time from the first start to the last end, drain included; here what arrived in the window"


def _throughputs(
    tool: ToolComparison, requests: RequestColumns, *, names: Sequence[str], why: str, output: Floats | None = None
) -> None:
    """Requests, output tokens and all tokens per second, under these names; `output` are tokens as the tool counts."""
    ours, counted = tool.level.throughput, requests.column("output_tokens") if output is None else output
    tokens = float(np.nansum(counted))
    amounts = (requests.count, tokens, tokens + float(np.nansum(requests.column("input_tokens"))))
    here = (ours.requests_per_s, ours.output_tokens_per_s, ours.total_tokens_per_s)
    for name, amount, own in zip(names, amounts, here, strict=True):
        tool.rate(name, requests.per_s(amount), own, why=why)


def vllm(level: LevelResult, requests: RequestColumns) -> ToolComparison:
    """`vllm bench serve`, chat route."""
    tool = ToolComparison(level)
    names = ("Request throughput", "Output token throughput", "Total token throughput")
    _throughputs(tool, requests, names=names, why=_DRAIN)
    tool.rate("Peak output token throughput", _busiest_second(requests), None, why=_PEAK)
    # An end comes before a start at the same moment.
    moments = np.concatenate([requests.start, requests.last_text])
    changes = np.repeat([1, -1], requests.count)
    in_flight = np.cumsum(changes[np.lexsort((changes, moments))])
    tool.number(
        "Peak concurrent requests",
        float(in_flight.max(initial=0)),
        float(level.concurrency.peak),
        why="of the completed requests alone; here of all, including those of the warm-up and failed ones",
    )
    first_frame, last = requests.since_start("first_byte_ns"), requests.since_start("last_token_ns")
    first_token, gaps = requests.since_start("first_token_ns"), requests.gaps
    tpot = over(last - first_frame, requests.column("output_tokens") - 1)
    bounds = {"ttft": first_frame, "tpot": np.nan_to_num(tpot), "e2e": last}
    rules = [parse_objective(decided.rule) for decided in level.objectives]
    limits = [(bounds[rule.metric], rule.bound) for rule in rules if rule.metric in bounds and rule.sense == "<"]
    if limits:
        good = np.all([values <= bound for values, bound in limits], axis=0)
        tool.rate(
            "Request goodput",
            requests.per_s(float(good.sum())),
            None if level.goodput is None else level.goodput.requests_per_s,
            why="completed requests within the bounds of the level's objectives on TTFT, TPOT and E2EL, by its own "
            f"figures, {_DRAIN}; here every objective counts",
        )
    tool.latency(
        "TTFT",
        first_frame,
        "ttft_s",
        why="up to the first frame, which may be a role without text; and from before the connection was made",
    )
    tool.latency(
        "TPOT",
        tpot,
        "tpot_s",
        why="(E2EL - TTFT) / (N - 1) from that TTFT on; here over the tokens that came after the first event",
    )
    tool.latency(
        "ITL",
        np.concatenate([gaps, (first_token - first_frame)[first_frame < first_token]]),
        "itl_s",
        why="one per frame, however many tokens it has, including the role's (the closing frame's is not recorded); "
        "here per token",
    )
    tool.latency(
        "E2EL",
        last,
        "e2e_s",
        why="from before the connection was made; up to the closing frame, for which the last token is taken",
    )
    return tool


_PEAK = "the stream chunks, not tokens, of the busiest second; loadbench reports no such figure"


# Memory stays small, however many frames a level has.
_REQUESTS_AT_A_TIME = 4096


def _busiest_second(requests: RequestColumns) -> float | None:
    """Frames with text in the fullest second; seconds count from the first start."""
    if not requests.count:
        return None
    # The stamps of the frames of some requests at a time: the first token of each, then its gaps one after the other.
    counts, gaps, first = requests.gap_counts, requests.gaps, requests.column("first_token_ns")
    ends, begins_ns = np.cumsum(counts), requests.start.min()
    busiest: Counter[float] = Counter()
    for at in range(0, requests.count, _REQUESTS_AT_A_TIME):
        some = slice(at, at + _REQUESTS_AT_A_TIME)
        summed = np.cumsum(np.concatenate([[0.0], gaps[ends[at] - counts[at] : ends[some][-1]]]))
        before = np.repeat(summed[ends[some] - counts[some] - ends[at] + counts[at]], counts[some])
        frames = np.concatenate([first[some], np.repeat(first[some], counts[some]) + summed[1:] - before])
        seconds = (frames[~np.isnan(frames)] - begins_ns) // NS_PER_S
        busiest.update(dict(zip(*(found.tolist() for found in np.unique(seconds, return_counts=True)), strict=True)))
    return float(max(busiest.values(), default=0))


def sglang(level: LevelResult, requests: RequestColumns) -> ToolComparison:
    """`sglang.bench_serving`, OpenAI chat route."""
    tool = ToolComparison(level)
    names = ("Request throughput", "Output token throughput", "Total token throughput")
    why = f"{_DRAIN}; where usage is missing, N is what was requested"
    output = np.where(requests.by_usage > 0, requests.column("output_tokens"), requests.column("asked_output_tokens"))
    _throughputs(tool, requests, names=names, why=why, output=output)
    whole, first_token = requests.since_start("end_ns"), requests.since_start("first_token_ns")
    busy = requests.per_s(float(whole.sum()))
    tool.number(
        "Concurrency",
        None if busy is None else busy / NS_PER_S,
        level.concurrency.mean,
        why="the sum of all latencies over the whole time, which falls with the drain; here the mean over the window",
    )
    tool.latency("E2E Latency", whole, "e2e_s", why="up to [DONE]; here up to the last token")
    tool.latency("TTFT", first_token, "ttft_s", why="from before the connection was made")
    tool.latency(
        "TPOT",
        over(whole - first_token, output - 1),
        "tpot_s",
        why="(E2E up to [DONE] - TTFT) / (N - 1); here up to the last token, over the tokens after the first event",
    )
    tool.latency(
        "ITL",
        requests.gaps,
        "itl_s",
        why="one per frame with text on the OpenAI routes, one per token on its own; here per token",
    )
    return tool


def guidellm(level: LevelResult, requests: RequestColumns) -> ToolComparison:
    """guidellm, 0.4 and later."""
    tool = ToolComparison(level)
    why = "guidellm builds its own distribution of rates over time, which is not computed here"
    tool.rate("Requests per second", None, level.throughput.requests_per_s, why=why)
    tool.rate("Output tokens per second", None, level.throughput.output_tokens_per_s, why=why)
    first_token, last = requests.since_start("first_token_ns"), requests.since_start("last_token_ns")
    tokens = requests.column("output_tokens")
    tool.latency("TTFT", first_token, "ttft_s", why="from before the connection was made", pick=weighted)
    tool.latency(
        "TPOT",
        over(last, tokens),
        "tpot_s",
        why="(last token - start) / N, TTFT included; each request has the weight of its tokens",
        pick=weighted,
        weights=tokens,
    )
    tool.latency(
        "ITL",
        over(last - first_token, tokens - 1),
        "itl_s",
        why="each request's mean, which others call TPOT, with weight N - 1: single gaps, and so stalls, do not show",
        pick=weighted,
        weights=tokens - 1,
    )
    tool.latency(
        "Request latency", requests.since_start("end_ns"), "e2e_s", why="up to the stream's end", pick=weighted
    )
    return tool


def aiperf(level: LevelResult, requests: RequestColumns) -> ToolComparison:
    """AIPerf, 0.8 and later: its `adj_` figures too."""
    tool = ToolComparison(level)
    names = ("Request Throughput", "Output Token Throughput", "Total Token Throughput")
    _throughputs(tool, requests, names=names, why=f"{_DRAIN}; {_OWN_TOKENIZER}")
    first_token, last = requests.since_start("first_token_ns"), requests.since_start("last_token_ns")
    spans = over(last - first_token, requests.column("output_tokens") - 1)
    spans = np.where(requests.gap_counts > 0, spans, math.nan)
    figures = (
        ("time_to_first_token", "Time to First Token", first_token, "ttft_s", "from before the connection was made"),
        (
            "inter_token_latency",
            "Inter Token Latency",
            spans,
            "itl_s",
            (
                f"(latency - TTFT) / (N - 1), one a request: others' TPOT; {_OWN_TOKENIZER}; with --per-chunk-usage "
                "the tokens of the first chunk take the place of the 1"
            ),
        ),
        (
            "request_latency",
            "Request Latency",
            last,
            "e2e_s",
            "from before the connection was made, up to the last frame with text",
        ),
    )
    for _, name, values, ours, why in figures:
        tool.latency(name, values, ours, why=why)
    tool.latency("Inter Chunk Latency", requests.gaps, "event_gap_s", why="the same: the time between frames with text")
    # It has them only where requests failed.
    for tag, _, values, ours, _ in figures if requests.failed else ():
        known = values[~np.isnan(values)]
        if not len(known):
            continue
        tool.latency(
            f"adj_{tag}",
            np.concatenate([known, np.full(requests.failed, math.inf)]),
            "tpot_s" if ours == "itl_s" else ours,
            why="each failed request is infinitely slow, as here; p50, p99: the nearer of two neighbours",
            pick=nearest,
            failures=True,
        )
    return tool


_OWN_TOKENIZER = "its own tokenizer counts N, here the server does"


def llmperf(level: LevelResult, requests: RequestColumns) -> ToolComparison:
    """llmperf, `token_benchmark_ray.py`."""
    tool = ToolComparison(level)
    tokens = requests.column("output_tokens")
    tool.rate(
        "Overall Output Throughput",
        requests.per_s(float(np.nansum(tokens))),
        level.throughput.output_tokens_per_s,
        why=f"{_DRAIN}; it includes the start of its actors, which is not recorded; {_OWN_TOKENIZER}",
    )
    tool.latency(
        "ttft_s",
        requests.since_start("first_visible_ns"),
        "ttft_s",
        why="up to the first response text, without reasoning; from before the connection was made",
    )
    tool.latency(
        "inter_token_latency_s",
        over(requests.since_start("last_token_ns"), tokens),
        "itl_s",
        why=f"(last text - start) / N, one a request, TTFT included; {_OWN_TOKENIZER}",
    )
    tool.latency(
        "end_to_end_latency_s",
        requests.since_start("end_ns"),
        "e2e_s",
        why="up to the end of the stream; here up to the last token",
    )
    return tool


def loadgen(level: LevelResult, requests: RequestColumns) -> ToolComparison:
    """MLPerf LoadGen, Server scenario with token latencies."""
    tool = ToolComparison(level)
    due, first_token, last = (requests.column(name) for name in ("due_ns", "first_token_ns", "last_token_ns"))
    tokens = requests.column("output_tokens")
    # From the first due time to the last token of the request that was due last.
    until_ns = float(requests.last_text[due.argmax()] - due.min()) if requests.count else 0.0
    tool.rate(
        "Completed samples per second",
        (requests.count - 1) * NS_PER_S / until_ns if until_ns else None,
        level.throughput.requests_per_s,
        why="all but one, until the request that was due last is done, even if others end later; here in the window",
    )
    tool.rate(
        "Completed tokens per second",
        float(np.nansum(tokens)) * NS_PER_S / until_ns if until_ns else None,
        level.throughput.output_tokens_per_s,
        why="all tokens over the same time; here those that arrived in the window",
    )
    tool.latency("Latency", last - due, "e2e_response_s", why=_FROM_DUE, pick=truncated)
    tool.latency("First token latency", first_token - due, "ttft_response_s", why=_FROM_DUE, pick=truncated)
    tool.latency(
        "Time per output token",
        np.floor(over(last - first_token, tokens - 1)),
        "tpot_s",
        why="(latency - first token latency) / (N - 1) in whole ns; one-token responses are an error there",
        pick=truncated,
    )
    for name, values, ours in (
        ("Latency", last - due, "e2e_response_s"),
        ("First token latency", first_token - due, "ttft_response_s"),
    ):
        tool.early_stopping(name, values, ours)
    return tool


_FROM_DUE = (
    "from when it was due, like our response times; a quantile is the value at n * p rounded down, one rank higher"
)

TOOLS: dict[str, Callable[[LevelResult, RequestColumns], ToolComparison]] = {
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
