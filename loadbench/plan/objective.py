"""Rules as people write them: what a level should come to, and when to give it up.

    ttft_p95<1s   e2e_max<10s   tpot_mean<80ms   failures<1%   output_tokens_per_s>50   ttft_p95<2s@users=16

An objective names a figure as `run.json` does, without its unit, and the point of its distribution that is meant; a
share or a throughput has no points. With `@users=8` or `@rate=0.5` it speaks of that level alone. A rule to abort by
is written the same way and says the opposite: the level is given up once it holds.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from typing import Literal

from loadbench.core.units import format_duration, parse_duration, parse_rate

# The figures of a request, or of its events, that an objective can name: all but those of the client's own making.
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
# Of how many in a thousand a point says that they are below it; a mean says nothing of the kind.
_PERMILLE = {"p50": 500, "p90": 900, "p95": 950, "p99": 990, "p999": 999, "max": 1000}
POINTS = (*_PERMILLE, "mean")

_RULE = re.compile(r"\s*([A-Za-z0-9_.]+)\s*([<>=!]+)\s*([^<>=@]+?)\s*(?:@(.*))?")
_SENSES: dict[str, Literal["<", ">"]] = {"<": "<", ">": ">"}
_WANTED = "a rule such as 'ttft_p95<1s', 'failures<1%' or 'requests_per_s>2'"


@dataclass(frozen=True, slots=True)
class Objective:
    """One rule. `bound` is in ns for a latency, a share for failures, per second for a rate.

    `at` is the label of the one level that it speaks of, or empty. Whether it decides the exit code says `gate`.
    """

    metric: str
    point: str
    sense: Literal["<", ">"]
    bound: float
    at: str = ""
    gate: bool = False

    @property
    def rule(self) -> str:
        """As people write it, in one form."""
        name = f"{self.metric}_{self.point}" if self.point else self.metric
        return f"{name}{self.sense}{self._shown}" + (f"@{self.at}" if self.at else "")

    @property
    def _shown(self) -> str:
        if self.is_latency:
            return format_duration(int(self.bound))
        return f"{100 * self.bound:.10g}%" if self.metric == FAILURES else f"{self.bound:.10g}"

    @property
    def is_latency(self) -> bool:
        """Whether it bounds a figure of a request or of its events."""
        return bool(self.point)

    @property
    def permille(self) -> int:
        """Of how many in a thousand values it says that they are below the bound; of a mean there is none."""
        return _PERMILLE[self.point]

    def applies(self, label: str) -> bool:
        """Whether it applies to the level of this label, as in `users=8`."""
        return self.at in {"", label}


def parse_objective(value: object) -> Objective:
    """The objective that was written; raises `ValueError` with what was found and what is wanted."""
    rule = _parse(value)
    wanted = ">" if rule.metric in RATES else "<"
    if rule.sense != wanted:
        most = "least" if rule.metric in RATES else "most"
        raise ValueError(f"found {value!r}: an objective says what {rule.metric} is to be at {most}, with {wanted}")
    return rule


def parse_abort(value: object) -> Objective:
    """The rule to give a level up by; raises `ValueError` as `parse_objective` does."""
    rule = _parse(value)
    if rule.metric in RATES:
        raise ValueError(f"found {value!r}: a level is given up by its failures or a latency, as in 'failures>20%'")
    if rule.sense != ">":
        raise ValueError(f"found {value!r}: a level is given up when {rule.metric} is above a bound, with >")
    return rule


def _parse(value: object) -> Objective:
    match = _RULE.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError(f"found {value!r}, want {_WANTED}")
    name, written, bound, level = match.groups()
    sense = _SENSES.get(written)
    if sense is None:
        raise ValueError(f"found {written!r} in {value!r}, want < or >")
    metric, point = _name(name)
    return Objective(metric, point, sense, _bound(metric, bound), "" if level is None else parse_level_label(level))


def _name(name: str) -> tuple[str, str]:
    if name in {FAILURES, *RATES}:
        return name, ""
    metric, _, point = name.rpartition("_")
    if metric in LATENCIES and point in POINTS:
        return metric, point
    if name in LATENCIES:
        raise ValueError(f"{name!r} does not say which of its values: as {name}_p95, with one of {_listed(POINTS)}")
    if metric in LATENCIES:
        raise ValueError(f"{point!r} is no point of {metric}: known are {_listed(POINTS)}")
    raise ValueError(f"{name!r} is no figure that an objective can name: {_nearest(name)}")


def _nearest(name: str) -> str:
    known = [FAILURES, *RATES, *(f"{metric}_{point}" for metric in LATENCIES for point in POINTS)]
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f"did you mean {near[0]}?" if near else f"known are {_listed((FAILURES, *RATES, *LATENCIES))}"


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(names)


def _bound(metric: str, text: str) -> float:
    bound = parse_duration(text) if metric in LATENCIES else _share(text) if metric == FAILURES else parse_rate(text)
    if bound <= 0:
        raise ValueError(f"the bound of {metric} must be above 0, not {text}")
    return bound


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
    """The label of a level from what people write: `users=8`; `rate=0.5`, `rate=0.5/s` and `rate=30/min` are one level.

    Raises `ValueError` with what was found and what is wanted.
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
