"""`loadbench doctor`."""

from __future__ import annotations

import os
import sys
from typing import Any

import click

from loadbench.cli.measuring import print_document, say, say_unused
from loadbench.cli.options import ScenarioCommand, setting_flags, setting_options
from loadbench.core.errors import ExitCode
from loadbench.core.text import printable_json


@click.command(
    cls=ScenarioCommand,
    reads=True,
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
    from loadbench.report.document import Document, Table  # noqa: PLC0415
    from loadbench.session.doctor import run_checkup  # noqa: PLC0415

    scenario = resolve(flags=setting_flags("doctor", options), environment=os.environ, command="doctor")
    say_unused(scenario)
    checkup = run_checkup(scenario, os.environ, say=say)
    if as_json:
        checks = msgspec.to_builtins(msgspec.structs.replace(checkup, simulated=scenario.simulated))
        click.echo(printable_json(orjson.dumps(checks, option=orjson.OPT_INDENT_2)))
    else:
        rows = []
        for check in checkup.checks:
            rows.append([check.status, check.name, check.message])
            rows += [["", "", f"→ {check.advice}"]] if check.advice else []
        title = "no --url was given: this is the simulated server" if scenario.simulated else ""
        document = Document(title, [Table(("status", "check", "result"), rows, "lll")])
        print_document(document)
    sys.exit(ExitCode.OK if checkup.healthy else ExitCode.TARGET_UNAVAILABLE)
