"""The models of a server, from every source that lists them, for `loadbench models`.

A measurement needs none of these extra requests; here they cost nothing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import anyio

from loadbench.core.errors import BadInput, TargetUnavailable
from loadbench.results.models import Catalogue, Model
from loadbench.targets.catalogue import from_catalogue, from_listing, from_ollama, merged, resolve, with_loaded
from loadbench.targets.foundry import Dialect, Service, unload
from loadbench.targets.foundry_cli import FoundryCli, find_cli, list_cli_models
from loadbench.targets.http_get import get_json
from loadbench.targets.prepare import find_server, known_models, timed_load, unknown

if TYPE_CHECKING:
    from collections.abc import Mapping

    from loadbench.plan.scenario import Scenario
    from loadbench.targets.target import Target


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelList:
    """A server and its models, which can be loaded and unloaded."""

    scenario: Scenario
    target: Target
    service: Service | None
    cli: FoundryCli | None
    catalogue: Catalogue

    async def load(self, name: str) -> tuple[str, float | None]:
        """(id, seconds to load, or `None` if it was loaded already); raises `TargetUnavailable` if it fails."""
        service, model = self._service("load"), self._resolved(name)
        if model.loaded:
            return model.id, None
        async with self.target.http(self.scenario.limits) as http:
            return model.id, await timed_load(http, self.scenario, service, model)

    async def unload(self, name: str) -> str:
        """The id of the model that was unloaded; raises `TargetUnavailable` if it stays loaded."""
        service, model = self._service("unload"), self._resolved(name)
        async with self.target.http(self.scenario.limits) as http:
            await unload(http, service, model)
        return model.id

    def _service(self, flag: str) -> Service:
        if self.service is None:
            raise BadInput(
                f"--{flag}: {self.target.base_url} is not Foundry Local", hint="load and unload models at the server"
            )
        return self.service

    def _resolved(self, name: str) -> Model:
        resolved = resolve(name, self.catalogue.models)
        if resolved is None:
            raise TargetUnavailable(
                f"{self.target.base_url}: {unknown(name, self.catalogue.models)}", hint="list them: loadbench models"
            )
        return resolved.model


async def list_server_models(scenario: Scenario, environment: Mapping[str, str], *, url: str) -> ModelList:
    """The models by the server, and for Foundry Local also by its files and its command line.

    Raises `TargetUnavailable`.
    """
    target, service = await find_server(scenario, environment, url=url)
    cli = find_cli(environment)
    if service is not None:
        models, sources = await _foundry_models(scenario, target, service, cli)
    else:
        models, sources = await _other_models(scenario, target)
    catalogue = Catalogue(
        endpoint=target.base_url,
        dialect=Dialect.OPENAI if service is None else service.dialect,
        simulated=scenario.simulated,
        sources=sources,
        models=models,
    )
    return ModelList(scenario=scenario, target=target, service=service, cli=cli, catalogue=catalogue)


async def _foundry_models(
    scenario: Scenario, target: Target, service: Service, cli: FoundryCli | None
) -> tuple[list[Model], list[str]]:
    models, sources = await known_models(scenario, target, service), ["service"]
    if service.cache is not None:
        sources.append(f"cache {service.cache}")
    if service.dialect is Dialect.LEGACY:
        async with target.http(scenario.limits) as http:
            listed = from_catalogue(await get_json(http, f"{service.root}/foundry/list"))
        if listed:
            sources.append("/foundry/list")
            models = merged(models, listed)
    if cli is not None and service.local:
        by_cli = await anyio.to_thread.run_sync(list_cli_models, cli)
        if by_cli:
            sources.append("foundry model list")
            # Further models of the command line are not cached, unless it says so.
            models = merged(models, by_cli)
    loaded = [model.id for model in models if model.loaded]
    return with_loaded(models, loaded or None), sources


async def _other_models(scenario: Scenario, target: Target) -> tuple[list[Model], list[str]]:
    listed = from_listing(target.listing, foundry=False)
    async with target.http(scenario.limits) as http:
        root = re.sub(r"/v\d+$", "", target.base_url)
        tags = await get_json(http, f"{root}/api/tags")
        running = await get_json(http, f"{root}/api/ps") if tags is not None else None
    models = from_ollama(tags, running)
    if running is not None and models:
        return merged(listed, models), ["/v1/models", "/api/tags", "/api/ps"]
    return merged(listed), ["/v1/models"] if target.models is not None else []
