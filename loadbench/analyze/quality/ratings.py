"""What raters say of each model, each rater for itself, and where they do not agree.

Opinions of different raters are never averaged: a judge that likes everything and a person who likes nothing do not
come to "fair". A model's figure by one rater is the mean over prompts of the mean over facets; its interval, where
there are five prompts or more, is that of the mean over prompts. Agreement is told as the number of common scores that
are equal and that are one apart; what is two apart or more is named.

Coverage is no opinion: the share of the prompts' expected facets that were found in the answers, with the interval of
Clopper and Pearson.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

from loadbench.analyze.stats.intervals import mean_interval, share_interval
from loadbench.plan.rubric import HIGHEST, LOWEST

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from loadbench.results.quality import Quality, Rating

# Judges are models, and say so in their name.
JUDGE = "judge "
# Scores one apart are what a person gives twice; two apart is another opinion.
FAR_APART = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class RaterScore:
    """One rater of one model: the mean by facet, over all, and its 95 % interval if there are prompts enough."""

    model: str
    rater: str
    prompts: int
    facets: dict[str, float]
    mean: float
    interval: tuple[float, float] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """Two raters of the same answers: of `common` scores, how many are equal, and one apart at most."""

    raters: tuple[str, str]
    common: int
    equal: int
    near: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Disagreement:
    """One answer and facet of which raters think differently: each one's score."""

    model: str
    prompt: int
    facet: str
    scores: dict[str, int]


@dataclass(frozen=True, slots=True)
class FacetCoverage:
    """Of a model's `expected` facets so many were `found`, and the share's 95 % interval."""

    found: int
    expected: int
    interval: tuple[float, float]

    @property
    def share(self) -> float:
        """From 0 to 1."""
        return self.found / self.expected


def rater_scores(quality: Quality) -> list[RaterScore]:
    """Every rater of every model, in the order in which they were kept."""
    groups: dict[tuple[str, str], list[Rating]] = {}
    for rating in quality.ratings:
        groups.setdefault((rating.model, rating.rater), []).append(rating)
    return [_opinion(model, rater, ratings) for (model, rater), ratings in groups.items()]


def _opinion(model: str, rater: str, ratings: Sequence[Rating]) -> RaterScore:
    by_facet: dict[str, list[int]] = {}
    by_prompt: dict[int, list[int]] = {}
    for rating in ratings:
        by_facet.setdefault(rating.facet, []).append(rating.score)
        by_prompt.setdefault(rating.prompt, []).append(rating.score)
    means = [statistics.fmean(scores) for scores in by_prompt.values()]
    around = mean_interval(means)
    return RaterScore(
        model=model,
        rater=rater,
        prompts=len(by_prompt),
        facets={facet: statistics.fmean(scores) for facet, scores in by_facet.items()},
        mean=statistics.fmean(means),
        interval=None if around is None else (max(LOWEST, around[0]), min(HIGHEST, around[1])),
    )


def score_for(found: Iterable[RaterScore], model: str, rater: str | None = None) -> RaterScore | None:
    """The opinion that stands for a model: the named rater's, else a person's, else a judge's; never a mixture."""
    of_model = [one for one in found if one.model == model and rater in {None, one.rater}]
    return min(of_model, key=lambda one: one.rater.startswith(JUDGE), default=None)


def _common(quality: Quality) -> dict[tuple[str, int, str, str], dict[str, int]]:
    """Scores by rater, of each answer (by its digest) and facet."""
    found: dict[tuple[str, int, str, str], dict[str, int]] = {}
    for one in quality.ratings:
        found.setdefault((one.model, one.prompt, one.facet, one.answer_hash), {})[one.rater] = one.score
    return found


def agreements(quality: Quality) -> list[Agreement]:
    """Every two raters who rated the same."""
    apart: dict[tuple[str, str], list[int]] = {}
    for scores in _common(quality).values():
        for (one, score), (other, another) in combinations(scores.items(), 2):
            pair = (one, other) if one <= other else (other, one)
            apart.setdefault(pair, []).append(abs(score - another))
    return [
        Agreement(
            raters=pair,
            common=len(steps),
            equal=sum(step == 0 for step in steps),
            near=sum(step <= 1 for step in steps),
        )
        for pair, steps in apart.items()
    ]


def disagreements(quality: Quality) -> list[Disagreement]:
    """Where raters of one answer are two or more apart, the farthest first."""
    far = [
        Disagreement(model=model, prompt=prompt, facet=facet, scores=scores)
        for (model, prompt, facet, _), scores in _common(quality).items()
        if max(scores.values()) - min(scores.values()) >= FAR_APART
    ]
    return sorted(far, key=lambda one: min(one.scores.values()) - max(one.scores.values()))


def facet_coverage(quality: Quality) -> dict[str, FacetCoverage]:
    """By model, how much of what its prompts expected was found."""
    found: dict[str, list[bool]] = {}
    for check in quality.checks:
        found.setdefault(check.model, []).append(check.found)
    return {
        model: FacetCoverage(sum(hits), len(hits), share_interval(sum(hits), len(hits)))
        for model, hits in found.items()
    }
