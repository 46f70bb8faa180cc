"""`loadbench sweep`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from loadbench.cli.measuring import (
    check_report,
    data_or_page,
    finish,
    look,
    print_document,
    progress_line,
    refuse_wide,
    report_option,
    resume_option,
    run_options,
    say_data_set,
    say_trace,
    say_unused,
    settings_of_resumed,
)
from loadbench.cli.options import ScenarioCommand, scenario_argument, setting_flags, setting_options

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from loadbench.plan.scenario import Scenario


@click.command(
    cls=ScenarioCommand,
    examples=(
        "loadbench sweep --url http://127.0.0.1:8080/v1",
        "loadbench sweep --url http://127.0.0.1:8080/v1 --users 1,4,16 --duration 30s --slo 'ttft_p95<1s'",
        "loadbench sweep --url http://127.0.0.1:8080/v1 --vary input_tokens=128,1024,8192 --budget 20m",
        "loadbench sweep --users 1,2 --requests 20 --json   # the simulated server",
    ),
)
@scenario_argument
@setting_options("sweep")
@resume_option
@report_option
@run_options(json="run.json", dry_run="Show the plan: requests, tokens, time, what is saved.")
def command(scenario: Path | None, **options: Any) -> None:
    """Measure a server at rising load, level by level.

    SCENARIO is a TOML or JSON file; `loadbench scenarios` lists some. Each setting can also be a flag or an environment
    variable (LOADBENCH_USERS for --users). Precedence: flag, environment variable, scenario file. Without --url,
    loadbench measures its simulated server.

    With --vary every combination of values is a cell of a grid, which is swept by itself and kept in a folder inside
    the grid's; a cell that fails is kept with its error, and the others go on.

    Exit codes: of a grid the worst of its cells' codes; 5 if the budget was too short for some.
    """
    from loadbench.plan.cells import number_of_cells  # noqa: PLC0415 - the help needs nothing of it
    from loadbench.plan.sources import resolve  # noqa: PLC0415

    before = settings_of_resumed(options["resume"], "sweep", file=scenario)
    given = {"flags": setting_flags("sweep", options), "environment": os.environ, "file": scenario, **before}
    first = resolve(**given)
    if first.grid.vary is None:
        measure(first, **options)
    else:
        further = range(1, number_of_cells(first.grid.vary))
        measure_grid([first, *(resolve(**given, cell=cell) for cell in further)], **options)


def measure(
    scenario: Scenario,
    *,
    resume: Path | None,
    report: Sequence[Path],
    form: str,
    quiet: bool,
    no_live: bool,
    wide: bool,
    dry_run: bool,
    verbose: bool,
    **_: Any,
) -> None:
    """Run a sweep of the scenario, print its report, and leave with its exit code; or print the plan."""
    progress = progress_line(quiet=quiet or dry_run, no_live=no_live)
    from loadbench.report.formats import render  # noqa: PLC0415
    from loadbench.report.pages import page_of  # noqa: PLC0415
    from loadbench.report.shown import Shown  # noqa: PLC0415
    from loadbench.session.resume import in_its_folder, whole_levels  # noqa: PLC0415
    from loadbench.session.setup import check  # noqa: PLC0415
    from loadbench.session.sweep import run_sweep  # noqa: PLC0415

    refuse_wide(form, wide=wide)
    scenario = in_its_folder(scenario, resume)
    check(scenario, os.environ)
    check_report(report)
    before = None if resume is None else whole_levels(resume, scenario)
    if dry_run:
        from loadbench.report.plan import plan_document  # noqa: PLC0415
        from loadbench.session.sample_request import sample_request  # noqa: PLC0415

        request = sample_request(scenario, os.environ)
        plan = plan_document(scenario, request, verbose=verbose, resume=resume, before=before)
        print_document(plan, wide=wide)
        return
    say_unused(scenario)
    say_data_set(scenario)
    say_trace(scenario, progress)
    writer = run_sweep(scenario, os.environ, progress, resume=resume, before=before)
    progress.close()
    folder = writer.folder.path

    def content(form: str, file: Path | None) -> str:
        data = data_or_page(form, lambda: [Shown(writer.run, folder)], lambda: page_of([folder]))
        return render(writer.run, form, **look(wide=wide, file=file)) if data is None else data

    finish(content, writer.folder.place, writer.exit_code, form=form, quiet=quiet, report=report)


def measure_grid(
    scenarios: Sequence[Scenario],
    *,
    resume: Path | None,
    report: Sequence[Path],
    form: str,
    quiet: bool,
    no_live: bool,
    wide: bool,
    dry_run: bool,
    verbose: bool,
    **_: Any,
) -> None:
    """Sweep each of these cells, print the report of the grid, and leave with its exit code; or print the plan."""
    progress = progress_line(quiet=quiet or dry_run, no_live=no_live)
    from loadbench.plan.grid import planned_cells  # noqa: PLC0415
    from loadbench.report.formats import render_grid  # noqa: PLC0415
    from loadbench.report.pages import page_of  # noqa: PLC0415
    from loadbench.report.shown import runs_at  # noqa: PLC0415
    from loadbench.session.grid import check_grid, run_grid  # noqa: PLC0415
    from loadbench.session.resume import in_its_folder  # noqa: PLC0415

    refuse_wide(form, wide=wide)
    base, *_others = scenarios = [in_its_folder(scenario, resume) for scenario in scenarios]
    cells = planned_cells(scenarios)
    check_grid(base, cells, os.environ, resume)
    check_report(report)
    if dry_run:
        from loadbench.report.grid_plan import grid_plan_document  # noqa: PLC0415
        from loadbench.session.grid import measured_before  # noqa: PLC0415
        from loadbench.session.sample_request import sample_request  # noqa: PLC0415

        request, complete = sample_request(cells[0].scenario, os.environ), measured_before(resume, cells)
        plan = grid_plan_document(base, cells, request, verbose=verbose, resume=resume, complete=complete)
        print_document(plan, wide=wide)
        return
    say_unused(base)
    say_data_set(base)
    writer = run_grid(base, cells, os.environ, progress, resume=resume)
    progress.close()
    folder = writer.folder.path

    def content(form: str, file: Path | None) -> str:
        data = data_or_page(form, lambda: runs_at(folder), lambda: page_of([folder]))
        shown = look(wide=wide, file=file)
        return render_grid(writer.grid, writer.runs, form, folder=folder, **shown) if data is None else data

    finish(content, writer.folder.place, writer.exit_code, form=form, quiet=quiet, report=report)
