"""Foundry Local's service: which of its three dialects a server speaks, and the routes that each has beside the chat.

    0.x   the service of `foundry service`: /openai/status, /openai/load/NAME, /openai/loadedmodels
    1.x   the core that the command line 0.10 runs: /status with modelDirPath, /models/load/ID
    2.x   the native core of the SDK: /status with modelCachePath and pid, /models/load/ALIAS

All of them load by GET, and none of them loads what a chat asks for. 2.x takes only an alias for loading and only the
full id with its version in a chat; 1.x and 0.x take either. Any other server is plain OpenAI.
"""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import httpx
import orjson

from loadbench.core.errors import TargetUnavailable
from loadbench.targets.catalogue import bare_name, from_cache, from_catalogue_file, same_model, unversioned
from loadbench.targets.http_get import get, get_json, parse_json
from loadbench.telemetry.sampler import is_local
from loadbench.wire.openai import error_text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from loadbench.results.models import Model
    from loadbench.targets.openai import Target

# A model is let go after ten minutes without a request unless it is told for how long to stay: a day, in seconds.
_STAYS_S = 24 * 3600
_CATALOGUE_FILE = "foundry.modelinfo.json"
# The catalogue of some hundred models takes a megabyte.
_MOST_CATALOGUE_BYTES = 32 * 1024 * 1024
_SERVERS = re.compile(r"oatpp|kestrel|microsoft", re.IGNORECASE)
_IDS = re.compile(r"-(cpu|gpu|npu)(:\d+)?$", re.IGNORECASE)


class Dialect(StrEnum):
    """Whose routes a server has."""

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
    """A Foundry Local service as its status tells it; `root` is where its own routes begin.

    `cache` and `pid` are those of this machine, and `None` where the service is on another or does not tell.
    """

    root: str
    dialect: Dialect
    endpoints: tuple[str, ...] = ()
    cache: Path | None = None
    pid: int | None = None

    @property
    def local(self) -> bool:
        """Whether it is on this machine, as its address says."""
        return is_local(self.root)


def looks_like_foundry(target: Target) -> bool:
    """Whether it is worth asking: by the server's name, by ids that end in a device, by keys that only Foundry has."""
    return (
        _SERVERS.search(target.server or "") is not None
        or any(_IDS.search(model) for model in target.models or ())
        or any("IsDelta" in item or "maxOutputTokens" in item for item in target.listing)
    )


async def recognise(http: httpx.AsyncClient, target: Target) -> Service | None:
    """The service behind an endpoint, or `None` where it is not Foundry Local."""
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
    told = {key.lower(): value for key, value in status.items()}
    endpoints, pid = told.get("endpoints"), told.get("pid")
    here = is_local(root)
    number = pid if here and isinstance(pid, int) and not isinstance(pid, bool) and pid > 0 else None
    path = told.get("modelcachepath") or told.get("modeldirpath")
    return Service(
        root=root,
        dialect=dialect,
        endpoints=tuple(map(str, endpoints)) if isinstance(endpoints, list) else (),
        cache=_folder(path, number) if here and isinstance(path, str) else None,
        pid=number,
    )


def _folder(path: str, pid: int | None) -> Path | None:
    """The model cache; a relative path counts from where the service runs, which only Linux tells."""
    folder = Path(path)
    try:
        if not folder.is_absolute():
            if pid is None or sys.platform != "linux":
                return None
            folder = Path(os.readlink(f"/proc/{pid}/cwd")) / folder  # noqa: PTH115 - the link's text is wanted
        return folder if folder.is_dir() else None
    except (OSError, ValueError):
        return None


def catalogue_of(service: Service) -> tuple[list[Model], list[Model]]:
    """(the catalogue file's models, those in the cache), where both are on this machine and can be read."""
    if service.cache is None:
        return [], []
    path = service.cache / _CATALOGUE_FILE
    try:
        raw = path.read_bytes() if path.stat().st_size <= _MOST_CATALOGUE_BYTES else b""
        told = from_catalogue_file(orjson.loads(raw))
    except (OSError, orjson.JSONDecodeError):
        told = []
    return told, from_cache(service.cache)


async def loaded_ids(http: httpx.AsyncClient, service: Service) -> list[str] | None:
    """The ids of the models in memory; `None` where the service does not tell."""
    found = await get_json(http, service.root + _ROUTES[service.dialect].loaded)
    return [str(one) for one in found] if isinstance(found, list) else None


async def load(http: httpx.AsyncClient, service: Service, model: Model, *, within_s: float) -> None:
    """Load a model and see that it is there; raises `TargetUnavailable`, with the service's words, where it is not."""
    reason = await _first_that_works(http, service, _ROUTES[service.dialect].load, model, within_s=within_s)
    if reason is not None:
        raise TargetUnavailable(f"cannot load {model.id}: {reason}", hint=_LOAD_HINT)
    there = await loaded_ids(http, service)
    if there is not None and not any(same_model(model.id, one) for one in there):
        others = ", ".join(there) or "nothing"
        raise TargetUnavailable(
            f"asked to load {model.id}, the service has loaded {others}",
            hint=f"its alias prefers another variant; load this one by `foundry model load {model.id}`",
        )


async def unload(http: httpx.AsyncClient, service: Service, model: Model) -> None:
    """Take a model out of memory; raises `TargetUnavailable`, with the service's words, where it stays."""
    reason = await _first_that_works(http, service, _ROUTES[service.dialect].unload, model, within_s=60.0)
    if reason is not None:
        raise TargetUnavailable(f"cannot unload {model.id}: {reason}", hint="is it still in use?")


_LOAD_HINT = "is it downloaded, and is there memory for it? `loadbench models --cached` shows what is on the disk"


async def _first_that_works(
    http: httpx.AsyncClient, service: Service, route: str, model: Model, *, within_s: float
) -> str | None:
    """`None` once the service knows one of the model's names, else why it took none."""
    reason = ""
    for name in _names(model, service.dialect):
        url = service.root + route.format(quote(name, safe=":"))
        response = await get(http, url, within_s=within_s)
        if response.status_code == httpx.codes.OK:
            return None
        told = parse_json(response)
        reason = reason or f"HTTP {response.status_code}" + (f": {error_text(response.content)}" if told else "")
        if response.status_code not in {httpx.codes.NOT_FOUND, httpx.codes.BAD_REQUEST}:
            break  # it knows the name, and something else is wrong
    return reason


def _names(model: Model, dialect: Dialect) -> list[str]:
    """What a dialect may know a model as when it is to be loaded, the likeliest first."""
    alias = [model.alias] if model.alias else []
    if dialect is Dialect.NATIVE:
        names = [*alias, bare_name(model.id), model.id]
    else:
        names = [model.id, unversioned(model.id), *alias]
    return list(dict.fromkeys(names))
