"""How commands take the name of a run: a path, `last`, `last~1`, a unique beginning of a folder's name, or a name."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from loadbench.core.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Sequence

    RunType = click.ParamType[Path]  # newer versions say of which type
else:
    RunType = click.ParamType


class RunName(RunType):
    """The name of a run, as the path that it stands for. Where it may be `other` than a run, a file that is not there,
    a word that names no run stays as it is."""

    name = "run"

    def __init__(self, *, other: bool = False) -> None:
        self._other = other

    def convert(self, value: Any, _param: click.Parameter | None, _ctx: click.Context | None) -> Path:
        """Raises `BadInput` for a word that names no run, or several."""
        from loadbench.results.run_list import find_run, results_folder  # noqa: PLC0415 - the help needs nothing of it

        if isinstance(value, Path):
            return value
        try:
            return find_run(value, results_folder(os.environ))
        except BadInput:
            if self._other and value.partition("~")[0] != "last":
                return Path(value)
            raise

    def shell_complete(self, _ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """The runs in the folder of results, and files."""
        from loadbench.results.run_list import names_of_runs, results_folder  # noqa: PLC0415

        names = [CompletionItem(name) for name in names_of_runs(incomplete, results_folder(os.environ))]
        return names or [CompletionItem(incomplete, type="file")]


RUN = RunName()
RUN_OR_FILE = RunName(other=True)


def run_paths(names: Sequence[str]) -> list[str]:
    """The runs that these name, as paths: for arguments that may be something else, such as a URL or a pattern."""
    return [
        name if not name.strip() or any(letter in name for letter in "*?[") else str(RUN.convert(name, None, None))
        for name in names
    ]
