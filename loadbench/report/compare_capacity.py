"""The report of the capacity searches of two sides: how many users to plan with on each, and their ratio."""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import PurePath
from typing import TYPE_CHECKING

from loadbench.core.units import format_duration
from loadbench.report.capacity import amount_text, claim_texts, limit_name, next_budget, range_text
from loadbench.report.capacity_plan import capacity_plan_document, so_far
from loadbench.report.compare_plan import only_b
from loadbench.report.document import Block, Document, Notes, Table, Text
from loadbench.report.values import significant
from loadbench.results.folder import RESULTS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from loadbench.plan.scenario import Scenario
    from loadbench.results.capacity import Capacity
    from loadbench.results.compare_capacity import CapacityComparison, SearchedSide

_OF_RATIO = (
    "the ratio lies between the quotients of the ends if both ranges hold: its confidence is less than that of either"
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
                "-" if search is None or answer is None else limit_name(search),
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
        unlimited = [side.name.upper() for side in sides if side.capacity and side.capacity.sees_no_limit]
        open_ended = sorted({*open_ended, *unlimited})
        if open_ended:
            # What was reached is no estimate of a limit, so that its quotient is none either.
            lines.append(
                f"B/A: {ends}; there is no best estimate: the limit of {' and '.join(open_ended)} was not reached"
            )
        else:
            lines.append(f"B/A: {comparison.ratio:.3g} by the best estimates; {ends}")
    command = resume_command(comparison)
    if command:
        lines.append(f"To go on: `{command}`. A side that has its answer is not searched again.")
    notes = [_side_line(side) for side in sides]
    notes.append("plan with: the low end of the range of the answer; - where the search has no answer yet")
    if comparison.ratio is not None:
        notes += [_OF_RATIO, _ONE_AFTER_THE_OTHER]
    places = [shlex.quote(side.capacity.run) for side in sides if side.capacity is not None and side.capacity.run]
    if places:
        notes.append(f"the report of one side: {' or '.join(f'`loadbench report {place}`' for place in places)}")
    return Document(
        title, [Text([comparison.conclusion]), Table(headers, rows, align, rank=ranks), Text(lines), Notes(notes)]
    )


def resume_command(comparison: CapacityComparison) -> str:
    """The command that goes on with the sides that have no answer; empty where both have one, or one was not begun."""
    searches = [side.capacity for side in (comparison.a, comparison.b) if side.capacity is not None]
    unfinished = [search for search in searches if search.status in {"inconclusive", "interrupted"}]
    if len(searches) < len((comparison.a, comparison.b)) or not unfinished or not unfinished[0].run:
        return ""
    # Each side has half of the time.
    longest = max(unfinished, key=lambda search: search.spent_s + (search.needed.seconds if search.needed else 0.0))
    folder = shlex.quote(str(PurePath(longest.run).parent))
    return f"loadbench compare --capacity --resume {folder} --budget {next_budget(longest, times=2)}"


def _side_line(side: SearchedSide) -> str:
    where = "the simulated server" if side.simulated else side.target or "its server"
    device = f", on {side.device}" if side.device else ""
    by = f"; load from {side.load_from}" if side.load_from else ""
    return f"{side.name.upper()}: {side.model or 'a model'} at {where}{device}{by}"


def _of_both(rows: Sequence[Sequence[str]], planned: Scenario, sides: tuple[Scenario, Scenario]) -> list[list[str]]:
    """The rows of a plan's settings as they were given: the budget is for both, and a target that only one side has is
    from --a or --b."""
    targets, name = [side.effective()["target"] for side in sides], "a" if planned is sides[0] else "b"
    shown = []
    for key, value, origin in rows:
        section, _, word = key.partition(".")
        if key == "capacity.budget":
            shown.append([key, f"{format_duration(2 * planned.capacity.budget)}, half of it for each side", origin])
        elif section == "target" and origin.startswith("flag") and targets[0].get(word) != targets[1].get(word):
            shown.append([key, value, f"flag --{name}"])
        else:
            shown.append([key, value, origin])
    return shown


def capacity_sides_plan(
    sides: tuple[Scenario, Scenario],
    requests: Sequence[Sequence[str]],
    *,
    verbose: bool = False,
    resume: Path | None = None,
    earlier: Sequence[tuple[Capacity | None, bool]] = ((None, False), (None, False)),
) -> Document:
    """The plan of `--dry-run`: how the time is split, and the search of each side. Nothing was sent to make it.

    Of sides that are continued in the folder `resume`, `earlier` has each side's search, if there is one, and whether
    it has its answer.
    """
    a, b = sides
    each = a.capacity.budget
    folder = resume or (a.report.out or RESULTS) / f"<time>-{a.report.name}"
    time = f"{format_duration(each)} for each, {format_duration(2 * each)} in all, plus what the last responses take"
    said = [f"A is searched first, then B in the same way: {time}"]
    if resume is not None:
        said = [f"resumes {resume}; {time}"]
        for name, (search, done) in zip("AB", earlier, strict=True):
            text = "not begun yet" if search is None else so_far(search)
            said.append(
                f"{name}: {text}; it {'has its answer and is not searched again' if done else 'is searched now'}"
            )
    first, (planned, number) = "A", (a, 0)
    if earlier[0][1] and not earlier[1][1]:
        first, (planned, number) = "B", (b, 1)
    said.append(f"saved in {folder}: a and b, a search each, and compare-capacity.json. The plan of {first}:")
    plan = capacity_plan_document(planned, requests[number], verbose=verbose)
    blocks: list[Block] = []
    for block in plan.blocks:
        if isinstance(block, Table) and block.headers[:1] == ("setting",):
            blocks.append(dataclasses.replace(block, rows=_of_both(block.rows, planned, sides)))
        elif isinstance(block, Table) and not block.headers:
            blocks.append(dataclasses.replace(block, rows=[row for row in block.rows if row[0] != "saved in"]))
        else:
            blocks.append(block)
    lines = [f"B: {line}" if not at else line for at, line in enumerate(requests[1 - number])] if verbose else []
    return Document(
        "capacity of two sides, planned: nothing was sent", [Text(said), Notes(only_b(a, b)), *blocks, Text(lines)]
    )
