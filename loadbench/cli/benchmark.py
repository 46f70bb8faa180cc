"""The workshop's benchmark, put together: a sweep of one user, then its files beside the run's own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from loadbench.analyze.level.workshop_stats import model_rounds
from loadbench.core.errors import BadInput
from loadbench.report.run import equality_notes
from loadbench.report.workshop import stable_json, workshop_csv, workshop_json, workshop_markdown, workshop_text
from loadbench.results.folder import RunFolder, read_run
from loadbench.results.requests import read_requests

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from loadbench.core.errors import ExitCode
    from loadbench.plan.scenario import Scenario

# As the workshop's exporter names them, in the run folder.
_NAME = "benchmark_report"


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """Which shape the JSON has, and further places for the files by suffix."""

    shape: str
    first_token: bool
    files: Mapping[str, Path | None]


def run_benchmark(
    scenario: Scenario, export: Export, *, environment: Mapping[str, str], as_json: bool, quiet: bool, live: bool
) -> ExitCode:
    """Measure, export and show; returns the exit code."""
    from loadbench.session.setup import measured  # noqa: PLC0415 - an export needs nothing of it

    keeper = measured(scenario, environment=environment, quiet=quiet, live=live)
    export_run(keeper.folder.path, export, as_json=as_json)
    keeper.say(f"kept in {keeper.folder.path}")
    return keeper.exit_code()


def export_run(path: Path, export: Export, *, as_json: bool) -> None:
    """Write the files of a run into its folder and wherever else they are wanted, and show the table or the JSON."""
    folder = path if path.is_dir() else path.parent
    run, requests = read_run(path), list(read_requests(folder / "requests.jsonl"))
    rows = model_rounds(run, requests)
    made = {
        "json": stable_json(run, rows, requests)
        if export.shape == "stable"
        else workshop_json(rows, export.shape, first_token=export.first_token),
        "md": workshop_markdown(run, rows, first_token=export.first_token),
        "csv": workshop_csv(rows, first_token=export.first_token),
    }
    for suffix, content in made.items():
        RunFolder(folder).write(f"{_NAME}.{suffix}", content.encode())
        _write(export.files.get(suffix), content)
    if as_json:
        click.echo(made["json"].encode(), nl=False)
        return
    click.echo(workshop_text(run, rows, first_token=export.first_token), nl=False)
    for note in equality_notes(run.outputs or ()):
        click.echo(note)


def _write(path: Path | None, content: str) -> None:
    if path is None:
        return
    try:
        path.write_text(content, encoding="utf-8", newline="\n")
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror or error}", hint="name a file that can be written") from None
