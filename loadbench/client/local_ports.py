"""Local addresses and ports. A connection is known by the address and port at both ends, so one local address has only
so many connections to one server: as many as it has ports. More local addresses have more.
"""

from __future__ import annotations

import errno
import ipaddress
import logging
import math
import socket
import sys
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from loadbench.core.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadbench.plan.load import Shard

_log = logging.getLogger(__name__)

# Linux, for IPv6 too; elsewhere 49152 to 65535, as IANA has it, unless somebody changed it: that is not looked up.
_RANGE, _RESERVED = Path("/proc/sys/net/ipv4/ip_local_port_range"), Path("/proc/sys/net/ipv4/ip_local_reserved_ports")
_IANA_PORTS = 16_384
# Of <linux/in.h>, since Linux 4.2; Python names it from 3.12 on. Without it, binding takes a port from all servers.
_IP_BIND_ADDRESS_NO_PORT = 24
# What a socket is told that cannot be connected from its address; on Linux the second from loopback to elsewhere.
_NO_ROUTE = {errno.ENETUNREACH, errno.EINVAL, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL}
# To connect to these is to connect to this machine.
_UNSPECIFIED = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - nothing is bound
WIDEN_PORTS = {
    "win32": "widen the range (netsh int ipv4 set dynamicport tcp start=10000 num=55536)",
    "darwin": "widen the range (sysctl -w net.inet.ip.portrange.first=10000)",
}.get(sys.platform, "widen net.ipv4.ip_local_port_range")
_MORE_ADDRESSES = " (to a server here: 127.0.0.2, 127.0.0.3, ...)" if sys.platform == "linux" else ""


def local_ports() -> int | None:
    """How many ports the system gives to connections from one local address to one address and port of a server;
    `None` where it does not say."""
    try:
        first, last = map(int, _RANGE.read_text(encoding="ascii").split())
        ports = last - first + 1
        for part in filter(None, _RESERVED.read_text(encoding="ascii").strip().split(",")):
            low, _, high = part.partition("-")
            ports -= max(0, min(last, int(high or low)) - max(first, int(low)) + 1)
    except (OSError, ValueError):
        return None
    return max(0, ports)


def bind_source(sock: socket.socket, source: str) -> None:
    """Have this new TCP socket connect from this address. On Linux the port is chosen as it connects, so that it is
    taken from this server only."""
    if sys.platform == "linux":
        with suppress(OSError):
            sock.setsockopt(socket.IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
    sock.bind((source, 0))


class SourceTurns:
    """Local addresses that take turns. Of the turns of all worker processes, this one has those of its `part`."""

    def __init__(self, sources: Sequence[str], part: Shard) -> None:
        self._sources = tuple(sources) or (None,)
        self._turns = count(part.index, part.of)

    def next(self) -> list[str | None]:
        """The address whose turn it is, and then the others, in case it has no port left; `None`: any address."""
        first = next(self._turns) % len(self._sources)
        return [*self._sources[first:], *self._sources[:first]]


def family_of(sources: Sequence[str]) -> int:
    """The family of these addresses, which all have the same; 0 without any."""
    return 0 if not sources else socket.AF_INET6 if ":" in sources[0] else socket.AF_INET


def _has_route(source: str, host: str) -> bool:
    """Whether the system has a way from this local address to this one: connecting a UDP socket sends nothing."""
    with socket.socket(family_of([source]), socket.SOCK_DGRAM) as sock:
        try:
            bind_source(sock, source)
            sock.connect((host, 9))
        except OSError as error:
            return error.errno not in _NO_ROUTE
    return True


def servers_of(origins: Sequence[tuple[str, int]], *, family: int = 0) -> int:
    """How many servers these hosts and ports are at least: those of which an address is the same count as one."""
    servers: list[set[tuple[object, ...]]] = []
    for host, port in origins:
        found: set[tuple[object, ...]] = {(host, port)}
        with suppress(OSError, UnicodeError):  # it is not found, and that is said later
            infos = socket.getaddrinfo(host, port, family=family, type=socket.SOCK_STREAM)
            found = {(_UNSPECIFIED.get(str(to[0]), to[0]), port) for *_, to in infos}
        found = found.union(*(one for one in servers if one & found))
        servers = [*(one for one in servers if not one & found), found]
    return len(servers)


def check_sources(sources: Sequence[str], *, hosts: Sequence[str]) -> None:
    """Raise `BadInput` if this machine cannot connect from these addresses to these hosts, as far as that is known
    before it is tried."""
    for source in sources:
        address, wanted = ipaddress.ip_address(source), ipaddress.ip_address(sources[0])
        if address.version != wanted.version:
            raise BadInput(
                f"--source-address {source}: IPv{address.version}, and {wanted} is IPv{wanted.version}",
                hint="give addresses of the kind that the server's address is of",
            )
        with socket.socket(family_of(sources), socket.SOCK_STREAM) as sock:
            try:
                bind_source(sock, source)
            except OSError as error:
                raise BadInput(
                    f"--source-address {source}: this machine cannot send from it: {error.strerror or error}",
                    hint="`ip addr` or `ipconfig` lists this machine's addresses; Linux has all of 127.0.0.0/8",
                ) from None
        for host in hosts:
            with suppress(ValueError):  # a name: what it stands for is known later
                server = ipaddress.ip_address(host)
                if server.version != address.version or not _has_route(source, host):
                    raise BadInput(
                        f"--source-address {source}: does not reach {host}",
                        hint="give an address of this machine in a network that reaches the server",
                    )


def check_ports(
    connections: int, *, sources: Sequence[str], origins: Sequence[tuple[str, int]] = (), required: bool = True
) -> None:
    """Raise `BadInput` if so many connections at one time, to these hosts and ports, need more local ports than there
    are, or if there are none. If either number is not sure, or near the limit, a warning says so: the connections are
    only an upper bound unless `required`."""
    known, addresses = local_ports(), max(1, len(sources))
    ports = _IANA_PORTS if known is None else known
    if not ports:
        raise BadInput(
            "no connection can be made: all local ports are reserved",
            hint="take some out of net.ipv4.ip_local_reserved_ports, or widen net.ipv4.ip_local_port_range",
        )
    if connections * 2 <= ports * addresses:
        return
    servers = 1 if len(origins) < 2 else servers_of(origins, family=family_of(sources))
    most = ports * addresses * servers
    if connections * 2 <= most:
        return
    usual = "" if known is not None else ", unless its range was changed"
    message = (
        f"up to {connections:,} connections at one time, and this machine's local ports allow {most:,}: "
        f"{ports:,} from each local address to each server{usual}; a closed one keeps its port for a minute or more"
    )
    needed = max(2, math.ceil(connections * 2 / ports / servers))
    hint = (
        f"send from {needed} addresses of this machine with --source-address{_MORE_ADDRESSES}, {WIDEN_PORTS}, "
        "or reduce the load"
    )
    if required and known is not None and connections > most:
        raise BadInput(message, hint=hint)
    _log.warning("%s; %s", message, hint)
