"""Which cluster makes the load: `local:N`, `auto`, `HOST:PORT` or `ray://HOST:PORT`, as users write it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import ip_address

# Each local node takes about a quarter of a gigabyte, and some seconds to start.
MOST_LOCAL_NODES = 16
_ADDRESS = re.compile(r"(?:ray://)?(?P<host>\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+):(?P<port>\d{1,5})")
WANTED = "local:N, auto, HOST:PORT or ray://HOST:PORT"
# Of a run without --gather-requests: in reports, and where a command needs them.
REQUESTS_ELSEWHERE = "the requests of this run stayed on the nodes of its cluster"
WHERE_THEY_ARE = (
    "run.json says where each worker's log is (client.workers[].log of each level); measure with --gather-requests to "
    "have them in the run folder"
)


@dataclass(frozen=True, slots=True)
class Cluster:
    """A Ray cluster. `local_nodes` are started on this machine for the run; otherwise it has an `address`, as Ray takes
    it: `auto` for the one that this machine is a part of, or that RAY_ADDRESS names."""

    address: str = ""
    local_nodes: int = 0

    def __str__(self) -> str:
        """As users write it."""
        return self.address or f"local:{self.local_nodes}"

    @property
    def host(self) -> str:
        """The host of its address; empty for `auto` and local nodes."""
        match = _ADDRESS.fullmatch(self.address)
        return match["host"].strip("[]") if match else ""

    @property
    def port(self) -> int:
        """The port of its address; 0 where it has none."""
        match = _ADDRESS.fullmatch(self.address)
        return int(match["port"]) if match else 0


def parse_cluster(text: str) -> Cluster:
    """The cluster in a text; raises `ValueError` with what is wanted."""
    kind, _, count = text.partition(":")
    if kind == "local" and count.isdecimal():
        if not 1 <= int(count) <= MOST_LOCAL_NODES:
            raise ValueError(f"found {text}, want from 1 to {MOST_LOCAL_NODES} local nodes")
        return Cluster(local_nodes=int(count))
    match = _ADDRESS.fullmatch(text)
    if text != "auto" and (match is None or not 0 < int(match["port"]) < 65536):
        raise ValueError(f"found {text!r}, want {WANTED}")
    if match is not None and match["host"].lower() == "local":
        raise ValueError(f"found {text!r}, want {WANTED}: did you mean local:{match['port']}?")
    return Cluster(address=text)


def is_loopback(host: str) -> bool:
    """Whether no other machine can reach this host, nor listen in on the way to it."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
