"""`loadbench models`."""

from __future__ import annotations

import os
import sys
from typing import Any

import click

from loadbench.cli.options import ScenarioCommand, given, scenario_options

# No model is tested here.
_NOT_HERE = ("model", "model_set", "api", "transport", "load", "time_loads", "allow_alias", "adapter")


@click.command(cls=ScenarioCommand)
@scenario_options("target", without=_NOT_HERE)
@click.option("--adapter", hidden=True)
@click.option("--cached", is_flag=True, help="Only those on this disk.")
@click.option("--loaded", is_flag=True, help="Only those in memory.")
@click.option("--download", metavar="MODEL", help="Foundry Local: download it first, by the foundry command line.")
@click.option("--load", "to_load", metavar="MODEL", help="Foundry Local: load it first, and say how long that took.")
@click.option("--unload", "to_unload", metavar="MODEL", help="Foundry Local: take it out of memory first.")
@click.option("--json", "as_json", is_flag=True, help="Print the catalogue as JSON on stdout.")
def command(
    *,
    cached: bool,
    loaded: bool,
    download: str | None,
    to_load: str | None,
    to_unload: str | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Show a server's models: id, alias, device, size, licence, whether cached and loaded, as far as anybody tells.

    MODEL is an id, an id without its version, or an alias. Without --url the simulated server is asked.
    """
    from loadbench.cli.stock import Wanted, run_models  # noqa: PLC0415 - only the command itself needs it
    from loadbench.plan.sources import resolve  # noqa: PLC0415

    scenario = resolve(flags=given(options), environment=os.environ)
    wanted = Wanted(cached=cached, loaded=loaded, download=download, load=to_load, unload=to_unload, as_json=as_json)
    sys.exit(run_models(scenario, wanted, environment=os.environ))
