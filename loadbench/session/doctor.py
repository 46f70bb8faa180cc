"""`loadbench doctor` from beginning to end: find the server, then check it and this machine."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

from loadbench.core import event_loop
from loadbench.plan.sources import ENDPOINT_VARIABLES
from loadbench.session.setup import server_of
from loadbench.targets.checks import run_checks
from loadbench.targets.discovery import discover
from loadbench.targets.foundry_cli import find_cli
from loadbench.telemetry.sampler import is_local

if TYPE_CHECKING:
    from collections.abc import Mapping

    from loadbench.plan.scenario import Scenario
    from loadbench.session.setup import Say
    from loadbench.targets.check_result import CheckReport
    from loadbench.targets.discovery import DiscoveryStep


def run_checkup(scenario: Scenario, environment: Mapping[str, str], *, say: Say) -> CheckReport:
    """Every check, in order; a failed one is a result, not an exception."""
    steps = _discovery(scenario, environment)
    url = scenario.url or next((step.url for step in steps if step.url), None)
    with ExitStack() as stack:
        if scenario.simulated:
            _, url = stack.enter_context(server_of(scenario, environment, say=say))
        return event_loop.run(lambda: run_checks(scenario, environment, url=url, steps=steps))


def _discovery(scenario: Scenario, environment: Mapping[str, str]) -> list[DiscoveryStep]:
    """Where Foundry Local was looked for. A local server may have moved: then its command line is queried."""
    if scenario.simulated or scenario.target.adapter is not None:
        return []
    named = scenario.target.kind == "foundry" or scenario.place("target.url") in ENDPOINT_VARIABLES
    local = scenario.url is None or is_local(scenario.url)
    if not named and (not local or find_cli(environment) is None):
        return []
    return discover(scenario, environment, to_the_end=local)
