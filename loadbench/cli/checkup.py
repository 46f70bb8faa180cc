"""The checkup, put together: the simulated server where no other is named, the checks, their table."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import anyio
import click
import msgspec
import orjson

from loadbench.core.errors import ExitCode
from loadbench.core.text import printable
from loadbench.sim.command import profile_named
from loadbench.sim.process import SimProcess
from loadbench.targets.checks import checkup

if TYPE_CHECKING:
    from collections.abc import Mapping

    from loadbench.plan.scenario import Scenario
    from loadbench.targets.checks import Checkup


def run_checkup(scenario: Scenario, *, environment: Mapping[str, str], as_json: bool) -> ExitCode:
    """Check and show; returns the exit code."""
    with ExitStack() as stack:
        url = scenario.target.url
        if url is None:
            url = stack.enter_context(SimProcess(profile_named(scenario.target.profile).name)).url
        found = anyio.run(lambda: checkup(scenario, environment, url=url))
    if as_json:
        document = {**msgspec.to_builtins(found), "simulated": scenario.simulated}
        click.echo(orjson.dumps(document, option=orjson.OPT_INDENT_2))
    else:
        _show(found, simulated=scenario.simulated)
    return ExitCode.OK if found.healthy else ExitCode.TARGET_UNAVAILABLE


def _show(found: Checkup, *, simulated: bool) -> None:
    if simulated:
        click.echo("no --url was given: this is the simulated server\n")
    width = max(len(check.name) for check in found.checks)
    colors = {"ok": "green", "warn": "yellow", "fail": "red", "skip": None}
    for check in found.checks:
        status = click.style(f"{check.status:4}", fg=colors[check.status])
        click.echo(f"{status}  {printable(check.name):{width}}  {printable(check.message)}")
        if check.advice:
            click.echo(f"{'':4}  {'':{width}}  → {printable(check.advice)}")
