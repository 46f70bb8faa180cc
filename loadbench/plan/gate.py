"""Rules on a change, as people write them: what counts as a regression of B against A.

    ttft_p95>5%   output_tokens_per_s<-5%   e2e_p50>10%@users=8   failures>1%

A rule names a figure as `run.json` does, and says how much worse it may get: a latency may rise by so much, a
throughput may fall. Of failures, which may be none, the change is that of their share, in percentage points. With
`@users=8` or `@rate=0.5` it speaks of that level alone, else of each. What a token takes beside time can be guarded
too: `joules_per_output_token`, `cost_per_million_output_tokens`.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from loadbench.plan.objective import FAILURES, RATES, parse_level_label

# The points of a distribution that are compared; a maximum or a mean is too much at the mercy of one request.
FIGURES = ("ttft", "ttft_response", "tpot", "itl", "e2e", "e2e_response", "e2e_per_token")
POINTS = ("p50", "p95", "p99")
# What a token takes beside time.
ENERGY, COST = "joules_per_output_token", "cost_per_million_output_tokens"
METRICS = (*(f"{figure}_{point}" for figure in FIGURES for point in POINTS), *RATES, ENERGY, COST, FAILURES)

_RULE = re.compile(r"\s*([A-Za-z0-9_.]+)\s*([<>])\s*([+-]?[0-9]*\.?[0-9]+)\s*%\s*(?:@(.*))?")
_WANTED = "a rule such as 'ttft_p95>5%', 'output_tokens_per_s<-5%' or 'failures>1%@users=8'"
# Beyond this nothing is left to fall; and no more than all can fail.
_LEAST = -1.0
_ALL = 1.0


@dataclass(frozen=True, slots=True)
class GateRule:
    """`bound` is the change beyond which it fails: 0.05 for `>5%`, -0.05 for `<-5%`."""

    metric: str
    bound: float
    at: str = ""

    @property
    def more_is_better(self) -> bool:
        """Whether a fall is what it guards against."""
        return self.metric in RATES

    @property
    def rule(self) -> str:
        """As people write it, in one form."""
        sense = "<" if self.more_is_better else ">"
        return f"{self.metric}{sense}{100 * self.bound:.10g}%" + (f"@{self.at}" if self.at else "")

    @property
    def log_bound(self) -> float:
        """The bound on the logarithm of the ratio b over a, turned so that above it is worse."""
        return -math.log1p(self.bound) if self.more_is_better else math.log1p(self.bound)

    def applies(self, level: str) -> bool:
        """Whether it speaks of the level of this label."""
        return self.at in {"", level}


def parse_gate(value: object) -> GateRule:
    """The rule that was written; raises `ValueError` with what was found and what is wanted."""
    match = _RULE.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError(f"found {value!r}, want {_WANTED}")
    metric, sense, percent, level = match.groups()
    if metric not in METRICS:
        raise ValueError(f"{metric!r} is no figure that is compared: known are {', '.join(METRICS)}")
    bound = float(percent) / 100
    better_up = metric in RATES
    if (sense == "<") != better_up:
        worse = "falls, with <" if better_up else "rises, with >"
        raise ValueError(f"found {value!r}: {metric} gets worse as it {worse}")
    if (bound > 0) if better_up else (bound < 0):
        example = f"{metric}<-5%" if better_up else f"{metric}>5%"
        raise ValueError(f"found {value!r}: the bound is on the worse side of no change, as in '{example}'")
    if bound <= _LEAST:
        raise ValueError(f"found {value!r}: nothing falls by 100 % or more")
    if math.isinf(bound) or (metric == FAILURES and bound >= _ALL):
        raise ValueError(f"found {value!r}: nothing can be worse than that")
    return GateRule(metric, bound, "" if level is None else parse_level_label(level))
