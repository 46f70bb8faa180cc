"""`loadbench models` from beginning to end: find the server, change what was asked for, list the models."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import anyio
import msgspec

from loadbench.core.errors import BadInput, TargetUnavailable
from loadbench.session.setup import server_of
from loadbench.targets.list_models import list_server_models

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from loadbench.plan.scenario import Scenario
    from loadbench.results.models import Catalogue
    from loadbench.session.setup import Say
    from loadbench.targets.list_models import ModelList

# If nothing arrives for this long, a download has stalled.
_STALLED_AFTER_S = 60.0
_CHECK_EVERY_S = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What to do before the models are listed, in this order. `quiet_stdout`: stdout is reserved for JSON."""

    download: str | None = None
    unload: str | None = None
    load: str | None = None
    quiet_stdout: bool = False


def list_models(
    scenario: Scenario,
    environment: Mapping[str, str],
    changes: Changes,
    *,
    cached: bool = False,
    loaded: bool = False,
    say: Say,
) -> Catalogue:
    """Make the changes, then list the models, or only those that are cached or loaded.

    Raises `LoadbenchError` if a change fails or the server has no list.
    """
    with server_of(scenario, environment, say=say) as (at, url):
        catalogue = anyio.run(_change_and_list, at, environment, url, changes, say)
    models = [model for model in catalogue.models if (model.cached or not cached) and (model.loaded or not loaded)]
    return msgspec.structs.replace(catalogue, models=models)


async def _change_and_list(
    scenario: Scenario, environment: Mapping[str, str], url: str, changes: Changes, say: Say
) -> Catalogue:
    inventory = await list_server_models(scenario, environment, url=url)
    if changes.download is not None:
        await anyio.to_thread.run_sync(_download, inventory, changes, say)
    if changes.unload is not None:
        say(f"{await inventory.unload(changes.unload)} is unloaded")
    if changes.load is not None:
        if changes.download is not None:
            inventory = await list_server_models(scenario, environment, url=url)
        model, seconds = await inventory.load(changes.load)
        say(f"{model} was loaded already" if seconds is None else f"{model} is loaded, which took {seconds:.2f} s")
    if changes.download or changes.unload or changes.load:
        inventory = await list_server_models(scenario, environment, url=url)
    return inventory.catalogue


def _download(inventory: ModelList, changes: Changes, say: Say) -> None:
    """Run the foundry command, which shows its own progress; say so if the download stalls."""
    if inventory.service is None or not inventory.service.local:
        raise BadInput("--download: only Foundry Local on this machine downloads", hint="download it where it runs")
    if inventory.cli is None:
        raise BadInput("--download: there is no `foundry` on the PATH", hint="install Foundry Local's command line")
    words = ("model", "download", str(changes.download))
    cache = inventory.service.cache
    with inventory.cli.show(*words, stdout=sys.stderr.fileno() if changes.quiet_stdout else None) as child:
        size, changed = _bytes_in(cache), time.monotonic()
        while child.returncode is None:
            try:
                child.wait(None if cache is None else _CHECK_EVERY_S)
            except subprocess.TimeoutExpired:
                now = _bytes_in(cache)
                if now != size:
                    size, changed = now, time.monotonic()
                elif time.monotonic() - changed > _STALLED_AFTER_S:
                    say(f"nothing has arrived for {_STALLED_AFTER_S:.0f} s: check the network and the disk space")
                    changed = time.monotonic()
    if child.returncode:
        raise TargetUnavailable(
            f"`foundry {' '.join(words)}` ended with {child.returncode}", hint="its messages stand above"
        )


def _bytes_in(folder: Path | None) -> int:
    """The size of a folder; 0 if there is none."""
    total = 0
    for path in () if folder is None else folder.rglob("*"):
        try:
            total += path.stat().st_size
        except OSError:
            continue  # removed since it was listed
    return total
