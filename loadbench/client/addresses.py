"""The addresses of hosts as they were confirmed: a name that its owner leads elsewhere later takes nobody along."""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def keep_addresses(addresses: Mapping[str, Sequence[str]]) -> None:
    """Have the running event loop, and all that connects in it, take these addresses of these hosts and no others."""
    loop: Any = asyncio.get_running_loop()
    resolve = loop.getaddrinfo

    async def resolve_once(host: bytes | str | None, port: object, **options: Any) -> list[tuple[Any, ...]]:
        name = host.decode() if isinstance(host, bytes) else host or ""
        kept = addresses.get(name.lower().rstrip("."))
        if kept is None:
            found: list[tuple[Any, ...]] = await resolve(host, port, **options)
            return found
        infos = []
        for address in kept:
            with suppress(socket.gaierror):  # of another family than the wanted one
                infos += await resolve(address, port, **options)
        if not infos:
            raise socket.gaierror(socket.EAI_NONAME, f"{name}: no address of this kind")
        return infos

    loop.getaddrinfo = resolve_once
