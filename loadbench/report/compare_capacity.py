"""The report of the capacity searches of two sides: how many users to plan with on each, and their ratio."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadbench.core.units import format_duration
from loadbench.report.capacity import amount_text, claim_texts, range_text
from loadbench.report.capacity_plan import capacity_plan_document
from loadbench.report.compare_plan import only_b
from loadbench.report.document import Document, Notes, Table, Text
from loadbench.report.values import significant
from loadbench.results.folder import RESULTS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadbench.plan.scenario import Scenario
    from loadbench.results.compare_capacity import CapacityComparison, SearchedSide

_OF_RATIO = (
    "plan with: the low end of the range of the answer; the ratio lies between the quotients of the ends if both "
    "ranges hold, so its confidence is less than that of either"
)
_ONE_AFTER_THE_OTHER = (
    "A was searched before B: what changed on the machine in the meantime is in the ratio. "
    "loadbench compare without --capacity measures both in turns"
)


def capacity_comparison_document(comparison: CapacityComparison) -> Document:
    """The sentence, a row for each side, and the conclusion of each search."""
    sides = (comparison.a, comparison.b)
    unit = comparison.unit
    money = f"{comparison.currency or 'cost'} per {'user' if unit == 'users' else 'request/s'} and month"
    rows, lines = [], []
    for side in sides:
        search, answer = side.capacity, None if side.capacity is None else side.capacity.answer
        strength: str = "not searched"
        if search is not None:
            strength = answer.strength if answer is not None and search.status == "found" else search.status
        proven, likely = ("-", "-") if search is None else claim_texts(search)
        rows.append(
            [
                side.name.upper(),
                "-" if side.plan is None else f"{side.plan:g}",
                "-" if search is None or answer is None else amount_text(search),
                likely,
                proven,
                strength.replace("_", " "),
                "-" if answer is None else answer.limit,
                "-" if side.cost_per_unit_month is None else significant(side.cost_per_unit_month),
            ]
        )
        said = side.problem or (search.conclusion if search is not None else "") or "the search is not complete"
        lines.append(f"{side.name.upper()}: {said}")
    headers = [
        "side",
        f"plan with ({unit})",
        "best estimate",
        "likely range",
        "proven range",
        "answer",
        "bottleneck",
        money,
    ]
    ranks, align = "00123041", "lrrllllr"
    if all(row[-1] == "-" for row in rows):
        headers, rows, ranks, align = headers[:-1], [row[:-1] for row in rows], ranks[:-1], align[:-1]
    title = "loadbench compare --capacity"
    if comparison.objectives:
        title += f": {', '.join(comparison.objectives)}"
    if comparison.confidence is not None and comparison.ratio is not None:
        ends = range_text(*(None if end is None else float(f"{end:.3g}") for end in comparison.interval))
        ends += f", with at least {100 * comparison.confidence:.3g} %"
        open_ended = [side.name.upper() for side in sides if side.capacity and side.capacity.status == "at_least"]
        if open_ended:
            # What was reached is no estimate of a limit, so that its quotient is none either.
            lines.append(
                f"B/A: {ends}; there is no best estimate: the limit of {' and '.join(open_ended)} was not reached"
            )
        else:
            lines.append(f"B/A: {comparison.ratio:.3g} by the best estimates; {ends}")
    notes = [_side_line(side) for side in sides]
    notes += [
        _OF_RATIO,
        _ONE_AFTER_THE_OTHER,
        "the report of one side: `loadbench report` with its folder, a or b, inside this one",
    ]
    return Document(
        title, [Text([comparison.conclusion]), Table(headers, rows, align, rank=ranks), Text(lines), Notes(notes)]
    )


def _side_line(side: SearchedSide) -> str:
    where = "the simulated server" if side.simulated else side.target or "its server"
    device = f", on {side.device}" if side.device else ""
    return f"{side.name.upper()}: {side.model or 'a model'} at {where}{device}"


def capacity_sides_plan(
    sides: tuple[Scenario, Scenario], requests: Sequence[Sequence[str]], *, verbose: bool = False
) -> Document:
    """The plan of `--dry-run`: how the time is split, and the search of each side. Nothing was sent to make it."""
    a, b = sides
    each = a.capacity.budget
    folder = (a.report.out or RESULTS) / f"<time>-{a.report.name}"
    time = f"{format_duration(each)} for each, {format_duration(2 * each)} in all, plus what the last responses take"
    said = [
        f"A is searched first, then B in the same way: {time}",
        f"saved in {folder}: a and b, a search each, and compare-capacity.json. The plan of A:",
    ]
    plan = capacity_plan_document(a, requests[0], verbose=verbose)
    first = [f"B: {line}" if not number else line for number, line in enumerate(requests[1])] if verbose else []
    return Document(
        "capacity of two sides, planned: nothing was sent", [Text(said), *plan.blocks, Notes(only_b(a, b)), Text(first)]
    )
