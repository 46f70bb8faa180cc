"""`loadbench doctor`."""

from __future__ import annotations

import os
import sys
from typing import Any

import click

from loadbench.cli.options import ScenarioCommand, given, scenario_options


@click.command(cls=ScenarioCommand)
@scenario_options("target", "limits", without=("time_loads",))
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON on stdout.")
def command(*, as_json: bool, **options: Any) -> None:
    """Check the endpoint, its models, a first answer, and this machine.

    Exits with 6 if a check fails. Without --url the simulated server is checked.
    """
    from loadbench.cli.checkup import run_checkup  # noqa: PLC0415 - only the command itself needs it
    from loadbench.plan.sources import resolve  # noqa: PLC0415

    scenario = resolve(flags=given(options), environment=os.environ)
    sys.exit(run_checkup(scenario, environment=os.environ, as_json=as_json))
