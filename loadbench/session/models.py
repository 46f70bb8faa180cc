"""`loadbench models` from beginning to end: find the server, make the requested changes, list the models."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import TYPE_CHECKING

import anyio

from loadbench.core import event_loop
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


def list_models(
    scenario: Scenario,
    environment: Mapping[str, str],
    *,
    download: str | None,
    unload: str | None,
    load: str | None,
    quiet_stdout: bool,
    say: Say,
) -> Catalogue:
    """Download, unload and load the models that are named, in this order; then list all. `quiet_stdout` reserves
    stdout for JSON.

    Raises `LoadbenchError` if a change fails or the server has no list.
    """

    async def change_and_list(scenario: Scenario, url: str) -> Catalogue:
        listing = await list_server_models(scenario, environment, url=url)
        if listing.target.list_problem:
            say(f"warning: no list of models: {listing.target.list_problem}")
        if download is not None:
            await anyio.to_thread.run_sync(_download, listing, download, quiet_stdout, say)
        if unload is not None:
            say(f"{await listing.unload(unload)} is unloaded")
        if load is not None:
            if download is not None:
                listing = await list_server_models(scenario, environment, url=url)
            model, seconds = await listing.load(load)
            say(f"{model} was loaded already" if seconds is None else f"{model} is loaded, which took {seconds:.2f} s")
        if download or unload or load:
            listing = await list_server_models(scenario, environment, url=url)
        return listing.catalogue

    with server_of(scenario, environment, say=say) as (located, url):
        return event_loop.run(change_and_list, located, url)


def _download(listing: ModelList, model: str, quiet_stdout: bool, say: Say) -> None:  # noqa: FBT001 - for a thread
    """Run the foundry command, which shows its own progress; say so if the download stalls."""
    if listing.service is None or not listing.service.local:
        raise BadInput("--download: only Foundry Local on this machine downloads", hint="download it where it runs")
    if listing.cli is None:
        raise BadInput("--download: there is no `foundry` on the PATH", hint="install Foundry Local's command line")
    words = ("model", "download", model)
    cache = listing.service.cache
    with listing.cli.show(*words, stdout=sys.stderr.fileno() if quiet_stdout else None) as child:
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
