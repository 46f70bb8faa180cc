"""Prepares a target for a measurement: finds it and its dialect, resolves model names, and loads the models.

For any server but Foundry Local this only needs its list of models. With Foundry Local, a name may be an alias, an id
without its version, or the part before the device; a chat request does not load a model; and the variant that an alias
means depends on the machine, so aliases that may mean several variants are not compared.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from msgspec import structs

from loadbench.core.errors import BadInput, TargetUnavailable
from loadbench.core.units import NS_PER_S
from loadbench.plan.scenario import leave_out
from loadbench.plan.server_url import shown_url
from loadbench.plan.settings import DEFAULT, FOUNDRY_NEEDS, setting_of, settings
from loadbench.results.models import Model
from loadbench.targets.adapters import adapter_target, release
from loadbench.targets.adapters import load as load_adapter
from loadbench.targets.catalogue import from_listing, merged, resolve, same_as_any, same_model, with_loaded
from loadbench.targets.context import Context, check_context
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
from loadbench.targets.openai import ALL_MODELS, choose_models, few_enough, find_endpoint
from loadbench.targets.target import not_listed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from loadbench.plan.scenario import Scenario
    from loadbench.record.sample import Sample
    from loadbench.results.run import Adapted, ExactOutput
    from loadbench.targets.http_get import HttpClient
    from loadbench.targets.target import Target


@dataclass(slots=True, kw_only=True)
class Prepared:
    """A run's target, and `others` that share the load with it. `models` are named as in requests; those in `missing`
    cannot be tested, for the reason given. A mix is one of `models`, by its name; `mix` are its models.

    By model, `requested_names` has the name that the user gave if it is another one, `load_s` the load time of a model
    that was not loaded before, and `load_warm_s` the time to load it again, if that is to be timed.
    `adapted` and `exact` say how requests were adapted to the server (`loadbench.targets.adapt`). `still_loads` says
    whether to send a first request again that failed, since a server that was just started is still loading.
    """

    scenario: Scenario
    target: Target
    others: tuple[Target, ...] = ()
    service: Service | None = None
    catalogue: list[Model] = field(default_factory=list)
    models: tuple[str, ...] = ()
    mix: tuple[str, ...] = ()
    missing: dict[str, str] = field(default_factory=dict)
    requested_names: dict[str, str] = field(default_factory=dict)
    load_s: dict[str, float] = field(default_factory=dict)
    load_warm_s: dict[str, float] = field(default_factory=dict)
    adapted: list[Adapted] = field(default_factory=list)
    exact: ExactOutput | None = None
    say: Callable[[str], None] = lambda _: None
    still_loads: Callable[[Sample], Awaitable[bool]] | None = None
    _ours: Model | None = None

    @property
    def targets(self) -> tuple[Target, ...]:
        """All servers that share the load; what one of them refuses is sent to none."""
        return (self.target, *(replace(other, changes=self.target.changes) for other in self.others))

    def entry(self, model: str) -> Model | None:
        """The model's entry in the catalogue."""
        return next((entry for entry in self.catalogue if entry.id == model), None)

    async def ready(self, model: str) -> None:
        """Load a model that is not loaded, or all models of a mix; raises `TargetUnavailable` if one cannot be loaded.

        The model that was loaded here before is unloaded first: two may not fit into memory, and one of them would be
        measured with less memory than the other. Those of a mix must fit together.
        """
        for part in self.mix or (model,):
            await self._ready(part)
        if self.mix and self.service is not None:
            async with self.target.http(self.scenario.limits) as http:
                loaded = await loaded_ids(http, self.service)
            gone = [part for part in self.mix if not any(same_model(part, one) for one in loaded or self.mix)]
            if gone:
                reason = f"{', '.join(gone)} did not stay loaded when the others were loaded"
                raise TargetUnavailable(reason, hint="the models of a mix must fit into memory together")

    async def _ready(self, model: str) -> None:
        again, adapter, service = self.scenario.target.time_loads, self.target.adapter, self.service
        if adapter is not None:
            self.load_s[model] = await load_adapter(adapter) / NS_PER_S
            self.say(f"{model} was loaded in {self.load_s[model]:.2f} s")
            if again:
                await release(adapter)
                self.load_warm_s[model] = await load_adapter(adapter) / NS_PER_S
            return
        known = self.entry(model)
        if service is None or known is None:
            return
        async with self.target.http(self.scenario.limits) as http:
            loaded = await loaded_ids(http, service)
            if loaded is not None and not any(same_model(model, one) for one in loaded):
                await self._load(http, service, known)
            if again:
                # Its files were just read, so this is as warm as loading gets.
                try:
                    await unload(http, service, known)
                except TargetUnavailable as error:
                    self.say(f"{error}: loading it again is not timed")
                    return
                self.load_warm_s[model] = await timed_load(http, self.scenario, service, known)
                self.say(f"{model} was loaded again in {self.load_warm_s[model]:.2f} s")

    async def _load(self, http: HttpClient, service: Service, model: Model) -> None:
        if not self.scenario.target.load:
            raise TargetUnavailable(f"{model.id} is not loaded", hint=f"loadbench models --load {model.id}")
        if self._ours is not None and not self.mix:
            previous, self._ours = self._ours, None
            try:
                await unload(http, service, previous)
            except TargetUnavailable as error:
                self.say(str(error))
        self.say(f"loading {model.id}")
        self.load_s[model.id] = await timed_load(http, self.scenario, service, model)
        self.say(f"{model.id} was loaded in {self.load_s[model.id]:.2f} s")
        self._ours = model


async def timed_load(http: HttpClient, scenario: Scenario, service: Service, model: Model) -> float:
    """Load a model within the time limit of a whole request; returns the duration in seconds."""
    within_ns = scenario.limits.timeout
    began_ns = time.perf_counter_ns()
    await load(http, service, model, within_s=float("inf") if within_ns is None else within_ns / NS_PER_S)
    return (time.perf_counter_ns() - began_ns) / NS_PER_S


async def find_server(scenario: Scenario, environment: Mapping[str, str], *, url: str) -> tuple[Target, Service | None]:
    """The endpoint, and its Foundry Local service if it has one; raises `TargetUnavailable` if it must and has not."""
    target = await find_endpoint(scenario, environment, url=url)
    kind = scenario.target.kind
    if kind == "openai" or (kind == "auto" and not looks_like_foundry(target)):
        return target, None
    async with target.http(scenario.limits) as http:
        service = await recognise(http, target)
    if service is None and kind == "foundry":
        raise TargetUnavailable(
            f"{target.base_url}: not Foundry Local: it has neither /status nor /openai/status",
            hint="leave out --target foundry if it is another server",
        )
    return target, service


def without_foundry(scenario: Scenario, target: Target, say: Callable[[str], None]) -> Scenario:
    """The scenario for a `target` that is not Foundry Local, without the settings that only have an effect there.

    One that was given is reported if the server was named by a stronger source. If not, it raises `BadInput`.
    """
    only = {setting.key for setting in settings() if FOUNDRY_NEEDS & {*setting.needs}}
    named = scenario.origins.get("target.url", DEFAULT).source
    for key, entry in scenario.values.entries.items():
        if key in only and scenario.is_set(key) and not entry.is_off:
            scenario = leave_out(scenario, key, f"{target.base_url} loads its models itself", by=named)
            say(f"not used: {scenario.unused[-1]}")
    return replace(scenario, not_used=scenario.not_used | only)


async def known_models(scenario: Scenario, target: Target, service: Service) -> list[Model]:
    """All models by the service, its catalogue file and its cache, each loaded or not."""
    async with target.http(scenario.limits) as http:
        loaded = await loaded_ids(http, service)
    listed = from_listing(target.listing, foundry=True)
    catalogue, cached = catalogue_of(service)
    if service.dialect is not Dialect.NATIVE:
        listed = [structs.replace(model, cached=True) for model in listed]
    elif service.cache is not None:
        # 2.x also lists models that could be downloaded.
        is_cached = same_as_any(one.id for one in cached)
        catalogue = [structs.replace(entry, cached=is_cached(entry.id)) for entry in catalogue]
    # Without a list (1.x has none while its catalogue cannot be fetched) loaded and cached models can still be used.
    in_memory = [Model(id=model, cached=True) for model in loaded or ()]
    return with_loaded(merged(listed, in_memory, cached, catalogue), loaded)


async def prepare(
    scenario: Scenario, environment: Mapping[str, str], *, url: str, say: Callable[[str], None] = lambda _: None
) -> Prepared:
    """Find the target and the models to test; nothing is loaded yet. `say` reports decisions to the user.

    Raises `TargetUnavailable` if there is nothing to test, `BadInput` if the models are not named clearly, or if the
    requests are too long for one of them.
    """
    if scenario.target.adapter is not None:
        target = adapter_target(scenario.target.adapter)
        models, missing = choose_models(target, scenario.target.model)
        return Prepared(scenario=scenario, target=target, models=models, missing=missing, say=say)
    target, service = await find_server(scenario, environment, url=url)
    others = await _others(scenario, environment, target, service)
    shares = scenario.target.mix_models or ()
    mix = tuple(share.name for share in shares)
    if service is None:
        scenario = without_foundry(scenario, target, say)
        prepared = Prepared(scenario=scenario, target=target, others=others, say=say)
        prepared.models, _ = choose_models(target, mix or scenario.target.model)
        for one in prepared.targets:
            if one.list_problem:
                say(f"warning: no list of models: {one.list_problem}; continuing with the named models")
            for note in choose_models(one, prepared.models)[1].values():
                say(f"warning: {one.base_url} {note}; continuing, as a list may be incomplete")
    else:
        catalogue = await known_models(scenario, target, service)
        prepared = Prepared(scenario=scenario, target=target, service=service, catalogue=catalogue, say=say)
        wanted = scenario.target.model
        if wanted == ALL_MODELS:
            wanted = few_enough(target, tuple(model.id for model in catalogue if model.cached or model.loaded))
        choose(prepared, mix or wanted or _default(target, catalogue))
    catalogued: dict[str, Context | None] = {}
    for model in prepared.models:
        entry = prepared.entry(model)
        length = None if entry is None else entry.context_length
        if model not in prepared.missing:
            catalogued[model] = None if length is None else Context(length, "by its catalogue")
    for one in prepared.targets:
        await check_context(scenario, one, catalogued, say)
    if mix:
        if prepared.missing:
            raise TargetUnavailable(f"{target.base_url}: {'; '.join(prepared.missing.values())}")
        prepared.mix, prepared.models = prepared.models, (",".join(map(str, shares)),)
    return prepared


async def _others(
    scenario: Scenario, environment: Mapping[str, str], first: Target, service: Service | None
) -> tuple[Target, ...]:
    """The further servers that share the load. Raises `BadInput` for two addresses of one server, or Foundry Local."""
    targets, place = [first], scenario.place("target.url")
    for url in (scenario.target.url or ())[1:]:
        target, also = await find_server(scenario, environment, url=url)
        if target.base_url in {one.base_url for one in targets}:
            raise BadInput(f"{place}: {shown_url(url)} is the same server as another", hint="name each server once")
        service = service or also
        targets.append(target)
    if service is not None and len(targets) > 1:
        raise BadInput(
            f"{place}: Foundry Local at {service.root} cannot share the load with others",
            hint="its models are loaded at one service; name one URL",
        )
    return tuple(targets[1:])


def _default(target: Target, catalogue: Sequence[Model]) -> tuple[str, ...]:
    """The only model, or the only one that is loaded."""
    for models in ([model for model in catalogue if model.loaded], catalogue):
        if len(models) == 1:
            return (models[0].id,)
    return choose_models(target, None)[0]


def choose(prepared: Prepared, wanted: Sequence[str]) -> None:
    """Set which models are tested, which are missing, and by which names the user gave them."""
    chosen: dict[str, str] = {}
    scenario = prepared.scenario
    place = scenario.place("target.model" if scenario.target.mix_models is None else "target.mix_models")
    for name in wanted:
        resolved = resolve(name, prepared.catalogue)
        if resolved is None:
            prepared.missing[name] = unknown(name, prepared.catalogue)
            chosen[name] = name
            continue
        if resolved.ambiguous and len(wanted) > 1 and not scenario.target.allow_alias:
            hint = "the machine decides which one; name the one that you mean"
            hint += ", or use --allow-alias" * (scenario.command in setting_of("target.allow_alias").commands)
            raise BadInput(f"{place} {name}: may mean {', '.join(resolved.choices)}", hint=hint)
        if resolved.model.id in chosen:
            raise BadInput(f"{place} {name}: the same model as {chosen[resolved.model.id]}", hint="name one of them")
        chosen[resolved.model.id] = name
        if name != resolved.model.id:
            prepared.requested_names[resolved.model.id] = name
            others = f", of {len(resolved.choices)} variants" if resolved.ambiguous else ""
            prepared.say(f"{name} is {resolved.model.id}{others}")
    prepared.models = tuple(chosen)
    if len(prepared.missing) == len(chosen):
        listed = ", ".join(model.id for model in prepared.catalogue[:20]) or "none"
        raise TargetUnavailable(
            f"{prepared.target.base_url}: {'; '.join(prepared.missing.values())}", hint=f"it lists {listed}"
        )


def unknown(name: str, catalogue: Sequence[Model]) -> str:
    """That there is no such model, and the id or alias that was probably meant."""
    return not_listed(name, [word for model in catalogue for word in (model.id, model.alias) if word])
