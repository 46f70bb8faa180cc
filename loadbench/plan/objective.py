"""Objectives for a level, and rules to abort it, as people write them.

    ttft_p95<1s   e2e_max<10s   tpot_mean<80ms   failures<1%   output_tokens_per_s>50   ttft_p95<2s@users=16

An objective names a figure as `run.json` does, without its unit, and a point of its distribution; a share or a
throughput has no points. With `@users=8` or `@rate=0.5` it applies to that level only. An abort rule is written the
same way with the opposite sense: the level is aborted as soon as the rule holds.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from typing import Literal

from loadbench.core.units import format_duration, parse_duration, parse_rate

# The figures of a request or of its events that an objective can name: all except those that the client causes.
LATENCIES = (
    "ttft",
    "ttft_response",
    "ttfo",
    "ttfb",
    "e2e",
    "e2e_response",
    "stream_end",
    "event_gap",
    "itl",
    "tpot",
    "tpot_classic",
    "e2e_per_token",
)
FAILURES = "failures"
RATES = ("output_tokens_per_s", "requests_per_s")
# How many of a thousand values are below each point; not defined for a mean.
_PERMILLE = {"p50": 500, "p90": 900, "p95": 950, "p99": 990, "p999": 999, "max": 1000}
POINTS = (*_PERMILLE, "mean")

# Of a longer text, the time to see that it is none would grow with its square.
LONGEST_RULE = 500
_RULE = re.compile(r"\s*([A-Za-z0-9_.]+)\s*([<>=!]+)\s*([^<>=@]+?)\s*(?:@(.*))?")
_SENSES: dict[str, Literal["<", ">"]] = {"<": "<", ">": ">"}
_EXAMPLE = "a rule such as 'ttft_p95<1s', 'failures<1%' or 'requests_per_s>2'"


@dataclass(frozen=True, slots=True)
class Objective:
    """One rule. `bound` is in ns for a latency, a share for failures, per second for a rate.

    `at` is the label of the only level that it applies to, or empty. With `gate` it decides the exit code.
    """

    metric: str
    point: str
    sense: Literal["<", ">"]
    bound: float
    at: str = ""
    gate: bool = False

    @property
    def rule(self) -> str:
        """The rule as people write it, in its normal form."""
        name = f"{self.metric}_{self.point}" if self.point else self.metric
        bound = f"{100 * self.bound:.10g}%" if self.metric == FAILURES else f"{self.bound:.10g}"
        if self.is_latency:
            bound = format_duration(int(self.bound))
        return f"{name}{self.sense}{bound}" + (f"@{self.at}" if self.at else "")

    @property
    def is_latency(self) -> bool:
        """Whether it bounds a figure of a request or of its events."""
        return bool(self.point)

    @property
    def permille(self) -> int:
        """How many of a thousand values must be below the bound; `KeyError` for a mean."""
        return _PERMILLE[self.point]

    def applies(self, label: str) -> bool:
        """Whether it applies to the level with this label, such as `users=8`."""
        return self.at in {"", label}


def parse_objective(value: object) -> Objective:
    """The objective; raises `ValueError` with the text that was found and the text that is expected."""
    rule = _parse(value)
    sense, bound = (">", "a lower") if rule.metric in RATES else ("<", "an upper")
    if rule.sense != sense:
        raise ValueError(f"found {value!r}: an objective must hold: {rule.metric} needs {bound} bound, with {sense}")
    return rule


def parse_abort(value: object) -> Objective:
    """The abort rule; raises `ValueError` as `parse_objective` does."""
    rule = _parse(value)
    if rule.metric in RATES:
        raise ValueError(f"found {value!r}: a level is aborted by its failures or a latency, as in 'failures>20%'")
    if rule.sense != ">":
        raise ValueError(f"found {value!r}: a level is aborted when {rule.metric} is above a bound, with >")
    return rule


def _parse(value: object) -> Objective:
    match = _RULE.fullmatch(value) if isinstance(value, str) and len(value) <= LONGEST_RULE else None
    if match is None:
        raise ValueError(f"found {value!r:.200}, want {_EXAMPLE}")
    name, sign, text, level = match.groups()
    sense = _SENSES.get(sign)
    if sense is None:
        raise ValueError(f"found {sign!r} in {value!r}, want < or >")
    metric, point = _parse_name(name)
    bound = parse_duration(text) if point else _share(text) if metric == FAILURES else parse_rate(text)
    if bound <= 0:
        raise ValueError(f"the bound of {metric} must be above 0, not {text}")
    return Objective(metric, point, sense, bound, "" if level is None else parse_level_label(level))


def _parse_name(name: str) -> tuple[str, str]:
    """The metric and the point; empty for a share or a throughput."""
    if name in {FAILURES, *RATES}:
        return name, ""
    metric, _, point = name.rpartition("_")
    if metric in LATENCIES and point in POINTS:
        return metric, point
    if name in LATENCIES:
        raise ValueError(f"{name!r} does not say which of its values: write {name}_p95, or one of {', '.join(POINTS)}")
    if metric in LATENCIES:
        raise ValueError(f"{point!r} is not a point of {metric}: known are {', '.join(POINTS)}")
    known = [FAILURES, *RATES, *(f"{metric}_{point}" for metric in LATENCIES for point in POINTS)]
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    hint = f"did you mean {near[0]}?" if near else f"known are {', '.join((FAILURES, *RATES, *LATENCIES))}"
    raise ValueError(f"{name!r} is not a figure that an objective can name: {hint}")


def _share(text: str) -> float:
    number, scale = (text[:-1], 100) if text.endswith("%") else (text, 1)
    try:
        share = float(number) / scale
    except ValueError:
        raise ValueError(f"found {text!r}, want a share, as in 1% or 0.01") from None
    if not 0 <= share <= 1:
        raise ValueError(f"found {text!r}, want a share from 0% to 100%")
    return share


def parse_level_label(text: str) -> str:
    """The label of a level: `users=8`, or `rate=0.5`, which `rate=0.5/s` and `rate=30/min` also mean.

    Raises `ValueError` with the text that was found and the text that is expected.
    """
    kind, _, amount = (part.strip() for part in text.partition("="))
    if kind == "users" and re.fullmatch(r"[0-9]{1,9}", amount) and int(amount) > 0:
        return f"users={int(amount)}"
    try:
        if kind == "rate":
            return f"rate={parse_rate(amount):g}"
    except ValueError as error:
        raise ValueError(f"found {text.strip()!r}, want the level as users=8 or rate=0.5: {error}") from None
    raise ValueError(f"found {text.strip()!r}, want the level as users=8 or rate=0.5")
