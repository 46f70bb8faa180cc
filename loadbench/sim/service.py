"""The simulated server without a network: which request gets which answer, over one engine.

The HTTP server and the in-process transport both put requests in here and are told, through `Out`, what goes back and
when: the engine calls as it makes each token, so that what is written is written in that moment.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Protocol

import orjson

from loadbench.core.units import NS_PER_S
from loadbench.sim.batching import Engine
from loadbench.sim.chat import Refusal, Reply, Route, read_question

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadbench.core.clock import Clock
    from loadbench.sim.batching import Job
    from loadbench.sim.profile import Profile

SERVER_NAME = "loadbench-sim"
EVENT_STREAM = "text/event-stream; charset=utf-8"
_JSON = "application/json"
_PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"
_READABLE = ("/v1/models", "/health", "/metrics")


@dataclass(frozen=True, slots=True)
class Response:
    """An answer in one piece; `allow` names the methods that a 405 asks for."""

    status: int
    content_type: str
    body: bytes
    allow: str = ""


class Out(Protocol):
    """Where an answer goes: `whole` once, or `begin` and then `part` until the last."""

    def whole(self, response: Response) -> None:
        """All of it."""
        ...

    def begin(self) -> None:
        """The head of a 200 with an event stream."""
        ...

    def part(self, data: bytes, *, last: bool) -> None:
        """Some events; nothing comes after the last."""
        ...


class Service:
    """Answers requests; its engine must be running. `models` are the names it answers to, the profile's if none."""

    def __init__(
        self, profile: Profile, *, clock: Clock, seed: int = 0, models: Sequence[str] = (), created: int | None = None
    ) -> None:
        self.engine = Engine(profile, clock=clock, seed=seed)
        self.models = tuple(models) or (profile.model,)
        self._profile = profile
        self._seed = seed
        self._created = clock.now_ns() // NS_PER_S if created is None else created
        self._asked = 0
        self._refused = 0

    def answer(self, method: str, path: str, *, body: bytes, out: Out) -> Job | None:
        """Answer one request, now or as it is worked off: then the job is returned, for whoever may cancel it."""
        try:
            if path in _READABLE:
                out.whole(self._read(method, path))
                return None
            return self._ask(method, path, body=body, out=out)
        except Refusal as refusal:
            out.whole(Response(refusal.status, _JSON, refusal.body(), refusal.allow))
            return None

    def _read(self, method: str, path: str) -> Response:
        _allow(method, path, only="GET")
        match path:
            case "/health":
                return Response(200, _JSON, b'{"status":"ok"}')
            case "/metrics":
                return Response(200, _PROMETHEUS, self._metrics().encode())
            case _:
                return Response(200, _JSON, self._models())

    def _ask(self, method: str, path: str, *, body: bytes, out: Out) -> Job:
        if path not in {api.value for api in Route}:
            raise Refusal(
                404, f"There is no {path} here; there are {', '.join([*(a.value for a in Route), *_READABLE])}"
            )
        _allow(method, path, only="POST")
        try:
            question = read_question(Route(path), body, models=self.models, context=self._profile.context)
        except Refusal:
            self._refused += 1
            raise
        self._asked += 1
        reply = Reply(question, number=self._asked, created=self._created, seed=self._seed)
        deliver = partial(_stream if question.stream else _collect, reply, out)
        job = self.engine.submit(question.prompt_tokens, question.max_tokens, deliver=deliver)
        if question.stream:
            out.begin()
        return job

    def _models(self) -> bytes:
        about = {"object": "model", "created": self._created, "owned_by": "loadbench"}
        length = {"max_model_len": self._profile.context}
        return orjson.dumps({"object": "list", "data": [{"id": name, **about, **length} for name in self.models]})

    def _metrics(self) -> str:
        engine, counts = self.engine, self.engine.counts
        outcomes = {"ok": counts.finished, "cancelled": counts.cancelled, "refused": self._refused}
        return "".join(
            (
                _metric("requests_running", "gauge", "Sequences in slots.", {"": engine.running}),
                _metric("requests_waiting", "gauge", "Requests in the queue.", {"": engine.waiting}),
                _metric("kv_tokens_reserved", "gauge", "KV memory in use, in tokens.", {"": engine.kv_tokens}),
                _metric("prompt_tokens_total", "counter", "Tokens prefilled.", {"": counts.prompt_tokens}),
                _metric("output_tokens_total", "counter", "Tokens made.", {"": counts.output_tokens}),
                _metric("steps_total", "counter", "Steps of the engine.", {"": counts.steps}),
                _metric(
                    "requests_total",
                    "counter",
                    "Requests ended.",
                    {f'{{outcome="{outcome}"}}': n for outcome, n in outcomes.items()},
                ),
            )
        )


def _allow(method: str, path: str, *, only: str) -> None:
    if method != only:
        raise Refusal(405, f"{path} takes {only}, not {method}", allow=only)


def _stream(reply: Reply, out: Out, job: Job) -> None:
    out.part(reply.token(last=job.finished), last=job.finished)


def _collect(reply: Reply, out: Out, job: Job) -> None:
    if job.finished:
        out.whole(Response(200, _JSON, reply.whole()))


def _metric(name: str, kind: str, about: str, values: dict[str, int]) -> str:
    """One metric in the Prometheus text format, one line for each set of labels."""
    full = f"loadbench_sim:{name}"
    lines = [f"# HELP {full} {about}", f"# TYPE {full} {kind}", *(f"{full}{key} {n}" for key, n in values.items())]
    return "\n".join(lines) + "\n"
