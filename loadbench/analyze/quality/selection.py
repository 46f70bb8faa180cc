"""Which model to choose: all measured and known facts in one table, and a recommendation that shows its reasons.

A dimension counts only if every candidate has it; otherwise it is left out for all and reported: a model must not win
by something that is unknown of it. Values are normalised to the best: best / value where less is better, value / best
where more is better, and (score − 1) / 4 for quality. So 1 is the best possible, and half is twice as slow. A
candidate's score is the mean of its normalised values with the given weights.

Each score has a margin of error. A 95 % interval (l, u) of a value gives its normalised value n the margin h: half of
(u − l) / best where more is better, n · ln(u / l) / 2 where less is better (that of a ratio, to first order), half of
(u − l) / 4 for quality. The margins add up like independent errors, H = √Σ(wᵢhᵢ)². Two scores that differ by less than
√(H² + H'²) are tied. Values without an interval add nothing to H, and are reported.

A candidate is dominated if another one is no worse in any dimension and clearly better in one: beyond both intervals,
or by value where there are none.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from loadbench.analyze.quality.ratings import facet_coverage, rater_scores, score_for
from loadbench.core.errors import BadInput
from loadbench.plan.rubric import HIGHEST, LOWEST
from loadbench.results.run import ClosedLoad

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from loadbench.results.quality import Quality
    from loadbench.results.run import ModelFacts, ModelStatus, Run

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
# These have an interval if there were enough requests or prompts; the others are read once.
_SAMPLED = frozenset({"latency", "ttft", "throughput", "quality"})
_RSS = "process_rss_bytes"


@dataclass(frozen=True, slots=True)
class CandidateFigure:
    """A value, and its 95 % interval if there is one."""

    value: float
    interval: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One model of one run, at one level; `figures` are by dimension, those that are known.

    `unreliable` names dimensions whose figure may include other models, so that it does not count. `caveat` says why
    all its figures are in doubt; `failed` why there are none.
    """

    name: str
    load: str = ""
    figures: Mapping[str, CandidateFigure] = field(default_factory=dict)
    unreliable: frozenset[str] = frozenset()
    license: str | None = None
    load_warm_s: float | None = None
    rater: str = ""
    facets_found: tuple[int, int] | None = None  # found, expected
    caveat: str = ""
    failed: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RankedCandidate:
    """A candidate's score with its margin of error, its normalised values, and who dominates it."""

    candidate: Candidate
    score: float
    margin: float
    parts: Mapping[str, float]
    dominated_by: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Candidates by score, the best first. `weights` are those that counted.

    `missing` has the dimensions that were left out, each with the candidates that lack it; `tied` the candidates that
    cannot be distinguished from the best; `no_interval` the dimensions in which a value has no interval.
    """

    ranked: tuple[RankedCandidate, ...]
    failed: tuple[Candidate, ...]
    weights: Mapping[str, float]
    missing: Mapping[str, tuple[str, ...]]
    tied: tuple[str, ...] = ()
    no_interval: tuple[str, ...] = ()

    @property
    def unproven(self) -> tuple[str, ...]:
        """Dimensions with too few samples for an interval: the best may be the best in them by chance."""
        return tuple(name for name in self.no_interval if name in _SAMPLED)


def candidates(
    runs: Sequence[tuple[Run, Quality]],
    *,
    at: str | None = None,
    rater: str | None = None,
    facts: Mapping[str, ModelFacts] | None = None,
) -> list[Candidate]:
    """Every model of every run, at the load `at`, or else at the lightest load that all were measured at.

    Raises `BadInput` for a load at which no model was measured, and for a run that is given twice.
    """
    labels = dict.fromkeys(level.load.label for run, _ in runs for level in run.levels)
    if at is not None and at not in labels:
        hint = f"measured loads: {', '.join(labels) or 'none'}"
        raise BadInput(f"--at {at}: no model was measured at this load", hint=hint)
    label = at or _lightest_common_load([run for run, _ in runs])

    # The shortest unique name of each model: the model alone, with its run, or with the time its run began.
    choices = [
        (status.model, f"{status.model} ({run.name})", f"{status.model} ({run.name}, {run.started_at})")
        for run, _ in runs
        for status in run.models
    ]
    counts = Counter(name for names in choices for name in names)
    unique = [next((name for name in names if counts[name] == 1), "") for names in choices]
    if "" in unique:
        raise BadInput(f"{choices[unique.index('')][-1]}: this run was given twice", hint="name each run once")
    names = iter(unique)
    known: Mapping[str, ModelFacts] = facts or {}
    return [
        _candidate(
            run,
            status,
            quality,
            label=label,
            name=next(names),
            rater=rater,
            known=known.get(status.model) or known.get(status.asked or status.model) or status.known,
        )
        for run, quality in runs
        for status in run.models
    ]


def _lightest_common_load(runs: Sequence[Run]) -> str | None:
    """Of the loads at which every model was measured; users and rates do not compare, and users come first."""
    by_model = [
        {level.load.label for level in run.levels if level.model == model}
        for run in runs
        for model in dict.fromkeys(level.model for level in run.levels)
    ]
    amounts: dict[str, tuple[bool, float]] = {}
    for run in runs:
        for level in run.levels:
            load = level.load
            amounts[load.label] = (False, load.users) if isinstance(load, ClosedLoad) else (True, load.rate_per_s)
    common = set.intersection(*by_model) if by_model else set()
    return min(common, key=lambda label: (amounts[label], label), default=None)


def _candidate(
    run: Run,
    status: ModelStatus,
    quality: Quality,
    *,
    label: str | None,
    name: str,
    rater: str | None,
    known: ModelFacts | None,
) -> Candidate:
    levels = [level for level in run.levels if level.model == status.model]
    level = next((level for level in levels if label in {None, level.load.label}), None)
    if level is None:
        return Candidate(name=name, failed=status.reason or f"was not measured at {label}")
    figures = {}
    for dimension, key in (("latency", "e2e_s"), ("ttft", "ttft_s")):
        metric = level.metrics.get(key)
        if metric is not None:
            figures[dimension] = CandidateFigure(metric.p50, metric.interval.get("p50"))
    throughput = level.throughput
    if throughput.output_tokens_per_s > 0:
        interval = throughput.interval.get("output_tokens_per_s")
        figures["throughput"] = CandidateFigure(throughput.output_tokens_per_s, interval)
    # The largest resident memory of the server's process. After other models it includes what they left there.
    memory = None if level.telemetry is None else level.telemetry.gauges.get(_RSS)
    if memory is not None and memory.max > 0:
        figures["memory"] = CandidateFigure(memory.max)
    score = score_for(rater_scores(quality), status.model, rater)
    if score is not None:
        figures["quality"] = CandidateFigure(score.mean, score.interval)
    # Of the catalogue and of the run's own measurement first, then as somebody wrote it down.
    size = (status.catalogue.size_bytes if status.catalogue else None) or (known.size_bytes if known else None)
    if size:
        figures["disk"] = CandidateFigure(float(size))
    load_s = status.load_s or (known.load_cold_s if known else None)
    if load_s:
        figures["load"] = CandidateFigure(load_s)
    several = sum(other.status == "ok" for other in run.models) > 1
    coverage = facet_coverage(quality).get(status.model)
    return Candidate(
        name=name,
        load=level.load.label,
        figures=figures,
        unreliable=frozenset({"memory"} if several and "memory" in figures else ()),
        license=(known.license if known else None) or (status.catalogue.license if status.catalogue else None),
        load_warm_s=status.load_warm_s or (known.load_warm_s if known else None),
        rater="" if score is None else score.rater,
        facets_found=None if coverage is None else (coverage.found, coverage.expected),
        caveat="" if level.verdict.status != "INVALID" else f"INVALID: {level.verdict.reasons[0].message}",
    )


def select(found: Sequence[Candidate], weights: Mapping[str, float]) -> Selection:
    """Rank the candidates that were measured. `weights` are by dimension; a weight of 0 leaves the dimension out.

    Raises `BadInput` where no dimension is left to choose by.
    """
    measured = [candidate for candidate in found if not candidate.failed]
    if not measured:
        raise BadInput("no model of these runs was measured", hint="name a run that has levels")
    wanted = {name: weight for name, weight in weights.items() if weight > 0}
    missing = {
        name: lacking
        for name in wanted
        if (lacking := tuple(each.name for each in measured if name not in each.figures or name in each.unreliable))
    }
    counted = {name: weight for name, weight in wanted.items() if name not in missing}
    if not counted:
        raise BadInput(
            "no dimension with a weight is known for every model", hint="give other dimensions a weight: --weight"
        )
    best = {}
    for name in counted:
        values = [candidate.figures[name].value for candidate in measured]
        best[name] = min(values) if DIMENSIONS[name] else max(values)
    ranked = sorted((_ranked(candidate, measured, counted, best) for candidate in measured), key=lambda one: -one.score)
    first = ranked[0]
    return Selection(
        ranked=tuple(ranked),
        failed=tuple(candidate for candidate in found if candidate.failed),
        weights=counted,
        missing=missing,
        tied=tuple(
            other.candidate.name
            for other in ranked[1:]
            if abs(first.score - other.score) <= math.hypot(first.margin, other.margin)
        ),
        no_interval=tuple(name for name in counted if any(each.figures[name].interval is None for each in measured)),
    )


def _ranked(
    candidate: Candidate, measured: Sequence[Candidate], weights: Mapping[str, float], best: Mapping[str, float]
) -> RankedCandidate:
    whole = sum(weights.values())
    parts, squares = {}, 0.0
    for name, weight in weights.items():
        figure = candidate.figures[name]
        part = parts[name] = _normalised(name, figure.value, best[name])
        if figure.interval is None:
            continue
        low, high = figure.interval
        if not DIMENSIONS[name]:
            margin = (_normalised(name, high, best[name]) - _normalised(name, low, best[name])) / 2
        else:
            margin = part * math.log(high / low) / 2 if low > 0 else part
        squares += (weight / whole * margin) ** 2
    return RankedCandidate(
        candidate=candidate,
        score=sum(weights[name] * part for name, part in parts.items()) / whole,
        margin=math.sqrt(squares),
        parts=parts,
        dominated_by=next((other.name for other in measured if _dominates(other, candidate, weights)), ""),
    )


def _normalised(name: str, value: float, best: float) -> float:
    if name == "quality":
        return (value - LOWEST) / (HIGHEST - LOWEST)
    if DIMENSIONS[name]:
        return best / value if value > 0 else 1.0
    return value / best if best > 0 else 1.0


def _dominates(candidate: Candidate, other: Candidate, names: Mapping[str, float]) -> bool:
    """Whether `candidate` is no worse in any of these dimensions, and clearly better in one."""
    clearly_better = False
    for name in names:
        mine, theirs = candidate.figures[name], other.figures[name]
        low, high = mine.interval or (mine.value, mine.value)
        other_low, other_high = theirs.interval or (theirs.value, theirs.value)
        if DIMENSIONS[name]:
            no_worse, better = mine.value <= theirs.value, high < other_low
        else:
            no_worse, better = mine.value >= theirs.value, low > other_high
        if not no_worse:
            return False
        clearly_better |= better
    return clearly_better
