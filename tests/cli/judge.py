"""A judge whose replies are scripted: a small OpenAI-compatible server over a real socket."""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from email.message import Message


class Came(list[str]):
    """The prompts that came, and the headers of each."""

    def __init__(self) -> None:
        super().__init__()
        self.headers: list[Message] = []


@contextmanager
def judging(reply: Callable[[str, int], str], *, model: str = "judge-1") -> Iterator[tuple[str, Came]]:
    """(URL, the prompts that came): each is answered by `reply(prompt, its number from 0)`, not streamed."""
    asked = Came()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._send({"data": [{"id": model}]})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            prompt = body["messages"][-1]["content"]
            asked.append(prompt)
            asked.headers.append(self.headers)
            message = {"role": "assistant", "content": reply(prompt, len(asked) - 1)}
            usage = {"prompt_tokens": 9, "completion_tokens": 9}
            self._send({"model": model, "choices": [{"message": message, "finish_reason": "stop"}], "usage": usage})

        def _send(self, document: object) -> None:
            content = json.dumps(document).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            pass  # a client that was stopped has gone

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
