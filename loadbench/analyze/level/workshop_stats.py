"""The workshop's figures for each model, from the requests of its rounds: exact values, no histogram.

    latency          from the request sent to the last token received; retries and warm-up are never in it
    first token      from the request sent to the first token, of the same requests
    tokens per s     output tokens over latency, for each request; the figure is their mean, as in the workshop
    p95              the smallest latency that at least 95 % do not exceed (nearest rank): never above the maximum

Some of the workshop's own figures are also given as it computes them, under `legacy` names: total tokens, including the
prompt's, over latency; and `statistics.quantiles(n=20)[-1]`, which exceeds the maximum when there are few rounds. They
exist to compare old results, and for nothing else.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

from loadbench.results.run import ModelStatus

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from loadbench.results.requests import RequestRecord
    from loadbench.results.run import Run


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRounds:
    """One model's rounds, in seconds and tokens; `reason` says why there are none.

    `rounds` is how often each prompt was to be sent, `requested` the number of requests this makes, and `ok` how many
    of them ended ok: all figures are over these.
    """

    model: str
    alias: str
    status: str
    reason: str
    rounds: int
    requested: int
    ok: int
    latencies: tuple[float, ...] = ()
    first_tokens: tuple[float, ...] = ()
    input_tokens: tuple[int, ...] = ()
    output_tokens: tuple[int, ...] = ()
    tokens_per_s: float | None = None
    legacy_tokens_per_s: float | None = None
    sample: str | None = None

    @property
    def latency_avg(self) -> float | None:
        """The mean."""
        return mean(self.latencies)

    @property
    def latency_p95(self) -> float | None:
        """The nearest-rank quantile."""
        return nearest_rank(self.latencies, 0.95)

    @property
    def first_token_avg(self) -> float | None:
        """The mean."""
        return mean(self.first_tokens)

    @property
    def legacy_p95(self) -> float | None:
        """As the workshop computes it: extrapolated, and above the maximum when there are few rounds."""
        if len(self.latencies) > 1:
            return statistics.quantiles(self.latencies, n=20)[-1]
        return self.latencies[0] if self.latencies else None


def mean(values: Sequence[float]) -> float | None:
    """The mean; `None` of no values."""
    return statistics.fmean(values) if values else None


def nearest_rank(values: Sequence[float], p: float) -> float | None:
    """The smallest value that at least the share `p` of all values do not exceed; `None` of no values."""
    return sorted(values)[max(0, math.ceil(p * len(values)) - 1)] if values else None


def model_rounds(run: Run, requests: Iterable[RequestRecord]) -> list[ModelRounds]:
    """Each model's rounds in the run's order, including models that failed; of a sweep, each model's first level."""
    first = {level.model: index for index, level in reversed(list(enumerate(run.levels)))}
    by_level: dict[int, list[RequestRecord]] = {index: [] for index in first.values()}
    for request in requests:
        if request.level in by_level and request.phase == "measured":
            by_level[request.level].append(request)

    # The models that a stopped run did not reach are only in its scenario.
    known = {name for status in run.models for name in (status.model, status.asked)}
    names = run.scenario.get("target", {}).get("model")
    not_run = [name for name in names if name not in known] if isinstance(names, list) else []
    statuses = [*run.models, *(ModelStatus(name, "not_run", "the run was stopped before it") for name in not_run)]
    return [
        _rounds(run, status, sorted(by_level.get(first.get(status.model, -1), []), key=lambda request: request.number))
        for status in statuses
    ]


def _rounds(run: Run, status: ModelStatus, requests: Sequence[RequestRecord]) -> ModelRounds:
    model = status.model
    ok = [
        each
        for each in requests
        if each.outcome == "ok" and each.sent_ns is not None and each.last_token_ns is not None
    ]
    latencies = tuple(((each.last_token_ns or 0) - (each.sent_ns or 0)) / 1e9 for each in ok)
    output = [each.output_tokens for each in ok]
    total = [None if each.output_tokens is None else each.output_tokens + (each.input_tokens or 0) for each in ok]
    verdict = status.status if status.status != "ok" or ok else "failed"
    reason = status.reason
    if not reason and verdict != "ok":
        level = next((level for level in run.levels if level.model == model), None)
        reason = "no request got a response"
        if level is not None and level.failures:
            reason = f"{level.failures[0].outcome}: {level.failures[0].detail}".rstrip(": ")
    # A run by duration has no number of requests: it made as many as there are.
    number = run.scenario.get("load", {}).get("requests")
    requested = number if isinstance(number, int) else len(requests)
    return ModelRounds(
        model=model,
        alias=(status.known.alias if status.known else None) or status.asked or model,
        status=verdict,
        reason=reason,
        rounds=math.ceil(requested / max(1, len(run.prompts))),
        requested=requested,
        ok=len(ok),
        latencies=latencies,
        first_tokens=tuple((each.first_token_ns - (each.sent_ns or 0)) / 1e9 for each in ok if each.first_token_ns),
        input_tokens=tuple(each.input_tokens for each in ok if each.input_tokens is not None),
        output_tokens=tuple(count for count in output if count is not None),
        tokens_per_s=_mean_speed(output, latencies),
        legacy_tokens_per_s=_mean_speed(total, latencies),
        sample=ok[-1].answer if ok else None,
    )


def _mean_speed(tokens: Sequence[int | None], latencies: Sequence[float]) -> float | None:
    return mean([count / latency for count, latency in zip(tokens, latencies, strict=True) if count and latency > 0])
