"""Fields of one's own reach a real engine, and it acts on them."""

from __future__ import annotations

import json
import threading
import urllib.request
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest

from tests.cli.running import loadbench

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.engine

SHORT = ("--users=1", "--requests=4", "--warm-up=0s", "--telemetry=off", "--max-tokens=6", "--prompt=Hello.")


@contextmanager
def relaying(url: str) -> Iterator[tuple[str, list[bytes]]]:
    """(the address of a relay to this server, the responses that went through it)."""
    responses: list[bytes] = []

    class Relay(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            self._relay(None)

        def do_POST(self) -> None:
            self._relay(self.rfile.read(int(self.headers["content-length"])))

        def _relay(self, body: bytes | None) -> None:
            request = urllib.request.Request(url + self.path, body, {"content-type": "application/json"})
            with urllib.request.urlopen(request, timeout=30) as response:
                content = response.read()
                kind = response.headers["content-type"]
            if body is not None:
                responses.append(content)
            self.send_response(200)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Relay)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1", responses
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_probabilities_come_with_each_token(llamacpp: Callable[..., str], tmp_path: Path) -> None:
    """`n_probs` is llama.cpp's own: two candidates for each token."""
    with relaying(llamacpp()) as (url, responses):
        process = loadbench("sweep", f"--url={url}", *SHORT, "--extra-body", '{"n_probs": 2}', cwd=tmp_path)
    assert len(responses) >= 4, process.stderr
    for response in responses[-4:]:
        frames = [json.loads(line[6:]) for line in response.split(b"\n") if line.startswith(b"data: {")]
        found = [
            entry["top_logprobs"]
            for frame in frames
            for choice in frame["choices"]
            for entry in (choice.get("logprobs") or {}).get("content", [])
        ]
        assert len(found) == 6
        assert all(len(candidates) == 2 for candidates in found)


def test_a_grammar_decides_what_is_said(llamacpp: Callable[..., str], tmp_path: Path) -> None:
    """Every response is the only word of the grammar."""
    grammar = json.dumps({"grammar": 'root ::= "yes"'})
    flags = (f"--extra-body={grammar}", "--keep-texts", f"--out={tmp_path}")
    process = loadbench("sweep", f"--url={llamacpp()}", *SHORT, *flags, cwd=tmp_path)
    (requests,) = tmp_path.glob("*-sweep/requests.jsonl")
    answers = [json.loads(line)["answer"] for line in requests.read_text().splitlines()]
    assert answers == ["yes"] * 4, process.stderr
