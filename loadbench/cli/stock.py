"""The catalogue, put together: found, changed if that was asked for, shown."""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

import anyio
import click
import msgspec

from loadbench.core.errors import BadInput, ExitCode, TargetUnavailable
from loadbench.core.text import printable
from loadbench.report.models import catalogue_text
from loadbench.sim.command import profile_named
from loadbench.sim.process import SimProcess
from loadbench.targets.discovery import located
from loadbench.targets.list_models import take_inventory

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from loadbench.plan.scenario import Scenario
    from loadbench.results.models import Catalogue
    from loadbench.targets.list_models import Inventory

# A download of which nothing arrives for so long has stalled: people wait a minute, and then ask.
_STALLS_AFTER_S = 60.0
_LOOKS_EVERY_S = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is to be done, in this order: download, unload, load; and which models are to be shown."""

    cached: bool = False
    loaded: bool = False
    download: str | None = None
    load: str | None = None
    unload: str | None = None
    as_json: bool = False

    def shown(self, catalogue: Catalogue) -> Catalogue:
        """The catalogue with only what was asked for."""
        models = [
            model
            for model in catalogue.models
            if (model.cached or not self.cached) and (model.loaded or not self.loaded)
        ]
        return msgspec.structs.replace(catalogue, models=models)


def run_models(scenario: Scenario, wanted: Wanted, *, environment: Mapping[str, str]) -> ExitCode:
    """Do what is asked, then show; raises `LoadbenchError` for what cannot be done."""
    if scenario.target.adapter is not None:
        place = scenario.origins["target.adapter"].partition(" ")[2]
        raise BadInput(f"{place}: an adapter is one model and has no list", hint="`loadbench doctor` checks it")
    scenario, found = located(scenario, environment)
    if found:
        click.echo(f"asking {found}", err=True)
    with ExitStack() as stack:
        url = scenario.target.url
        if url is None:
            url = stack.enter_context(SimProcess(profile_named(scenario.target.profile).name)).url
        catalogue = anyio.run(_catalogue, scenario, wanted, environment, url)
    if wanted.as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(catalogue), indent=2))
    else:
        click.echo(catalogue_text(catalogue), nl=False)
    return ExitCode.OK


async def _catalogue(scenario: Scenario, wanted: Wanted, environment: Mapping[str, str], url: str) -> Catalogue:
    inventory = await take_inventory(scenario, environment, url=url)
    if wanted.download is not None:
        # With JSON to come, stdout is for that alone.
        stdout = sys.stderr.fileno() if wanted.as_json else None
        await anyio.to_thread.run_sync(_download, inventory, wanted.download, stdout)
    if wanted.unload is not None:
        _say(f"{await inventory.unload(wanted.unload)} is unloaded")
    if wanted.load is not None:
        if wanted.download is not None:
            inventory = await take_inventory(scenario, environment, url=url)
        model, seconds = await inventory.load(wanted.load)
        _say(f"{model} " + ("was loaded before" if seconds is None else f"is loaded, which took {seconds:.2f} s"))
    if wanted.download or wanted.unload or wanted.load:
        inventory = await take_inventory(scenario, environment, url=url)
    return wanted.shown(inventory.catalogue)


def _say(message: str) -> None:
    click.echo(printable(message), err=True)


def _download(inventory: Inventory, model: str, stdout: int | None) -> None:
    """By the command line, which shows its progress; where the cache can be seen, a stalled download is told."""
    if inventory.service is None or not inventory.service.local:
        raise BadInput("--download: only Foundry Local on this machine downloads", hint="download it where it runs")
    if inventory.cli is None:
        raise BadInput("--download: there is no `foundry` on the PATH", hint="install Foundry Local's command line")
    words = ("model", "download", model)
    with inventory.cli.show(*words, stdout=stdout) as child:
        _watch(child, inventory.service.cache)
    if child.returncode:
        raise TargetUnavailable(
            f"`foundry {' '.join(words)}` ended with {child.returncode}", hint="what it said stands above"
        )


def _watch(child: subprocess.Popen[bytes], cache: Path | None) -> None:
    """Wait for its end, with an eye on whether anything arrives."""
    size, changed = _bytes_in(cache), time.monotonic()
    while True:
        try:
            child.wait(_LOOKS_EVERY_S if cache is not None else None)
        except subprocess.TimeoutExpired:
            now = _bytes_in(cache)
            if now != size:
                size, changed = now, time.monotonic()
            elif time.monotonic() - changed > _STALLS_AFTER_S:
                _say(f"nothing has arrived for {_STALLS_AFTER_S:.0f} s: is there a network, and room on the disk?")
                changed = time.monotonic()
        else:
            return


def _bytes_in(folder: Path | None) -> int:
    if folder is None:
        return 0
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size
        except OSError:
            continue  # gone since it was listed
    return total
