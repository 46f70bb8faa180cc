"""A server that says what a test wants at each route, for any API, and keeps what came: a whole of small replays."""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

WORDS = ("one", " two", " three")


@dataclass
class Reply:
    """A whole response; its body is JSON unless it is bytes."""

    body: Any = b""
    status: int = 200
    kind: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)
    phrase: str | None = None  # after the status

    @property
    def content(self) -> bytes:
        """The bytes of the body."""
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()


@dataclass
class Got:
    """One request."""

    method: str
    path: str
    headers: dict[str, list[str]]
    body: dict[str, Any]


def _sse(*frames: object) -> Reply:
    return Reply(b"".join(b"data: %s\n\n" % json.dumps(frame).encode() for frame in frames), kind="text/event-stream")


def chat(model: str, words: Sequence[str] = WORDS, end: str = "stop", *, counted: bool = True) -> Reply:
    """A chat or a completion of some tokens, three by default; perhaps without usage."""
    frames = [{"model": model, "choices": [{"index": 0, "delta": {"content": word}, "text": word}]} for word in words]
    last = {"model": model, "choices": [{"index": 0, "delta": {}, "text": "", "finish_reason": end}]}
    usage = {"prompt_tokens": 5, "completion_tokens": len(words), "total_tokens": 5 + len(words)}
    reply = _sse(*frames, last | ({"usage": usage} if counted else {}))
    return Reply(reply.body + b"data: [DONE]\n\n", kind=reply.kind)


def responses(model: str, words: Sequence[str] = WORDS) -> Reply:
    """Such a response of the responses API."""
    usage = {"input_tokens": 5, "output_tokens": len(words), "total_tokens": 5 + len(words)}
    done = {"type": "response.completed", "response": {"model": model, "status": "completed", "usage": usage}}
    return _sse(*({"type": "response.output_text.delta", "delta": word} for word in words), done)


def ollama(model: str, words: Sequence[str] = WORDS, end: str = "stop") -> Reply:
    """One of Ollama's chat."""
    lines = [{"model": model, "message": {"role": "assistant", "content": word}, "done": False} for word in words]
    last = {"model": model, "done": True, "done_reason": end, "prompt_eval_count": 5, "eval_count": len(words)}
    content = b"".join(json.dumps(line).encode() + b"\n" for line in [*lines, last])
    return Reply(content, kind="application/x-ndjson")


BY_ROUTE = {"/chat/completions": chat, "/completions": chat, "/responses": responses, "/api/chat": ollama}


class Server(ThreadingHTTPServer):
    """Answers GET with `listed(path)` and POST with `answer(request)`; `None` is a 404."""

    daemon_threads = True

    def __init__(self, listed: Callable[[str], Reply | None], answer: Callable[[Got], Reply | None]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.listed = listed
        self.answer = answer
        self.got: list[Got] = []

    @property
    def root(self) -> str:
        """Its address, without a path."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    @property
    def posts(self) -> list[Got]:
        """The requests to models."""
        return [one for one in self.got if one.method == "POST"]

    def handle_error(self, *_: object) -> None:
        """A client that leaves is no error here."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Server

    def log_message(self, *_: object) -> None:
        pass

    def _keep(self, body: dict[str, Any]) -> Got:
        headers: dict[str, list[str]] = {}
        for name, value in self.headers.items():
            headers.setdefault(name.lower(), []).append(value)
        got = Got(self.command, self.path, headers, body)
        self.server.got.append(got)
        return got

    def do_GET(self) -> None:
        """A list of models, or what else a test puts there."""
        self._keep({})
        self._send(self.server.listed(self.path))

    def do_POST(self) -> None:
        """A response of a model."""
        raw = self.rfile.read(int(self.headers["content-length"]))
        self._send(self.server.answer(self._keep(json.loads(raw))))

    def _send(self, reply: Reply | None) -> None:
        reply = reply or Reply({"detail": "Not Found"}, status=404)
        self.send_response(reply.status, reply.phrase)
        for name, value in ({"Content-Type": reply.kind} | reply.headers).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(reply.content)))
        self.end_headers()
        self.wfile.write(reply.content)


@contextmanager
def any_server(
    listed: Callable[[str], Reply | None] | None = None, answer: Callable[[Got], Reply | None] | None = None
) -> Iterator[Server]:
    """A server while the context lasts. By default it lists `m`, and answers at every route that loadbench knows."""

    def models(path: str) -> Reply | None:
        return Reply({"data": [{"id": "m"}]}) if path.partition("?")[0].endswith("/models") else None

    def words(got: Got) -> Reply | None:
        route = got.path.partition("?")[0].rstrip("/")
        speak = next((speak for suffix, speak in BY_ROUTE.items() if route.endswith(suffix)), None)
        return None if speak is None else speak(got.body.get("model", "m"))

    server = Server(listed or models, answer or words)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
