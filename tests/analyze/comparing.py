"""Sides in round numbers: runs whose figures are what a test says they are."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import msgspec

from loadbench.results.run import ClosedLoad, Verdict
from loadbench.results.telemetry import Cost, Energy
from tests.building import a_level, a_run

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from loadbench.results.run import LevelResult, Run

VALID = Verdict("VALID")


@lru_cache
def quiet() -> LevelResult:
    """400 answers, all well."""
    return msgspec.structs.replace(a_level(), verdict=VALID)


def figures(users: int = 1, *, tokens: float = 100.0, ttft: float = 1.0, **over: object) -> LevelResult:
    """A level whose tokens per second are these, and whose times to the first token are so many times the usual."""
    usual = quiet()
    throughput = msgspec.structs.replace(
        usual.throughput,
        output_tokens_per_s=tokens,
        interval={"output_tokens_per_s": (tokens * 0.99, tokens * 1.01), "requests_per_s": None},
    )
    metric = usual.metrics["ttft_s"]
    assert metric is not None
    scaled = {name: getattr(metric, name) * ttft for name in ("mean", "min", "max", "p50", "p90", "p95", "p99", "p999")}
    interval = {
        name: None if ends is None else tuple(None if end is None else end * ttft for end in ends)
        for name, ends in metric.interval.items()
    }
    metrics = {**usual.metrics, "ttft_s": msgspec.structs.replace(metric, **scaled, interval=interval)}
    fields = {"load": ClosedLoad(users), "throughput": throughput, "metrics": metrics, **over}
    return msgspec.structs.replace(usual, **fields)


def a_side(
    *levels: Sequence[LevelResult], scenario: Mapping | None = None, name: str = "trial", **over: object
) -> list[Run]:
    """A run for each set of levels."""
    return [
        msgspec.structs.replace(
            a_run(*of_run),
            name=name,
            started_at=f"2026-01-02T03:04:{number:02}Z",
            scenario=dict(scenario or {"load": {"users": [1]}, "work": {"seed": 0, "max_tokens": 16}}),
            **over,
        )
        for number, of_run in enumerate(levels)
    ]


# Six runs' luck, whose mean of logarithms is nearly 0.
LUCK = (1.01, 0.99, 1.02, 0.98, 1.005, 0.995)


def lucky(by_users: Mapping[int, float], *, ttft: float = 1.0, name: str = "trial", **over: object) -> list[Run]:
    """Six runs of these tokens per second by users, each with its luck."""
    return a_side(
        *(
            [figures(users, tokens=tokens * luck, ttft=ttft / luck) for users, tokens in by_users.items()]
            for luck in LUCK
        ),
        name=name,
        **over,
    )


def resourced(level, *, joules, money, source="board", currency="EUR"):
    """A level whose tokens took so many joules, and whose millions of them so much money."""
    used = Energy(
        source=source,
        joules=100.0,
        watts=10.0,
        joules_per_output_token=joules,
        joules_per_request=1.0,
        tokens_per_joule=1.0,
    )
    return msgspec.structs.replace(level, energy=used, cost=Cost(per_million_output_tokens=money, currency=currency))
