"""What this machine lacks is the client's: no descriptor, no port and no memory is the server's refusal."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import socket
import subprocess
import sys
from contextlib import aclosing, contextmanager

import pytest

from loadbench.client.client import Client, Endpoint, Timeouts
from loadbench.client.descriptors import keep_descriptors
from loadbench.client.faults import is_shortage
from loadbench.record.outcome import Outcome
from tests.cli.running import COMMAND, LIMIT_S, environment, networks, with_few_ports
from tests.cli.typed import typed
from tests.client.server import ANSWER, ASK, serving
from tests.client.test_client import CLOCK, ask, both, transport_of

if sys.platform == "win32":
    pytest.skip("Windows has no such limits", allow_module_level=True)

import resource


@contextmanager
def files_left(count: int):
    """This process may open so many more files while the context lasts."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.open(os.devnull, os.O_RDONLY)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free + count, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def asked_with(kind, count: int):
    """(a request while so few more files may be open, the next one without that limit, connections that were made)."""
    async with serving([ASK, ANSWER]) as other, serving([ASK, ANSWER]) as server:
        # What is imported when it is first used takes a descriptor.
        async with aclosing(transport_of(kind)) as first:
            await ask(Client(Endpoint(base_url=other.url(), model="m"), first, clock=CLOCK, timeouts=Timeouts()))
        transport = transport_of(kind)
        client = Client(Endpoint(base_url=server.url(), model="m"), transport, clock=CLOCK, timeouts=Timeouts())
        try:
            with files_left(count):
                short = await ask(client)
            return short, await ask(client, 1), server.connections
        finally:
            await transport.aclose()


@both
def test_no_descriptor_is_no_refusal(kind):
    """The request was not sent, and the next one is as good as ever."""
    short, good, connections = asyncio.run(asked_with(kind, 0))
    assert (short.outcome, short.outcome.failed, short.sent_ns) == (Outcome.CLIENT_LIMIT, False, None)
    assert "may open no more sockets" in short.detail
    assert (good.outcome, connections) == (Outcome.OK, 1)


def test_last_descriptors_are_for_the_files_of_the_run():
    """Connections stop before the limit does; far below it they do not."""
    with socket.socket() as sock:
        with files_left(200):
            keep_descriptors(sock)
        with files_left(10), pytest.raises(OSError, match="Too many open files"):
            keep_descriptors(sock)


@both
def test_no_connection_takes_the_last_descriptors(kind):
    """Of either transport: what is left is for the files of the run, and nothing stays open."""
    sample, _, _ = asyncio.run(asked_with(kind, 10))
    assert (sample.outcome, sample.sent_ns) == (Outcome.CLIENT_LIMIT, None), sample.detail
    assert "may open no more sockets" in sample.detail


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not limit addresses")
@pytest.mark.parametrize("mb", [60, 100, 190])
@pytest.mark.parametrize("command", ["report", "sweep", "models", "capacity", "select"])
def test_too_little_memory_is_one_message(command, mb, tmp_path):
    """Seen: a library ended the process with a word of its own, or there were two tracebacks."""
    done = subprocess.run(
        [*COMMAND, command],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (mb * 1_000_000,) * 2),
    )
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 2), done.stderr
    assert f"this process may have {mb * 1_000_000 >> 20} MiB of memory" in done.stderr
    assert "ulimit -v" in done.stderr


@pytest.mark.parametrize(
    ("error", "ours"),
    [
        (OSError(errno.EMFILE, ""), True),
        (OSError(errno.EADDRNOTAVAIL, ""), True),
        (OSError(errno.ENOBUFS, ""), True),
        (MemoryError(), True),
        (socket.gaierror(socket.EAI_MEMORY, ""), True),
        (socket.gaierror(socket.EAI_NONAME, ""), False),
        (ConnectionRefusedError(errno.ECONNREFUSED, ""), False),
        (ConnectionResetError(errno.ECONNRESET, ""), False),
        (OSError(errno.EHOSTUNREACH, ""), False),
        (TimeoutError(), False),
    ],
)
def test_who_is_to_blame(error, ours):
    """Also if the reason is only the cause of what was raised."""
    wrapped = ExceptionGroup("all attempts failed", [error])
    assert (is_shortage(error), is_shortage(wrapped)) == (ours, ours)


@pytest.mark.slow
@pytest.mark.skipif(bool(networks()), reason=networks() or "-")
@pytest.mark.parametrize("transport", ["fast", "httpx"])
def test_level_without_local_ports_is_the_clients(transport, tmp_path):
    """With 20 ports for up to 30 requests: nobody blames the server, and the level is INVALID for what was not sent."""
    load = ["--rate=200", "--max-in-flight=30", "--duration=1s", "--warm-up=300ms", "--max-tokens=5", "--json"]
    done = with_few_ports(*COMMAND, "sweep", *load, f"--transport={transport}", cwd=tmp_path)
    assert (done.returncode, "Traceback" in done.stderr) == (4, False), done.stderr
    (level,) = json.loads(done.stdout)["levels"]
    assert set(level["outcomes"]) == {"ok", "client_limit"}
    reasons = {reason["code"]: reason["message"] for reason in level["verdict"]["reasons"]}
    assert "failures" not in reasons
    assert (
        f"{level['outcomes']['client_limit']} of {sum(level['outcomes'].values())} requests were not sent"
        in (reasons["client_limit"])
    )
    assert "no local port is left" in reasons["client_limit"]


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (MemoryError(), "out of memory"),
        (RuntimeError("can't start new thread"), "out of memory"),
        (ImportError("libssl.so.3: failed to map segment from shared object"), "out of memory"),
        (OSError(errno.EMFILE, "Too many open files"), "this process may open no more sockets"),
        (OSError(errno.EAGAIN, "Resource temporarily unavailable"), "no further process"),
    ],
)
def test_run_that_this_machine_ends_says_so(error, words, monkeypatch, tmp_path):
    """One message and exit code 2, wherever it happened; a fault of ours still has its traceback."""

    def ends(*_: object, **__: object) -> None:
        raise ExceptionGroup("in a task", [error])

    monkeypatch.setattr("loadbench.session.sweep.run_sweep", ends)
    done = typed("sweep", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr
    assert "what was measured until then is kept" in done.stderr
    error = ValueError("a fault of ours")
    with pytest.raises(ExceptionGroup):
        typed("sweep", cwd=tmp_path)


def test_shortage_that_lets_nothing_be_loaded_is_one_message(monkeypatch, tmp_path):
    """Seen as two tracebacks: the words for the shortage could not be imported."""

    def ends(*_: object, **__: object) -> None:
        monkeypatch.setitem(sys.modules, "loadbench.client.faults", None)
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr("loadbench.session.sweep.run_sweep", ends)
    done = typed("sweep", cwd=tmp_path)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 2), done.stderr
    assert "Too many open files" in done.stderr
