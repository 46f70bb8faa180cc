"""The report on several models that were searched in turn: a table of the load that each of them takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadbench.analyze.level.load_makers import load_makers
from loadbench.core.text import some
from loadbench.report.capacity import amount_text, claim_texts, kind_of, trust_lines
from loadbench.report.document import Document, Notes, Table, Text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from loadbench.results.capacity import Capacities
    from loadbench.results.run import Run


def capacities_document(capacities: Capacities, runs: Mapping[str, Run] | None = None) -> Document:
    """One row for each model, whether it was searched or not, and the conclusion of each with what may weaken it;
    `runs` are those of each model's probes, where they are at hand."""
    runs = runs or {}
    searches = {capacity.model: capacity for capacity in capacities.searches}
    objectives = next((", ".join(capacity.objectives) for capacity in capacities.searches), "")
    kind = next((kind_of(capacity) for capacity in capacities.searches if capacity.probes), "users")
    rows, lines = [], []
    for model in capacities.folders:
        capacity = searches.get(model)
        if capacity is None:
            problem = capacities.failed.get(model, "")
            rows.append([model, "-", "-", "-", "-", "failed" if problem else "not searched"])
            lines += [f"{model}: cannot be searched: {problem}"] * bool(problem)
            continue
        answer, verified = capacity.answer, capacity.verification
        proven, likely = claim_texts(capacity)
        checked = (
            "-" if verified is None else {True: "agrees", False: "contradicts", None: "too short"}[verified.agrees]
        )
        strength: str = answer.strength if answer is not None and capacity.status == "found" else capacity.status
        strength = strength if capacity.conclusion else "not finished"
        amount = amount_text(capacity)
        rows.append([model, amount, likely, proven, checked, strength.replace("_", " ")])
        said = [capacity.conclusion or "The search is under way, or was killed."]
        lines.append(
            f"{model}: {' '.join([*said, *trust_lines(capacity, runs[model].levels if model in runs else ())])}"
        )
    heads = ("model", "users" if kind == "users" else "requests/s", "likely range", "proven range", "verification")
    notes = [
        "the models were searched one after another, each with an equal part of the budget",
        "the report of one model: `loadbench report` with its folder inside this one",
    ]
    makers = list(dict.fromkeys(filter(None, map(load_makers, runs.values()))))
    notes += [f"load from {some(makers, most=3, separator='; ')}"] if makers else []
    title = f"Capacity of {len(capacities.folders)} models under {objectives}"
    return Document(title, [Table((*heads, "answer"), rows, "lrllll", rank="000220"), Text(lines), Notes(notes)])
