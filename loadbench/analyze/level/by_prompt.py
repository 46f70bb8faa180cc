"""Each prompt's own latencies, and the outliers: requests among those of one prompt, and prompts among all.

Prompts of different lengths make a mixture, whose quantiles describe the mixture. Here each prompt is kept apart, at
each level, over its measured requests that ended ok. A prompt has few of them, so only the minimum, median and maximum
are given: they are exact.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

from loadbench.analyze.stats.outliers import outliers

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from loadbench.results.requests import RequestRecord


@dataclass(frozen=True, slots=True)
class PromptLatency:
    """Median, minimum and maximum, in seconds."""

    p50: float
    min: float
    max: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlier:
    """A request whose value, in seconds, is far from those of the same prompt; `score` is its modified z-score."""

    figure: str
    number: int
    value: float
    score: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptStats:
    """One prompt at one level: its measured `requests`, and how many of them ended `ok`.

    `outlier_score` is the score of its median time per output token among the level's prompts, where it is an outlier.
    """

    level: int
    prompt: int
    hash: str
    requests: int
    ok: int
    ttft: PromptLatency | None
    e2e: PromptLatency | None
    output_tokens: tuple[int, int] | None  # fewest and most
    outliers: tuple[Outlier, ...] = ()
    outlier_score: float | None = None


def by_prompt(requests: Iterable[RequestRecord]) -> list[PromptStats]:
    """Statistics by level and prompt, in order; empty where no request used a given prompt."""
    groups: dict[tuple[int, int], list[RequestRecord]] = {}
    for request in requests:
        if request.prompt_index is not None and request.phase == "measured":
            groups.setdefault((request.level, request.prompt_index), []).append(request)

    # By level, the prompts whose time per output token is an outlier. Per token, because a response of twice the length
    # may take twice the time.
    medians: dict[int, list[tuple[int, float]]] = {}
    for (level, prompt), of_prompt in sorted(groups.items()):
        paces = [
            (request.last_token_ns - request.sent_ns) / request.output_tokens
            for request in of_prompt
            if request.outcome == "ok"
            and request.output_tokens
            and request.last_token_ns is not None
            and request.sent_ns is not None
        ]
        if paces:
            medians.setdefault(level, []).append((prompt, statistics.median(paces)))
    scores = {
        (level, prompts[index][0]): score
        for level, prompts in medians.items()
        for index, score in outliers([median for _, median in prompts])
    }

    result = []
    for level, prompt in sorted(groups):
        of_prompt = groups[level, prompt]
        ok = sorted((request for request in of_prompt if request.outcome == "ok"), key=lambda request: request.number)
        ttft = _seconds(ok, "first_token_ns")
        e2e = _seconds(ok, "last_token_ns")
        tokens = [request.output_tokens for request in ok if request.output_tokens is not None]
        result.append(
            PromptStats(
                level=level,
                prompt=prompt,
                hash=of_prompt[0].prompt_hash or "",
                requests=len(of_prompt),
                ok=len(ok),
                ttft=_latency(ttft),
                e2e=_latency(e2e),
                output_tokens=(min(tokens), max(tokens)) if tokens else None,
                outliers=(*_outliers("TTFT", ttft), *_outliers("E2E", e2e)),
                outlier_score=scores.get((level, prompt)),
            )
        )
    return result


def _seconds(requests: Iterable[RequestRecord], mark: str) -> list[tuple[int, float]]:
    """(request's number, seconds from `sent` to the mark) of each request that has both."""
    return [
        (request.number, (at_ns - request.sent_ns) / 1e9)
        for request in requests
        if (at_ns := getattr(request, mark)) is not None and request.sent_ns is not None
    ]


def _latency(values: Sequence[tuple[int, float]]) -> PromptLatency | None:
    seconds = [value for _, value in values]
    return PromptLatency(statistics.median(seconds), min(seconds), max(seconds)) if seconds else None


def _outliers(figure: str, values: Sequence[tuple[int, float]]) -> list[Outlier]:
    return [
        Outlier(figure=figure, number=values[index][0], value=values[index][1], score=score)
        for index, score in outliers([value for _, value in values])
    ]
