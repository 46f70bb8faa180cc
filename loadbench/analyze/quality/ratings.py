"""Each rater's scores of each model, where raters disagree, and how much of the expected content was found.

Scores of different raters are never averaged: a judge that likes everything and a person who likes nothing do not make
a "fair". A model's score by one rater is the mean over prompts of the mean over facets; its interval, from five prompts
on, is that of the mean over prompts. Agreement counts the common scores that are equal and those that are one apart;
scores two or more apart are listed.

Facet coverage is not a matter of opinion: it is the share of the prompts' expected facets that the responses contain,
with its Clopper-Pearson interval.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

from loadbench.analyze.stats.intervals import mean_interval, share_interval
from loadbench.plan.rubric import HIGHEST, LOWEST

if TYPE_CHECKING:
    from collections.abc import Iterable

    from loadbench.results.quality import Quality, Rating

# The name of a rater that is a model begins with this.
JUDGE = "judge "
# One person may give scores one apart at two times; two apart is another opinion.
FAR_APART = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class RaterScore:
    """One rater's score of one model: the mean by facet, the mean over all, and its 95 % interval if it exists."""

    model: str
    rater: str
    prompts: int
    facets: dict[str, float]
    mean: float
    interval: tuple[float, float] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """Two raters of the same responses: their number of `common` scores, of `equal` ones, and of at most one apart."""

    raters: tuple[str, str]
    common: int
    equal: int
    near: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Disagreement:
    """One response and facet whose scores, by rater, are far apart."""

    model: str
    prompt: int
    facet: str
    scores: dict[str, int]


@dataclass(frozen=True, slots=True)
class FacetCoverage:
    """How many of a model's `expected` facets were `found`, and the 95 % interval of the share."""

    found: int
    expected: int
    interval: tuple[float, float]

    @property
    def share(self) -> float:
        """From 0 to 1."""
        return self.found / self.expected


def rater_scores(quality: Quality) -> list[RaterScore]:
    """Each rater's score of each model, in the order of the ratings."""
    groups: dict[tuple[str, str], list[Rating]] = {}
    for rating in quality.ratings:
        groups.setdefault((rating.model, rating.rater), []).append(rating)
    scores = []
    for (model, rater), ratings in groups.items():
        by_facet: dict[str, list[int]] = {}
        by_prompt: dict[int, list[int]] = {}
        for rating in ratings:
            by_facet.setdefault(rating.facet, []).append(rating.score)
            by_prompt.setdefault(rating.prompt, []).append(rating.score)
        means = [statistics.fmean(of_prompt) for of_prompt in by_prompt.values()]
        interval = mean_interval(means)
        scores.append(
            RaterScore(
                model=model,
                rater=rater,
                prompts=len(by_prompt),
                facets={facet: statistics.fmean(of_facet) for facet, of_facet in by_facet.items()},
                mean=statistics.fmean(means),
                interval=None if interval is None else (max(LOWEST, interval[0]), min(HIGHEST, interval[1])),
            )
        )
    return scores


def score_for(scores: Iterable[RaterScore], model: str, rater: str | None = None) -> RaterScore | None:
    """The score that stands for a model: the named rater's, or else a person's, or else a judge's; never a mixture."""
    of_model = [score for score in scores if score.model == model and rater in {None, score.rater}]
    return min(of_model, key=lambda score: score.rater.startswith(JUDGE), default=None)


def _by_response(quality: Quality) -> dict[tuple[str, int, str, str], dict[str, int]]:
    """Scores by rater, for each response (by model, prompt and digest) and facet."""
    scores: dict[tuple[str, int, str, str], dict[str, int]] = {}
    for rating in quality.ratings:
        key = rating.model, rating.prompt, rating.facet, rating.answer_hash
        scores.setdefault(key, {})[rating.rater] = rating.score
    return scores


def agreements(quality: Quality) -> list[Agreement]:
    """Every two raters who rated the same responses."""
    steps: dict[tuple[str, str], list[int]] = {}
    for scores in _by_response(quality).values():
        for (first, score), (second, other_score) in combinations(scores.items(), 2):
            pair = (first, second) if first <= second else (second, first)
            steps.setdefault(pair, []).append(abs(score - other_score))
    return [
        Agreement(
            raters=pair,
            common=len(apart),
            equal=sum(step == 0 for step in apart),
            near=sum(step <= 1 for step in apart),
        )
        for pair, apart in steps.items()
    ]


def disagreements(quality: Quality) -> list[Disagreement]:
    """Responses whose raters are two or more apart, the farthest first."""
    far = [
        Disagreement(model=model, prompt=prompt, facet=facet, scores=scores)
        for (model, prompt, facet, _), scores in _by_response(quality).items()
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
