"""One request, sent as a measurement would send its first, and all that was seen of it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import orjson

from loadbench.client.transport import sent_headers
from loadbench.core.clock import MonotonicClock
from loadbench.core.errors import TargetUnavailable
from loadbench.core.secrets import MASK, Secrets, is_secret, masked, secrets_in
from loadbench.plan.load import Phase
from loadbench.plan.prompt_source import prompt_source
from loadbench.plan.server_url import shown_url
from loadbench.record.trial import Trial
from loadbench.session.setup import server_of
from loadbench.targets import adapt
from loadbench.targets.clients import make_client, make_transport
from loadbench.targets.prepare import prepare

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from loadbench.client.client import Client
    from loadbench.client.transport import Header, HttpRequest, MergedSegments, Sink, Transport
    from loadbench.plan.scenario import Scenario
    from loadbench.session.setup import Say

# Headers of responses that name a session.
_SESSIONS = frozenset({"set-cookie", "set-cookie2", "cookie"})


@dataclass(slots=True)
class _Seen:
    """A transport that notes what passes; each exchange replaces what was noted of the one before."""

    transport: Transport
    tries: int = 0
    request: HttpRequest | None = None
    sink: Sink | None = None
    headers_seen: Sequence[Header] = field(default_factory=list)
    received_bytes: int = 0
    reads: int = 0

    async def exchange(self, request: HttpRequest, sink: Sink) -> None:
        self.request, self.sink, self.tries = request, sink, self.tries + 1
        self.headers_seen, self.received_bytes, self.reads = [], 0, 0
        await self.transport.exchange(request, self)

    async def aclose(self) -> None:
        await self.transport.aclose()

    # The sink of the exchange, which tells the client's own.

    @property
    def _own(self) -> Sink:
        assert self.sink is not None  # noqa: S101 - an exchange is under way
        return self.sink

    def reconnecting(self) -> None:
        self._own.reconnecting()

    def connected(
        self, at_ns: int, *, reused: bool, connect_ns: int | None, merged_segments: MergedSegments = None
    ) -> None:
        self._own.connected(at_ns, reused=reused, connect_ns=connect_ns, merged_segments=merged_segments)

    def sent(self, at_ns: int) -> None:
        self._own.sent(at_ns)

    def headers(self, at_ns: int, status: int, headers: Sequence[Header]) -> None:
        self.headers_seen = headers
        self._own.headers(at_ns, status, headers)

    def data(self, at_ns: int, chunk: bytes) -> None:
        self.received_bytes += len(chunk)
        self.reads += 1
        self._own.data(at_ns, chunk)


async def send_one(scenario: Scenario, environment: Mapping[str, str], *, keep_text: bool, say: Say) -> Trial:
    """Send one request to the scenario's server, adapted while that refuses fields by name.

    Raises `TargetUnavailable` or `BadInput` if there is no server, or no model, to send it to; how the request itself
    ends is in its sample.
    """
    with server_of(scenario, environment, say=say) as (located, url):
        prepared = await prepare(located, environment, url=url, say=say)
        if prepared.missing and not set(prepared.models) - prepared.missing.keys():
            raise TargetUnavailable(next(iter(prepared.missing.values())))
        model = next(name for name in (*prepared.mix, *prepared.models) if name not in prepared.missing)
        await prepared.ready(prepared.models[0])
        work, clock = prepared.scenario.work, MonotonicClock()
        prompt = prompt_source(work, key="try", calibration=None).calibration_prompts()[0]
        transport = make_transport(prepared.scenario, prepared.target, clock)
        seen = _Seen(transport)

        def connect(name: str) -> Client:
            return make_client(prepared.scenario, prepared.target, seen, model=name, clock=clock)

        try:
            sample = await adapt.respond(
                prepared,
                model,
                connect,
                prompt,
                max_tokens=prompt.output_tokens or work.max_tokens,
                phase=Phase.MEASURED,
                keep_text=keep_text,
            )
        finally:
            await transport.aclose()

    request, body = seen.request, b"" if seen.request is None else seen.request.body
    sent = sent_headers(() if request is None else request.headers)
    own = {name.lower() for name, _ in prepared.target.headers}
    content: object = None
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError:
        content = body.decode("utf-8", "replace") or None
    secrets = Secrets([*prepared.target.all_secrets, *secrets_in(content)])
    came = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in seen.headers_seen]
    return Trial(
        sample=sample,
        model=model,
        simulated=scenario.simulated,
        tries=seen.tries,
        began_ns=sample.due_ns,
        steps=getattr(transport, "last_connect", None) if sample.reused is False else None,
        method="POST" if request is None else request.method,
        url=prepared.target.base_url if request is None else shown_url(request.url),
        headers=[(name, MASK if name.lower() in own else value) for name, value in sent],
        body=json.loads(json.dumps(masked(content))),
        body_bytes=len(body),
        response_headers=[
            (name, MASK if name.lower() in _SESSIONS or is_secret(name) else secrets.hide(value))
            for name, value in came
        ],
        response_bytes=seen.received_bytes,
        reads=seen.reads,
    )
