"""The formats by name."""

from __future__ import annotations

from functools import partial
from importlib.resources import files
from typing import TYPE_CHECKING, Final, Unpack

from loadbench.report.render_markdown import render_markdown
from loadbench.report.render_text import render_text
from loadbench.report.run import run_document
from loadbench.results.run import to_json

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from loadbench.report.document import Document
    from loadbench.report.render_text import Look
    from loadbench.results.compare import Comparison
    from loadbench.results.grid import Grid
    from loadbench.results.quality import Quality
    from loadbench.results.run import Run

RENDERERS: Final[dict[str, Callable[[Document], str]]] = {"text": render_text, "markdown": render_markdown}


def renderers(**look: Unpack[Look]) -> dict[str, Callable[[Document], str]]:
    """Those for people, with text of this look."""
    return {**RENDERERS, "text": partial(render_text, **look)}


def render(run: Run, form: str, *, quality: Quality | None = None, **look: Unpack[Look]) -> str:
    """The run as `text` of this look, `markdown`, `line`, `csv`, `junit` or `json`; the first two with the quality
    of its responses."""
    if form in RENDERERS:
        return renderers(**look)[form](run_document(run, quality=quality))
    if form == "json":
        return to_json(run).decode()
    # A sweep shows text, and starts sooner without the rest.
    if form == "line":
        from loadbench.report.line import run_lines  # noqa: PLC0415

        return run_lines(run)
    from loadbench.report.csv import csv  # noqa: PLC0415
    from loadbench.report.junit import run_junit  # noqa: PLC0415

    return csv(run) if form == "csv" else run_junit(run)


def render_comparison(comparison: Comparison, form: str, *, undecided: str | None = None, **look: Unpack[Look]) -> str:
    """The comparison as `text` of this look, `markdown`, `line`, `junit` or `json`; `undecided` is what a gate
    counts as that could not be decided, as for the exit code."""
    from loadbench.report.compare import compare_document  # noqa: PLC0415 - a sweep starts sooner without it
    from loadbench.report.junit import compare_junit  # noqa: PLC0415

    if form == "markdown":
        # It is one of several parts of a build's page: its title has a level to match.
        return render_markdown(compare_document(comparison, undecided=undecided), level=3)
    if form == "json":
        return to_json(comparison).decode()
    if form == "line":
        from loadbench.report.line import comparison_line  # noqa: PLC0415

        return comparison_line(comparison)
    if form == "junit":
        return compare_junit(comparison, undecided=undecided)
    return render_text(compare_document(comparison, undecided=undecided), **look)


def render_grid(
    grid: Grid, runs: Mapping[int, Run], form: str, *, folder: Path | None = None, **look: Unpack[Look]
) -> str:
    """The grid as `text` of this look, `markdown`, `line`, `junit` or `json`; `runs` are those of its cells, and
    `folder` is its own."""
    from loadbench.report.grid import cell_lines, grid_document  # noqa: PLC0415 - a sweep starts sooner without it

    if form == "json":
        return to_json(grid).decode()
    if form == "line":
        return cell_lines(grid)
    if form == "junit":
        from loadbench.report.junit import grid_junit  # noqa: PLC0415

        return grid_junit(grid, runs)
    return renderers(**look)[form](grid_document(grid, folder, runs))


def schema_text() -> str:
    """The JSON Schema of `run.json`, as it ships with the package."""
    return files("loadbench.results").joinpath("run.schema.json").read_text(encoding="utf-8")
