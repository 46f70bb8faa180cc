"""Quality as a block beneath the speeds: a row for each rater of each model, and where raters do not agree."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tabulate import tabulate

from loadbench.analyze.quality.ratings import JUDGE, agreements, disagreements, facet_coverage, rater_scores
from loadbench.core.text import printable
from loadbench.plan.rubric import RUBRIC

if TYPE_CHECKING:
    from collections.abc import Callable

    from loadbench.analyze.quality.ratings import FacetCoverage, RaterScore
    from loadbench.results.quality import Quality

# More places than this nobody looks up.
_MOST_PLACES = 10


def quality_text(quality: Quality) -> str:
    """For a terminal; empty where nothing is known."""
    return _block(quality, title="quality, from 1 to 5", form="simple", fit=printable, bullet="")


def quality_markdown(quality: Quality, escape: Callable[[str], str]) -> str:
    """For a Markdown report; empty where nothing is known. `escape` makes foreign text harmless there."""
    return _block(quality, title="## Quality, from 1 to 5", form="pipe", fit=escape, bullet="- ")


def _block(quality: Quality, *, title: str, form: str, fit: Callable[[str], str], bullet: str) -> str:
    rows = _rows(quality)
    if not rows and not quality.unrated:
        return ""
    headers = ("model", "rater", "prompts", *RUBRIC, "own facets", "mean", "95 %", "facets found")
    cells = [[fit(cell) for cell in row] for row in rows]
    align = ("left", "left", *("right",) * (len(headers) - 2))
    body = tabulate(cells, headers=headers, tablefmt=form, colalign=align if cells else None, disable_numparse=True)
    notes = [bullet + fit(note) for note in quality_notes(quality)]
    return "\n\n".join([title, body, *(["\n".join(notes)] if notes else [])]) + "\n"


def _rows(quality: Quality) -> list[list[str]]:
    covered = facet_coverage(quality)
    rated = rater_scores(quality)
    rows = [_row(one, covered.get(one.model)) for one in sorted(rated, key=lambda one: one.model)]
    bare = [model for model in covered if model not in {one.model for one in rated}]
    return rows + [[model, *["-"] * (len(RUBRIC) + 5), _share(covered[model])] for model in bare]


def _row(one: RaterScore, covered: FacetCoverage | None) -> list[str]:
    own = [mean for facet, mean in one.facets.items() if facet not in RUBRIC]
    return [
        one.model,
        one.rater,
        str(one.prompts),
        *(f"{one.facets[facet]:.2f}" if facet in one.facets else "-" for facet in RUBRIC),
        f"{sum(own) / len(own):.2f}" if own else "-",
        f"{one.mean:.2f}",
        "-" if one.interval is None else f"{one.interval[0]:.1f}–{one.interval[1]:.1f}",
        _share(covered),
    ]


def _share(covered: FacetCoverage | None) -> str:
    return "-" if covered is None else f"{covered.found}/{covered.expected}"


def own_judge(model: str) -> str:
    """The doubt in a judge that is one of the judged."""
    return f"{model} rates answers of its own, and models tend to like what they say themselves"


def quality_notes(quality: Quality) -> list[str]:
    """Agreement, the places where raters are far apart, and what was not rated."""
    found = [
        f"{one.raters[0]} and {one.raters[1]}: of {one.common} common scores {one.equal} equal, "
        f"{one.near - one.equal} one apart, {one.common - one.near} farther"
        for one in agreements(quality)
    ]
    far = disagreements(quality)
    for one in far[:_MOST_PLACES]:
        scores = ", ".join(f"{rater} {score}" for rater, score in one.scores.items())
        found.append(f"they differ on {one.model}, prompt {one.prompt}, {one.facet}: {scores}")
    if len(far) > _MOST_PLACES:
        found.append(f"and on {len(far) - _MOST_PLACES} more")
    own = {one.model for one in rater_scores(quality) if one.rater.partition(" (")[0] == f"{JUDGE}{one.model}"}
    found += [own_judge(model) for model in sorted(own)]
    found += [f"not rated by {one.rater}: {one.model}, prompt {one.prompt}: {one.reason}" for one in quality.unrated]
    return found
