"""The formats by name."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING

from loadbench.report.csv import csv
from loadbench.report.junit import run_junit
from loadbench.report.markdown import markdown
from loadbench.report.text import text
from loadbench.results.run import to_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from loadbench.results.quality import Quality
    from loadbench.results.run import Run

_FORMATS: dict[str, Callable[[Run], str]] = {
    "text": text,
    "markdown": markdown,
    "csv": csv,
    "junit": run_junit,
    "json": lambda run: to_json(run).decode(),
}


_WITH_QUALITY: dict[str, Callable[[Run, Quality], str]] = {
    "text": lambda run, quality: text(run, quality=quality),
    "markdown": lambda run, quality: markdown(run, quality=quality),
}


def render(run: Run, form: str, *, quality: Quality | None = None) -> str:
    """The run in a format: `text`, `markdown`, `csv`, `junit` or `json`; for people with the quality of its answers."""
    if quality is not None and form in _WITH_QUALITY:
        return _WITH_QUALITY[form](run, quality)
    return _FORMATS[form](run)


def schema_text() -> str:
    """The JSON Schema of `run.json`, as it ships with the package."""
    return files("loadbench.results").joinpath("run.schema.json").read_text(encoding="utf-8")
