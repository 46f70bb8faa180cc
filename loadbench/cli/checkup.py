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
from loadbench.plan.sources import ENDPOINT_VARIABLES
from loadbench.sim.command import profile_named
from loadbench.sim.process import SimProcess
from loadbench.targets.checks import checkup
from loadbench.targets.discovery import trail
from loadbench.targets.foundry_cli import find_cli
from loadbench.telemetry.watch import is_local

if TYPE_CHECKING:
    from collections.abc import Mapping

    from loadbench.plan.scenario import Scenario
    from loadbench.targets.check_result import Checkup
    from loadbench.targets.discovery import DiscoveryStep


def run_checkup(scenario: Scenario, *, environment: Mapping[str, str], as_json: bool) -> ExitCode:
    """Check and show; returns the exit code."""
    steps = _steps(scenario, environment)
    with ExitStack() as stack:
        url = scenario.target.url or next((step.url for step in steps if step.url), None)
        if scenario.simulated:
            url = stack.enter_context(SimProcess(profile_named(scenario.target.profile).name)).url
        found = anyio.run(lambda: checkup(scenario, environment, url=url, steps=steps))
    if as_json:
        document = {**msgspec.to_builtins(found), "simulated": scenario.simulated}
        click.echo(orjson.dumps(document, option=orjson.OPT_INDENT_2))
    else:
        _show(found, simulated=scenario.simulated)
    return ExitCode.OK if found.healthy else ExitCode.TARGET_UNAVAILABLE


def _steps(scenario: Scenario, environment: Mapping[str, str]) -> list[DiscoveryStep]:
    """Where the endpoint was looked for, if it had to be, or may have moved to: the command line is asked too, then."""
    if scenario.simulated or scenario.target.adapter is not None:
        return []
    named = scenario.target.kind == "foundry" or scenario.origins.get("target.url", "").endswith(ENDPOINT_VARIABLES)
    local = scenario.target.url is None or is_local(scenario.target.url)
    if not named and (not local or find_cli(environment) is None):
        return []
    return trail(scenario, environment, to_the_end=local)


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
