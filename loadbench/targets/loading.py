"""Has one of two models of a service in memory at a time: Foundry Local's three dialects, and Ollama.

Both models are unloaded by the service's own routes, until its list of loaded models has neither; then one is loaded
afresh, and the list must have it, and not the other. A service that has no such list is believed.

Ollama (its API reference, docs/api.md): a request to generate without a prompt loads a model, and one that is kept for
0 s unloads it, which it may do a moment after it has responded; `/api/ps` lists the loaded models. A name without a tag
means the tag `latest`.
"""

from __future__ import annotations

import math
from http import HTTPStatus
from typing import TYPE_CHECKING, Protocol

import anyio

from loadbench.core.errors import TargetUnavailable
from loadbench.core.units import NS_PER_S
from loadbench.results.models import Model
from loadbench.targets import foundry
from loadbench.targets.catalogue import same_model
from loadbench.targets.http_get import get, get_json
from loadbench.wire.openai import error_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadbench.core.clock import Clock
    from loadbench.targets.foundry import Service
    from loadbench.targets.http_get import HttpClient
    from loadbench.targets.prepare import Prepared

# A model stays in memory while a request that was cut runs on, which takes as long as its prefill.
_GONE_WITHIN_S = 60.0
_LOOK_EVERY_S = 0.1


class ModelLoader(Protocol):
    """Loads and unloads models of one service."""

    async def loaded(self, http: HttpClient) -> list[str] | None:
        """The ids of the loaded models; `None` if the service does not report them."""
        ...

    async def load(self, http: HttpClient, model: Model, *, within_s: float) -> None:
        """Load a model; raises `TargetUnavailable` with the service's error if it is not."""
        ...

    async def unload(self, http: HttpClient, model: Model) -> None:
        """Unload a model; raises `TargetUnavailable` with the service's error if it stays loaded."""
        ...

    def is_same(self, one: str, other: str) -> bool:
        """Whether two ids mean the same model."""
        ...


class FoundryLoader:
    """Foundry Local, in any dialect."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def loaded(self, http: HttpClient) -> list[str] | None:
        return await foundry.loaded_ids(http, self._service)

    async def load(self, http: HttpClient, model: Model, *, within_s: float) -> None:
        await foundry.load(http, self._service, model, within_s=within_s)

    async def unload(self, http: HttpClient, model: Model) -> None:
        await foundry.unload(http, self._service, model)

    def is_same(self, one: str, other: str) -> bool:
        return same_model(one, other)


class OllamaLoader:
    """Ollama; `root` is the base of its own routes."""

    def __init__(self, root: str) -> None:
        self._root = root

    async def loaded(self, http: HttpClient) -> list[str] | None:
        return _names(await get_json(http, f"{self._root}/api/ps"))

    async def load(self, http: HttpClient, model: Model, *, within_s: float) -> None:
        response = await get(http, f"{self._root}/api/generate", within_s=within_s, post={"model": model.id})
        if response.status_code != HTTPStatus.OK:
            reason = f"HTTP {response.status_code}: {error_text(response.content)}"
            hint = f"check that it is downloaded (ollama pull {model.id}), and that there is memory for it"
            raise TargetUnavailable(f"cannot load {model.id}: {reason}", hint=hint)

    async def unload(self, http: HttpClient, model: Model) -> None:
        response = await get(http, f"{self._root}/api/generate", post={"model": model.id, "keep_alive": 0})
        if response.status_code != HTTPStatus.OK:
            reason = f"HTTP {response.status_code}: {error_text(response.content)}"
            raise TargetUnavailable(f"cannot unload {model.id}: {reason}", hint="check whether it is still in use")

    def is_same(self, one: str, other: str) -> bool:
        return one.removesuffix(":latest") == other.removesuffix(":latest")


def _names(document: object) -> list[str] | None:
    """The models in what `/api/ps` responds; `None` if it is something else."""
    models = document.get("models") if isinstance(document, dict) else None
    if not isinstance(models, list):
        return None
    return [str(model["name"]) for model in models if isinstance(model, dict) and "name" in model]


async def model_loader(prepared: Prepared) -> ModelLoader | None:
    """What loads the models of this target; `None` if its server loads none on request, or is not asked to."""
    if not prepared.scenario.target.load:
        return None
    if prepared.service is not None:
        return FoundryLoader(prepared.service)
    if prepared.scenario.target.kind != "auto":
        return None
    root = prepared.target.root
    async with prepared.target.http(prepared.scenario.limits) as http:
        # Others have the one route or the other.
        if _names(await get_json(http, f"{root}/api/ps")) is None:
            return None
        version = await get_json(http, f"{root}/api/version")
    return OllamaLoader(root) if isinstance(version, dict) and "version" in version else None


async def load_alone(loader: ModelLoader, prepared: Prepared, model: str, other: str, *, clock: Clock) -> None:
    """Unload both models, load `model`, and see that the service has it and not the other one. How long loading took is
    in `prepared.load_s`.

    Raises `TargetUnavailable` if the service does something else.
    """
    limits = prepared.scenario.limits
    models = [prepared.entry(name) or Model(id=name) for name in dict.fromkeys((other, model))]
    async with prepared.target.http(limits) as http:
        for one in models:
            await _unload(loader, http, one)
        began_ns = clock.now_ns()
        within_s = math.inf if limits.timeout is None else limits.timeout / NS_PER_S
        await loader.load(http, models[-1], within_s=within_s)
        prepared.load_s[model] = (clock.now_ns() - began_ns) / NS_PER_S
        loaded = await loader.loaded(http)
    if loaded is None:
        return
    if not _has(loader, loaded, model):
        has = ", ".join(loaded) or "nothing"
        raise TargetUnavailable(f"the service was to load {model}, and has {has}", hint="is there memory for it?")
    if other != model and _has(loader, loaded, other):
        hint = "something else loads it: end that, or allow both with --keep-up"
        raise TargetUnavailable(f"{other} is loaded beside {model}", hint=hint)


async def _unload(loader: ModelLoader, http: HttpClient, model: Model) -> None:
    """Unload a model, if it is loaded, until the list does not have it; a model in use is waited for."""
    problem: TargetUnavailable | None = None
    with anyio.move_on_after(_GONE_WITHIN_S):
        while True:
            loaded = await loader.loaded(http)
            if loaded is not None and not _has(loader, loaded, model.id):
                return
            try:
                await loader.unload(http, model)
                problem = None
                if loaded is None:
                    return
            except TargetUnavailable as error:
                problem = error
                if loaded is None:  # it may not have been loaded
                    return
            await anyio.sleep(_LOOK_EVERY_S)
    raise problem or TargetUnavailable(
        f"{model.id} is still loaded {_GONE_WITHIN_S:g} s after the service was to unload it",
        hint="check whether something else uses it, or allow both models with --keep-up",
    )


def _has(loader: ModelLoader, loaded: Sequence[str], model: str) -> bool:
    return any(loader.is_same(model, one) for one in loaded)
