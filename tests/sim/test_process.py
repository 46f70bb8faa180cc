"""The simulated server in a process of its own."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from loadbench.core.errors import LoadbenchError
from loadbench.sim.process import SimProcess, TruthProcess


def _get(url: str, path: str) -> object:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=20)
    try:
        connection.request("GET", path)
        return json.loads(connection.getresponse().read())
    finally:
        connection.close()


def _ask(url: str, *, max_tokens: int) -> dict[str, int]:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=20)
    body = {"model": "mine", "messages": [{"role": "user", "content": "hello"}], "max_tokens": max_tokens}
    try:
        connection.request("POST", "/v1/chat/completions", json.dumps(body))
        return json.loads(connection.getresponse().read())["usage"]
    finally:
        connection.close()


def test_it_serves_while_the_context_lasts() -> None:
    """Inside, it answers at its URL under the name given; afterwards the process has ended well and has no URL."""
    with SimProcess("small-gpu", seed=3, models=("mine",), speed=50) as server:
        assert _get(server.url, "/health") == {"status": "ok"}
        assert _ask(server.url, max_tokens=7)["completion_tokens"] == 7
        child = server._child
        assert child.pid == server.pid
        assert child.poll() is None
    assert child.returncode == 0
    with pytest.raises(RuntimeError, match="not running"):
        _ = server.url


def test_an_error_inside_ends_it_too() -> None:
    """The exception goes on its way, and no process is left."""
    server = SimProcess(speed=50)
    with pytest.raises(ZeroDivisionError), server:
        1 / 0  # noqa: B018
    assert server._child.returncode == 0


def test_one_that_does_not_start_says_why() -> None:
    """The error carries what the child wrote, and the child has ended."""
    server = SimProcess("no-such")
    with pytest.raises(LoadbenchError, match=r"did not start: .*invalid choice: 'no-such'") as caught:
        server.__enter__()
    assert "\n" not in caught.value.message
    assert server._child.returncode == 2


@pytest.mark.skipif(sys.platform == "win32", reason="sends POSIX signals")
@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_signal_ends_it_quietly(name: str) -> None:
    """It ends with 0 and writes nothing but its URL, though a request is under way."""
    command = [sys.executable, "-m", "loadbench.sim", "--speed", "50"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as child:
        url = child.stdout.readline().removeprefix("READY ").strip()
        connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=20)
        body = {"model": "sim-chat", "prompt": "go on", "max_tokens": 8000, "stream": True}
        connection.request("POST", "/v1/completions", json.dumps(body))
        assert connection.getresponse().status == 200
        child.send_signal(getattr(signal, name))
        assert child.wait(20) == 0
        assert (child.stdout.read(), child.stderr.read()) == ("", "")
        connection.close()


@pytest.mark.skipif(sys.platform == "win32", reason="sessions are POSIX's")
def test_ctrl_c_in_the_terminal_does_not_reach_it() -> None:
    """It has a session of its own."""
    with SimProcess(speed=50) as server:
        assert os.getsid(server.pid) == server.pid != os.getsid(0)


def test_it_ends_with_its_standard_input() -> None:
    """A parent that is gone has closed the pipe: the server ends by itself."""
    command = [sys.executable, "-m", "loadbench.sim"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout.readline().startswith(b"READY http://127.0.0.1:")
        child.stdin.close()
        assert child.wait(20) == 0


def test_it_starts_without_what_it_does_not_need() -> None:
    """The server's process imports no HTTP client, no numpy and no command-line framework."""
    code = "import sys, loadbench.sim.__main__; print(*{'httpx', 'numpy', 'click', 'hdrh'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_a_port_in_use_is_one_line() -> None:
    """The command ends with the code for bad input and one line that names the port."""
    with SimProcess(speed=50) as server:
        port = server.url.rsplit(":", 1)[1]
        command = [sys.executable, "-m", "loadbench.sim", "--port", port]
        done = subprocess.run(command, check=False, input="", capture_output=True, text=True, timeout=20)
    assert done.returncode == 2
    assert port in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux shows the limits of another process")
@pytest.mark.parametrize("server", [SimProcess, TruthProcess])
def test_it_takes_as_many_connections_as_the_system_allows(server) -> None:
    """Most systems let a process open 1,024 files, unless it asks for more."""
    import resource  # noqa: PLC0415 - not on Windows

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        with server() as one:
            limits = Path(f"/proc/{one.pid}/limits").read_text(encoding="ascii")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    (line,) = (line for line in limits.splitlines() if line.startswith("Max open files"))
    assert int(line.split()[3]) == (min(hard, 24_064) if hard >= 0 else 24_064)
