"""The checks of `loadbench doctor`, in order; those that a failed check makes pointless are skipped.

A check never raises for what it finds: its result is ok, warn, fail or skip, with what was found and what to do. First
come the checks of a measurement's target: the server is found, every wanted model is listed, loaded and responds. Then
come conditions that spoil a measurement before it begins.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import anyio

from loadbench.core.errors import LoadbenchError
from loadbench.plan.server_url import UNVERIFIED
from loadbench.targets.acceleration import foundry_checks, ollama_checks, process_checks
from loadbench.targets.catalogue import from_listing, from_ollama, same_as_any
from loadbench.targets.check_result import Check, CheckReport, skipped
from loadbench.targets.discovery import NOT_FOUND_HINT, moved_to
from loadbench.targets.foundry import Dialect
from loadbench.targets.http_get import get_json
from loadbench.targets.machine import Machine, clock, descriptors, disk, downloads, ports, processor
from loadbench.targets.openai import choose_models
from loadbench.targets.prepare import Prepared, choose, find_server, known_models, prepare, without_foundry
from loadbench.targets.probe import ModelProbe
from loadbench.targets.server_version import server_info
from loadbench.telemetry.sampler import is_local

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from loadbench.plan.scenario import Scenario
    from loadbench.targets.discovery import DiscoveryStep

# Other programs send requests where these lead.
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")


async def run_checks(
    scenario: Scenario, environment: Mapping[str, str], *, url: str | None, steps: Sequence[DiscoveryStep] = ()
) -> CheckReport:
    """Check the discovery, the endpoint, its models, a first response of each wanted model, and this machine.

    `steps` are the places where the server was looked for; without a `url` it was not found.
    """
    if scenario.target.adapter is not None:
        return CheckReport(checks=[*await _adapter_checks(scenario, environment), clock(), *processor()])

    # The first place that named an address was used.
    used = next((step for step in steps if step.url), None)
    checks = [Check(f"by {step.source}", "ok" if step is used else "skip", step.finding) for step in steps]
    if url is None:
        checks.append(Check("discovery", "fail", "Foundry Local was not found", NOT_FOUND_HINT))
        checks += skipped("endpoint", "models", "response")
        return CheckReport(checks=[*checks, disk(Path.cwd()), descriptors(), ports(), clock(), *processor()])
    checks += await _name_checks(url)
    proxies = [name for name in _PROXIES if environment.get(name) or environment.get(name.lower())]
    if proxies:
        message = f"{' and '.join(proxies)} not used: requests go straight to the server"
        checks.append(Check("proxy", "ok", message, "if only the proxy reaches the server, measure behind it"))
    moved, moved_url = [], moved_to(list(steps), url)
    try:
        target, service = await find_server(scenario, environment, url=url)
        if service is None:
            scenario = without_foundry(scenario, target, lambda note: checks.append(Check("settings", "warn", note)))
            catalogue = from_listing(target.listing, foundry=False)
        else:
            catalogue = await known_models(scenario, target, service)
        failure = None
    except LoadbenchError as error:
        failure = Check("endpoint", "fail", error.message, error.hint)
    if moved_url is not None:
        message = f"the foundry command reports the service at {moved_url}"
        advice = f"its port changes at each start: use --url {moved_url}"
        moved = [Check("moved port", "warn" if failure is None else "fail", message, advice)]
    if failure is not None:
        checks += [failure, *moved, *skipped("models", "response")]
        return CheckReport(checks=[*checks, disk(Path.cwd()), descriptors(), ports(), clock(), *processor()])
    prepared = Prepared(scenario=scenario, target=target, service=service, catalogue=catalogue)
    kind = "" if service is None else f", Foundry Local {service.dialect.removeprefix('foundry-')}"
    about = target.base_url + kind + (f", server {target.server}" if target.server else "")
    checks += [Check("endpoint", "ok", about), *moved]
    if scenario.target.insecure:
        checks.append(Check("certificate", "warn", UNVERIFIED, "give its CA with --cacert FILE instead"))
    machine = Machine(url, local=is_local(url), pid=None if service is None else service.pid)
    checks += await _model_checks(prepared, machine)
    checks += [] if scenario.simulated else await _acceleration(prepared, machine)

    # Disk, memory and GPU, if the server is on this machine; else only this machine's disk.
    wanted = [entry for model in prepared.models if (entry := prepared.entry(model)) is not None]
    to_load = sum(
        entry.size_bytes or 0 for entry in wanted if entry.loaded is False and entry.id not in prepared.load_s
    )
    to_download = sum(entry.size_bytes or 0 for entry in wanted if entry.cached is False)
    cache = None if service is None else service.cache
    checks += [disk(cache or Path.cwd(), needed=to_download), *(downloads(cache) if cache is not None else [])]
    return CheckReport(
        checks=[*checks, machine.memory(needed=to_load), machine.gpu(), descriptors(), ports(), clock(), *processor()]
    )


async def _adapter_checks(scenario: Scenario, environment: Mapping[str, str]) -> list[Check]:
    """A model in this process: the adapter is made, the model loaded and probed, and its context length reported."""
    machine = Machine("", local=True, pid=os.getpid())
    places = [disk(Path.cwd()), machine.gpu()]
    try:
        prepared = await prepare(scenario, environment, url="")
    except LoadbenchError as error:
        return [Check("adapter", "fail", error.message, error.hint), *skipped("loaded", "response"), *places]
    target, (model, *_) = prepared.target, prepared.models
    checks = [Check("adapter", "ok", target.base_url.removeprefix("adapter:"))]
    checks += [Check("models", "fail", reason) for reason in prepared.missing.values()]
    loaded = await _loaded(prepared, model)
    if loaded.status == "fail":
        return [*checks, loaded, *skipped(f"response {model}"), *places]
    context, memory = getattr(target.adapter, "context", None), machine.memory()
    probe = ModelProbe(prepared, model=model, machine=machine)
    checks += [loaded, *await probe.run(ask_limit=False)]
    if isinstance(context, int):
        checks.append(Check(f"context {model}", "ok", f"{context:,} tokens, as the adapter reports"))
    return [*checks, memory, *places]


async def _name_checks(url: str) -> list[Check]:
    """A warning about `localhost` with several addresses: the server may listen on only one of them."""
    if urlsplit(url).hostname != "localhost":
        return []
    try:
        infos = await anyio.getaddrinfo("localhost", None, type=socket.SOCK_STREAM)
    except OSError:
        return []  # the check of the endpoint will report this
    addresses = list(dict.fromkeys(str(address[0]) for *_, address in infos))
    if len(addresses) < 2:
        return []
    advice = "use 127.0.0.1, or the address that the server listens on: connecting to the others only costs time"
    return [Check("name", "warn", f"localhost is {' and '.join(addresses)}", advice)]


async def _model_checks(prepared: Prepared, machine: Machine) -> list[Check]:
    """The list of models, and each wanted model; if none is named, one shows that the server works."""
    target, service, catalogue = prepared.target, prepared.service, prepared.catalogue
    checks = [Check("models", "ok", f"{len(target.models or ())} listed: {', '.join((target.models or ())[:20])}")]
    if target.models is None:
        reason = f"no list of models: {target.list_problem}" if target.list_problem else "no list of models"
        checks = [Check("models", "warn", reason, "name the model with --model")]
    wanted = prepared.scenario.target.model
    try:
        if service is not None and (wanted or catalogue):
            # The cheapest one to try: it is loaded, or cached, or the first.
            cheapest = () if wanted else (min(catalogue, key=lambda model: (not model.loaded, not model.cached)).id,)
            choose(prepared, wanted or cheapest)
        else:
            prepared.models, notes = choose_models(target, wanted or (target.models or ())[:1] or None)
            checks += [Check("models", "warn", note, "check the name") for note in notes.values()]
    except LoadbenchError as error:
        return [Check("models", "fail", error.message, error.hint), *skipped("response")]
    checks += [Check("models", "fail", reason) for reason in prepared.missing.values()]
    for model in prepared.models:
        if model in prepared.missing:
            continue
        if model in prepared.requested_names:
            checks.append(Check(f"name {prepared.requested_names[model]}", "ok", f"is {model}"))
        if service is not None:
            loaded = await _loaded(prepared, model)
            checks.append(loaded)
            if loaded.status == "fail":
                checks += skipped(f"response {model}")
                continue
        native = service is not None and service.dialect is Dialect.NATIVE
        probe = ModelProbe(prepared, model=model, machine=machine)
        checks += await probe.run(ask_limit=native)
    return checks


async def _acceleration(prepared: Prepared, machine: Machine) -> list[Check]:
    """The boards of the server's machine against what the server offers and uses."""
    devices, scenario, target = machine.devices(), prepared.scenario, prepared.target
    if prepared.service is not None:
        named = list(filter(same_as_any(scenario.target.model or ()), prepared.models))
        dialect = prepared.service.dialect
        return foundry_checks(devices, prepared.catalogue, prepared.models, dialect=dialect, named=named)
    if any(entry.get("owned_by") == "library" for entry in target.listing):  # Ollama's list says so
        async with target.http(scenario.limits) as http:
            running, tags = [await get_json(http, f"{target.root}/api/{route}") for route in ("ps", "tags")]
        return ollama_checks(devices, from_ollama(tags, running), prepared.models)
    libraries = machine.libraries() if any(device.kind == "GPU" for device in devices) else []
    if not libraries:
        return []
    program = (await server_info(target, None, scenario.limits)).program
    return process_checks(devices, libraries, machine.read(), program=program)


async def _loaded(prepared: Prepared, model: str) -> Check:
    try:
        await prepared.ready(model)
    except LoadbenchError as error:
        return Check(f"loaded {model}", "fail", error.message, error.hint)
    if model in prepared.load_s:
        return Check(f"loaded {model}", "ok", f"loaded now, in {prepared.load_s[model]:.2f} s")
    return Check(f"loaded {model}", "ok", "already loaded")
