"""Ctrl-C does not wait for a name server."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading

import pytest

from loadbench.core import event_loop
from tests.cli.running import LIMIT_S, environment

# The command line on a machine whose name server never answers.
_NO_ANSWER = """
import socket, sys, threading
def wait(host, *_, **__):
    print("asked", flush=True)
    threading.Event().wait()
socket.getaddrinfo = wait
from loadbench.cli import main
main()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals are others there")
@pytest.mark.parametrize("command", ["sweep", "doctor"])
def test_ctrl_c_ends_a_program_that_looks_a_name_up(command, tmp_path):
    """Seen to fail: asyncio waits for its threads at the end, and Python once more."""
    arguments = [command, "--url=http://no-answer.example:1/v1"]
    process = subprocess.Popen(
        [sys.executable, "-c", _NO_ANSWER, *arguments],
        cwd=tmp_path,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "asked\n"
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=LIMIT_S)
    finally:
        process.kill()
    assert (process.returncode, "Traceback" in errors) == (130, False)


def test_names_are_looked_up_as_python_does(monkeypatch):
    """The addresses or the error are those of `socket.getaddrinfo`, and no more than some threads ask at once."""

    async def addresses(host: str) -> object:
        import asyncio  # noqa: PLC0415 - as a program would

        loop = asyncio.get_running_loop()
        return await asyncio.gather(*(loop.getaddrinfo(host, 80, type=socket.SOCK_STREAM) for _ in range(100)))

    expected = socket.getaddrinfo("127.0.0.1", 80, type=socket.SOCK_STREAM)
    assert event_loop.run(addresses, "127.0.0.1") == [expected] * 100

    most = []

    def fails(*_: object, **__: object) -> object:
        most.append(sum(thread.name == "name lookup" for thread in threading.enumerate()))
        raise socket.gaierror(-2, "no such host")

    monkeypatch.setattr(socket, "getaddrinfo", fails)
    with pytest.raises(socket.gaierror, match="no such host"):
        event_loop.run(addresses, "nobody")
    assert max(most) <= 33
