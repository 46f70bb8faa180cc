"""Which model to choose: what was measured and what is known in one table, and a recommendation that shows its reasons.

A dimension counts where every candidate has it, else it is left out for all and named: a model must not win by what
nobody knows of it. Values are normalised to the best: best / value where less is better, value / best where more is,
and (score − 1) / 4 for quality, so that 1 is the best there is and half is twice as slow. A candidate's score is the
mean of these by the stated weights.

Candidates are told apart by the doubt in their values. A 95 % interval (l, u) of a value gives its normalised value n
the doubt h: half of (u − l) / best where more is better, n · ln(u / l) / 2 where less is (that of a ratio, to first
order), half of (u − l) / 4 for quality. Those of a score add as independent ones do, H = √Σ(wᵢhᵢ)². Two scores are
equal for all that is known where they differ by less than √(H² + H'²). Values without an interval add nothing to H, and
are named.

A candidate is dominated where another is no worse in any dimension and surely better in one: beyond both intervals, or
where none are, by value.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from loadbench.analyze.quality.ratings import facet_coverage, rater_scores, score_for
from loadbench.core.errors import BadInput
from loadbench.plan.rubric import HIGHEST, LOWEST
from loadbench.results.run import ClosedLoad, OpenLoad

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from loadbench.results.quality import Quality
    from loadbench.results.run import KnownFacts, LevelResult, Metric, ModelStatus, Run

# Each dimension, and whether less of it is better.
DIMENSIONS: Mapping[str, bool] = {
    "latency": True,
    "ttft": True,
    "throughput": False,
    "memory": True,
    "quality": False,
    "disk": True,
    "load": True,
}
# Of these there is an interval, if there were requests or prompts enough; others are read once.
_SAMPLED = frozenset({"latency", "ttft", "throughput", "quality"})
_RSS = "process_rss_bytes"


@dataclass(frozen=True, slots=True)
class CandidateValue:
    """A value, its 95 % interval if there is one."""

    value: float
    interval: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One model of one run, at one level. `figures` has what is known of it, by dimension.

    `unreliable` names dimensions whose value may include other models, so it does not count. `caveat` says why all its
    values are in doubt; `failed` why there are none.
    """

    name: str
    load: str = ""
    figures: Mapping[str, CandidateValue] = field(default_factory=dict)
    unreliable: frozenset[str] = frozenset()
    license: str | None = None
    load_warm_s: float | None = None
    rater: str = ""
    facets_found: tuple[int, int] | None = None
    caveat: str = ""
    failed: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RankedCandidate:
    """A candidate's score with the half-width of its doubt, and who dominates it."""

    candidate: Candidate
    score: float
    margin: float
    parts: Mapping[str, float]  # the normalised values
    dominated_by: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Candidates by score, the best first. `weights` are those that counted, `missing` the dimensions left out.

    `tied` are those that the best cannot be told from; `no_interval` names values that had no interval.
    """

    ranked: tuple[RankedCandidate, ...]
    failed: tuple[Candidate, ...]
    weights: Mapping[str, float]
    missing: Mapping[str, tuple[str, ...]]
    tied: tuple[str, ...] = ()
    no_interval: tuple[str, ...] = ()

    @property
    def unproven(self) -> tuple[str, ...]:
        """What was sampled too seldom for an interval: by these the best may be so by chance."""
        return tuple(name for name in self.no_interval if name in _SAMPLED)


def candidates(
    runs: Sequence[tuple[Run, Quality]],
    *,
    at: str | None = None,
    rater: str | None = None,
    facts: Mapping[str, KnownFacts] | None = None,
) -> list[Candidate]:
    """Every model of every run, at the load `at` or the lightest that all were measured at.

    Raises `BadInput` for a load that no model was measured at, and for a run that is there twice.
    """
    label = at or _common_load([run for run, _ in runs])
    if at is not None and not any(level.load.label == at for run, _ in runs for level in run.levels):
        there = dict.fromkeys(level.load.label for run, _ in runs for level in run.levels)
        raise BadInput(f"--at {at}: no model was measured at that", hint=f"there are {', '.join(there) or 'no levels'}")
    names = iter(_names([run for run, _ in runs]))
    known: Mapping[str, KnownFacts] = facts or {}
    return [
        _candidate(
            run,
            status,
            quality,
            label=label,
            name=next(names),
            rater=rater,
            facts=known.get(status.model) or known.get(status.asked or status.model),
        )
        for run, quality in runs
        for status in run.models
    ]


def _names(runs: Sequence[Run]) -> list[str]:
    """A name for each model of each run, as short as tells it from the others: the model, its run, when that began."""
    choices = [
        (status.model, f"{status.model} ({run.name})", f"{status.model} ({run.name}, {run.started_at})")
        for run in runs
        for status in run.models
    ]
    counts = Counter(name for names in choices for name in names)
    found = [next((name for name in names if counts[name] == 1), "") for names in choices]
    if "" in found:
        raise BadInput(f"{choices[found.index('')][-1]}: is there twice", hint="name each run once")
    return found


def _common_load(runs: Sequence[Run]) -> str | None:
    """The lightest load that every model was measured at."""
    by_model = [
        {level.load.label for level in run.levels if level.model == model}
        for run in runs
        for model in dict.fromkeys(level.model for level in run.levels)
    ]
    amounts = {level.load.label: _amount(level.load) for run in runs for level in run.levels}
    common = set.intersection(*by_model) if by_model else set()
    return min(common, key=lambda label: (amounts[label], label), default=None)


def _amount(load: ClosedLoad | OpenLoad) -> tuple[bool, float]:
    """Users or requests per second; the two do not compare, and users come first."""
    return (False, load.users) if isinstance(load, ClosedLoad) else (True, load.rate_per_s)


def _candidate(
    run: Run,
    status: ModelStatus,
    quality: Quality,
    *,
    label: str | None,
    name: str,
    rater: str | None,
    facts: KnownFacts | None,
) -> Candidate:
    levels = [level for level in run.levels if level.model == status.model]
    level = next((level for level in levels if label in {None, level.load.label}), None)
    known = facts or status.known
    if level is None:
        return Candidate(name=name, failed=status.reason or f"was not measured at {label}")
    several = sum(one.status == "ok" for one in run.models) > 1
    opinion = score_for(rater_scores(quality), status.model, rater)
    covered = facet_coverage(quality).get(status.model)
    figures = {
        "latency": _of_metric(level.metrics.get("e2e_s")),
        "ttft": _of_metric(level.metrics.get("ttft_s")),
        "throughput": _throughput(level),
        "memory": _memory(level),
        "quality": None if opinion is None else CandidateValue(opinion.mean, opinion.interval),
        "disk": _disk(status, known),
        "load": _load_time(status, known),
    }
    return Candidate(
        name=name,
        load=level.load.label,
        figures={key: figure for key, figure in figures.items() if figure is not None},
        # What the models before it left in the server's process is in there.
        unreliable=frozenset({"memory"} if several and figures["memory"] is not None else ()),
        license=_license(status, known),
        load_warm_s=status.load_warm_s or (known.load_warm_s if known else None),
        rater="" if opinion is None else opinion.rater,
        facets_found=None if covered is None else (covered.found, covered.expected),
        caveat="" if level.verdict.status != "INVALID" else f"INVALID: {level.verdict.reasons[0].message}",
    )


def _of_metric(metric: Metric | None) -> CandidateValue | None:
    return None if metric is None else CandidateValue(metric.p50, metric.interval.get("p50"))


def _throughput(level: LevelResult) -> CandidateValue | None:
    rate = level.throughput.output_tokens_per_s
    return CandidateValue(rate, level.throughput.interval.get("output_tokens_per_s")) if rate > 0 else None


def _memory(level: LevelResult) -> CandidateValue | None:
    """The server process's resident memory at its most."""
    seen = level.telemetry
    gauge = None if seen is None else seen.gauges.get(_RSS)
    return None if gauge is None or gauge.max <= 0 else CandidateValue(gauge.max)


def _disk(status: ModelStatus, known: KnownFacts | None) -> CandidateValue | None:
    size = (status.catalogue.size_bytes if status.catalogue else None) or (known.size_bytes if known else None)
    return CandidateValue(float(size)) if size else None


def _license(status: ModelStatus, known: KnownFacts | None) -> str | None:
    return (known.license if known else None) or (status.catalogue.license if status.catalogue else None)


def _load_time(status: ModelStatus, known: KnownFacts | None) -> CandidateValue | None:
    """Measured, else as somebody wrote it down."""
    seconds = status.load_s or (known.load_cold_s if known else None)
    return CandidateValue(seconds) if seconds else None


def select(found: Sequence[Candidate], weights: Mapping[str, float]) -> Selection:
    """The ranking of those that were measured. `weights` are by dimension; one of 0 counts for nothing.

    Raises `BadInput` where no dimension is left to choose by.
    """
    measured = [one for one in found if not one.failed]
    if not measured:
        raise BadInput("no model of these runs was measured", hint="name a run with levels in it")
    wanted = {name: weight for name, weight in weights.items() if weight > 0}
    missing = {
        name: lacking
        for name in wanted
        if (lacking := tuple(one.name for one in measured if name not in one.figures or name in one.unreliable))
    }
    counted = {name: weight for name, weight in wanted.items() if name not in missing}
    if not counted:
        raise BadInput("no dimension with a weight is known of every model", hint="give weights to others: --weight")
    ranked = sorted((_ranked(one, measured, counted) for one in measured), key=lambda one: -one.score)
    best = ranked[0]
    tied = tuple(one.candidate.name for one in ranked[1:] if _alike(best, one))
    vague = tuple(name for name in counted if any(one.figures[name].interval is None for one in measured))
    return Selection(
        ranked=tuple(ranked),
        failed=tuple(one for one in found if one.failed),
        weights=counted,
        missing=missing,
        tied=tied,
        no_interval=vague,
    )


def _ranked(one: Candidate, measured: Sequence[Candidate], weights: Mapping[str, float]) -> RankedCandidate:
    whole = sum(weights.values())
    parts, doubt = {}, 0.0
    for name, weight in weights.items():
        best = _best(name, measured)
        figure = one.figures[name]
        parts[name] = _normal(name, figure.value, best)
        if figure.interval is not None:
            doubt += (weight / whole * _doubt(name, parts[name], figure.interval, best)) ** 2
    return RankedCandidate(
        candidate=one,
        score=sum(weights[name] * part for name, part in parts.items()) / whole,
        margin=math.sqrt(doubt),
        parts=parts,
        dominated_by=next((other.name for other in measured if _dominates(other, one, weights)), ""),
    )


def _best(name: str, measured: Sequence[Candidate]) -> float:
    values = [one.figures[name].value for one in measured]
    return min(values) if DIMENSIONS[name] else max(values)


def _normal(name: str, value: float, best: float) -> float:
    if name == "quality":
        return (value - LOWEST) / (HIGHEST - LOWEST)
    if DIMENSIONS[name]:
        return best / value if value > 0 else 1.0
    return value / best if best > 0 else 1.0


def _doubt(name: str, normal: float, interval: tuple[float, float], best: float) -> float:
    low, high = interval
    if name != "quality" and DIMENSIONS[name]:
        return normal * math.log(high / low) / 2 if low > 0 else normal
    return (_normal(name, high, best) - _normal(name, low, best)) / 2


def _alike(one: RankedCandidate, other: RankedCandidate) -> bool:
    return abs(one.score - other.score) <= math.hypot(one.margin, other.margin)


def _dominates(one: Candidate, other: Candidate, names: Mapping[str, float]) -> bool:
    pairs = [(name, one.figures[name], other.figures[name]) for name in names]
    return all(_no_worse(*pair) for pair in pairs) and any(_surely_better(*pair) for pair in pairs)


def _no_worse(name: str, one: CandidateValue, other: CandidateValue) -> bool:
    return one.value <= other.value if DIMENSIONS[name] else one.value >= other.value


def _surely_better(name: str, one: CandidateValue, other: CandidateValue) -> bool:
    low, high = one.interval or (one.value, one.value)
    other_low, other_high = other.interval or (other.value, other.value)
    return high < other_low if DIMENSIONS[name] else low > other_high
