"""Which model to choose: all measured and known facts in one table, and a recommendation that shows its reasons.

Values are normalised to the best: best / value where less is better, value / best where more is better, and
(score − 1) / 4 for quality. So 1 is the best possible, and half is twice as slow. Dimensions that say much the same are
a group (`GROUPS`): a group's value is the mean over its dimensions, and the score is the mean over the groups, both
with the given weights. Latency, first token and throughput are one speed, and count once. By default quality weighs as
much as speed and resources together: then no model of the lowest rating ever beats one of the highest.

A dimension counts only if every candidate has it; otherwise it is left out for all and reported: a model must not win
by something that is unknown of it. E2E is left out where responses differ in length: a shorter one is no faster.

A candidate is *excluded* from the ranking, and still shown, if its measurement is at fault, or if its quality is below
the floor. Runs of one model with the same name and target are repeats: their figures are pooled. Runs of different work
are refused.

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
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from loadbench.analyze.compare.equal_work import LENGTHS_WITHIN, mixed
from loadbench.analyze.quality.ratings import facet_coverage, rater_scores, score_for
from loadbench.core.errors import BadInput
from loadbench.plan.rubric import HIGHEST, LOWEST
from loadbench.results.run import ClosedLoad

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from loadbench.results.quality import Quality
    from loadbench.results.run import ModelFacts, ModelStatus, OpenInterval, Run

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
# Dimensions that say much the same, and the default weight of each group.
GROUPS: Mapping[str, tuple[str, ...]] = {
    "speed": ("latency", "ttft", "throughput"),
    "quality": ("quality",),
    "resources": ("memory", "disk", "load"),
}
# By default each dimension weighs the same within its group.
WEIGHTS: Mapping[str, float] = {**dict.fromkeys(DIMENSIONS, 1.0), "speed": 1.0, "quality": 2.0, "resources": 1.0}
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
    """One model at one load; `figures` are by dimension, those that are known.

    `unreliable` names dimensions whose figure may include other models, so that it does not count. `response_tokens` is
    the mean length of a response. `caveat` says why its figures are in doubt, `excluded` why it is not ranked, `failed`
    why it has none.
    """

    name: str
    load: str = ""
    figures: Mapping[str, CandidateFigure] = field(default_factory=dict)
    unreliable: frozenset[str] = frozenset()
    license: str | None = None
    load_warm_s: float | None = None
    rater: str = ""
    facets_found: tuple[int, int] | None = None  # found, expected
    runs: int = 1
    response_tokens: float | None = None
    caveat: str = ""
    excluded: str = ""
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
    """Candidates by score, the best first; none where all are excluded. `weights` are those that counted, 1 in all.

    `missing` has the dimensions that were left out, each with the candidates that lack it; `lengths` are the shortest
    and the longest mean response where these differ; `tied` the candidates that cannot be distinguished from the best;
    `no_interval` the dimensions in which a value has no interval.
    """

    ranked: tuple[RankedCandidate, ...]
    excluded: tuple[Candidate, ...]
    failed: tuple[Candidate, ...]
    weights: Mapping[str, float]
    missing: Mapping[str, tuple[str, ...]]
    lengths: tuple[float, float] | None = None
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

    Raises `BadInput` for a load at which no model was measured, for a run that is given twice, and for runs whose work
    differs.
    """
    labels = dict.fromkeys(level.load.label for run, _ in runs for level in run.levels)
    if at is not None and at not in labels:
        hint = f"measured loads: {', '.join(labels) or 'none'}"
        raise BadInput(f"--at {at}: no model was measured at this load", hint=hint)
    label = at or _lightest_common_load([run for run, _ in runs])
    begun = Counter((run.name, run.started_at) for run, _ in runs)
    twice = next((f"{name}, {began}" for (name, began), count in begun.items() if count > 1), "")
    if twice:
        raise BadInput(f"the run {twice}: this run was given twice", hint="name each run once")
    differs = mixed([run for run, _ in runs])
    if differs:
        raise BadInput(
            f"the runs did different work, so their speeds do not compare: {differs}",
            hint="measure all models with the same prompts and the same limit of output tokens",
        )

    # Runs of one model with the same name and target are repeats.
    groups: dict[tuple[str, str, str], list[tuple[Run, Quality, ModelStatus]]] = {}
    for run, quality in runs:
        for status in run.models:
            target = next((level.target for level in run.levels if level.model == status.model), "")
            groups.setdefault((status.model, run.name, target), []).append((run, quality, status))
    # The shortest unique name: the model alone, with its run, or with its target too.
    choices = [(model, f"{model} ({name})", f"{model} ({name}, {target})") for model, name, target in groups]
    counts = Counter(name for names in choices for name in names)
    known: Mapping[str, ModelFacts] = facts or {}
    return [
        _candidate(
            repeats,
            label=label,
            name=next((name for name in names if counts[name] == 1), names[-1]),
            rater=rater,
            facts=known,
        )
        for names, repeats in zip(choices, groups.values(), strict=True)
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
    repeats: Sequence[tuple[Run, Quality, ModelStatus]],
    *,
    label: str | None,
    name: str,
    rater: str | None,
    facts: Mapping[str, ModelFacts],
) -> Candidate:
    model, statuses = repeats[0][2].model, [status for _, _, status in repeats]
    levels = [
        level
        for run, _, _ in repeats
        for level in run.levels
        if level.model == model and label in {None, level.load.label}
    ]
    if not levels:
        reasons = (status.reason for status in statuses if status.reason)
        return Candidate(name=name, failed=next(reasons, f"was not measured at {label}"))
    answered = sum(level.outcomes.get("ok", 0) for level in levels)
    if not answered:
        return Candidate(name=name, load=levels[0].load.label, failed="no request succeeded")

    figures = {}
    for dimension, key in (("latency", "e2e_s"), ("ttft", "ttft_s")):
        metrics = [metric for level in levels if (metric := level.metrics.get(key)) is not None]
        if metrics:
            figures[dimension] = _pooled([(metric.p50, metric.interval.get("p50")) for metric in metrics])
    throughputs = [level.throughput for level in levels if level.throughput.output_tokens_per_s > 0]
    if throughputs:
        figures["throughput"] = _pooled(
            [(one.output_tokens_per_s, one.interval.get("output_tokens_per_s")) for one in throughputs]
        )
    # The largest resident memory of the server's process. After other models it includes what they left there.
    gauges = [level.telemetry.gauges.get(_RSS) for level in levels if level.telemetry is not None]
    memory = max((gauge.max for gauge in gauges if gauge is not None), default=0)
    if memory > 0:
        figures["memory"] = CandidateFigure(memory)
    # The latest ratings of the model count.
    ratings = [
        score for _, quality, _ in repeats if (score := score_for(rater_scores(quality), model, rater)) is not None
    ]
    if ratings:
        figures["quality"] = CandidateFigure(ratings[-1].mean, ratings[-1].interval)
    # Of the catalogue and of the run's own measurement first, then as somebody wrote it down.
    written = facts.get(model) or facts.get(statuses[0].asked or model) or statuses[0].known
    catalogue = next((status.catalogue for status in statuses if status.catalogue), None)
    size = (catalogue.size_bytes if catalogue else None) or (written.size_bytes if written else None)
    if size:
        figures["disk"] = CandidateFigure(float(size))
    load_s = next((status.load_s for status in statuses if status.load_s), written.load_cold_s if written else None)
    if load_s:
        figures["load"] = CandidateFigure(load_s)
    warm_s = [status.load_warm_s for status in statuses if status.load_warm_s]
    several = any(sum(other.status == "ok" for other in run.models) > 1 for run, _, _ in repeats)
    coverage = next((one for _, quality, _ in repeats if (one := facet_coverage(quality).get(model))), None)
    doubts = {
        level.verdict.status: f"{level.verdict.status}: {(why := level.verdict.reasons[0]).message} ({why.code})"
        for level in levels
        if level.verdict.status != "VALID"
    }
    excluded = doubts.pop("INVALID", "")
    return Candidate(
        name=name,
        load=levels[0].load.label,
        figures=figures,
        unreliable=frozenset({"memory"} if several and "memory" in figures else ()),
        license=(written.license if written else None) or (catalogue.license if catalogue else None),
        load_warm_s=warm_s[0] if warm_s else (written.load_warm_s if written else None),
        rater=ratings[-1].rater if ratings else "",
        facets_found=None if coverage is None else (coverage.found, coverage.expected),
        runs=len(levels),
        response_tokens=sum(level.tokens.output for level in levels) / answered,
        caveat="; ".join(doubts.values()),
        excluded=excluded,
    )


def _pooled(values: Sequence[tuple[float, OpenInterval | None]]) -> CandidateFigure:
    """The geometric mean of repeats; their interval reaches over the intervals of all, which includes their spread."""
    if len(values) == 1:
        mean = values[0][0]
    else:
        mean = math.exp(sum(math.log(max(value, 1e-12)) for value, _ in values) / len(values))
    ends = [(low, high) for _, interval in values for low, high in [interval or (None, None)]]
    lows, highs = [low for low, _ in ends if low is not None], [high for _, high in ends if high is not None]
    whole = len(lows) == len(highs) == len(values)
    return CandidateFigure(mean, (min(lows), max(highs)) if whole else None)


def select(found: Sequence[Candidate], weights: Mapping[str, float], *, min_quality: float | None = None) -> Selection:
    """Rank the candidates; `weights` are by group and by dimension within its group, and 0 leaves one out.

    Candidates rated below `min_quality`, or not at all, are excluded where it is given. Raises `BadInput` where no
    candidate was measured, or no dimension is left to choose by.
    """
    if all(candidate.failed for candidate in found):
        raise BadInput("no model of these runs was measured", hint="name a run that has levels")
    measured: list[Candidate] = []
    excluded: list[Candidate] = []
    for candidate in (each for each in found if not each.failed):
        quality, why = candidate.figures.get("quality"), candidate.excluded
        if min_quality is not None and not why and (quality is None or quality.value < min_quality):
            rated = "not rated" if quality is None else f"rated {quality.value:.2f}"
            why = f"{rated}, and --min-quality is {min_quality:g}"
        (excluded if why else measured).append(replace(candidate, excluded=why))
    # Within a group by the weights of its dimensions; a dimension that is also a group has the weight of the group.
    wanted = {
        name: group
        for group, names in GROUPS.items()
        for name in names
        if weights.get(group, 0) > 0 and weights.get(name, 0) > 0
    }
    tokens = [each.response_tokens for each in measured if each.response_tokens]
    lengths = (min(tokens), max(tokens)) if tokens and max(tokens) > (1 + LENGTHS_WITHIN) * min(tokens) else None
    if lengths is not None:
        wanted.pop("latency", None)
    missing = {
        name: lacking
        for name in wanted
        if (lacking := tuple(each.name for each in measured if name not in each.figures or name in each.unreliable))
    }
    counted = {}
    for name in wanted.keys() - missing.keys():
        same = [other for other, group in wanted.items() if group == wanted[name] and other not in missing]
        counted[name] = weights[wanted[name]] * weights[name] / sum(weights[other] for other in same)
    counted = {name: counted[name] / sum(counted.values()) for name in DIMENSIONS if name in counted}
    if measured and not counted:
        raise BadInput(
            "no dimension with a weight is known for every model", hint="give other dimensions a weight: --weight"
        )
    best = {}
    for name in counted:
        values = [candidate.figures[name].value for candidate in measured]
        best[name] = min(values, default=0.0) if DIMENSIONS[name] else max(values, default=0.0)
    ranked = sorted((_ranked(candidate, measured, counted, best) for candidate in measured), key=lambda one: -one.score)
    return Selection(
        ranked=tuple(ranked),
        excluded=tuple(excluded),
        failed=tuple(candidate for candidate in found if candidate.failed),
        weights=counted,
        missing=missing if measured else {},
        lengths=lengths,
        tied=tuple(
            other.candidate.name
            for other in ranked[1:]
            if abs(ranked[0].score - other.score) <= math.hypot(ranked[0].margin, other.margin)
        ),
        no_interval=tuple(name for name in counted if any(each.figures[name].interval is None for each in measured)),
    )


def _ranked(
    candidate: Candidate, measured: Sequence[Candidate], weights: Mapping[str, float], best: Mapping[str, float]
) -> RankedCandidate:
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
        squares += (weight * margin) ** 2
    return RankedCandidate(
        candidate=candidate,
        score=sum(weights[name] * part for name, part in parts.items()),
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
