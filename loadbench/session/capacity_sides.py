"""The capacity searches of the two sides of a comparison, one after the other, each with half of the time.

results/<UTC time>-<name>/
    a/  b/                 a search each, as `loadbench capacity` keeps it
    compare-capacity.json  both, and what is known about their ratio; compare-capacity.md is its report

Only one side's server is in use at a time: where loadbench starts the servers, the first has ended before the second.
"""

from __future__ import annotations

import dataclasses
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from loadbench.analyze.capacity.compare_sides import compare_searches, searched_side
from loadbench.analyze.capacity.exit_code import exit_code_of
from loadbench.core import event_loop
from loadbench.core.alongside import run_alongside
from loadbench.core.errors import ExitCode, LoadbenchError, worst_of
from loadbench.plan.pairs import SIDES
from loadbench.report.compare_capacity import capacity_comparison_document
from loadbench.report.render_markdown import render_markdown
from loadbench.results.capacity import FILE as SEARCH
from loadbench.results.capacity import read_capacity
from loadbench.results.compare_capacity import FILE
from loadbench.results.folder import RunFolder, read_run
from loadbench.results.run import to_json
from loadbench.session.capacity import Resumed, check_search, search_models
from loadbench.session.consent import confirm_command
from loadbench.session.run_writer import new_folder

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from loadbench.live.progress import Progress
    from loadbench.plan.scenario import Scenario
    from loadbench.results.capacity import Capacity
    from loadbench.results.compare_capacity import CapacityComparison
    from loadbench.results.run import Run

Sides = tuple["Scenario", "Scenario"]


def split_budget(sides: Sides) -> Sides:
    """Each side with half of the time."""
    a, b = (
        dataclasses.replace(side, capacity=dataclasses.replace(side.capacity, budget=side.capacity.budget // 2))
        for side in sides
    )
    return a, b


def check_searches(sides: Sides, environment: Mapping[str, str]) -> None:
    """Refuse what cannot be searched, before anything starts; raises `BadInput`."""
    for name, side in zip(SIDES, sides, strict=True):
        with _of_side(name):
            check_search(side, environment)


@dataclass(slots=True)
class SearchedSides:
    """The searches as far as they have come: by side, the capacity and its run, or why there is none."""

    folder: RunFolder
    searches: dict[str, tuple[Capacity, Run]] = field(default_factory=dict)
    problems: dict[str, LoadbenchError] = field(default_factory=dict)
    codes: set[ExitCode] = field(default_factory=set)
    stopped: bool = False

    @property
    def result(self) -> CapacityComparison:
        """What `--json` prints."""
        made = []
        for name in SIDES:
            capacity, run = self.searches.get(name, (None, None))
            problem = str(self.problems[name].message) if name in self.problems else ""
            made.append(searched_side(name, capacity, run, problem))
        a, b = made
        currencies = {
            level.cost.currency for _, run in self.searches.values() for level in run.levels if level.cost is not None
        }
        whole = len(self.searches) == len(SIDES) and all(search.complete for search, _ in self.searches.values())
        currency = next(iter(currencies)) if len(currencies) == 1 else None
        return compare_searches(a, b, currency=currency, complete=whole)

    def save(self) -> None:
        """Keep both searches and what follows from them."""
        result = self.result
        self.folder.save(FILE, to_json(result))
        self.folder.save("compare-capacity.md", render_markdown(capacity_comparison_document(result)).encode())

    def exit_code(self) -> ExitCode:
        """How the process ends: the worst of the searches' codes."""
        codes = {*self.codes, *(error.exit_code for error in self.problems.values())}
        return worst_of(codes) or self.folder.place.exit_code


def search_sides(
    sides: Sides, environment: Mapping[str, str], progress: Progress, *, resume: Path | None = None
) -> SearchedSides:
    """Search A, then B; those in the folder `resume` that have an answer are not searched again.

    Raises `LoadbenchError` if the first side cannot be searched: nothing is known then.
    """

    async def search() -> SearchedSides:
        return await run_alongside(work, progress.run)

    async def work() -> SearchedSides:
        confirm_command(
            *(side for side, (_, is_done) in zip(sides, searched_before(resume, sides), strict=True) if not is_done),
            say=progress.say,
        )
        folder = new_folder(sides[0], datetime.now(UTC), progress.say) if resume is None else RunFolder(resume)
        both = SearchedSides(folder)
        for name, scenario in zip(SIDES, sides, strict=True):
            path = folder.path / name
            begun = (path / SEARCH).is_file()
            if begun and _has_answer(read_capacity(path), scenario):
                before = read_capacity(path)
                both.searches[name] = before, read_run(path)
                both.codes.add(exit_code_of(before, undecided=scenario.slo.undecided))
                progress.say(f"{name.upper()}: was searched before")
                continue
            progress.say(f"side {name.upper()}")
            try:
                with _of_side(name):
                    found = await search_models(
                        scenario,
                        environment,
                        progress,
                        Resumed.read_all(path, scenario) if begun else {},
                        path if begun else None,
                        None if begun else folder.inside(name),
                        confirmed=True,
                    )
            except LoadbenchError as error:
                both.problems[name] = error
                both.save()
                if not both.searches:
                    raise
                progress.say(f"error: {error.message}")
                continue
            (writer,) = found.writers
            both.searches[name] = writer.capacity, writer.run
            both.codes.add(found.exit_code())
            both.stopped = found.stopped and not found.is_gone  # one whose server ended says nothing about the other
            both.save()
            if both.stopped:
                break
        both.save()
        folder.place.release()
        return both

    return event_loop.run(search)


def searched_before(folder: Path | None, sides: Sides) -> list[tuple[Capacity | None, bool]]:
    """Of each side in the folder that is continued, its search, if it was begun, and whether it has its answer."""
    before: list[tuple[Capacity | None, bool]] = []
    for name, scenario in zip(SIDES, sides, strict=True):
        if folder is None or not (folder / name / SEARCH).is_file():
            before.append((None, False))
            continue
        search = read_capacity(folder / name)
        before.append((search, _has_answer(search, scenario)))
    return before


def _has_answer(search: Capacity, scenario: Scenario) -> bool:
    """Whether a search needs no more time for what is asked now."""
    required = scenario.capacity.require
    found = search.answer is not None and (required == "likely" or search.answer.strength == "proven")
    return search.complete and (search.status in {"none", "at_least"} or (search.status == "found" and found))


@contextmanager
def _of_side(name: str) -> Iterator[None]:
    """Errors inside are of this side."""
    try:
        yield
    except LoadbenchError as error:
        error.message = f"{name.upper()}: {error.message}"
        raise
