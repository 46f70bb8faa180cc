"""The choice of a model: one table of all candidates, and what the recommendation rests on."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from loadbench.core.text import printable_json
from loadbench.report.document import Document, Notes, Table
from loadbench.report.values import byte_size, duration, significant

if TYPE_CHECKING:
    from collections.abc import Callable

    from loadbench.analyze.quality.selection import Selection

SCHEMA: Final = "loadbench.selection/1"
_FIGURES: dict[str, tuple[str, Callable[[float], str]]] = {
    "E2E p50": ("latency", duration),
    "TTFT p50": ("ttft", duration),
    "tok/s": ("throughput", significant),
    "memory": ("memory", byte_size),
    "quality": ("quality", lambda value: f"{value:.2f}"),
    "disk": ("disk", byte_size),
    "load cold": ("load", duration),
}
_HEADERS = (
    *("model", "load", "E2E p50", "TTFT p50", "tok/s", "memory", "quality", "rated by", "facets", "disk", "license"),
    *("load cold", "load warm", "score", "remark"),
)
# What a choice needs first: the score, what is remarkable, and then speed and quality.
_RANK = "041112155335600"
_NORMALISED = (
    "figures are normalised to the best (1 is the best, 0.5 twice as slow or large); quality is (score − 1) ÷ 4"
)


def selection_document(selection: Selection) -> Document:
    """The candidates by score, then those that are not ranked, and those that could not be measured."""
    rows = []
    scores = {ranked.candidate.name: ranked for ranked in selection.ranked}
    for candidate in (*(ranked.candidate for ranked in selection.ranked), *selection.excluded):
        ranked = scores.get(candidate.name)
        dominated = f"dominated by {ranked.dominated_by}" if ranked and ranked.dominated_by else ""
        score = f"{ranked.score:.2f}" + (f" ± {ranked.margin:.2f}" if ranked.margin else "") if ranked else "-"
        cells = {
            "model": candidate.name,
            "load": candidate.load,
            "rated by": candidate.rater or "-",
            "facets": "-" if candidate.facets_found is None else "/".join(map(str, candidate.facets_found)),
            "license": candidate.license or "-",
            "load warm": "-" if candidate.load_warm_s is None else duration(candidate.load_warm_s),
            "score": score,
            "remark": "not ranked" if ranked is None else dominated,
        }
        for header, (dimension, shown) in _FIGURES.items():
            figure = candidate.figures.get(dimension)
            cells[header] = "-" if figure is None else shown(figure.value)
        rows.append([cells[header] for header in _HEADERS])
    rows += [[failed.name, *["-"] * (len(_HEADERS) - 2), "not measured"] for failed in selection.failed]
    align = "l" + "r" * (len(_HEADERS) - 2) + "l"
    return Document("choice of a model", [Table(_HEADERS, rows, align, rank=_RANK), Notes(selection_notes(selection))])


def selection_json(selection: Selection) -> str:
    """As data: figures by dimension in seconds, bytes, tokens per second and scores."""
    models = []
    scores = {ranked.candidate.name: ranked for ranked in selection.ranked}
    for candidate in (*(ranked.candidate for ranked in selection.ranked), *selection.excluded):
        ranked = scores.get(candidate.name)
        models.append(
            {
                "model": candidate.name,
                "load": candidate.load,
                "figures": {
                    name: {"value": figure.value, "interval": figure.interval}
                    for name, figure in candidate.figures.items()
                },
                "license": candidate.license,
                "load_warm_s": candidate.load_warm_s,
                "rater": candidate.rater or None,
                "facets_found": candidate.facets_found,
                "runs": candidate.runs,
                "caveat": candidate.caveat or None,
                "excluded": candidate.excluded or None,
                "score": None if ranked is None else ranked.score,
                "doubt": None if ranked is None else ranked.margin,
                "dominated_by": (ranked.dominated_by or None) if ranked else None,
            }
        )
    document = {
        "schema": SCHEMA,
        "recommended": selection.ranked[0].candidate.name if selection.ranked and not selection.tied else None,
        "sure": bool(selection.ranked) and not selection.tied and not selection.unproven,
        "tied": [selection.ranked[0].candidate.name, *selection.tied] if selection.tied else [],
        "weights": dict(selection.weights),
        "missing": {name: list(models) for name, models in selection.missing.items()},
        "models": models,
        "failed": [{"model": failed.name, "reason": failed.failed} for failed in selection.failed],
        "notes": selection_notes(selection),
    }
    return printable_json(json.dumps(document, indent=2, ensure_ascii=False).encode()).decode() + "\n"


def selection_notes(selection: Selection) -> list[str]:
    """The recommendation, its weights, what is missing and what is uncertain."""
    candidates = [ranked.candidate for ranked in selection.ranked]
    weights = ", ".join(f"{name} {100 * weight:.0f} %" for name, weight in selection.weights.items())
    lines = [_recommendation(selection)] + [f"weights: {weights}; {_NORMALISED}"] * bool(candidates)
    # What was measured and does not count has a note of its own.
    unreliable = frozenset[str]().union(*(candidate.unreliable for candidate in candidates))
    if selection.missing.keys() - unreliable:
        missing = [
            f"{name} (of none)" if len(models) == len(candidates) else f"{name} (not of {', '.join(models)})"
            for name, models in selection.missing.items()
            if name not in unreliable
        ]
        lines.append(f"left out, since not known of every model: {', '.join(missing)}")
    if selection.lengths is not None:
        short, long = selection.lengths
        lines.append(
            f"latency is left out: responses have {short:.0f} to {long:.0f} output tokens on average, and a shorter "
            "one is no faster; --exact-output requests the same length of every model"
        )
    if any(candidate.unreliable for candidate in candidates):
        lines.append(
            "memory is the server process's and may include earlier models, so it does not count: give each model a "
            "separate run on a server that was just started"
        )
    if selection.no_interval:
        lines.append(f"no interval, and not part of the ±: {', '.join(selection.no_interval)}")
    if len({candidate.load for candidate in candidates}) > 1:
        lines.append("the models were measured at different loads: their speeds do not compare")
    if len({candidate.rater for candidate in candidates if candidate.rater}) > 1:
        lines.append("quality comes from different raters: their scores do not compare")
    lines += [f"{one.name}: the figures are those of {one.runs} levels together" for one in candidates if one.runs > 1]
    lines += [f"{one.name}: {one.caveat}" for one in candidates if one.caveat]
    lines += [f"{one.name}: not ranked: {one.excluded}" for one in selection.excluded]
    return lines + [f"{failed.name}: not measured: {failed.failed}" for failed in selection.failed]


def _recommendation(selection: Selection) -> str:
    if not selection.ranked:
        return "no recommendation: no model has a valid measurement and the quality that is required"
    best = selection.ranked[0]
    if len(selection.ranked) == 1:
        others = " that can be ranked" if selection.excluded or selection.failed else " that was measured"
        return f"{best.candidate.name} is the only model{others}"
    if selection.tied:
        names = ", ".join((best.candidate.name, *selection.tied))
        return f"no single recommendation: by these weights {names} do not differ clearly; measure longer"
    second = selection.ranked[1]
    text = f"recommended: {best.candidate.name}, score {best.score:.2f}; {second.candidate.name} has {second.score:.2f}"
    if any(ranked.candidate.caveat for ranked in selection.ranked):
        text += ", from measurements that are not all valid"
    if selection.unproven:
        few = ", ".join(selection.unproven)
        text += f"; this may be chance: too few samples for an interval of {few}; measure longer"
    return text
