"""Where Foundry Local's service is: its port changes from start to start, and there are five places that may tell.

    --url, LOADBENCH_URL, scenario → FOUNDRY_LOCAL_ENDPOINT → OPENAI_BASE_URL → `foundry server status -o json`
    → `foundry service status`

The first that names an address is taken; no port is guessed or searched for. What each of them said is kept, so that
`loadbench doctor` can show it, and a server that has moved since is noticed.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from loadbench.core.errors import TargetUnavailable
from loadbench.plan.settings import Origin, Source
from loadbench.plan.sources import ENDPOINT_VARIABLES
from loadbench.targets.foundry_cli import find_cli, server_status, service_status
from loadbench.telemetry.sampler import is_local

if TYPE_CHECKING:
    from collections.abc import Mapping

    from loadbench.plan.scenario import Scenario

_COMMANDS = {"foundry server status -o json": server_status, "foundry service status": service_status}


@dataclass(frozen=True, slots=True)
class DiscoveryStep:
    """One place that was asked: what it said, and the address if it named one."""

    source: str
    url: str | None
    finding: str


def discover(scenario: Scenario, environment: Mapping[str, str], *, to_the_end: bool = False) -> list[DiscoveryStep]:
    """What each place said, up to the first that named an address; `to_the_end` asks the rest as well."""
    steps = [_told(scenario)]
    steps += [_variable(environment, name) for name in ENDPOINT_VARIABLES if steps[0].source != name]
    if any(step.url for step in steps) and not to_the_end:
        return steps
    return steps + _commands(environment)


def _told(scenario: Scenario) -> DiscoveryStep:
    """What loadbench itself was told, and by what."""
    return DiscoveryStep(scenario.place("target.url"), scenario.target.url, scenario.target.url or "not given")


def _variable(environment: Mapping[str, str], name: str) -> DiscoveryStep:
    text = environment.get(name, "").strip()
    return DiscoveryStep(name, text or None, text or "not set")


def _commands(environment: Mapping[str, str]) -> list[DiscoveryStep]:
    """The newer command line is asked first; the older one has no such command and says so."""
    cli = find_cli(environment)
    if cli is None:
        return [DiscoveryStep("foundry", None, "not on the PATH")]
    steps = []
    for source, ask in _COMMANDS.items():
        url, finding = ask(cli)
        steps.append(DiscoveryStep(source, url, finding))
        if url:
            break
    return steps


def locate(scenario: Scenario, environment: Mapping[str, str]) -> tuple[Scenario, str]:
    """The scenario with the server's address in it, and a word to the user where nobody told loadbench itself.

    Raises `TargetUnavailable` where Foundry Local is wanted and not found.
    """
    if scenario.target.url is not None:
        variable = scenario.place("target.url")
        note = f"{scenario.target.url}, from {variable}" if variable in ENDPOINT_VARIABLES else ""
        return scenario, note
    if scenario.simulated or scenario.target.adapter is not None:
        return scenario, ""
    steps = discover(scenario, environment)
    found = next((step for step in steps if step.url), None)
    if found is None or found.url is None:
        said = "; ".join(f"{step.source}: {step.finding}" for step in steps)
        raise TargetUnavailable(
            f"Foundry Local is not found ({said})",
            hint="start it (foundry server start, or foundry service start), or give its address by --url",
        )
    target = dataclasses.replace(scenario.target, url=found.url)
    origins = {**scenario.origins, "target.url": Origin(Source.COMMAND, f"discovery {found.source}")}
    return dataclasses.replace(scenario, target=target, origins=origins), f"{found.url}, from `{found.source}`"


def moved_to(steps: list[DiscoveryStep], url: str) -> str | None:
    """The address by the command line, where it is on this machine as `url` is, and is another port."""
    told = next((step.url for step in steps if step.url and step.source in _COMMANDS), None)
    if told is None or not (is_local(url) and is_local(told)):
        return None
    return told if _port(told) != _port(url) else None


def _port(url: str) -> int | None:
    """The port, also where the scheme alone says it; `None` where that is no port."""
    try:
        parts = urlsplit(url)
        return parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    except ValueError:
        return None
