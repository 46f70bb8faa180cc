"""`loadbench workshop`: the workshop's benchmark, and its files from any run."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import click

from loadbench.cli.options import ScenarioCommand, given, scenario_options
from loadbench.core.errors import BadInput
from loadbench.plan.workshop import DEFAULTS

SHAPES = ("script", "sample", "notebook", "stable")


@click.command(cls=ScenarioCommand)
@click.argument("scenario", required=False, type=click.Path(path_type=Path))
@scenario_options(
    *("target", "work", "limits", "report"),
    without=("input_tokens", "persona", "mix", "turns"),
    defaults={**DEFAULTS, "name": "workshop"},
)
@click.option("--rounds", metavar="N", help="How often each prompt is asked of each model.  [default: 3]")
@click.option(
    "--shape", type=click.Choice(SHAPES), default="script", show_default=True, help="Whose keys the JSON has."
)
@click.option("--json-file", type=click.Path(path_type=Path), metavar="FILE", help="Write the JSON there too.")
@click.option("--output", type=click.Path(path_type=Path), metavar="FILE", help="Write the Markdown table there too.")
@click.option("--csv-file", type=click.Path(path_type=Path), metavar="FILE", help="Write the CSV there too.")
@click.option("--from", "run", type=click.Path(path_type=Path), metavar="RUN", help="Measure nothing: export this run.")
@click.option("--json", "as_json", is_flag=True, help="Print the JSON on stdout, and nothing else there.")
@click.option("--quiet", is_flag=True, help="No progress on stderr.")
@click.option("--no-live", is_flag=True, help="Progress in plain lines, also on a terminal.")
@click.option("--dry-run", is_flag=True, help="Show the plan and where each setting comes from; send nothing.")
def command(  # noqa: PLR0913 - a command's flags
    scenario: Path | None,
    *,
    rounds: str | None,
    shape: str,
    json_file: Path | None,
    output: Path | None,
    csv_file: Path | None,
    run: Path | None,
    as_json: bool,
    quiet: bool,
    no_live: bool,
    dry_run: bool,
    **options: Any,
) -> None:
    """Run the workshop's benchmark: one user, every prompt in turn, so many rounds, model by model.

    A flag wins over LOADBENCH_…, that over BENCH_MODELS, BENCH_ROUNDS, BENCH_PROMPT, BENCH_STREAM, BENCH_MAX_TOKENS,
    BENCH_TEMPERATURE and FOUNDRY_LOCAL_ALIAS, those over SCENARIO. benchmark_report.json, .md and .csv are written into
    the run folder. Exits with 6 if a model could not be tested.
    """
    from loadbench.cli import benchmark  # noqa: PLC0415 - only the command itself needs it
    from loadbench.plan.workshop import shows_first_token, workshop_scenario  # noqa: PLC0415

    if run is not None and (given(options) or scenario or rounds):
        raise BadInput(f"--from {run}: exports what was measured", hint="leave out what says how to measure")
    export = benchmark.Export(
        shape=shape,
        first_token=shows_first_token(os.environ),
        files={"json": json_file, "md": output, "csv": csv_file},
    )
    if run is not None:
        benchmark.export_run(run, export, as_json=as_json)
        return
    resolved = workshop_scenario(flags=given(options), environment=os.environ, file=scenario, rounds=rounds)
    if dry_run:
        from loadbench.report.plan import plan_text  # noqa: PLC0415

        click.echo(plan_text(resolved), nl=False)
        return
    sys.exit(
        benchmark.run_benchmark(
            resolved, export, environment=os.environ, as_json=as_json, quiet=quiet, live=not no_live
        )
    )
