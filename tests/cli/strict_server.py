"""A server that refuses fields, and answers as long as it likes: in a thread, for commands that run in this process."""

from __future__ import annotations

import json
import threading
import time
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    # (status, error) for a body that is refused, with 200 inside of a stream, or the number of tokens of its response.
    Answer = Callable[[dict[str, Any]], tuple[int, Any] | int]

# A level of a given time has so many requests at most.
_RESPONDS_S = 0.01
_LIMITS = ("max_tokens", "max_completion_tokens", "max_output_tokens", "max_new_tokens")


def requested(body: dict[str, Any]) -> int:
    """The limit of a request, under any name."""
    limits = [body[name] for name in _LIMITS if name in body]
    return int(limits[0] if limits else body.get("options", {}).get("num_predict", 1))


class StrictServer(ThreadingHTTPServer):
    """`bodies` are those that were posted, each with whether it was refused."""

    daemon_threads = True

    def __init__(self, answer: Answer, models: tuple[str, ...]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answer, self.models = answer, models
        self.bodies: list[tuple[dict[str, Any], bool]] = []

    @property
    def url(self) -> str:
        """The base of its API."""
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    @property
    def accepted(self) -> list[dict[str, Any]]:
        """The bodies of the requests that were answered, the first ones before measuring included."""
        return [body for body, refused in self.bodies if not refused]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: StrictServer

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        """The models; nothing else is there."""
        found = self.path.endswith("/models")
        self._send(200 if found else 404, json.dumps({"data": [{"id": name} for name in self.server.models]}))

    def do_POST(self) -> None:
        """A refusal, or a response in the form of the route."""
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        answer = self.server.answer(body)
        self.server.bodies.append((body, not isinstance(answer, int)))
        time.sleep(_RESPONDS_S)
        if not isinstance(answer, int):
            status, error = answer
            streams = status == HTTPStatus.OK
            content = json.dumps(error)
            self._send(status, *((f"data: {content}\n\n", "text/event-stream") if streams else (content,)))
            return
        reason = "length" if answer >= requested(body) else "stop"
        usage = {"prompt_tokens": 9, "completion_tokens": answer, "total_tokens": 9 + answer}
        if self.path.endswith("/api/chat"):
            lines = [{"model": body["model"], "message": {"content": "x "}, "done": False}] * answer
            end = {"done": True, "done_reason": reason, "prompt_eval_count": 9, "eval_count": answer}
            lines.append({"model": body["model"], "message": {"content": ""}, **end})
            self._send(200, "".join(json.dumps(line) + "\n" for line in lines), "application/x-ndjson")
            return
        if self.path.endswith("/responses"):
            events: list[dict[str, Any]] = [{"type": "response.output_text.delta", "delta": "x "}] * answer
            counts = {"input_tokens": 9, "output_tokens": answer, "total_tokens": 9 + answer}
            events.append({"type": "response.completed", "response": {"status": "completed", "usage": counts}})
        else:
            events = [{"choices": [{"index": 0, "delta": {"content": "x "}, "text": "x "}]}] * answer
            last = {"index": 0, "delta": {}, "text": "", "finish_reason": reason}
            events.append({"choices": [last], **({"usage": usage} if "stream_options" in body else {})})
        self._send(200, "".join(f"data: {json.dumps(event)}\n\n" for event in events), "text/event-stream")

    def _send(self, status: int, content: str, kind: str = "application/json") -> None:
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content.encode())


@contextmanager
def strict_server(answer: Answer, *models: str) -> Iterator[StrictServer]:
    """It answers while the context lasts."""
    server = StrictServer(answer, models or ("m",))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
