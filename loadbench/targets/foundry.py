"""Foundry Local's service: its three dialects, and the routes that each has in addition to the chat.

    0.x   the service of `foundry service`: /openai/status, /openai/load/NAME, /openai/loadedmodels
    1.x   the core that the command line 0.10 runs: /status with modelDirPath, /models/load/ID
    2.x   the native core of the SDK: /status with modelCachePath and pid, /models/load/ALIAS

All of them load a model by GET, and none loads the model of a chat request. 2.x accepts only an alias for loading and
only the full id with its version in a chat; 1.x and 0.x accept either. Every other server is plain OpenAI.
"""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass
from enum import StrEnum
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import orjson

from loadbench.core import bounded
from loadbench.core.errors import TargetUnavailable
from loadbench.targets.catalogue import bare_name, from_cache, from_catalogue, same_model, unversioned
from loadbench.targets.http_get import get, get_json, parse_json
from loadbench.telemetry.sampler import is_local
from loadbench.wire.openai import error_text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from loadbench.results.models import Model
    from loadbench.targets.http_get import HttpClient
    from loadbench.targets.target import Target

# A model is unloaded after ten minutes without a request, unless the request to load it sets a time: a day, in seconds.
_STAYS_S = 24 * 3600
_CATALOGUE_FILE = "foundry.modelinfo.json"
# The catalogue of a few hundred models takes a megabyte.
_MOST_CATALOGUE_BYTES = 32 * 1024 * 1024
_SERVERS = re.compile(r"oatpp|kestrel|microsoft", re.IGNORECASE)
_IDS = re.compile(r"-(cpu|gpu|npu)(:\d+)?$", re.IGNORECASE)


class Dialect(StrEnum):
    """The kind of server, by its routes."""

    OPENAI = "openai"
    LEGACY = "foundry-0.x"
    CORE = "foundry-1.x"
    NATIVE = "foundry-2.x"


@dataclass(frozen=True, slots=True)
class _Routes:
    loaded: str
    load: str
    unload: str


_ROUTES = {
    Dialect.LEGACY: _Routes(
        "/openai/loadedmodels", f"/openai/load/{{}}?ttl={_STAYS_S}", "/openai/unload/{}?force=true"
    ),
    Dialect.CORE: _Routes("/models/loaded", "/models/load/{}", "/models/unload/{}"),
    Dialect.NATIVE: _Routes("/models/loaded", "/models/load/{}", "/models/unload/{}"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """A Foundry Local service, by its status; `root` is the base of its own routes.

    `cache` and `pid` are `None` if the service is on another machine or does not report them.
    """

    root: str
    dialect: Dialect
    endpoints: tuple[str, ...] = ()
    cache: Path | None = None
    pid: int | None = None

    @property
    def local(self) -> bool:
        """Whether its address is on this machine."""
        return is_local(self.root)


def looks_like_foundry(target: Target) -> bool:
    """Whether to ask for its status: by the server's name, ids that end in a device, or keys that only Foundry has."""
    return (
        _SERVERS.search(target.server or "") is not None
        or any(_IDS.search(model) for model in target.models or ())
        or any("IsDelta" in item or "maxOutputTokens" in item for item in target.listing)
    )


async def recognise(http: HttpClient, target: Target) -> Service | None:
    """The service behind an endpoint, or `None` if it is not Foundry Local."""
    root = re.sub(r"/v\d+$", "", target.base_url)
    status = await get_json(http, f"{root}/status")
    if isinstance(status, dict) and "endpoints" in status:
        dialect = Dialect.NATIVE if "modelCachePath" in status else Dialect.CORE
        return _service(root, dialect, status)
    status = await get_json(http, f"{root}/openai/status")
    if isinstance(status, dict) and {"endpoints", "modeldirpath"} & {str(key).lower() for key in status}:
        return _service(root, Dialect.LEGACY, status)
    return None


def _service(root: str, dialect: Dialect, status: Mapping[str, object]) -> Service:
    fields = {key.lower(): value for key, value in status.items()}
    endpoints, pid = fields.get("endpoints"), fields.get("pid")
    local = is_local(root)
    number = pid if local and isinstance(pid, int) and not isinstance(pid, bool) and pid > 0 else None
    path = fields.get("modelcachepath") or fields.get("modeldirpath")
    return Service(
        root=root,
        dialect=dialect,
        endpoints=tuple(map(str, endpoints)) if isinstance(endpoints, list) else (),
        cache=_folder(path, number) if local and isinstance(path, str) else None,
        pid=number,
    )


def _folder(path: str, pid: int | None) -> Path | None:
    """The model cache; a relative path is relative to the service's working directory, which only Linux shows."""
    folder = Path(path)
    try:
        if sys.platform == "linux" and not folder.is_absolute():
            folder = Path(os.readlink(f"/proc/{pid}/cwd")) / folder  # noqa: PTH115 - the link's text is wanted
        return folder if folder.is_absolute() and folder.is_dir() else None
    except (OSError, ValueError):
        return None


def catalogue_of(service: Service) -> tuple[list[Model], list[Model]]:
    """(the models in the catalogue file, those in the cache); empty if they are not on this machine or not readable."""
    if service.cache is None:
        return [], []
    path = service.cache / _CATALOGUE_FILE
    try:
        listed = from_catalogue(
            bounded.parse_json(bounded.read_file(path, _MOST_CATALOGUE_BYTES), bounded.MOST_LIST_COST)
        )
    except (OSError, orjson.JSONDecodeError):
        listed = []
    return listed, from_cache(service.cache)


async def loaded_ids(http: HttpClient, service: Service) -> list[str] | None:
    """The ids of the loaded models; `None` if the service does not report them."""
    ids = await get_json(http, service.root + _ROUTES[service.dialect].loaded)
    return [str(model) for model in ids] if isinstance(ids, list) else None


async def load(http: HttpClient, service: Service, model: Model, *, within_s: float) -> None:
    """Load a model and check that it is loaded; raises `TargetUnavailable` with the service's error if it is not."""
    reason = await _first_that_works(http, service, _ROUTES[service.dialect].load, model, within_s=within_s)
    if reason is not None:
        raise TargetUnavailable(f"cannot load {model.id}: {reason}", hint=_LOAD_HINT)
    loaded = await loaded_ids(http, service)
    if loaded is not None and not any(same_model(model.id, one) for one in loaded):
        others = ", ".join(loaded) or "nothing"
        raise TargetUnavailable(
            f"the service was to load {model.id}, but loaded {others}",
            hint=f"its alias prefers another variant; load this one with `foundry model load {model.id}`",
        )


async def unload(http: HttpClient, service: Service, model: Model) -> None:
    """Unload a model; raises `TargetUnavailable` with the service's error if it stays loaded."""
    reason = await _first_that_works(http, service, _ROUTES[service.dialect].unload, model, within_s=60.0)
    if reason is not None:
        raise TargetUnavailable(f"cannot unload {model.id}: {reason}", hint="check whether it is still in use")


_LOAD_HINT = "check that it is downloaded (loadbench models --cached), and that there is memory for it"


async def _first_that_works(
    http: HttpClient, service: Service, route: str, model: Model, *, within_s: float
) -> str | None:
    """Try the model's names until the service accepts one: `None`, or the reason why it accepted none."""
    reason = ""
    for name in _names(model, service.dialect):
        url = service.root + route.format(quote(name, safe=":"))
        response = await get(http, url, within_s=within_s)
        if response.status_code == HTTPStatus.OK:
            return None
        document = parse_json(response)
        reason = reason or f"HTTP {response.status_code}" + (f": {error_text(response.content)}" if document else "")
        if response.status_code not in {HTTPStatus.NOT_FOUND, HTTPStatus.BAD_REQUEST}:
            break  # the name is known, and something else is wrong
    return reason


def _names(model: Model, dialect: Dialect) -> list[str]:
    """The names by which a dialect may load a model, the likeliest first."""
    alias = [model.alias] if model.alias else []
    if dialect is Dialect.NATIVE:
        names = [*alias, bare_name(model.id), model.id]
    else:
        names = [model.id, unversioned(model.id), *alias]
    return list(dict.fromkeys(names))
