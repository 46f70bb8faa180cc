"""The run folders in a folder of results, and how people name one of them.

A run is named by its path, or by a word that is looked up in the folder of results: `last`, the name of its folder or a
beginning of it that no other has, or its `--name`, which stands for the latest run of that name. `~1` after any of the
last two kinds, or after `last`, is the run before that one.
"""

from __future__ import annotations

import difflib
import os
import re
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from loadbench.core.errors import BadInput
from loadbench.core.text import some
from loadbench.plan.settings import setting_of
from loadbench.results.folder import RESULTS
from loadbench.results.saved import FILES, has_pairs

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

LAST = "last"
_HINT = "`loadbench runs` lists them"
# As `RunFolder.create` names them; the number is that of a run that began in the same second.
_FOLDER = re.compile(r"(\d{8}T\d{6}Z)-(.+?)(?:-(\d+))?")
# Of files in a run folder, which people name in its place.
_SUFFIXES = frozenset(Path(name).suffix for name in FILES)
_BACK = re.compile(r"(.+)~(\d{1,6})")


class FoundRun(NamedTuple):
    """A run folder: the moment and the name in the folder's own name, or those of its file and the whole name."""

    path: Path
    began: datetime
    name: str


def results_folder(environment: Mapping[str, str]) -> Path:
    """Where runs are kept if nobody says otherwise."""
    return Path(environment.get(setting_of("report.out").variable) or RESULTS)


def is_named_like_a_run(name: str) -> bool:
    """Whether a folder of this name was made for a run."""
    return _FOLDER.fullmatch(name) is not None


def runs_in(results: Path) -> list[FoundRun]:
    """The run folders in a folder of results, the newest first; none if it cannot be read. No file is opened.

    Links are left out: they lead to what lies elsewhere. A folder that is called like a run is one, whatever is in it.
    """
    found = []
    with suppress(OSError), os.scandir(results) as scanned:
        entries = list(scanned)
        names = {entry.name for entry in entries}
        for entry in entries:
            if not entry.is_dir(follow_symlinks=False):
                continue
            named, path = _FOLDER.fullmatch(entry.name), Path(entry.path)
            began = None
            if named is not None:
                with suppress(ValueError):
                    began = datetime.strptime(named[1], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
            if began is not None and named is not None:
                # A number is that of a further run only beside the first one: else it belongs to the name, as in phi-4.
                is_further = named[3] is not None and f"{named[1]}-{named[2]}" in names
                name = named[2] if is_further or named[3] is None else f"{named[2]}-{named[3]}"
                found.append(((began, int(named[3]) if is_further else 0), FoundRun(path, began, name)))
            elif has_pairs(path) or any((path / file).is_file() for file in FILES):
                began = datetime.fromtimestamp(entry.stat(follow_symlinks=False).st_mtime, UTC)
                found.append(((began, 0), FoundRun(path, began, entry.name)))
    return [run for _, run in sorted(found, key=lambda pair: (pair[0], pair[1].path.name), reverse=True)]


def find_run(text: str, results: Path) -> Path:
    """The path of the run that a text names: a path that exists, or a word for a run in the folder of results.

    In `other/last` the folder is the one that is named. Raises `BadInput` for a word that no run has, or several.
    """
    path = Path(text)
    if not text or path.exists() or path.is_symlink():
        return path
    if (path.name != text and not path.parent.is_dir()) or path.suffix in _SUFFIXES:
        return path  # whoever reads it says what is wrong
    results, word = (results, text) if path.name == text else (path.parent, path.name)
    runs = runs_in(results)
    back = _BACK.fullmatch(word)
    word, steps = (back[1], int(back[2])) if back else (word, 0)
    named = runs if word == LAST else [run for run in runs if run.name == word]
    if not named and back is None:
        named = [run for run in runs if run.path.name.startswith(word)]
        if len(named) > 1:
            names = some([run.path.name for run in named], most=4)
            raise BadInput(f"{text}: {len(named)} runs in {results} begin like this: {names}", hint="write more of it")
    if steps < len(named):
        return named[steps].path
    if not runs:
        raise BadInput(f"{text}: no such run, and none in {results}", hint="name a run folder, or measure one first")
    if named:
        count = f"{len(named)} run{'s' if len(named) > 1 else ''}"
        kind = "in all" if word == LAST else f"of the name {word}"
        raise BadInput(f"{text}: {results} has only {count} {kind}", hint=_HINT)
    known = dict.fromkeys([LAST, *(run.name for run in runs), *(run.path.name for run in runs)])
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    raise BadInput(f"{text}: no such run in {results}", hint=f"did you mean {near[0]}? {_HINT}" if near else _HINT)


def names_of_runs(beginning: str, results: Path) -> Iterator[str]:
    """What completes the beginning of a run's name: `last`, names, folders."""
    runs = runs_in(results)
    words = dict.fromkeys([*([LAST] if runs else []), *(run.path.name for run in runs), *(run.name for run in runs)])
    return (word for word in words if word.startswith(beginning))
