"""`loadbench sweep`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import click

from loadbench.cli.options import ScenarioCommand, given, scenario_options


@click.command(cls=ScenarioCommand)
@click.argument("scenario", required=False, type=click.Path(path_type=Path))
@scenario_options()
@click.option("--json", "as_json", is_flag=True, help="Print run.json on stdout, and nothing else there.")
@click.option("--quiet", is_flag=True, help="No progress on stderr.")
@click.option("--no-live", is_flag=True, help="Progress in plain lines, also on a terminal.")
@click.option(
    "--dry-run", is_flag=True, help="Show the plan, where each setting comes from, and the time; send nothing."
)
def command(scenario: Path | None, *, as_json: bool, quiet: bool, no_live: bool, dry_run: bool, **options: Any) -> None:
    """Measure a server at rising load, level by level.

    SCENARIO is a TOML or JSON file; a flag wins over an environment variable (LOADBENCH_USERS for --users), that over
    the file, the file over the defaults. Without --url the simulated server is measured.
    """
    from loadbench.plan.sources import resolve  # noqa: PLC0415 - only the command itself needs it
    from loadbench.sim.command import profile_named  # noqa: PLC0415

    resolved = resolve(flags=given(options), environment=os.environ, file=scenario)
    if resolved.simulated:
        profile_named(resolved.target.profile)
    if dry_run:
        from loadbench.report.plan import plan_text  # noqa: PLC0415

        click.echo(plan_text(resolved), nl=False)
        return
    from loadbench.session.setup import run_sweep  # noqa: PLC0415

    sys.exit(run_sweep(resolved, environment=os.environ, as_json=as_json, quiet=quiet, live=not no_live))
