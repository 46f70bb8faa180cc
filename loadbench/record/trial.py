"""One request on its own, with all that was seen of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from loadbench.record.sample import Sample


class ConnectSteps(NamedTuple):
    """How long the parts of setting up one connection took, in ns; `tls_ns` is `None` without TLS."""

    name_ns: int
    tcp_ns: int
    tls_ns: int | None


@dataclass(slots=True, kw_only=True)
class Trial:
    """A request and its response. Secrets are masked in headers and body; `reads` counts reads of the response's body.

    `began_ns` is when the client took the request up, by the clock of the sample's marks; `steps` how long the parts of
    setting up its connection took, if it was a new one and the transport says so. `tries` counts the requests that were
    sent until the server accepted one.
    """

    sample: Sample
    model: str
    simulated: bool
    tries: int
    began_ns: int
    steps: ConnectSteps | None
    method: str
    url: str
    headers: list[tuple[str, str]]
    body: object
    body_bytes: int
    response_headers: list[tuple[str, str]]
    response_bytes: int
    reads: int
