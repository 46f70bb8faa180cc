"""Levels whose figures are given, not measured: for models whose truth is known."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np

from loadbench.analyze.level.summary import INDEPENDENT, metric
from loadbench.plan.load import Closed
from loadbench.record.histogram import Histogram
from loadbench.results.run import Concurrency, LevelResult, Throughput, Verdict
from tests.building import a_level, a_sample

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadbench.plan.distribution import Distribution
    from loadbench.results.run import Reason

_BASE = a_level([a_sample()])


def with_figures(
    users: int,
    per_s: float,
    *,
    reach: float = 0.0,
    ttft_s: Sequence[float] = (0.1,),
    tpot_s: Sequence[float] = (0.02,),
    failed: int = 0,
    think: Distribution | None = None,
    reasons: Sequence[Reason] = (),
) -> LevelResult:
    """A closed level with this throughput, give or take the share `reach` at 95 %, and these TTFT and TPOT."""
    rate_reach = (per_s * (1 - reach), per_s * (1 + reach))
    return msgspec.structs.replace(
        _BASE,
        load=a_level([a_sample()], load=Closed(users, think)).load if think else type(_BASE.load)(users),
        window_s=100.0,
        verdict=Verdict("INVALID" if reasons else "VALID", list(reasons)),
        outcomes={"ok": len(ttft_s), **({"timeout_total": failed} if failed else {})},
        throughput=Throughput(
            requests_per_s=per_s,
            output_tokens_per_s=10 * per_s,
            total_tokens_per_s=60 * per_s,
            interval={"requests_per_s": rate_reach if reach else None},
        ),
        concurrency=Concurrency(mean=float(users), peak=users),
        metrics={
            "ttft_s": _metric(ttft_s, failed),
            "tpot_s": _metric(tpot_s, failed),
            "e2e_s": _metric([users / per_s], failed),
        },
    )


def _metric(values_s: Sequence[float], failed: int) -> object:
    histogram = Histogram()
    histogram.record_many((np.asarray(values_s) * 1e9).astype(np.int64))
    return metric(histogram, failures=failed, correlated=INDEPENDENT)
