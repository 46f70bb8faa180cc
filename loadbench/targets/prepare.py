"""A target made ready to be measured: found, its dialect known, each model by the name that a chat wants, and loaded.

On any server but Foundry Local that is its list of models and no more. There, a name may be an alias, an id without its
version, or what stands before the device; nothing is loaded by a chat; and which variant an alias means depends on the
machine, so that no comparison is made of aliases that may mean several.
"""

from __future__ import annotations

import difflib
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from msgspec import structs

from loadbench.core.errors import BadInput, TargetUnavailable
from loadbench.core.units import NS_PER_S
from loadbench.results.models import Model
from loadbench.targets.adapters import adapter_target, release
from loadbench.targets.adapters import load as load_adapter
from loadbench.targets.catalogue import from_listing, merged, resolve, same_model, with_loaded
from loadbench.targets.foundry import (
    Dialect,
    Service,
    catalogue_of,
    load,
    loaded_ids,
    looks_like_foundry,
    recognise,
    unload,
)
from loadbench.targets.http_get import http_client
from loadbench.targets.openai import choose_models, find_endpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager

    import httpx

    from loadbench.client.adapter import Adapter
    from loadbench.plan.scenario import Scenario
    from loadbench.targets.openai import Target


@dataclass(slots=True, kw_only=True)
class Prepared:
    """What a run needs to know of its target. `models` are as requests name them, those in `missing` cannot be tested.

    `asked` has, by model, the name that it was asked for by, where that was another; `load_s` how long loading took, of
    those that were not loaded before, and `load_warm_s` how long it took again, where that is to be timed.
    """

    scenario: Scenario
    target: Target
    service: Service | None = None
    catalogue: list[Model] = field(default_factory=list)
    models: tuple[str, ...] = ()
    missing: dict[str, str] = field(default_factory=dict)
    asked: dict[str, str] = field(default_factory=dict)
    load_s: dict[str, float] = field(default_factory=dict)
    load_warm_s: dict[str, float] = field(default_factory=dict)
    say: Callable[[str], None] = lambda _: None
    _ours: Model | None = None

    def entry(self, model: str) -> Model | None:
        """What the catalogue says of a model."""
        return next((one for one in self.catalogue if one.id == model), None)

    async def ready(self, model: str) -> None:
        """See that a model is loaded, and load it where it is not; raises `TargetUnavailable` where it cannot be.

        What was loaded here for the model before is let go first: two may not fit, and one of them would be measured
        with less memory than the other.
        """
        again = self.scenario.target.time_loads
        if self.target.adapter is not None:
            await self._load_adapter(self.target.adapter, model, again=again)
            return
        known = self.entry(model)
        if self.service is None or known is None:
            return
        async with target_http(self.scenario, self.target) as http:
            there = await loaded_ids(http, self.service)
            if there is not None and not any(same_model(model, one) for one in there):
                await self._load(http, self.service, known)
            if again:
                await self._load_again(http, self.service, known)

    async def _load_adapter(self, adapter: Adapter, model: str, *, again: bool) -> None:
        self.load_s[model] = await load_adapter(adapter) / NS_PER_S
        self.say(f"{model} was loaded in {self.load_s[model]:.2f} s")
        if again:
            await release(adapter)
            self.load_warm_s[model] = await load_adapter(adapter) / NS_PER_S

    async def _load(self, http: httpx.AsyncClient, service: Service, model: Model) -> None:
        if not self.scenario.target.load:
            raise TargetUnavailable(f"{model.id} is not loaded", hint=f"loadbench models --load {model.id}")
        await self._let_go(http)
        self.say(f"loading {model.id}")
        self.load_s[model.id] = await timed_load(http, self.scenario, service, model)
        self.say(f"{model.id} was loaded in {self.load_s[model.id]:.2f} s")
        self._ours = model

    async def _load_again(self, http: httpx.AsyncClient, service: Service, model: Model) -> None:
        """Its files have just been read, so that this is as warm as loading gets; one that stays loaded is left so."""
        try:
            await unload(http, service, model)
        except TargetUnavailable as error:
            self.say(f"{error}: loading it again is not timed")
            return
        self.load_warm_s[model.id] = await timed_load(http, self.scenario, service, model)
        self.say(f"{model.id} was loaded again in {self.load_warm_s[model.id]:.2f} s")

    async def _let_go(self, http: httpx.AsyncClient) -> None:
        if self._ours is None or self.service is None:
            return
        model, self._ours = self._ours, None
        try:
            await unload(http, self.service, model)
        except TargetUnavailable as error:
            self.say(str(error))


async def timed_load(http: httpx.AsyncClient, scenario: Scenario, service: Service, model: Model) -> float:
    """Load a model within the time of a whole request; returns the seconds that it took."""
    within_ns = scenario.limits.timeout
    began_ns = time.perf_counter_ns()
    await load(http, service, model, within_s=float("inf") if within_ns is None else within_ns / NS_PER_S)
    return (time.perf_counter_ns() - began_ns) / NS_PER_S


def target_http(scenario: Scenario, target: Target) -> AbstractAsyncContextManager[httpx.AsyncClient]:
    """A client for small questions to the target."""
    return http_client(target.headers, tls=target.tls, connect_ns=scenario.limits.connect_timeout)


async def find_server(scenario: Scenario, environment: Mapping[str, str], *, url: str) -> tuple[Target, Service | None]:
    """The endpoint, and the Foundry Local service that it is of; raises `TargetUnavailable` where it is not as told."""
    target = await find_endpoint(scenario, environment, url=url)
    kind = scenario.target.kind
    if kind == "openai" or (kind == "auto" and not looks_like_foundry(target)):
        return target, None
    async with target_http(scenario, target) as http:
        service = await recognise(http, target)
    if service is None and kind == "foundry":
        raise TargetUnavailable(
            f"{target.base_url}: not Foundry Local: it has neither /status nor /openai/status",
            hint="leave --target foundry out if it is another server",
        )
    return target, service


async def known_models(scenario: Scenario, target: Target, service: Service) -> list[Model]:
    """All models that the service, its catalogue file and its cache tell of, each loaded or not."""
    async with target_http(scenario, target) as http:
        there = await loaded_ids(http, service)
    listed = from_listing(target.listing, foundry=True)
    told, cached = catalogue_of(service)
    if service.dialect is not Dialect.NATIVE:
        listed = [structs.replace(model, cached=True) for model in listed]
    elif service.cache is not None:
        # 2.x lists what could be downloaded, too.
        told = [structs.replace(one, cached=any(same_model(one.id, here.id) for here in cached)) for one in told]
    # Without a list (1.x has none while its catalogue cannot be fetched) what is loaded and cached can be asked for.
    return with_loaded(merged(listed, [Model(id=one, cached=True) for one in there or ()], cached, told), there)


async def prepare(
    scenario: Scenario, environment: Mapping[str, str], *, url: str, say: Callable[[str], None] = lambda _: None
) -> Prepared:
    """Find the target and the models to test; nothing is loaded yet. `say` tells the user what was decided.

    Raises `TargetUnavailable` where there is nothing to test, `BadInput` where it is not said clearly what.
    """
    if scenario.target.adapter is not None:
        target = adapter_target(scenario.target.adapter)
        models, missing = choose_models(target, scenario.target.model)
        return Prepared(scenario=scenario, target=target, models=models, missing=missing, say=say)
    target, service = await find_server(scenario, environment, url=url)
    if service is None:
        if scenario.target.time_loads:
            place = scenario.place("target.time_loads")
            raise BadInput(f"{place}: {target.base_url} loads what it serves by its own means", hint="leave it out")
        models, missing = choose_models(target, scenario.target.model)
        return Prepared(scenario=scenario, target=target, models=models, missing=missing, say=say)
    catalogue = await known_models(scenario, target, service)
    prepared = Prepared(scenario=scenario, target=target, service=service, catalogue=catalogue, say=say)
    choose(prepared, scenario.target.model or _default(target, catalogue))
    return prepared


def _default(target: Target, catalogue: Sequence[Model]) -> tuple[str, ...]:
    """The only model, or the only one that is loaded."""
    for models in ([model for model in catalogue if model.loaded], catalogue):
        if len(models) == 1:
            return (models[0].id,)
    return choose_models(target, None)[0]


def choose(prepared: Prepared, wanted: Sequence[str]) -> None:
    """Fill in which models are tested, which are missing, and by what names they were asked for."""
    chosen: dict[str, str] = {}
    for name in wanted:
        meant = resolve(name, prepared.catalogue)
        if meant is None:
            prepared.missing[name] = unknown(name, prepared.catalogue)
            chosen[name] = name
            continue
        if meant.ambiguous and len(wanted) > 1 and not prepared.scenario.target.allow_alias:
            raise BadInput(
                f"--model {name}: may mean {', '.join(meant.choices)}",
                hint="which one depends on the machine; name the one that you mean, or give --allow-alias",
            )
        if meant.model.id in chosen:
            raise BadInput(f"--model {name}: the same model as {chosen[meant.model.id]}", hint="give one of them")
        chosen[meant.model.id] = name
        if name != meant.model.id:
            prepared.asked[meant.model.id] = name
            others = f", of {len(meant.choices)} variants" if meant.ambiguous else ""
            prepared.say(f"{name} is {meant.model.id}{others}")
    prepared.models = tuple(chosen)
    if len(prepared.missing) == len(chosen):
        there = ", ".join(model.id for model in prepared.catalogue[:20]) or "none"
        raise TargetUnavailable(
            f"{prepared.target.base_url}: {'; '.join(prepared.missing.values())}", hint=f"it lists {there}"
        )


def unknown(name: str, catalogue: Sequence[Model]) -> str:
    """That there is no such model, and which one may have been meant."""
    names = [word for model in catalogue for word in (model.id, model.alias) if word]
    near = difflib.get_close_matches(name, names, n=1)
    return f"has no model {name!r}" + (f", did you mean {near[0]!r}?" if near else "")
