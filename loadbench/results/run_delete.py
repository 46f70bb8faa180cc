"""Deletes run folders, and nothing else: a folder goes only if all that is in it was written by loadbench."""

from __future__ import annotations

import os
import re
import shutil
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from loadbench.core.errors import BadInput
from loadbench.core.text import some
from loadbench.results.append_log import is_run_being_written
from loadbench.results.grid import GRID_FILE, is_grid
from loadbench.results.quality import ANNOTATION_FILE, QUALITY_FILE
from loadbench.results.requests import SET_ASIDE
from loadbench.results.run_list import is_named_like_a_run
from loadbench.results.run_summary import LABELS_FILE
from loadbench.results.saved import FILES, has_pairs

if TYPE_CHECKING:
    from collections.abc import Iterator

# What loadbench writes to run folders; a file is replaced by way of a draft, which a kill may leave.
_OURS = FILES | {ANNOTATION_FILE, QUALITY_FILE, LABELS_FILE, SET_ASIDE, "telemetry.jsonl", ".probe"}
_OURS_TOO = re.compile(r"benchmark_report\.(json|md|csv)|report\.html|(compare|grid)\.svg")
# A folder that has one of these is that of a run; reports alone are none.
_OF_A_RUN = (
    *("run.json", "requests.jsonl", "capacity.json", "capacities.json", "compare.json", "compare-capacity.json"),
    GRID_FILE,
)
_DRAFT = re.compile(r"\.(.+)\.part")


def own_folder(path: Path) -> None:
    """Raise `BadInput` for what is not the folder of one run."""
    if path.is_symlink() or not path.is_dir():
        what = "a link" if path.is_symlink() else "a file" if path.exists() else "not there"
        raise BadInput(f"{path}: is {what}", hint="name a run folder; `loadbench runs` lists them")
    has_files = has_pairs(path) or any((path / name).is_file() for name in _OF_A_RUN)
    inner = sorted(entry.name for entry in path.iterdir() if entry.is_dir() and is_named_like_a_run(entry.name))
    if inner and not (path / "capacities.json").is_file() and not is_grid(path):
        raise BadInput(f"{path}: has runs in it, as {inner[0]}", hint="name these; `loadbench runs` lists them")
    if not has_files and not (is_named_like_a_run(path.name) and not any(path.iterdir())):
        raise BadInput(f"{path}: is no run folder", hint="name one; `loadbench runs` lists them")


class Deletion:
    """A run folder that may be deleted, with the number of its `files` and their size.

    Raises `BadInput` for one that may not: somebody's own files or links are in it, or the run is being measured.
    """

    def __init__(self, path: Path) -> None:
        own_folder(path)
        self.path = path
        foreign, self.files, self.size_bytes = [], 0, 0
        for entry in _entries(path):
            about = entry.stat(follow_symlinks=False)
            if stat.S_ISDIR(about.st_mode):
                continue
            draft = _DRAFT.fullmatch(entry.name)
            name = draft[1] if draft else entry.name
            if not stat.S_ISREG(about.st_mode) or not (name in _OURS or _OURS_TOO.fullmatch(name)):
                foreign.append(os.path.relpath(entry.path, path))
            self.files += 1
            self.size_bytes += about.st_size
        if foreign:
            hint = "move them elsewhere, or delete the folder yourself"
            raise BadInput(
                f"{path}: has files that loadbench did not write: {some(sorted(foreign), most=4)}", hint=hint
            )
        self._refuse_written()

    def _refuse_written(self) -> None:
        if is_run_being_written(self.path):
            raise BadInput(f"{self.path}: another loadbench is writing this run", hint="wait until it ends, or stop it")

    def carry_out(self) -> None:
        """Delete the folder. Raises `BadInput` if it is being measured by now, or cannot be deleted."""
        self._refuse_written()
        try:
            shutil.rmtree(self.path)
        except OSError as error:
            raise BadInput(
                f"{error.filename or self.path}: {error.strerror or error}", hint="delete it yourself"
            ) from None


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    """All that is in a folder and its folders; links are not followed."""
    with os.scandir(folder) as entries:
        for entry in entries:
            yield entry
            if entry.is_dir(follow_symlinks=False):
                yield from _entries(Path(entry.path))
