"""Each given prompt's own distribution, and what stands out: answers among those to one prompt, prompts among all.

A set of prompts of different lengths makes a mixture, whose quantiles tell of the mixture. Here each prompt is apart,
at each level, over the measured requests that ended ok. With so few values as a prompt has, minimum, median and maximum
are all that is told: they are exact.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

from loadbench.analyze.stats.outliers import TESTED_FROM, outliers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from loadbench.results.requests import RequestRecord


@dataclass(frozen=True, slots=True)
class PromptLatency:
    """Median, minimum and maximum, in seconds."""

    p50: float
    min: float
    max: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlier:
    """A value of a prompt's request far from the prompt's others, in seconds; `score` is the modified z-score."""

    figure: str
    number: int
    value: float
    score: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptStats:
    """One prompt at one level: `asked` measured requests, of which `answered` ended ok."""

    level: int
    prompt: int
    hash: str
    requests: int
    ok: int
    ttft: PromptLatency | None
    e2e: PromptLatency | None
    output_tokens: tuple[int, int] | None  # fewest and most
    outliers: tuple[Outlier, ...] = ()
    outlier_score: float | None = None  # the score of its median E2E per token among the prompts', where that is far

    @property
    def few(self) -> bool:
        """Whether there are fewer answers than the outliers' rule was made for."""
        return self.ok < TESTED_FROM


def by_prompt(requests: Iterable[RequestRecord]) -> list[PromptStats]:
    """Figures by level and prompt, in order; empty where no request asked a given prompt."""
    groups: dict[tuple[int, int], list[RequestRecord]] = {}
    for one in requests:
        if one.prompt_index is not None and one.phase == "measured":
            groups.setdefault((one.level, one.prompt_index), []).append(one)
    far = _far_prompts(groups)
    return [_figures(level, prompt, groups[level, prompt], far) for level, prompt in sorted(groups)]


def _figures(level: int, prompt: int, asked: Sequence[RequestRecord], far: dict[tuple[int, int], float]) -> PromptStats:
    ok = sorted((one for one in asked if one.outcome == "ok"), key=lambda one: one.number)
    tokens = [one.output_tokens for one in ok if one.output_tokens is not None]
    return PromptStats(
        level=level,
        prompt=prompt,
        hash=asked[0].prompt_hash or "",
        requests=len(asked),
        ok=len(ok),
        ttft=_spread(_timed(ok, _ttft)),
        e2e=_spread(_timed(ok, _e2e)),
        output_tokens=(min(tokens), max(tokens)) if tokens else None,
        outliers=(*_outliers("TTFT", _timed(ok, _ttft)), *_outliers("E2E", _timed(ok, _e2e))),
        outlier_score=far.get((level, prompt)),
    )


def _ttft(one: RequestRecord) -> int | None:
    return one.first_token_ns


def _e2e(one: RequestRecord) -> int | None:
    return one.last_token_ns


def _timed(requests: Iterable[RequestRecord], mark: Callable[[RequestRecord], int | None]) -> list[tuple[int, float]]:
    """(request's number, seconds from `sent` to the mark)."""
    return [
        (one.number, (at - one.sent_ns) / 1e9)
        for one in requests
        if (at := mark(one)) is not None and one.sent_ns is not None
    ]


def _spread(timed: Sequence[tuple[int, float]]) -> PromptLatency | None:
    values = [value for _, value in timed]
    return PromptLatency(statistics.median(values), min(values), max(values)) if values else None


def _outliers(figure: str, timed: Sequence[tuple[int, float]]) -> list[Outlier]:
    found = outliers([value for _, value in timed])
    return [
        Outlier(figure=figure, number=timed[place][0], value=timed[place][1], score=score) for place, score in found
    ]


def _far_prompts(groups: dict[tuple[int, int], list[RequestRecord]]) -> dict[tuple[int, int], float]:
    """The prompts of a level whose median time per output token is far from that of the level's others.

    Per token, since an answer twice as long may take twice the time.
    """
    medians: dict[int, list[tuple[int, float]]] = {}
    for (level, prompt), asked in sorted(groups.items()):
        paces = [pace for one in asked if one.outcome == "ok" and (pace := _per_token(one)) is not None]
        if paces:
            medians.setdefault(level, []).append((prompt, statistics.median(paces)))
    return {
        (level, told[place][0]): score
        for level, told in medians.items()
        for place, score in outliers([median for _, median in told])
    }


def _per_token(one: RequestRecord) -> float | None:
    if not one.output_tokens or one.last_token_ns is None or one.sent_ns is None:
        return None
    return (one.last_token_ns - one.sent_ns) / one.output_tokens
