"""The workshop's figures of each model, from the requests of its rounds: exact values, no histogram.

    latency          from the request sent to the last token received, retries and warm-up never in it
    first token      from the request sent to the first token, of the same requests
    tokens per s     output tokens over latency, of each request; the mean of these, as the workshop has it
    p95              the smallest latency that at least 95 % are not above (nearest rank): never above the maximum

Beside them stand the workshop's own figures as it computed them, under names that say so: total tokens, the prompt's
among them, over latency, and `statistics.quantiles(n=20)[-1]`, which goes beyond the maximum in few rounds. They are
there so that old results can be compared, and for nothing else.
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
    """One model's rounds; `reason` says why there are none, in seconds and tokens else.

    `rounds` is how often each prompt was to be asked, `asked` how many requests that came to, `answered` those of them
    that ended ok: all figures are of these.
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
        """As the workshop computes it: extrapolated, and with few rounds above the maximum."""
        if len(self.latencies) > 1:
            return statistics.quantiles(self.latencies, n=20)[-1]
        return self.latencies[0] if self.latencies else None


def mean(values: Sequence[float]) -> float | None:
    """`None` of nothing."""
    return statistics.fmean(values) if values else None


def nearest_rank(values: Sequence[float], p: float) -> float | None:
    """The smallest value that at least the share `p` of all are not above; `None` of nothing."""
    return sorted(values)[max(0, math.ceil(p * len(values)) - 1)] if values else None


def model_rounds(run: Run, requests: Iterable[RequestRecord]) -> list[ModelRounds]:
    """Each model's rounds, failed models among them, in the run's order; of a sweep those of each one's first level."""
    first = {level.model: place for place, level in reversed(list(enumerate(run.levels)))}
    by_level: dict[int, list[RequestRecord]] = {place: [] for place in first.values()}
    for one in requests:
        if one.level in by_level and one.phase == "measured":
            by_level[one.level].append(one)
    return [
        _rounds(run, status, sorted(by_level.get(first.get(status.model, -1), []), key=lambda one: one.number))
        for status in _statuses(run)
    ]


def _statuses(run: Run) -> list[ModelStatus]:
    """Those of the run, and of the models that it had not come to when it was stopped."""
    known = {name for status in run.models for name in (status.model, status.asked)}
    wanted = run.scenario.get("target", {}).get("model")
    left = [name for name in wanted if name not in known] if isinstance(wanted, list) else []
    return [*run.models, *(ModelStatus(name, "not_run", "the run was stopped before it") for name in left)]


def _rounds(run: Run, status: ModelStatus, asked: Sequence[RequestRecord]) -> ModelRounds:
    model = status.model
    ok = [one for one in asked if one.outcome == "ok" and one.sent_ns is not None and one.last_token_ns is not None]
    latencies = tuple(((one.last_token_ns or 0) - (one.sent_ns or 0)) / 1e9 for one in ok)
    output = [one.output_tokens for one in ok]
    total = [None if one.output_tokens is None else one.output_tokens + (one.input_tokens or 0) for one in ok]
    verdict = status.status if status.status != "ok" or ok else "failed"
    return ModelRounds(
        model=model,
        alias=(status.known.alias if status.known else None) or status.asked or model,
        status=verdict,
        reason=status.reason or (_why(run, model) if verdict != "ok" else ""),
        rounds=math.ceil(_wanted(run, asked) / max(1, len(run.prompts))),
        requested=_wanted(run, asked),
        ok=len(ok),
        latencies=latencies,
        first_tokens=tuple(((one.first_token_ns or 0) - (one.sent_ns or 0)) / 1e9 for one in ok if one.first_token_ns),
        input_tokens=tuple(one.input_tokens for one in ok if one.input_tokens is not None),
        output_tokens=tuple(count for count in output if count is not None),
        tokens_per_s=_speed(output, latencies),
        legacy_tokens_per_s=_speed(total, latencies),
        sample=ok[-1].answer if ok else None,
    )


def _wanted(run: Run, asked: Sequence[RequestRecord]) -> int:
    """So many requests were asked for; of a run by duration, so many came to be."""
    number = run.scenario.get("load", {}).get("requests")
    return number if isinstance(number, int) else len(asked)


def _why(run: Run, model: str) -> str:
    """What the server said where no request was answered."""
    level = next((level for level in run.levels if level.model == model), None)
    if level is None or not level.failures:
        return "no request was answered"
    return f"{level.failures[0].outcome}: {level.failures[0].detail}".rstrip(": ")


def _speed(tokens: Sequence[int | None], latencies: Sequence[float]) -> float | None:
    return mean([count / latency for count, latency in zip(tokens, latencies, strict=True) if count and latency > 0])
