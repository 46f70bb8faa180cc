"""A command run once in this process against a server that records what it is sent, and what can be seen of the run.

What a setting changes is read from what was sent, from what the engine was handed beyond the scenario (plans of levels,
clients, the telemetry's watch), and from the files that were kept, apart from their record of the settings.
"""

from __future__ import annotations

import json
import threading
import time
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from unittest import mock

import msgspec

from loadbench.analyze.capacity.search_evidence import SearchEvidence
from loadbench.cli import compare as compare_command
from loadbench.client.client import Client
from loadbench.client.fast_transport import FastTransport
from loadbench.client.httpx_transport import HttpxTransport
from loadbench.engine import paired
from loadbench.engine.abort import AbortWatch
from loadbench.engine.level import Level
from loadbench.live.metrics_feed import MetricsFeed
from loadbench.live.otlp import OtlpExporter
from loadbench.plan.curve import ThroughputCurve
from loadbench.plan.search import Budget, Search
from loadbench.results.run import Verdict
from loadbench.session import capacity as capacity_session
from loadbench.session import paired as paired_session
from loadbench.session import run_writer, telemetry
from loadbench.sim.process import SimProcess
from loadbench.targets.http_get import HttpClient
from loadbench.targets.target import Target
from loadbench.telemetry.sampler import MachineSampler
from tests.cli.echoing import installed
from tests.cli.typed import typed

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator, Mapping
    from pathlib import Path

# An answer of every API in one: each reader takes what it knows.
_CHUNKS = [{"choices": [{"index": 0, "delta": {"content": word}, "text": word}]} for word in ("one ", "two ", "three")]
# Levels of a given time are paced by it: at once, they would have thousands of requests.
_RESPONDS_S = 0.01
_SCORES = {"coherence": 3, "factuality": 3, "brevity": 3}


class RecordingServer(ThreadingHTTPServer):
    """An OpenAI-like server on a free port that answers soon, and keeps every request: (method, path, headers,
    body)."""

    daemon_threads = True

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.requests: list[tuple[str, str, dict[str, str], dict[str, Any]]] = []
        self.scheme = "http" if tls is None else "https"
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)

    @property
    def url(self) -> str:
        """Its address."""
        return f"{self.scheme}://127.0.0.1:{self.server_address[1]}/v1"

    def handle_error(self, *_: object) -> None:
        """A client that does not trust the certificate leaves: that is part of the test."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Head and body are two writes: with Nagle's algorithm the second waits 40 ms for the client's delayed ACK.
    disable_nagle_algorithm = True
    server: RecordingServer

    def log_message(self, *_: object) -> None:
        pass

    def _keep(self, body: dict[str, Any]) -> None:
        headers = {name.lower(): value for name, value in self.headers.items() if name.lower() != "host"}
        self.server.requests.append((self.command, self.path, headers, body))

    def do_GET(self) -> None:
        """The list of models; nothing else is there."""
        self._keep({})
        models = {"data": [{"id": name} for name in ("m", "other", "judge")]}
        self._send(200 if self.path.endswith("/models") else 404, json.dumps(models).encode(), "application/json")

    def do_POST(self) -> None:
        """Three words, or scores if a judge is asked for them."""
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self._keep(body)
        time.sleep(_RESPONDS_S)
        said = json.dumps(body)
        chunks = _CHUNKS
        if "Rate an answer" in said:
            chunks = [{"choices": [{"index": 0, "delta": {"content": json.dumps({"scores": _SCORES})}}]}]
        usage = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
        last = {"choices": [{"index": 0, "delta": {}, "text": "", "finish_reason": "stop"}], "usage": usage}
        events = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in (*chunks, last))
        self._send(200, (events + "data: [DONE]\n\n").encode(), "text/event-stream")

    def _send(self, status: int, content: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@contextmanager
def serving(*servers: RecordingServer) -> Iterator[None]:
    """They answer while the context lasts."""
    threads = [threading.Thread(target=one.serve_forever, kwargs={"poll_interval": 0.02}) for one in servers]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        for server, thread in zip(servers, threads, strict=True):
            server.shutdown()
            thread.join()
            server.server_close()


@dataclass
class Observed:
    """One run: what was sent to which server, what the engine was handed, and what was printed and kept."""

    code: int
    stdout: str
    stderr: str
    folder: Path
    requests: dict[str, list[tuple[str, str, dict[str, str], dict[str, Any]]]]
    handed: dict[str, list[Any]] = field(default_factory=dict)

    def run(self) -> list[dict[str, Any]]:
        """Every run.json, without its record of the settings."""
        documents = [json.loads(path.read_text()) for path in sorted(self.folder.rglob("run.json"))]
        return [{key: value for key, value in one.items() if key not in {"scenario", "origins"}} for one in documents]

    def levels(self) -> list[dict[str, Any]]:
        """The levels of all runs."""
        return [level for run in self.run() for level in run["levels"]]

    def bodies(self) -> list[dict[str, Any]]:
        """What was posted."""
        return [body for requests in self.requests.values() for method, _, _, body in requests if method == "POST"]

    def plans(self, name: str) -> set[str]:
        """One part of the plans of all levels."""
        return {str(getattr(plan, name)) for plan, _ in self.handed["level"]}


def _messages(observed: Observed) -> list[list[str]]:
    messages = [body.get("messages") or [{"content": body.get("prompt", "")}] for body in observed.bodies()]
    return [[message["content"] for message in one] for one in messages]


def _all(name: str) -> Any:
    return lambda observed: {json.dumps(body.get(name)) for body in observed.bodies()}


def _folders(observed: Observed) -> list[list[str]]:
    """Where runs were kept, without the times in the names of folders."""
    paths = sorted(path.parent.relative_to(observed.folder) for path in observed.folder.rglob("run.json"))
    return [[part.rpartition("Z-")[2] for part in path.parts] for path in paths]


# What is compared of two runs, by the name that rows have for it. Each is the same in every run of one baseline.
SHOWN: Mapping[str, Any] = {
    "server": lambda seen: {name for name, requests in seen.requests.items() if requests},
    "target": lambda seen: {name for name, requests in seen.requests.items() if requests},
    "model": _all("model"),
    "paths": lambda seen: {path for requests in seen.requests.values() for _, path, _, _ in requests},
    "sources": lambda seen: set(seen.handed["sources"]),
    "transport": lambda seen: set(seen.handed["transport"]),
    "profile": lambda seen: seen.handed["simulated"],
    "headers": lambda seen: {
        (headers.get("x-walk"), headers.get("authorization"))
        for requests in seen.requests.values()
        for _, _, headers, _ in requests
    },
    "trusted": lambda seen: len(seen.requests["tls"]) > 0,
    "loads": lambda seen: [model["load_warm_s"] is not None for run in seen.run() for model in run["models"]],
    "prompts": lambda seen: _messages(seen)[:4],
    "messages": lambda seen: {len(messages) for messages in _messages(seen)},
    "temperature": _all("temperature"),
    "seed": lambda seen: (_all("seed")(seen), seen.handed["simulated"]),
    "extra": _all("top_k"),
    "limits": _all("max_new_tokens"),
    "lengths": lambda seen: {body.get("max_tokens") or body.get("max_completion_tokens") for body in seen.bodies()},
    "exact": lambda seen: any("ignore_eos" in body for body in seen.bodies()),
    "count": lambda seen: len(seen.bodies()),
    "connect": lambda seen: ({*seen.handed["connect"]}, {*seen.handed["timeouts"]}),
    "timeouts": lambda seen: set(seen.handed["timeouts"]),
    "verdicts": lambda seen: set(seen.handed["limit"]),
    "objectives": lambda seen: {one["rule"] for level in seen.levels() for one in level["objectives"]},
    "gates": lambda seen: {(one["rule"], one["gate"]) for level in seen.levels() for one in level["objectives"]},
    "undecided": lambda seen: seen.handed["undecided"],
    "abort_rules": lambda seen: {str(rules) for (rules,) in seen.handed["abort"]},
    "curve": lambda seen: len(seen.handed["curve"]),
    "kept_warm": lambda seen: [model["kept_warm"] is None for run in seen.run() for model in run["models"]],
    "workers": lambda seen: {run["environment"]["workers"] for run in seen.run()},
    "evidence": lambda seen: seen.handed["evidence"],
    "required": lambda seen: [json.loads(one.read_text())["require"] for one in seen.folder.rglob("capacity.json")],
    "precision": lambda seen: {given[3] for given in seen.handed["search"]},
    "budget": lambda seen: seen.handed["budget"],
    "grid": lambda seen: {str(given[0]) for given in seen.handed["search"]},
    "prices": lambda seen: {str(prices) for prices in seen.handed["prices"]},
    "repeats": lambda seen: len(seen.run()),
    "pairing": lambda seen: seen.handed["pairing"],
    "same": lambda seen: seen.code == 2,
    "confidence": lambda seen: seen.handed["confidence"],
    "changes": lambda seen: [one.read_text().count('"rule"') for one in seen.folder.rglob("compare.json")],
    "stdout": lambda seen: sorted(json.loads(seen.stdout)) if seen.stdout.startswith("{") else seen.stdout[:1],
    "sampled": lambda seen: any("pid" in named for named in seen.handed["watch"]),
    "watch": lambda seen: seen.handed["watch"],
    "page": lambda seen: set(seen.handed["page"]),
    "cost": lambda seen: {_cost(level) for level in seen.levels()},
    "folder": _folders,
    "exported": lambda seen: seen.handed["exported"],
    "texts": lambda seen: ['"answer":"' in path.read_text() for path in sorted(seen.folder.rglob("requests.jsonl"))],
}


def _cost(level: dict[str, Any]) -> str:
    """What a level cost in an hour, which does not depend on how long it took, its currency, and its joules."""
    cost, tokens_per_s = level["cost"], level["throughput"]["output_tokens_per_s"]
    hourly = None if cost is None else f"{cost['per_million_output_tokens'] * tokens_per_s:.3g} {cost['currency']}"
    return f"{hourly}, {level['energy'] and level['energy']['source']}"


def observed(arguments: list[str], folder: Path, servers: Mapping[str, RecordingServer], **variables: str) -> Observed:
    """Run a command in this folder; the simulated server is one of `servers`, named `simulated`."""
    for server in servers.values():
        server.requests.clear()
    handed: dict[str, list[Any]] = {
        name: []
        for name in (
            *("level", "timeouts", "connect", "transport", "sources", "simulated", "abort", "evidence", "search"),
            *("curve", "budget", "pairing", "confidence", "watch", "page", "prices", "limit", "undecided"),
            "exported",
        )
    }
    with ExitStack() as stack:
        stack.enter_context(installed())
        for patch in _patches(handed, servers["simulated"].url):
            stack.enter_context(patch)
        done = typed(*arguments, cwd=folder, WALK_KEY="walk-key", **variables)
    requests = {name: list(server.requests) for name, server in servers.items()}
    return Observed(done.returncode, done.stdout, done.stderr, folder, requests, handed)


def _patches(handed: dict[str, list[Any]], simulated: str) -> Iterator[Any]:
    """What notes what the engine and its neighbours are handed, and lets them go on."""

    def noting(cls: type, name: str, note: Any) -> Any:
        real = cls.__init__  # type: ignore[misc]

        def init(self: Any, *given: Any, **named: Any) -> None:
            handed[name].append(note(given, named))
            real(self, *given, **named)

        return mock.patch.object(cls, "__init__", init)

    yield noting(Level, "level", lambda given, named: (given[0], named["client"]))
    yield noting(Client, "timeouts", lambda _, named: str(named["timeouts"]))
    yield noting(HttpClient, "connect", lambda _, named: str((named["connect_s"], named["within_s"])))
    yield noting(FastTransport, "transport", lambda *_: "fast")
    yield noting(Target, "sources", lambda _, named: named.get("sources"))
    yield noting(HttpxTransport, "transport", lambda *_: "httpx")
    yield noting(AbortWatch, "abort", lambda given, _: given)
    yield noting(SearchEvidence, "evidence", lambda _, named: named["confidence"])
    yield noting(Search, "search", lambda given, _: given)
    yield noting(Budget, "budget", lambda given, _: given)
    yield noting(ThroughputCurve, "curve", lambda given, _: given)
    yield noting(paired.Paired, "pairing", lambda _, named: named["pairing"])
    yield noting(MetricsFeed, "exported", lambda given, _: [type(one).__name__ for one in given[0]])
    yield mock.patch.object(OtlpExporter, "export")  # nobody receives it
    yield noting(MachineSampler, "watch", lambda _, named: named)
    yield noting(SimProcess, "simulated", lambda given, named: (given, named))
    yield mock.patch.object(SimProcess, "__enter__", return_value=mock.Mock(url=simulated))
    yield mock.patch.object(SimProcess, "__exit__", return_value=None)

    @asynccontextmanager
    async def sampling(_self: object, **named: Any) -> Any:
        handed["watch"].append({"pid": named["pid"]})
        yield

    yield mock.patch.object(MachineSampler, "sampling", sampling)

    async def poll(*_: Any, interval_ns: int, **__: Any) -> None:
        handed["page"].append(interval_ns)

    yield mock.patch.object(telemetry, "poll_gauges", poll)
    real_compare, real_machine = paired_session.compare, telemetry.with_machine

    def compare(*given: Any, **named: Any) -> Any:
        handed["confidence"].append(named["confidence"])
        return real_compare(*given, **named)

    yield mock.patch.object(paired_session, "compare", compare)

    real_code = run_writer.RunWriter.exit_code

    def exit_code(self: run_writer.RunWriter) -> int:
        # What the code would be if this process were never late, which is not tested here.
        code, levels = real_code(self), list(self.run.levels)
        self.run.levels[:] = [msgspec.structs.replace(level, verdict=Verdict("VALID")) for level in levels]
        if type(self) is run_writer.RunWriter:
            handed["undecided"].append(real_code(self))
        self.run.levels[:] = levels
        return code

    yield mock.patch.object(run_writer.RunWriter, "exit_code", exit_code)
    for module, name in ((capacity_session, "exit_code_of"), (compare_command, "exit_code")):
        real = getattr(module, name)

        def concluded(*given: Any, real: Any = real, **named: Any) -> Any:
            handed["undecided"].append(named["undecided"])
            return real(*given, **named)

        yield mock.patch.object(module, name, concluded)
    real_summarize = run_writer.summarize

    def summarize(*given: Any, **named: Any) -> Any:
        handed["limit"].append(named["failure_limit"])
        return real_summarize(*given, **named)

    yield mock.patch.object(run_writer, "summarize", summarize)

    def with_machine(*given: Any, **named: Any) -> Any:
        handed["prices"].append(named["prices"])
        return real_machine(*given, **named)

    yield mock.patch.object(telemetry, "with_machine", with_machine)
