"""`loadbench doctor`."""

from __future__ import annotations

import os
import sys
from typing import Any

import click

from loadbench.cli.measuring import say, say_unused
from loadbench.cli.options import ScenarioCommand, setting_flags, setting_options
from loadbench.core.errors import ExitCode
from loadbench.core.text import printable, printable_json

_COLORS = {"ok": "green", "warn": "yellow", "fail": "red", "skip": None}


@click.command(
    cls=ScenarioCommand,
    examples=("loadbench doctor --url http://127.0.0.1:8080/v1", "loadbench doctor   # the simulated server"),
)
@setting_options("doctor")
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON on stdout.")
def command(*, as_json: bool, **options: Any) -> None:
    """Check the server, its models, a first response, and this machine.

    Exits with 6 if a check fails. Without --url, the simulated server is checked.
    """
    import msgspec  # noqa: PLC0415 - the help needs nothing of it
    import orjson  # noqa: PLC0415

    from loadbench.plan.sources import resolve  # noqa: PLC0415
    from loadbench.session.doctor import run_checkup  # noqa: PLC0415

    scenario = resolve(flags=setting_flags("doctor", options), environment=os.environ, command="doctor")
    say_unused(scenario)
    checkup = run_checkup(scenario, os.environ, say=say)
    if as_json:
        document = msgspec.to_builtins(msgspec.structs.replace(checkup, simulated=scenario.simulated))
        click.echo(printable_json(orjson.dumps(document, option=orjson.OPT_INDENT_2)))
    else:
        if scenario.simulated:
            click.echo("no --url was given: this is the simulated server\n")
        width = max(len(check.name) for check in checkup.checks)
        for check in checkup.checks:
            status = click.style(f"{check.status:4}", fg=_COLORS[check.status])
            click.echo(f"{status}  {printable(check.name):{width}}  {printable(check.message)}")
            if check.advice:
                click.echo(f"{'':4}  {'':{width}}  → {printable(check.advice)}")
    sys.exit(ExitCode.OK if checkup.healthy else ExitCode.TARGET_UNAVAILABLE)
