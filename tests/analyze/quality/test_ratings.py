"""Raters apart, their agreement, and what was found."""

from __future__ import annotations

import pytest

from loadbench.analyze.quality.ratings import agreements, disagreements, facet_coverage, rater_scores, score_for
from loadbench.analyze.stats.intervals import share_interval
from loadbench.results.quality import FacetCheck, Quality, Rating


def rated(rater: str, *scores: int, model: str = "m", facet: str = "brevity", answer: str = "aa") -> list[Rating]:
    """A score for each prompt in turn."""
    return [
        Rating(model=model, prompt=prompt, facet=facet, score=score, rater=rater, answer_hash=f"{answer}{prompt}")
        for prompt, score in enumerate(scores)
    ]


def test_raters_are_never_averaged():
    """A judge who likes everything and a person who likes nothing are two scores, and no middle one."""
    quality = Quality(ratings=[*rated("human", 1, 1), *rated("judge j", 5, 5)])
    assert [(one.rater, one.mean) for one in rater_scores(quality)] == [("human", 1.0), ("judge j", 5.0)]


def test_mean_is_over_prompts_of_the_mean_over_facets():
    """A prompt with many facets of its own counts once."""
    quality = Quality(
        ratings=[
            *rated("human", 5, 1),
            *(
                Rating(model="m", prompt=1, facet=facet, score=1, rater="human", answer_hash="aa1")
                for facet in ("x", "y", "z")
            ),
        ]
    )
    (one,) = rater_scores(quality)
    assert (one.mean, one.prompts) == (3.0, 2)
    assert one.facets == {"brevity": 3.0, "x": 1.0, "y": 1.0, "z": 1.0}


def test_interval_needs_five_prompts_and_stays_on_the_scale():
    """Below that there is none; above it is that of the mean, cut at 1 and 5."""
    assert rater_scores(Quality(ratings=rated("human", 1, 5, 1, 5)))[0].interval is None
    low, high = rater_scores(Quality(ratings=rated("human", 1, 5, 1, 5, 5)))[0].interval
    assert low == 1.0
    assert high == 5.0
    low, high = rater_scores(Quality(ratings=rated("human", 3, 4, 3, 4, 3, 4)))[0].interval
    # Student's t for five degrees of freedom, 2.571, times 0.5477 / √6, around 3.5.
    assert (low, high) == (pytest.approx(2.925, abs=1e-3), pytest.approx(4.075, abs=1e-3))


def test_person_stands_for_a_model_before_a_judge():
    """Unless another rater is named; who is not there is none."""
    found = rater_scores(Quality(ratings=[*rated("judge j", 5), *rated("ann", 2)]))
    assert score_for(found, "m").rater == "ann"
    assert score_for(found, "m", "judge j").mean == 5.0
    assert score_for(found, "m", "bob") is None
    assert score_for(found, "other") is None


def test_agreement_is_of_common_answers_only():
    """Equal, one apart, farther; ratings of another text are no other opinion of this one."""
    quality = Quality(ratings=[*rated("ann", 1, 3, 5), *rated("judge j", 1, 4, 2), *rated("bob", 5, answer="bb")])
    (one,) = agreements(quality)
    assert (one.raters, one.common, one.equal, one.near) == (("ann", "judge j"), 3, 1, 2)


def test_what_is_two_apart_is_named_the_farthest_first():
    """Model, prompt, facet, and each one's score."""
    quality = Quality(ratings=[*rated("ann", 1, 3, 5, 5), *rated("judge j", 1, 4, 3, 1)])
    far = disagreements(quality)
    assert [(one.prompt, one.scores) for one in far] == [(3, {"ann": 5, "judge j": 1}), (2, {"ann": 5, "judge j": 3})]


def test_coverage_is_a_share_with_its_interval():
    """Found of expected, by model, by Clopper and Pearson."""
    checks = [FacetCheck(model="m", prompt=n, facet="x", found=n < 3, answer_hash="aa") for n in range(10)]
    found = facet_coverage(Quality(checks=checks))["m"]
    assert (found.found, found.expected, found.share) == (3, 10, 0.3)
    assert found.interval == share_interval(3, 10)
