"""The command line as a process of its own, as its users have it."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import socketserver
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

COMMAND = [sys.executable, "-m", "loadbench"]
# Far more than any of these needs; a hang shall end.
LIMIT_S = 90
# So wide that sentences are in one line each, where a test looks for them.
UNWRAPPED = {"COLUMNS": "9999"}
# By these other programs are told where a server is, and a sweep would go there; reports fit the width, if one is set.
_NEIGHBOURS = {"FOUNDRY_LOCAL_ENDPOINT", "OPENAI_BASE_URL", "COLUMNS"}


def environment(**over: str) -> dict[str, str]:
    """This process's, without what would be taken for settings."""
    kept = {name: value for name, value in os.environ.items() if "LOADBENCH" not in name and name not in _NEIGHBOURS}
    return {**kept, "PYTHONIOENCODING": "utf-8", "PYTHONWARNINGS": "error::ResourceWarning", **over}


def loadbench(*arguments: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run it to its end."""
    return subprocess.run(
        [*COMMAND, *arguments],
        cwd=cwd,
        env=environment(**UNWRAPPED | variables),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        timeout=LIMIT_S,
        check=False,
    )


def networks() -> str:
    """Why there can be no network of our own here; empty if there can."""
    if shutil.which("unshare") is None or shutil.which("ip") is None:
        return "there is no unshare or no ip"
    tried = subprocess.run(["unshare", "-rn", "ip", "link", "set", "lo", "up"], capture_output=True, check=False)
    return "this system lets nobody make a network" if tried.returncode else ""


def with_few_ports(*command: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end in a network of its own, which has 20 local ports."""
    ports = "echo 20000 20019 >/proc/sys/net/ipv4/ip_local_port_range"
    return subprocess.run(
        ["unshare", "-rn", "bash", "-c", f"ip link set lo up; {ports}; {shlex.join(command)}"],
        cwd=cwd,
        env=environment(**variables),
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )


def started(*arguments: str, cwd: Path, by: Sequence[str] = ()) -> subprocess.Popen[str]:
    """Start it, or this command that starts it; the caller ends it."""
    return subprocess.Popen(
        [*by, *COMMAND, *arguments],
        cwd=cwd,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )


def interrupted(process: subprocess.Popen[str]) -> str:
    """Press Ctrl-C half a second after its first level begins; what it printed until it ended."""
    assert process.stderr is not None
    try:
        for line in process.stderr:
            if "begins" in line:
                break
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    return out


@contextmanager
def answering(raw: bytes) -> Iterator[str]:
    """The URL of a server that says the same to everybody and closes."""

    class Answer(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(65536)
            self.request.sendall(raw)

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True
        allow_reuse_address = True

    with Server(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def http(status: str, body: str, *, kind: str = "application/json") -> bytes:
    """A whole answer."""
    content = body.encode()
    head = f"HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {len(content)}\r\nconnection: close\r\n\r\n"
    return head.encode() + content
