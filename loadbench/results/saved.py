"""Saved runs for one side of a comparison.

A side is named by a run folder, its `run.json`, a folder of run folders, a pattern of any of these, or a baseline: one
file with what a later comparison needs of its runs, small enough to be committed with the code that it guards.

    loadbench.baseline/1   the first
"""

from __future__ import annotations

import glob
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import msgspec

from loadbench.core.errors import BadInput
from loadbench.results.capacity import FILE, SEVERAL_FILE, read_capacities
from loadbench.results.compare_capacity import FILE as COMPARED_FILE
from loadbench.results.compare_capacity import searches_in
from loadbench.results.folder import UNREADABLE, SchemaName, read_plain, read_run
from loadbench.results.grid import GRID_FILE, is_grid, read_grid
from loadbench.results.run import Run, to_json

if TYPE_CHECKING:
    from collections.abc import Sequence


# Files of a run folder that people may name in its place.
FILES = frozenset({"run.json", "report.md", "requests.jsonl", "histograms.hlog", "compare.json", "compare.md"}) | {
    FILE,
    SEVERAL_FILE,
    "capacity.md",
    GRID_FILE,
    "grid.md",
    COMPARED_FILE,
    "compare-capacity.md",
}
SCHEMA: Final = "loadbench.baseline/1"
_HINT = "name a run folder, its run.json, a folder of run folders, or a baseline"


class Baseline(msgspec.Struct, frozen=True, kw_only=True):
    """The runs of one side, without their histograms."""

    schema: Literal["loadbench.baseline/1"] = SCHEMA
    runs: list[Run]


def read_side(names: Sequence[str]) -> list[Run]:
    """The runs of a side in the given order; those of a folder in the order of their names.

    Raises `BadInput` if a name leads to no run.
    """
    runs = []
    for name in names:
        path = Path(name)
        paths = [path]
        if not name.strip():
            raise BadInput("a side has no name", hint=_HINT)
        if is_grid(path):
            cell = path / read_grid(path).cells[0].folder
            raise BadInput(f"{name}: is a grid of several sweeps", hint=f"name one of its cells, as in {cell}")
        if path.is_dir() and not (path / "run.json").is_file():
            paths = [file.parent for file in path.glob("*/run.json")]
        elif not path.exists() and glob.has_magic(name):
            # A pattern that the shell did not expand.
            paths = [Path(match) for match in glob.glob(name)]  # noqa: PTH207 - it may begin at the root
        if not paths:
            raise BadInput(f"{name}: no run there", hint=_HINT)
        for found in sorted(paths):
            runs += _read(found)
    return runs


def repeats_of(folder: Path, side: str) -> dict[str, Path]:
    """The folders of a side's runs, by the names of its repeats, in their order. A link leads to what is no part of
    this folder."""
    part = folder / side
    runs = [] if part.is_symlink() else [file.parent for file in part.glob("*/run.json")]
    runs = sorted((run for run in runs if not run.is_symlink()), key=lambda run: (len(run.name), run.name))
    return {run.name: run for run in runs}


def read_pairs(folder: Path) -> tuple[list[Run], list[Run]]:
    """The runs of a folder with a/ and b/, in pairs; only repeats that are complete on both sides."""
    a, b = repeats_of(folder, "a"), repeats_of(folder, "b")
    pairs = [(read_run(path), read_run(b[repeat])) for repeat, path in a.items() if repeat in b]
    whole = [(a, b) for a, b in pairs if a.complete and b.complete]
    if not whole:
        raise BadInput(f"{folder}: no repeat in it is complete on both sides", hint="measure it again")
    return [a for a, _ in whole], [b for _, b in whole]


def runs_of(path: Path) -> list[Run]:
    """The runs that a path names: one, those of a comparison or a grid, or those of a search of several models.

    Repeats of one side have one name. Raises `BadInput` where there is none that can be read.
    """
    folder = path if path.is_dir() else path.parent
    if has_pairs(folder):
        return [
            msgspec.structs.replace(run, name=re.sub(r"\d+$", "", run.name))
            for side in read_pairs(folder)
            for run in side
        ]
    if (folder / COMPARED_FILE).is_file():
        return [read_run(search) for search in searches_in(folder)]
    if (folder / SEVERAL_FILE).is_file():
        return [
            read_run(folder / name) for name in read_capacities(folder).folders.values() if (folder / name).exists()
        ]
    if is_grid(folder):
        cells = [folder / cell.folder for cell in read_grid(folder).cells]
        return [read_run(cell) for cell in cells if (cell / "run.json").is_file()]
    return [read_run(folder if path.name in FILES else path)]


def has_pairs(folder: Path) -> bool:
    """Whether a folder has runs of two sides that were measured in turns."""
    sides = [folder / side for side in ("a", "b")]
    return any(side.is_dir() and not side.is_symlink() and not (side / "run.json").exists() for side in sides)


def of_model(runs: Sequence[Run], model: str | None, *, side: str) -> list[Run]:
    """The runs with the levels of one model only, if one is named; raises `BadInput` if a run has none of it."""
    if model is None:
        return list(runs)
    filtered = [
        msgspec.structs.replace(run, levels=[level for level in run.levels if level.model == model]) for run in runs
    ]
    if not all(run.levels for run in filtered):
        known = ", ".join(sorted({level.model for run in runs for level in run.levels})) or "none"
        raise BadInput(f"--{side}-model {model}: not in every run of {side}", hint=f"its models: {known}")
    return filtered


def save_baseline(path: Path, runs: Sequence[Run]) -> None:
    """Write the runs into one file; raises `BadInput` if it cannot be written."""
    light = []
    for run in runs:
        levels = []
        for level in run.levels:
            metrics = {
                name: None if metric is None else msgspec.structs.replace(metric, hdr="")
                for name, metric in level.metrics.items()
            }
            levels.append(msgspec.structs.replace(level, metrics=metrics))
        light.append(msgspec.structs.replace(run, levels=levels))
    try:
        path.write_bytes(to_json(Baseline(runs=light)))
    except OSError as error:
        raise BadInput(
            f"--save-baseline {path}: {error.strerror or error}", hint="name a file that can be written"
        ) from None


def _read(path: Path) -> list[Run]:
    """The run of a path, or all runs of a baseline."""
    if not path.is_file():
        return [read_run(path)]
    try:
        raw = read_plain(path, named=True)
        if msgspec.json.decode(raw, type=SchemaName).schema != SCHEMA:
            return [read_run(path)]
        runs = msgspec.json.decode(raw, type=Baseline).runs
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror or error}", hint=_HINT) from None
    except UNREADABLE as error:
        raise BadInput(f"{path}: neither a run nor a baseline: {error}", hint=_HINT) from None
    if not runs:
        raise BadInput(f"{path}: a baseline without runs", hint="save it again")
    return runs
