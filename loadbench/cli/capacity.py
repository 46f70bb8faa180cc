"""`loadbench capacity`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import click

from loadbench.cli.options import ScenarioCommand, given, scenario_options
from loadbench.core.errors import BadInput

# A search chooses its loads and their lengths itself.
_NOT_HERE = (
    *("users", "rate", "pattern", "trace", "limit", "time_scale", "duration", "requests", "cool_down", "ramp"),
    *("workers", "fail_on", "abort_on", "keep_warm"),
)


@click.command(cls=ScenarioCommand)
@click.argument("scenario", required=False, type=click.Path(path_type=Path))
@scenario_options("target", "load", "work", "limits", "slo", "capacity", "report", without=_NOT_HERE)
@click.option("--resume", type=click.Path(path_type=Path), metavar="DIR", help="Go on with the search in this folder.")
@click.option("--json", "as_json", is_flag=True, help="Print capacity.json on stdout, and nothing else there.")
@click.option("--quiet", is_flag=True, help="No progress on stderr.")
@click.option("--no-live", is_flag=True, help="Progress in plain lines, also on a terminal.")
@click.option("--dry-run", is_flag=True, help="Show how the time will be shared out; send nothing.")
def command(
    scenario: Path | None,
    *,
    resume: Path | None,
    as_json: bool,
    quiet: bool,
    no_live: bool,
    dry_run: bool,
    **options: Any,
) -> None:
    """Search for the highest load at which every objective holds: how many people can use this at once?

    Give the objectives with --slo, and with --think how long people pause between an answer and their next question.
    Exit codes: 0 answered, 3 not even the least load passes, 4 the client was the limit, 5 not sure in the time.
    """
    from loadbench.analyze.capacity.search_evidence import refuse_objectives  # noqa: PLC0415 - only the command itself needs it
    from loadbench.plan.sources import resolve  # noqa: PLC0415
    from loadbench.sim.command import profile_named  # noqa: PLC0415

    resolved = resolve(
        flags=given(options), environment=os.environ, file=scenario, default_name="capacity", searches=True
    )
    refuse_objectives(resolved.objectives)
    if resolved.simulated:
        profile_named(resolved.target.profile)
    if resolved.load.trace is not None or resolved.load.pattern is not None:
        raise BadInput(
            "load.trace, load.pattern: a search makes its own arrivals", hint="leave them out of the scenario"
        )
    if resolved.capacity.by == "users" and resolved.capacity.at_most < 1:
        raise BadInput("--at-most: less than one user", hint="give a whole number, or --by rate")
    if resolved.capacity.headroom >= 1:
        raise BadInput("--headroom: nothing is left of the device", hint="give less than 100%, as in 20%")
    if dry_run:
        from loadbench.report.capacity import plan_text  # noqa: PLC0415

        click.echo(plan_text(resolved), nl=False)
        return
    from loadbench.session.capacity import run_capacity  # noqa: PLC0415

    sys.exit(
        run_capacity(resolved, environment=os.environ, resume=resume, as_json=as_json, quiet=quiet, live=not no_live)
    )
