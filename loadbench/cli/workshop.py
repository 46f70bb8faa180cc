"""`loadbench workshop`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import click

from loadbench.cli.measuring import (
    check_files,
    check_report,
    data_or_page,
    look,
    print_document,
    print_result,
    progress_line,
    refuse_wide,
    report_option,
    run_options,
    say_data_set,
    say_saved,
    say_unused,
    say_unused_variables,
    write_file,
    write_reports,
)
from loadbench.cli.options import ScenarioCommand, scenario_argument, setting_flags, setting_options
from loadbench.cli.run_names import RUN
from loadbench.core.errors import BadInput, ExitCode


@click.command(
    cls=ScenarioCommand,
    examples=(
        "loadbench workshop --target foundry --model qwen2.5-0.5b --rounds 3",
        "loadbench workshop --url http://127.0.0.1:8080/v1 --prompt 'Explain caching briefly.' --output report.md",
    ),
)
@scenario_argument
@setting_options("workshop")
@click.option("--json-file", type=click.Path(path_type=Path), metavar="FILE", help="Also write the JSON to this file.")
@click.option(
    "--output", type=click.Path(path_type=Path), metavar="FILE", help="Also write the Markdown table to this file."
)
@click.option("--csv-file", type=click.Path(path_type=Path), metavar="FILE", help="Also write the CSV to this file.")
@click.option("--from", "run", type=RUN, metavar="RUN", help="Export this saved run instead of measuring.")
@report_option
@run_options(json="the JSON", dry_run="Show the plan: requests, tokens, time, what is saved.")
def command(
    scenario: Path | None,
    *,
    run: Path | None,
    form: str,
    quiet: bool,
    no_live: bool,
    wide: bool,
    dry_run: bool,
    verbose: bool,
    **options: Any,
) -> None:
    """Run the benchmark of the Foundry Local workshop: one user sends every prompt in turn, several rounds per model.

    Precedence: flag, LOADBENCH_… variable, the workshop's own variables (BENCH_MODELS, BENCH_ROUNDS, BENCH_PROMPT,
    BENCH_STREAM, BENCH_MAX_TOKENS, BENCH_TEMPERATURE, FOUNDRY_LOCAL_ALIAS), SCENARIO (a TOML or JSON file). The run
    folder gets benchmark_report.json, .md and .csv. Exits with 6 if a model could not be tested.
    """
    from loadbench.plan.sources import resolve  # noqa: PLC0415 - the help needs nothing of it
    from loadbench.plan.workshop import shows_first_token, workshop_scenario  # noqa: PLC0415
    from loadbench.report.junit import run_junit  # noqa: PLC0415
    from loadbench.report.pages import page_of  # noqa: PLC0415
    from loadbench.report.plan import plan_document  # noqa: PLC0415
    from loadbench.report.shown import Shown  # noqa: PLC0415
    from loadbench.results.folder import RunFolder, RunPlace, folder_of, read_run  # noqa: PLC0415
    from loadbench.session.sample_request import sample_request  # noqa: PLC0415
    from loadbench.session.setup import check  # noqa: PLC0415
    from loadbench.session.sweep import run_sweep  # noqa: PLC0415
    from loadbench.session.workshop import export_workshop  # noqa: PLC0415

    refuse_wide(form, wide=wide)
    flags = setting_flags("workshop", options)
    if run is not None and (scenario or set(flags) - {"shape"}):
        raise BadInput(f"--from {run}: exports a saved run", hint="leave out what says how to measure")
    if run is not None and dry_run:
        raise BadInput("--dry-run: is for measuring, and this run is saved", hint="leave it out")
    outputs = ("json_file", "output", "csv_file")
    check_files(options, *outputs)
    check_report(options["report"])
    first_token = shows_first_token(os.environ)
    writer = None
    if run is not None:
        resolved = resolve(flags=flags, environment=os.environ, command="workshop")
        say_unused(resolved)
        say_unused_variables(resolved, {"workshop.shape"}, "a saved run is exported")
    else:
        resolved = workshop_scenario(flags=flags, environment=os.environ, file=scenario)
        check(resolved, os.environ)
        if dry_run:
            plan = plan_document(resolved, sample_request(resolved, os.environ), verbose=verbose)
            print_document(plan, wide=wide)
            return
        say_unused(resolved)
        say_data_set(resolved)
        progress = progress_line(quiet=quiet, no_live=no_live)
        writer = run_sweep(resolved, os.environ, progress)
        progress.close()
    if writer is None:
        assert run is not None  # noqa: S101 - it was measured, or given
        measured, folder = read_run(run), RunFolder(RunPlace(folder_of(run), may_move=False))
    else:
        measured, folder = writer.run, writer.folder
    shape = resolved.workshop.shape

    def content(form: str, file: Path | None) -> str:
        # The workshop has its own tables, CSV and JSON.
        if form == "text":
            shown = look(wide=wide, file=file)
            return export_workshop(folder, measured, shape=shape, first_token=first_token, **shown)["text"]
        if form in (own := {"markdown": "md", "csv": "csv", "json": "json"}):
            return contents[own[form]]
        data = data_or_page(form, lambda: [Shown(measured, folder.path)], lambda: page_of([folder.path]))
        return run_junit(measured) if data is None else data

    contents = export_workshop(folder, measured, shape=shape, first_token=first_token, **look(wide=wide))
    print_result(content, form)
    written = [
        write_file(f"--{flag.replace('_', '-')}", options[flag], contents[suffix])
        for flag, suffix in zip(outputs, ("json", "md", "csv"), strict=True)
        if options[flag] is not None
    ]
    written.append(write_reports(options["report"], content))
    say_saved(folder.place, quiet=quiet or writer is None)
    code = ExitCode.OK if writer is None else writer.exit_code()
    sys.exit(code or max([*written, folder.place.exit_code]))
