"""What a command shows of runs in the formats that other programs read: of one that was just measured, and of a folder
of one run, of both sides of a comparison, or of a search of several models.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, NamedTuple

from loadbench.analyze.level.by_second import by_second
from loadbench.analyze.level.rebuild import run_in
from loadbench.core.errors import BadInput
from loadbench.report.csv import csv_of_several
from loadbench.report.hgrm import hgrm
from loadbench.report.llmd import llmd
from loadbench.results.capacity import SEVERAL_FILE, read_capacities
from loadbench.results.compare_capacity import FILE as COMPARED_FILE
from loadbench.results.compare_capacity import searches_in
from loadbench.results.folder import read_run
from loadbench.results.grid import is_grid, read_grid
from loadbench.results.hlog import LoggedRun, hlog_of
from loadbench.results.requests import read_requests
from loadbench.results.saved import FILES, has_pairs, repeats_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from loadbench.results.run import Run

# The formats of data, which have each run as it is, whatever its command made of it.
DATA_FORMATS: Final = frozenset({"csv", "hlog", "hgrm", "llmd"})
# Of these, those that are one file for each distribution or level.
SEVERAL_FILES: Final = frozenset({"hgrm", "llmd"})


class Shown(NamedTuple):
    """A run, the folder that has its requests, and what tells it from those that are shown with it."""

    run: Run
    folder: Path | None = None
    facts: Mapping[str, str] = {}
    values: Mapping[str, str] = {}  # of a grid's cell, which a table has in columns of their own

    @property
    def prefix(self) -> str:
        """Before the name of each of its files."""
        return "".join(f"{value}-" for value in self.facts.values())


def runs_at(path: Path) -> list[Shown]:
    """The runs that a path names: a folder of any command, or a file; raises `BadInput` for what cannot be read."""
    folder = path if path.is_dir() else path.parent
    if not path.is_dir() and path.name not in FILES:
        return [Shown(read_run(path), folder)]
    if has_pairs(folder):
        return [
            Shown(run_in(run), run, {"side": side, "repeat": repeat})
            for side in ("a", "b")
            for repeat, run in repeats_of(folder, side).items()
        ]
    if (folder / COMPARED_FILE).is_file():
        return [Shown(run_in(search), search, {"side": search.name}) for search in searches_in(folder)]
    if (folder / SEVERAL_FILE).is_file():
        names = read_capacities(folder).folders.values()
        searches = [folder / name for name in names if (folder / name / "run.json").is_file()]
        return [Shown(run_in(search), search, {"search": search.name}) for search in searches]
    if is_grid(folder):
        cells = [(folder / cell.folder, cell) for cell in read_grid(folder).cells]
        measured = [(inner, cell) for inner, cell in cells if (inner / "run.json").is_file()]
        return [Shown(run_in(inner), inner, {"cell": cell.folder}, cell.values) for inner, cell in measured]
    return [Shown(run_in(folder), folder)]


def runs_of_searches(folder: Path) -> dict[str, Run]:
    """By model, the run of each search in a folder of several."""
    by_name = {one.facts["search"]: one.run for one in runs_at(folder)}
    folders = read_capacities(folder).folders
    return {model: by_name[name] for model, name in folders.items() if name in by_name}


def pairs_shown(a: Sequence[Run], b: Sequence[Run]) -> list[Shown]:
    """Runs of two sides, wherever they are from."""
    return [
        Shown(run, None, {"side": side, "repeat": f"{repeat:02}"})
        for side, runs in (("a", a), ("b", b))
        for repeat, run in enumerate(runs, 1)
    ]


def data_text(form: str, shown: Sequence[Shown], *, place: str) -> str:
    """The runs in one of `DATA_FORMATS`; the files of a format that has several follow each other.

    `place` is where they are, for the messages of `BadInput`: there is nothing that the format could have.
    """
    if form == "csv":
        return csv_of_several(
            [(one.run, {**one.facts, **{f"vary_{name}": text for name, text in one.values.items()}}) for one in shown]
        )
    if form == "hlog":
        return _log(shown, place)
    # Documents of JSON one after the other are a stream of YAML.
    return ("\n" if form == "hgrm" else "---\n").join(data_files(form, shown, place=place).values())


def data_files(form: str, shown: Sequence[Shown], *, place: str) -> dict[str, str]:
    """The files of a format that has several, by name; raises `BadInput` if there is nothing for them."""
    files: dict[str, str] = {}
    for one in shown:
        files |= hgrm(one.run, prefix=one.prefix) if form == "hgrm" else llmd(one.run, prefix=one.prefix)
    if not files:
        what = "no level has a distribution" if form == "hgrm" else "the run has no level"
        raise BadInput(f"{place}: {what}", hint="name a run with requests that ended ok")
    return files


def _log(shown: Sequence[Shown], place: str) -> str:
    """The log of the runs, second by second where their requests are all there."""
    levels = [level for one in shown for level in one.run.levels]
    if not any(metric is not None and metric.hdr for level in levels for metric in level.metrics.values()):
        raise BadInput(f"{place}: no level has a distribution", hint="name a run with requests that ended ok")
    logged = []
    for run, folder, facts, _ in shown:
        try:
            started_at = datetime.fromisoformat(run.started_at).astimezone(UTC)
        except (ValueError, OverflowError):
            raise BadInput(
                f"{place}: its run has no time of start: {run.started_at!r}", hint="restore it from a copy"
            ) from None
        requests = None if folder is None else folder / "requests.jsonl"
        parts = (
            by_second(run.levels, read_requests(requests))
            if requests is not None and requests.is_file() and requests.stat().st_size
            else {}
        )
        logged.append(LoggedRun(run, started_at, parts, "".join(f"{value}:" for value in facts.values())))
    return hlog_of(logged)
