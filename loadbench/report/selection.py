"""The selection as one table, with what the recommendation rests on beneath it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from tabulate import tabulate

from loadbench.core.text import printable
from loadbench.report.render_markdown import escaped
from loadbench.report.values import disk_size as size
from loadbench.report.values import duration, significant

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from loadbench.analyze.quality.selection import Candidate, CandidateFigure, RankedCandidate, Selection

SCHEMA: Final = "loadbench.selection/1"
HEADERS = (
    "model",
    "load",
    "E2E p50",
    "TTFT p50",
    "tok/s",
    "memory",
    "quality",
    "rated by",
    "facets",
    "disk",
    "licence",
    "load cold",
    "load warm",
    "score",
    "",
)
_NORMALISED = "normalised to the best (1 is the best; half is twice as slow or as large); quality is (score − 1) ÷ 4"


def selection_text(selection: Selection) -> str:
    """For a terminal."""
    return _shown(selection, form="simple", fit=printable, bullet="")


def selection_markdown(selection: Selection) -> str:
    """For a file or a pull request."""
    return _shown(selection, form="pipe", fit=escaped, bullet="- ")


def selection_json(selection: Selection) -> str:
    """As data: figures by dimension in seconds, bytes, tokens per second and scores."""
    document = {
        "schema": SCHEMA,
        "recommended": None if selection.tied else selection.ranked[0].candidate.name,
        "sure": not selection.tied and not selection.unproven,
        "tied": [selection.ranked[0].candidate.name, *selection.tied] if selection.tied else [],
        "weights": dict(selection.weights),
        "missing": {name: list(who) for name, who in selection.missing.items()},
        "models": [
            {**_data(one.candidate), "score": one.score, "doubt": one.margin, "dominated_by": one.dominated_by or None}
            for one in selection.ranked
        ],
        "failed": [{"model": one.name, "reason": one.failed} for one in selection.failed],
        "notes": selection_notes(selection),
    }
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def _data(one: Candidate) -> dict[str, object]:
    figures = {name: {"value": told.value, "interval": told.interval} for name, told in one.figures.items()}
    return {
        "model": one.name,
        "load": one.load,
        "figures": figures,
        "license": one.license,
        "load_warm_s": one.load_warm_s,
        "rater": one.rater or None,
        "facets_found": one.facets_found,
        "caveat": one.caveat or None,
    }


def _shown(selection: Selection, *, form: str, fit: Callable[[str], str], bullet: str) -> str:
    rows = [_row(one) for one in selection.ranked] + [_failed(one) for one in selection.failed]
    align = ("left", *("right",) * (len(HEADERS) - 2), "left")
    cells = [[fit(cell) for cell in row] for row in rows]
    table = tabulate(cells, headers=HEADERS, tablefmt=form, colalign=align, disable_numparse=True)
    return f"{table}\n\n" + "\n".join(bullet + fit(note) for note in selection_notes(selection)) + "\n"


def _row(one: RankedCandidate) -> list[str]:
    candidate = one.candidate
    figures = candidate.figures
    return [
        candidate.name,
        candidate.load,
        _told(figures.get("latency"), duration),
        _told(figures.get("ttft"), duration),
        _told(figures.get("throughput"), significant),
        _told(figures.get("memory"), size),
        _told(figures.get("quality"), lambda value: f"{value:.2f}"),
        candidate.rater or "-",
        "-" if candidate.facets_found is None else f"{candidate.facets_found[0]}/{candidate.facets_found[1]}",
        _told(figures.get("disk"), size),
        candidate.license or "-",
        _told(figures.get("load"), duration),
        "-" if candidate.load_warm_s is None else duration(candidate.load_warm_s),
        f"{one.score:.2f}" + (f" ± {one.margin:.2f}" if one.margin else ""),
        f"dominated by {one.dominated_by}" if one.dominated_by else "",
    ]


def _failed(one: Candidate) -> list[str]:
    return [one.name, *["-"] * (len(HEADERS) - 2), "not measured"]


def _told(figure: CandidateFigure | None, shown: Callable[[float], str]) -> str:
    return "-" if figure is None else shown(figure.value)


def selection_notes(selection: Selection) -> list[str]:
    """The recommendation, its weights, what is missing and what is in doubt."""
    whole = sum(selection.weights.values())
    weights = ", ".join(f"{name} {weight / whole:.0%}" for name, weight in selection.weights.items())
    found = [_recommended(selection), f"weights: {weights}; {_NORMALISED}"]
    if selection.missing:
        told = ", ".join(_lacking(name, who, len(selection.ranked)) for name, who in selection.missing.items())
        found.append(f"left out, since it is not known of every model: {told}")
    if any(one.candidate.unreliable for one in selection.ranked):
        found.append(
            "memory is the server process's, with what models before left in it, and does not count: "
            "give each model a run of its own, of a server that was begun anew"
        )
    if selection.no_interval:
        found.append(f"without an interval, so that the ± says nothing of them: {', '.join(selection.no_interval)}")
    if len({one.candidate.load for one in selection.ranked}) > 1:
        found.append("the models were measured at different loads: speeds do not compare")
    if len({one.candidate.rater for one in selection.ranked if one.candidate.rater}) > 1:
        found.append("quality is by different raters: scores of one do not compare with those of another")
    found += [f"{one.candidate.name}: {one.candidate.caveat}" for one in selection.ranked if one.candidate.caveat]
    return found + [f"{one.name}: not measured: {one.failed}" for one in selection.failed]


def _lacking(name: str, who: Sequence[str], models: int) -> str:
    return f"{name} (of none)" if len(who) == models else f"{name} (not of {', '.join(who)})"


def _recommended(selection: Selection) -> str:
    best = selection.ranked[0]
    if len(selection.ranked) == 1:
        return f"{best.candidate.name} is the only one that was measured"
    if selection.tied:
        names = ", ".join((best.candidate.name, *selection.tied))
        return f"no single recommendation: {names} cannot be told apart by these weights; measure for longer"
    second = selection.ranked[1]
    found = (
        f"recommended: {best.candidate.name}, {best.score:.2f} against {second.score:.2f} of {second.candidate.name}"
    )
    if any(one.candidate.caveat for one in selection.ranked):
        found += ", on measurements that are not all valid"
    if selection.unproven:
        few = ", ".join(selection.unproven)
        found += f"; this may be chance, with too few samples for an interval of {few}: measure for longer"
    return found
