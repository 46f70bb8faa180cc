"""The formats by name."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING, Final

from loadbench.report.compare import compare_document
from loadbench.report.csv import csv
from loadbench.report.junit import compare_junit, run_junit
from loadbench.report.render_markdown import render_markdown
from loadbench.report.render_text import render_text
from loadbench.report.run import run_document
from loadbench.results.run import to_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from loadbench.report.document import Document
    from loadbench.results.compare import Comparison
    from loadbench.results.quality import Quality
    from loadbench.results.run import Run

RENDERERS: Final[dict[str, Callable[[Document], str]]] = {"text": render_text, "markdown": render_markdown}


def render(run: Run, form: str, *, quality: Quality | None = None) -> str:
    """The run as `text`, `markdown`, `csv`, `junit` or `json`; the first two with the quality of its responses."""
    if form in RENDERERS:
        return RENDERERS[form](run_document(run, quality=quality))
    if form == "json":
        return to_json(run).decode()
    return csv(run) if form == "csv" else run_junit(run)


def render_comparison(comparison: Comparison, form: str) -> str:
    """The comparison as `text`, `markdown`, `junit` or `json`."""
    if form == "markdown":
        # It is one of several parts of a build's page: its title has a level to match.
        return render_markdown(compare_document(comparison), level=3)
    if form == "json":
        return to_json(comparison).decode()
    return compare_junit(comparison) if form == "junit" else render_text(compare_document(comparison))


def schema_text() -> str:
    """The JSON Schema of `run.json`, as it ships with the package."""
    return files("loadbench.results").joinpath("run.schema.json").read_text(encoding="utf-8")
