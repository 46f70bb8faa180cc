"""The simulated server without a network: routes requests, and serves them with one engine.

The HTTP server and the in-process transport both pass requests in here, with a `ResponseSink` for the response. The
engine calls it when it makes a token, so the token is written at that moment.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import orjson

from loadbench.core.units import NS_PER_S
from loadbench.sim.batching import BatchEngine
from loadbench.sim.chat import CompletionResponse, Refusal, Route, parse_request

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadbench.core.clock import Clock
    from loadbench.plan.sim_profile import Profile
    from loadbench.sim.batching import QueuedRequest

SERVER_NAME = "loadbench-sim"
EVENT_STREAM = "text/event-stream; charset=utf-8"
_JSON = "application/json"
_PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"
_READABLE = ("/v1/models", "/health", "/metrics")


@dataclass(frozen=True, slots=True)
class WholeResponse:
    """A response in one piece; `allow` names the methods that a 405 allows."""

    status: int
    content_type: str
    body: bytes
    allow: str = ""


class ResponseSink(Protocol):
    """Sends a response: `send_whole` once, or `begin_stream` and then `send_events` until the last."""

    def send_whole(self, response: WholeResponse) -> None:
        """The whole response."""
        ...

    def begin_stream(self) -> None:
        """The head of a 200 with an event stream."""
        ...

    def send_events(self, data: bytes, *, last: bool) -> None:
        """Some events of the stream."""
        ...


class Service:
    """Handles requests; its engine must be running. `models` are the names it serves, by default the profile's."""

    def __init__(
        self, profile: Profile, *, clock: Clock, seed: int = 0, models: Sequence[str] = (), created: int | None = None
    ) -> None:
        self.engine = BatchEngine(profile, clock=clock, seed=seed)
        self.models = tuple(models) or (profile.model,)
        self._profile = profile
        self._seed = seed
        self._created = clock.now_ns() // NS_PER_S if created is None else created
        self._accepted = 0
        self._refused = 0

    def handle(self, method: str, path: str, *, body: bytes, sink: ResponseSink) -> QueuedRequest | None:
        """Send the response to one request: at once, or while the engine works on the request that is returned.

        The caller may cancel that one.
        """
        try:
            if path in _READABLE:
                sink.send_whole(self._read(method, path))
                return None
            return self._complete(method, path, body=body, sink=sink)
        except Refusal as refusal:
            sink.send_whole(WholeResponse(refusal.status, _JSON, refusal.body(), refusal.allow))
            return None

    def _read(self, method: str, path: str) -> WholeResponse:
        _allow(method, path, only="GET")
        match path:
            case "/health":
                return WholeResponse(200, _JSON, b'{"status":"ok"}')
            case "/metrics":
                return WholeResponse(200, _PROMETHEUS, self._metrics().encode())
            case _:
                fields = {"object": "model", "created": self._created, "owned_by": "loadbench"}
                models = [{"id": name, **fields, "max_model_len": self._profile.context} for name in self.models]
                return WholeResponse(200, _JSON, orjson.dumps({"object": "list", "data": models}))

    def _complete(self, method: str, path: str, *, body: bytes, sink: ResponseSink) -> QueuedRequest:
        """Queue a completion, whose tokens go to the sink one by one or all at the end."""
        routes = [route.value for route in Route]
        if path not in routes:
            raise Refusal(404, f"There is no {path} here; there are {', '.join([*routes, *_READABLE])}")
        _allow(method, path, only="POST")
        try:
            request = parse_request(Route(path), body, models=self.models, context=self._profile.context)
        except Refusal:
            self._refused += 1
            raise
        self._accepted += 1
        response = CompletionResponse(request, number=self._accepted, created=self._created, seed=self._seed)

        def send_token(queued: QueuedRequest) -> None:
            sink.send_events(response.token(last=queued.finished), last=queued.finished)

        def send_at_end(queued: QueuedRequest) -> None:
            if queued.finished:
                sink.send_whole(WholeResponse(200, _JSON, response.whole()))

        deliver = send_token if request.stream else send_at_end
        queued = self.engine.submit(request.prompt_tokens, request.max_tokens, deliver=deliver)
        if request.stream:
            sink.begin_stream()
        return queued

    def _metrics(self) -> str:
        engine, counts = self.engine, self.engine.counts
        outcomes = {"ok": counts.finished, "cancelled": counts.cancelled, "refused": self._refused}
        return "".join(
            (
                _metric("requests_running", "gauge", "Requests in slots.", {"": engine.running}),
                _metric("requests_waiting", "gauge", "Requests in the queue.", {"": engine.waiting}),
                _metric("kv_tokens_reserved", "gauge", "KV memory in use, in tokens.", {"": engine.kv_tokens}),
                _metric("prompt_tokens_total", "counter", "Tokens prefilled.", {"": counts.prompt_tokens}),
                _metric("output_tokens_total", "counter", "Tokens generated.", {"": counts.output_tokens}),
                _metric("steps_total", "counter", "Steps of the engine.", {"": counts.steps}),
                _metric(
                    "requests_total",
                    "counter",
                    "Requests finished, cancelled or refused.",
                    {f'{{outcome="{outcome}"}}': n for outcome, n in outcomes.items()},
                ),
            )
        )


def _allow(method: str, path: str, *, only: str) -> None:
    if method != only:
        raise Refusal(405, f"{path} takes {only}, not {method}", allow=only)


def _metric(name: str, kind: str, about: str, values: dict[str, int]) -> str:
    """One metric in the Prometheus text format, one line for each set of labels."""
    full = f"loadbench_sim:{name}"
    lines = [f"# HELP {full} {about}", f"# TYPE {full} {kind}", *(f"{full}{key} {n}" for key, n in values.items())]
    return "\n".join(lines) + "\n"
