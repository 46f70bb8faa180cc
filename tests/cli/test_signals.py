"""Ctrl-C, SIGTERM and SIGHUP: the run ends in order, and what was measured is kept."""

from __future__ import annotations

import json
import re
import signal
import socket
import socketserver
import subprocess
import sys
import threading
import time
from contextlib import suppress
from urllib.parse import urlsplit

import jsonschema
import pytest

from loadbench.report.formats import schema_text
from tests.cli.running import LIMIT_S, http, started
from tests.cli.typed import typed

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")

ENDING = [signal.SIGINT, signal.SIGTERM] + ([signal.SIGHUP] if sys.platform != "win32" else [])


def wait_for(process: subprocess.Popen, text: str) -> list[str]:
    """The lines of stderr up to one that holds the text."""
    lines = []
    for line in process.stderr:
        lines.append(line)
        if text in line:
            return lines
    raise AssertionError(f"{text!r} never came: {lines}")


def ended(process: subprocess.Popen, *, within_s: float = LIMIT_S) -> tuple[int, str, str]:
    """(exit code, rest of stdout, rest of stderr)."""
    try:
        out, err = process.communicate(timeout=within_s)
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()
    return process.returncode, out, err


def pressed_twice(process) -> tuple[int, str, str]:
    """Press Ctrl-C, which does not end it at once, and once more; what `ended` returns."""
    process.send_signal(signal.SIGINT)
    wait_for(process, "press Ctrl-C again")  # of two that it has not heard yet one would be lost
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.7)
    process.send_signal(signal.SIGINT)
    return ended(process)


def kept(tmp_path) -> dict:
    """The only run's result, checked by its schema."""
    (folder,) = (tmp_path / "results").iterdir()
    document = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator(json.loads(schema_text())).validate(document)
    return document


def assert_server_is_gone(document: dict) -> None:
    """Nothing listens where the simulated server was."""
    parts = urlsplit(document["levels"][0]["target"])
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((parts.hostname, parts.port), timeout=5)


@pytest.mark.parametrize("number", ENDING)
def test_signal_in_a_level_keeps_what_was_measured(number, tmp_path):
    """130; the level before is whole, the one under way is marked, the next never began, the server is gone."""
    process = started("sweep", "--users", "1,2,4", "--duration", "1s", "--warm-up", "0s", "--json", cwd=tmp_path)
    wait_for(process, "[2/3] users=2 of sim-chat begins")
    process.send_signal(number)
    code, out, err = ended(process)
    assert (code, "Traceback" in err) == (130, False)
    again = "press Ctrl-C again" if number == signal.SIGINT else f"a second {signal.Signals(number).name} cancels"
    assert f"interrupted: requests in flight are awaited, results are kept; {again}" in err
    document = kept(tmp_path)
    assert json.loads(out) == document
    assert document["complete"] is False
    first, second = document["levels"]
    assert (first["load"]["users"], first["interrupted"]) == (1, False)
    assert first["outcomes"]["ok"] > 0
    assert (second["load"]["users"], second["interrupted"]) == (2, True)
    assert [reason["code"] for reason in second["verdict"]["reasons"]].count("interrupted") == 1
    assert_server_is_gone(document)


@pytest.mark.slow
def test_second_signal_cuts_the_drain_short(tmp_path):
    """After the first the response under way, which takes ten seconds, is waited for; the second cuts it."""
    # The first response, before the levels, takes as long.
    arguments = ["--users", "1", "--duration", "60s", "--warm-up", "0s", "--max-tokens", "900", "--drain", "80s"]
    process = started("sweep", *arguments, cwd=tmp_path)
    wait_for(process, "users=1 of sim-chat begins")
    # The level's first request leaves within moments of this; one signal too early would find nothing to drain.
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.7)
    code, _, err = pressed_twice(process)
    assert (code, "Traceback" in err) == (130, False)
    document = kept(tmp_path)
    assert document["complete"] is False
    assert document["levels"][0]["outcomes"] == {"cancelled": 1}
    assert_server_is_gone(document)


@pytest.mark.parametrize("number", ENDING)
def test_signal_before_the_first_level(number, tmp_path):
    """While the server's list of models is awaited there is nothing to keep: one word, 130, no folder."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        process = started("sweep", "--url", f"http://127.0.0.1:{silent.getsockname()[1]}", cwd=tmp_path)
        silent.settimeout(LIMIT_S)
        connection, _ = silent.accept()
        with connection:
            connection.recv(1)
            process.send_signal(number)
            code, out, err = ended(process)
    assert (code, out, err.strip()) == (130, "", "interrupted")
    assert list(tmp_path.iterdir()) == []


def test_signal_between_the_first_answers_and_the_levels(tmp_path):
    """A model that never answers the first question is not waited for: 130, and the run is kept as not complete."""
    models = b'{"data": [{"id": "m"}]}'
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n"
    asked = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer_the_list_only() -> None:
            while not asked.is_set():
                connection, _ = server.accept()
                with connection:
                    if connection.recv(65536).startswith(b"GET"):
                        connection.sendall(head % len(models) + models)
                        continue
                    asked.set()
                    connection.settimeout(LIMIT_S)
                    connection.recv(65536)

        thread = threading.Thread(target=answer_the_list_only)
        thread.start()
        process = started("sweep", "--url", f"http://127.0.0.1:{server.getsockname()[1]}", cwd=tmp_path)
        assert asked.wait(LIMIT_S)
        process.send_signal(signal.SIGINT)
        code, _, err = ended(process)
        thread.join()
    assert (code, "Traceback" in err) == (130, False)
    document = kept(tmp_path)
    assert (document["complete"], document["levels"]) == (False, [])


# A level that would last far longer than the test.
DRIPPING = dict.fromkeys(("sweep", "compare"), ("--duration", "60s", "--warm-up", "0s", "--drain", "60s"))
DRIPPING |= {"capacity": ("--drain", "60s"), "workshop": ("--drain", "60s")}


class Dripping(socketserver.BaseRequestHandler):
    """Answers what comes before a level at once; the rest it begins, and goes on for a minute."""

    def handle(self) -> None:
        server, raw = self.server, b""
        with suppress(OSError):
            while True:
                while b"\r\n\r\n" not in raw:
                    if not (part := self.request.recv(65536)):
                        return
                    raw += part
                head, _, raw = raw.partition(b"\r\n\r\n")
                length = int((re.search(rb"(?i)content-length: *(\d+)", head) or [0, 0])[1])
                while len(raw) < length:
                    raw += self.request.recv(65536)
                raw = raw[length:]
                if head.startswith(b"GET"):
                    self.request.sendall(
                        http("200 OK", '{"data": [{"id": "m"}]}').replace(b"connection: close\r\n", b"")
                    )
                    continue
                self.request.sendall(
                    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
                )
                drips = server.drips
                ends = time.monotonic() + (60 if drips else 0)
                if drips:
                    server.under_way.set()
                while True:
                    last = time.monotonic() >= ends
                    reason = '"stop"' if last else "null"
                    event = f'data: {{"choices": [{{"delta": {{"content": " a"}}, "finish_reason": {reason}}}]}}\n\n'
                    self.request.sendall(f"{len(event):x}\r\n{event}\r\n".encode())
                    if last:
                        break
                    time.sleep(0.05)
                self.request.sendall(b"0\r\n\r\n")


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        ("sweep", "--url", "{0}", "--users", "2,4"),
        ("sweep", "--url", "{0}", "--users", "2,4", "--workers", "2"),
        ("sweep", "--url", "{0}", "--rate", "20"),
        ("compare", "{0}", "{1}", "--users", "2", "--settle", "0s", "--repeats", "2"),
        ("capacity", "--url", "{0}", "--slo", "e2e_p90<5s", "--budget", "60s"),
        ("workshop", "--url", "{0}", "--rounds", "5", "--model", "m"),
    ],
    ids=lambda command: " ".join(command[:1] + command[5:7]),
)
def test_two_signals_end_every_command(command, tmp_path):
    """The first waits for the responses under way, which would take a minute; the second cuts them."""
    with (
        socketserver.ThreadingTCPServer(("127.0.0.1", 0), Dripping) as a,
        socketserver.ThreadingTCPServer(("127.0.0.1", 0), Dripping) as b,
    ):
        under_way = threading.Event()
        for server in (a, b):
            server.daemon_threads, server.drips, server.under_way = True, False, under_way
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        urls = [f"http://127.0.0.1:{server.server_address[1]}/v1" for server in (a, b)]
        # As many as the run needs before its first level are answered at once; the server cannot tell them apart.
        process = started(*(part.format(*urls) for part in command), *DRIPPING[command[0]], cwd=tmp_path)
        a.drips = b.drips = bool(wait_for(process, "begins"))
        assert under_way.wait(LIMIT_S)
        code, _, err = pressed_twice(process)
        for server in (a, b):
            server.shutdown()
    assert (code, "Traceback" in err) == (130, False), err
    (folder,) = (tmp_path / "results").iterdir()
    shown = typed("report", str(folder), cwd=tmp_path)
    assert (shown.returncode, "Traceback" in shown.stderr) == (0, False), shown.stderr
    runs = [json.loads(file.read_text(encoding="utf-8")) for file in folder.rglob("run.json")]
    assert not any(run["complete"] for run in runs)
    assert any(level["interrupted"] for run in runs for level in run["levels"])


@pytest.mark.parametrize("number", ENDING)
def test_signal_as_python_leaves_says_nothing(number):
    """The work is done, and its output written: the exit code stands, and no exception is printed."""
    code = (
        "import atexit, os, sys; from loadbench.cli import main; sys.argv[1:] = ['--version'];"
        f"atexit.register(lambda: os.kill(os.getpid(), {int(number)})); main()"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=LIMIT_S)
    assert done.returncode == 0
    assert done.stdout.startswith("loadbench")
    assert done.stderr == ""
