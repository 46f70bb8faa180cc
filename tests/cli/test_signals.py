"""Ctrl-C, SIGTERM and SIGHUP: the run ends in order, and what was measured is kept."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
from urllib.parse import urlsplit

import jsonschema
import pytest

from loadbench.report.formats import schema_text
from tests.cli.running import LIMIT_S, started

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
    process.send_signal(signal.SIGINT)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.7)
    process.send_signal(signal.SIGINT)
    code, _, err = ended(process)
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
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(head % len(models) + models)
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
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
