"""A client that cannot keep up says so: no figure of its own making is passed off as the server's."""

from __future__ import annotations

import json
import signal
import sys
import time
from typing import TYPE_CHECKING

import pytest

from loadbench.sim.process import SimProcess
from tests.cli.running import started
from tests.cli.test_signals import wait_for

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.skipif(sys.platform == "win32", reason="stops a process as POSIX does"), pytest.mark.slow]


def the_level(folder: Path) -> dict:
    """The one level of the one run that was made there."""
    (run,) = (folder / "results").glob("*/run.json")
    return json.loads(run.read_text(encoding="utf-8"))["levels"][0]


def test_stopped_client_is_the_limit(tmp_path):
    """A client that stood still in the middle of a level says so, and calls the level INVALID for it."""
    with SimProcess("slot-server") as server:
        client = started("sweep", "--url", server.url, "--users=8", "--duration=4s", "--warm-up=1s", cwd=tmp_path)
        wait_for(client, "begins")
        time.sleep(2)
        client.send_signal(signal.SIGSTOP)
        time.sleep(2.5)
        client.send_signal(signal.SIGCONT)
        _, err = client.communicate(timeout=60)
    level = the_level(tmp_path)
    codes = {reason["code"] for reason in level["verdict"]["reasons"]}
    assert level["verdict"]["status"] == "INVALID"
    assert "stood_still" in codes
    assert client.returncode == 4, err


def test_client_on_a_starved_core_is_the_limit(tmp_path):
    """More streams than a slow reader can read: the client that is stopped half of the time is called the limit."""
    with SimProcess("slot-server") as server:
        client = started(
            "sweep", "--url", server.url, "--users", "8", "--duration", "3s", "--warm-up", "1s", "--quiet", cwd=tmp_path
        )
        while client.poll() is None:
            time.sleep(0.05)
            client.send_signal(signal.SIGSTOP)
            time.sleep(0.05)
            client.send_signal(signal.SIGCONT)
        client.communicate(timeout=60)
    assert the_level(tmp_path)["verdict"]["status"] == "INVALID"
