"""Finds the service of Foundry Local: its port changes at each start, and five places may name it.

    --url, LOADBENCH_URL, scenario → FOUNDRY_LOCAL_ENDPOINT → OPENAI_BASE_URL → `foundry server status -o json`
    → `foundry service status`

The first place that names an address is used; no port is guessed or scanned. What each place says is kept, so that
`loadbench doctor` can show it and notice a server that has moved.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from loadbench.core.errors import TargetUnavailable
from loadbench.plan.server_url import shown_url
from loadbench.plan.settings import Origin, Source
from loadbench.plan.sources import ENDPOINT_VARIABLES
from loadbench.targets.foundry_cli import find_cli, server_status, service_status
from loadbench.telemetry.sampler import is_local

if TYPE_CHECKING:
    from collections.abc import Mapping

    from loadbench.plan.scenario import Scenario

NOT_FOUND_HINT = "start it (foundry server start, or foundry service start), or give its address with --url"
_COMMANDS = {"foundry server status -o json": server_status, "foundry service status": service_status}


@dataclass(frozen=True, slots=True)
class DiscoveryStep:
    """One place: what it says, and the address if it names one."""

    source: str
    url: str | None
    finding: str


def discover(scenario: Scenario, environment: Mapping[str, str], *, to_the_end: bool = False) -> list[DiscoveryStep]:
    """Each place up to the first that names an address, or all of them with `to_the_end`."""
    given = scenario.url
    source = scenario.place("target.url")
    steps = [DiscoveryStep(source, given, shown_url(given) if given else "not given")]
    for name in ENDPOINT_VARIABLES:
        if name != source:
            text = environment.get(name, "").strip()
            steps.append(DiscoveryStep(name, text or None, shown_url(text) if text else "not set"))
    if any(step.url for step in steps) and not to_the_end:
        return steps
    cli = find_cli(environment)
    if cli is None:
        return [*steps, DiscoveryStep("foundry", None, "not on the PATH")]
    # The newer command comes first; the older command line does not have it, and says so.
    for command, read in _COMMANDS.items():
        url, finding = read(cli)
        steps.append(DiscoveryStep(command, url, finding))
        if url:
            break
    return steps


def locate(scenario: Scenario, environment: Mapping[str, str]) -> tuple[Scenario, str]:
    """(the scenario with the server's address, a note for the user if that was found elsewhere than in loadbench's own
    settings).

    Raises `TargetUnavailable` if Foundry Local is wanted and not found.
    """
    if scenario.url is not None:
        variable = scenario.place("target.url")
        note = f"{shown_url(scenario.url)}, from {variable}" if variable in ENDPOINT_VARIABLES else ""
        return scenario, note
    if scenario.simulated or scenario.target.adapter is not None or scenario.target.server_cmd is not None:
        return scenario, ""
    steps = discover(scenario, environment)
    found = next((step for step in steps if step.url), None)
    if found is None or found.url is None:
        findings = "; ".join(f"{step.source}: {step.finding}" for step in steps)
        raise TargetUnavailable(f"Foundry Local was not found ({findings})", hint=NOT_FOUND_HINT)
    target = dataclasses.replace(scenario.target, url=(found.url,))
    origins = {**scenario.origins, "target.url": Origin(Source.COMMAND, f"discovery {found.source}")}
    return dataclasses.replace(scenario, target=target, origins=origins), f"{found.url}, from `{found.source}`"


def moved_to(steps: list[DiscoveryStep], url: str) -> str | None:
    """The address that the foundry command reports, if it is on this machine like `url`, and has another port."""
    reported = next((step.url for step in steps if step.url and step.source in _COMMANDS), None)
    if reported is None or not (is_local(url) and is_local(reported)):
        return None
    return reported if _port(reported) != _port(url) else None


def _port(url: str) -> int | None:
    """The port, or that of the scheme; `None` if it is not a port."""
    try:
        parts = urlsplit(url)
        return parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    except ValueError:
        return None
