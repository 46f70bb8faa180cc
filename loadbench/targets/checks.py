"""What `loadbench doctor` looks at, one check after another; what a failed one makes pointless is skipped.

A check never raises for what it finds: it says ok, warn, fail or skip, with what was seen and what to do. The list is
the workshop's own: the service is found, every wanted model is listed, loaded and answers; and then what spoils a
measurement before it begins.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import anyio

from loadbench.core.errors import LoadbenchError
from loadbench.targets.catalogue import from_listing
from loadbench.targets.check_result import Check, CheckReport, skipped
from loadbench.targets.discovery import moved_to
from loadbench.targets.foundry import Dialect
from loadbench.targets.machine import Machine, clock, descriptors, disk, downloads
from loadbench.targets.openai import choose_models
from loadbench.targets.prepare import Prepared, choose, find_server, known_models, prepare
from loadbench.targets.probe import ModelProbe
from loadbench.telemetry.sampler import is_local

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from loadbench.plan.scenario import Scenario
    from loadbench.results.models import Model
    from loadbench.targets.discovery import DiscoveryStep


async def run_checks(
    scenario: Scenario, environment: Mapping[str, str], *, url: str | None, steps: Sequence[DiscoveryStep] = ()
) -> CheckReport:
    """The way to the endpoint, its name, models, a first answer of each wanted model, and this machine.

    `steps` is where the endpoint was looked for; without a `url` it was not found.
    """
    if scenario.target.adapter is not None:
        return CheckReport(checks=[*await _in_process(scenario, environment), clock()])
    checks = _trail(steps, url)
    if url is None:
        checks += skipped("endpoint", "models", "probe")
        return CheckReport(checks=[*checks, disk(Path.cwd()), descriptors(), clock()])
    checks += await _name(url)
    try:
        prepared = await _found(scenario, environment, url)
    except LoadbenchError as error:
        checks += [Check("endpoint", "fail", error.message, error.hint), *_moved(steps, url, failed=True)]
        checks += skipped("models", "probe")
        return CheckReport(checks=[*checks, disk(Path.cwd()), descriptors(), clock()])
    checks += [Check("endpoint", "ok", _endpoint_text(prepared)), *_moved(steps, url, failed=False)]
    pid = None if prepared.service is None else prepared.service.pid
    machine = Machine(url, local=is_local(url), pid=pid)
    checks += await _ask(prepared, machine)
    return CheckReport(checks=[*checks, *_resources(prepared, machine), descriptors(), clock()])


async def _in_process(scenario: Scenario, environment: Mapping[str, str]) -> list[Check]:
    """A model in this process: made, loaded, asked, and how much it may be told, as far as its adapter says."""
    machine = Machine("", local=True, pid=os.getpid())
    places = [disk(Path.cwd()), machine.gpu()]
    try:
        prepared = await prepare(scenario, environment, url="")
    except LoadbenchError as error:
        return [Check("adapter", "fail", error.message, error.hint), *skipped("loaded", "probe"), *places]
    target, (model, *_) = prepared.target, prepared.models
    checks = [Check("adapter", "ok", target.base_url.removeprefix("adapter:"))]
    checks += [Check("models", "fail", reason) for reason in prepared.missing.values()]
    loaded = await _loaded(prepared, model)
    if loaded.status == "fail":
        return [*checks, loaded, *skipped(f"probe {model}"), *places]
    context, memory = getattr(target.adapter, "context", None), machine.memory()
    trial = ModelProbe(scenario, target, model=model, known=None, machine=machine)
    checks += [loaded, *await trial.run(asks_limit=False)]
    if isinstance(context, int):
        checks.append(Check(f"context {model}", "ok", f"{context:,} tokens, as its adapter says"))
    return [*checks, memory, *places]


def _trail(steps: Sequence[DiscoveryStep], url: str | None) -> list[Check]:
    """Each place where the address may have been; the first that named one was taken."""
    taken = next((step for step in steps if step.url), None)
    checks = [Check(f"by {step.source}", "ok" if step is taken else "skip", step.finding) for step in steps]
    if url is None:
        advice = "start it (foundry server start, or foundry service start), or give its address by --url"
        checks.append(Check("discovery", "fail", "nobody knows where Foundry Local is", advice))
    return checks


def _moved(steps: Sequence[DiscoveryStep], url: str, *, failed: bool) -> list[Check]:
    told = moved_to(list(steps), url)
    if told is None:
        return []
    message = f"the foundry command line says that the service is at {told}"
    return [Check("moved port", "fail" if failed else "warn", message, f"its port changes at each start: --url {told}")]


async def _found(scenario: Scenario, environment: Mapping[str, str], url: str) -> Prepared:
    """The target with all that is known of its models; none is chosen yet."""
    target, service = await find_server(scenario, environment, url=url)
    if service is None:
        catalogue = from_listing(target.listing, foundry=False)
    else:
        catalogue = await known_models(scenario, target, service)
    return Prepared(scenario=scenario, target=target, service=service, catalogue=catalogue)


async def _name(url: str) -> list[Check]:
    """A word about `localhost` where it is several addresses: the server may listen on one of them alone."""
    if urlsplit(url).hostname != "localhost":
        return []
    try:
        found = await anyio.getaddrinfo("localhost", None, type=socket.SOCK_STREAM)
    except OSError:
        return []  # that it is not known here the endpoint's check will say
    addresses = list(dict.fromkeys(str(address[0]) for *_, address in found))
    if len(addresses) < 2:
        return []
    return [
        Check(
            "name",
            "warn",
            f"localhost is {' and '.join(addresses)}",
            "write 127.0.0.1, or whichever the server listens on: the others are tried in vain",
        )
    ]


def _endpoint_text(prepared: Prepared) -> str:
    target, service = prepared.target, prepared.service
    kind = "" if service is None else f", Foundry Local {service.dialect.removeprefix('foundry-')}"
    return target.base_url + kind + (f", server {target.server}" if target.server else "")


async def _ask(prepared: Prepared, machine: Machine) -> list[Check]:
    """The list, and each wanted model; where none is named, one proves that the server works."""
    target = prepared.target
    listed = Check("models", "ok", f"{len(target.models or ())} listed: {', '.join((target.models or ())[:20])}")
    if target.models is None:
        listed = Check("models", "warn", "the server has no list of models", "name the model with --model")
    try:
        _choose(prepared)
    except LoadbenchError as error:
        return [Check("models", "fail", error.message, error.hint), *skipped("probe")]
    checks = [listed, *(Check("models", "fail", reason) for reason in prepared.missing.values())]
    for model in prepared.models:
        if model not in prepared.missing:
            checks += await _try(prepared, machine, model)
    return checks


def _choose(prepared: Prepared) -> None:
    wanted, target = prepared.scenario.target.model, prepared.target
    if prepared.service is not None and (wanted or prepared.catalogue):
        choose(prepared, wanted or _one(prepared.catalogue))
    else:
        prepared.models, prepared.missing = choose_models(target, wanted or (target.models or ())[:1] or None)


def _one(catalogue: Sequence[Model]) -> tuple[str, ...]:
    """One that is loaded, or cached, or the first: the cheapest to try."""
    return (min(catalogue, key=lambda model: (not model.loaded, not model.cached)).id,)


async def _try(prepared: Prepared, machine: Machine, model: str) -> list[Check]:
    checks = []
    if model in prepared.asked:
        checks.append(Check(f"name {prepared.asked[model]}", "ok", f"is {model}"))
    if prepared.service is not None:
        loaded = await _loaded(prepared, model)
        checks.append(loaded)
        if loaded.status == "fail":
            return [*checks, *skipped(f"probe {model}")]
    native = prepared.service is not None and prepared.service.dialect is Dialect.NATIVE
    trial = ModelProbe(prepared.scenario, prepared.target, model=model, known=prepared.entry(model), machine=machine)
    return checks + await trial.run(asks_limit=native)


async def _loaded(prepared: Prepared, model: str) -> Check:
    try:
        await prepared.ready(model)
    except LoadbenchError as error:
        return Check(f"loaded {model}", "fail", error.message, error.hint)
    if model in prepared.load_s:
        return Check(f"loaded {model}", "ok", f"it was not, and took {prepared.load_s[model]:.2f} s to load")
    return Check(f"loaded {model}", "ok", "it was")


def _resources(prepared: Prepared, machine: Machine) -> list[Check]:
    """Disk, memory and GPU, where the server is on this machine; of another one only this one's disk."""
    wanted = [entry for model in prepared.models if (entry := prepared.entry(model)) is not None]
    service = prepared.service
    cache = None if service is None else service.cache
    to_load = sum(one.size_bytes or 0 for one in wanted if one.loaded is False and one.id not in prepared.load_s)
    to_fetch = sum(one.size_bytes or 0 for one in wanted if one.cached is False)
    checks = [disk(cache or Path.cwd(), needed=to_fetch)]
    checks += downloads(cache) if cache is not None else []
    return [*checks, machine.memory(needed=to_load), machine.gpu()]
