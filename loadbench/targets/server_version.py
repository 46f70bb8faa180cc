"""Which server answers, and its version: by its list of models, its headers, and the route at which it says so.

It is asked before anything is measured, by small GET requests; all servers together are done within two seconds. What
it says is a text for people: nothing depends on it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import anyio

from loadbench.results.run import ServerInfo
from loadbench.targets.foundry import Dialect
from loadbench.targets.http_get import get_json
from loadbench.wire.openai import clean

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from loadbench.plan.settings import LimitSettings
    from loadbench.targets.foundry import Service
    from loadbench.targets.target import Target

# By who owns the models of its list: its name, and where it says its version.
_OWNERS: Final[Mapping[str, tuple[str, tuple[str, ...]]]] = {
    "llamacpp": ("llama.cpp", ("/props",)),
    "vllm": ("vLLM", ("/version",)),
    "sglang": ("SGLang", ("/get_server_info", "/server_info")),
    "library": ("Ollama", ("/api/version",)),
    "organization_owner": ("LM Studio", ()),
    "loadbench": ("", ()),  # a simulated server
}
# Of a server that nothing is known of: each route, and the server that has it. Others may have the last, too.
_ROUTES: Final = {"/props": "llama.cpp", "/api/version": "Ollama", "/version": ""}
_WITHIN_S: Final = 2.0
_LONGEST: Final = 80
# A version is a word or two, as in `0.6.8`, `b4567-1a2b3c4` or `0.9.1 (cuda)`; another text tells nothing.
_VERSION: Final = re.compile(rf"(?=.*\d)[\w.+:()/ -]{{1,{_LONGEST}}}", re.ASCII)


async def server_infos(targets: Sequence[Target], service: Service | None, limits: LimitSettings) -> list[ServerInfo]:
    """What is known of the servers of these targets, in their order; all are asked at the same time."""
    infos: dict[int, ServerInfo] = {}

    async def ask(number: int, target: Target) -> None:
        infos[number] = await server_info(target, service, limits)

    async with anyio.create_task_group() as group:
        for number, target in enumerate(targets):
            group.start_soon(ask, number, target)
    return [infos[number] for number in range(len(targets))]


async def server_info(target: Target, service: Service | None, limits: LimitSettings) -> ServerInfo:
    """What is known of the server of a target, which may be nothing but its address. Never raises for what it says."""
    header = clean(target.server or "")[:_LONGEST]
    if service is not None:
        version = "" if service.dialect is Dialect.OPENAI else service.dialect.removeprefix("foundry-")
        return ServerInfo(url=target.base_url, name="Foundry Local", version=version, header=header)
    owners = [str(entry.get("owned_by", "")).lower() for entry in target.listing]
    known = next((_OWNERS[owner] for owner in owners if owner in _OWNERS), None)
    if known is None and (
        header.lower().startswith("llama.cpp") or any("n_ctx_train" in _table(one, "meta") for one in target.listing)
    ):
        known = _OWNERS["llamacpp"]
    name, routes = known or ("", tuple(_ROUTES))
    if known is None and target.listing and all(entry.get("owned_by") == entry["id"] for entry in target.listing):
        routes = ("/info",)  # as text-generation-inference lists its model
    version = ""
    root = target.root
    with anyio.move_on_after(_WITHIN_S):
        async with target.http(limits) as http:
            for route in routes:
                document = await get_json(http, root + route)
                said = _version_in(document, route)
                if said:
                    version = http.secrets.hide(said)
                    name = name or ("TGI" if route == "/info" else _ROUTES[route])
                    break
    return ServerInfo(url=target.base_url, name=name, version=version, header=header)


def _table(entry: Mapping[str, object], name: str) -> Mapping[str, object]:
    value = entry.get(name)
    return value if isinstance(value, dict) else {}


def _version_in(document: object, route: str) -> str:
    """The version in what a route responds; empty if it is not what this route is for."""
    if not isinstance(document, dict):
        return ""
    value = document.get("build_info" if route == "/props" else "version")
    if route == "/info" and "model_id" not in document:
        return ""
    version = value.strip() if isinstance(value, str) else ""
    return version if _VERSION.fullmatch(version) else ""
