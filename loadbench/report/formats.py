"""The formats by name."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING

from loadbench.report.csv import csv
from loadbench.report.markdown import markdown
from loadbench.report.text import text
from loadbench.results.run import to_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from loadbench.results.run import Run

_FORMATS: dict[str, Callable[[Run], str]] = {
    "text": text,
    "markdown": markdown,
    "csv": csv,
    "json": lambda run: to_json(run).decode(),
}


def render(run: Run, form: str) -> str:
    """The run in a format: `text`, `markdown`, `csv` or `json`."""
    return _FORMATS[form](run)


def schema_text() -> str:
    """The JSON Schema of `run.json`, as it ships with the package."""
    return files("loadbench.results").joinpath("run.schema.json").read_text(encoding="utf-8")
