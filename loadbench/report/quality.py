"""The quality of responses: a row for each rater of each model, and where raters disagree."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadbench.analyze.quality.ratings import JUDGE, agreements, disagreements, facet_coverage, rater_scores
from loadbench.plan.rubric import RUBRIC
from loadbench.report.document import Document, Notes, Table

if TYPE_CHECKING:
    from loadbench.results.quality import Quality

# Nobody looks up more places than this.
_MOST_PLACES = 10


def quality_document(quality: Quality) -> Document:
    """The ratings; a report of the run has them below its levels."""
    covered = facet_coverage(quality)
    shares = {model: f"{share.found}/{share.expected}" for model, share in covered.items()}
    rows = []
    rated = sorted(rater_scores(quality), key=lambda score: score.model)
    for score in rated:
        own = [mean for facet, mean in score.facets.items() if facet not in RUBRIC]
        rows.append(
            [
                score.model,
                score.rater,
                str(score.prompts),
                *(f"{score.facets[facet]:.2f}" if facet in score.facets else "-" for facet in RUBRIC),
                f"{sum(own) / len(own):.2f}" if own else "-",
                f"{score.mean:.2f}",
                "-" if score.interval is None else f"{score.interval[0]:.1f}–{score.interval[1]:.1f}",
                shares.get(score.model, "-"),
            ]
        )
    unrated = [model for model in covered if model not in {score.model for score in rated}]
    rows += [[model, *["-"] * (len(RUBRIC) + 5), shares[model]] for model in unrated]
    headers = ("model", "rater", "prompts", *RUBRIC, "own facets", "mean", "95 %", "facets found")
    rank = "003" + "2" * len(RUBRIC) + "2011"
    table = Table(headers, rows, "ll" + "r" * (len(headers) - 2), rank=rank)
    return Document("quality, from 1 to 5", [table, Notes(quality_notes(quality))])


def quality_notes(quality: Quality) -> list[str]:
    """How far raters agree, where they are far apart, and what was not rated."""
    lines = [
        f"{pair.raters[0]} and {pair.raters[1]}: of {pair.common} common scores {pair.equal} are equal, "
        f"{pair.near - pair.equal} differ by one, {pair.common - pair.near} by more"
        for pair in agreements(quality)
    ]
    far = disagreements(quality)
    for place in far[:_MOST_PLACES]:
        scores = ", ".join(f"{rater} {score}" for rater, score in place.scores.items())
        lines.append(f"raters disagree on {place.model}, prompt {place.prompt}, {place.facet}: {scores}")
    if len(far) > _MOST_PLACES:
        lines.append(f"and on {len(far) - _MOST_PLACES} more")
    own = {score.model for score in rater_scores(quality) if score.rater.partition(" (")[0] == f"{JUDGE}{score.model}"}
    lines += [own_judge(model) for model in sorted(own)]
    return lines + [
        f"not rated by {unrated.rater}: {unrated.model}, prompt {unrated.prompt}: {unrated.reason}"
        for unrated in quality.unrated
    ]


def own_judge(model: str) -> str:
    """The warning where a judge rates itself."""
    return f"{model} rates its own responses, and models tend to prefer their own"
