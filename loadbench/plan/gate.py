"""Gate rules: which change counts as a regression of B against A.

    ttft_p95>5%   output_tokens_per_s<-5%   e2e_p50>10%@users=8   failures>1%

A rule names a figure as `run.json` does, and limits how much worse it may get: how far a latency may rise or a
throughput may fall. For failures, which may be zero, the change is that of their share, in percentage points. With
`@users=8` or `@rate=0.5` a rule applies to that level only, else to each level. Energy and cost can be gated too:
`joules_per_output_token`, `cost_per_million_output_tokens`.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from loadbench.plan.objective import FAILURES, LONGEST_RULE, RATES, parse_level_label

# The percentiles that are compared; a single request could decide a maximum or a mean.
FIGURES = ("ttft", "ttft_response", "tpot", "itl", "e2e", "e2e_response", "e2e_per_token")
POINTS = ("p50", "p95", "p99")
ENERGY, COST = "joules_per_output_token", "cost_per_million_output_tokens"
METRICS = (*(f"{figure}_{point}" for figure in FIGURES for point in POINTS), *RATES, ENERGY, COST, FAILURES)

_NUMBER = r"[+-]?(?:[0-9]+(?:\.[0-9]+)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?"
_RULE = re.compile(rf"\s*([A-Za-z0-9_.]+)\s*([<>])\s*({_NUMBER})\s*%\s*(?:@(.*))?")
_EXAMPLE = "a rule such as 'ttft_p95>5%', 'output_tokens_per_s<-5%' or 'failures>1%@users=8'"


@dataclass(frozen=True, slots=True)
class GateRule:
    """`bound` is the change beyond which the gate fails: 0.05 for `>5%`, -0.05 for `<-5%`."""

    metric: str
    bound: float
    at: str = ""

    @property
    def more_is_better(self) -> bool:
        """Whether a fall is a regression."""
        return self.metric in RATES

    @property
    def rule(self) -> str:
        """The rule as people write it, in its normal form."""
        sense = "<" if self.more_is_better else ">"
        return f"{self.metric}{sense}{100 * self.bound:.10g}%" + (f"@{self.at}" if self.at else "")

    @property
    def log_bound(self) -> float:
        """The bound on `log(b / a)`, with the sign turned so that values above the bound are worse."""
        return -math.log1p(self.bound) if self.more_is_better else math.log1p(self.bound)

    def applies(self, level: str) -> bool:
        """Whether the rule applies to the level with this label."""
        return self.at in {"", level}


def parse_gate(value: object) -> GateRule:
    """The rule; raises `ValueError` with the text that was found and the text that is expected."""
    match = _RULE.fullmatch(value) if isinstance(value, str) and len(value) <= LONGEST_RULE else None
    if match is None:
        raise ValueError(f"found {value!r}, want {_EXAMPLE}")
    metric, sense, percent, level = match.groups()
    if metric not in METRICS:
        raise ValueError(f"{metric!r} is not a figure that is compared: known are {', '.join(METRICS)}")
    bound = float(percent) / 100
    more_is_better = metric in RATES
    if (sense == "<") != more_is_better:
        worse = "falls, with <" if more_is_better else "rises, with >"
        raise ValueError(f"found {value!r}: {metric} gets worse when it {worse}")
    if (bound > 0) if more_is_better else (bound < 0):
        example = f"{metric}<-5%" if more_is_better else f"{metric}>5%"
        raise ValueError(f"found {value!r}: the bound must be on the worse side of no change, as in '{example}'")
    if bound <= -1:
        raise ValueError(f"found {value!r}: nothing falls by 100 % or more")
    if math.isinf(bound) or (metric == FAILURES and bound >= 1):
        raise ValueError(f"found {value!r}: nothing can be worse than that")
    return GateRule(metric, bound, "" if level is None else parse_level_label(level))
