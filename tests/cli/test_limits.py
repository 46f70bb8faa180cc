"""A sweep that finds a server's limit from outside: its exit code, its verdicts, and what the report says."""

from __future__ import annotations

import json
import threading
import time
import xml.etree.ElementTree as ET

import pytest

from loadbench.analyze.level.verdict import CLIENT_CODES
from loadbench.report.junit import run_junit
from loadbench.results.folder import read_run
from tests.cli.any_server import Reply, any_server, chat
from tests.cli.typed import typed

pytestmark = pytest.mark.slow

SHORT = ("--duration", "5s", "--warm-up", "1s", "--drain", "2s", "--telemetry", "off", "--no-live")
PROMPT = ("--prompt", "Hello", "--max-tokens", "3", "--json")


class Limited:
    """Answers up to `most` requests at a time, and beyond that with a status.

    It takes its time, so that a client on a busy machine, which is late by some milliseconds, is late by little of it.
    """

    def __init__(self, most: int, status: int = 503, *, takes_s: float = 0.7) -> None:
        self.most, self.status, self.takes_s = most, status, takes_s
        self._lock, self._running = threading.Lock(), 0

    def __call__(self, got: object) -> Reply:
        """The response to one request."""
        with self._lock:
            if refused := self._running >= self.most:
                takes_s = self.takes_s / 2
            else:
                takes_s = self.takes_s
                self._running += 1
        time.sleep(takes_s)
        if refused:
            return Reply({"error": {"message": "busy"}}, status=self.status)
        with self._lock:
            self._running -= 1
        return chat("m")


def swept(tmp_path, answer, *arguments):
    """(exit code, the levels' statuses by load, their codes, the report) of a sweep against such a server."""
    with any_server(answer=answer) as server:
        done = typed("sweep", "--url", server.root, *arguments, *SHORT, *PROMPT, cwd=tmp_path)
    assert done.stdout, done.stderr
    run = json.loads(done.stdout)
    labels = [f"users={level['load']['users']}" for level in run["levels"]]
    (folder,) = (tmp_path / "results").iterdir()
    statuses = {label: level["verdict"]["status"] for label, level in zip(labels, run["levels"], strict=True)}
    codes = [{reason["code"] for reason in level["verdict"]["reasons"]} for level in run["levels"]]
    return done, statuses, codes, folder


def swept_on_time(tmp_path, answer, *arguments):
    """The same of a sweep whose client was not held up: if it was, a busy machine is the reason for its verdicts."""
    for number in range(3):
        (tmp_path / str(number)).mkdir()
        found = swept(tmp_path / str(number), answer, *arguments)
        if not any(codes & CLIENT_CODES for codes in found[2]):
            break
    return found


@pytest.mark.parametrize(("status", "loads"), [(503, "4,12"), (429, "12,4")])
def test_sweep_that_finds_the_limit_succeeds_and_says_where(status, loads, tmp_path):
    """Also where the higher load came first, and its level was INVALID until the lower one was known."""
    done, statuses, _, folder = swept_on_time(tmp_path, Limited(5, status), "--users", loads)
    assert statuses == {"users=4": "VALID", "users=12": "OVERLOADED"}, done.stderr
    assert done.returncode == 0
    report = (folder / "report.md").read_text("utf-8")
    assert "the server keeps up with users=4; users=12 is beyond its limit" in report
    assert ("users=12 is OVERLOADED, as users=4 shows" in done.stderr) is (loads == "12,4")
    junit = ET.fromstring(run_junit(read_run(folder)))
    assert (junit.get("errors"), junit.get("failures")) == ("0", "0")


def test_gate_that_names_an_overloaded_level_fails(tmp_path):
    """3: the measurement is sound, and its failures count."""
    gate = ("--fail-on", "failures<1%@users=12")
    done, statuses, _, _ = swept_on_time(tmp_path, Limited(5), "--users", "4,12", *gate)
    assert statuses["users=12"] == "OVERLOADED"
    assert done.returncode == 3


@pytest.mark.parametrize(
    ("answer", "loads"), [(Limited(3, 500), "2,8"), (Limited(1, 503), "4,8"), (Limited(0, 503), "1")]
)
def test_other_failures_and_those_at_the_lowest_level_are_invalid(answer, loads, tmp_path):
    """4: a server that fails by itself, and one that no level shows to work."""
    if answer.most == 0:
        answer = FirstOnly(answer)
    done, statuses, codes, _ = swept(tmp_path, answer, "--users", loads)
    assert list(statuses.values())[-1] == "INVALID"
    assert "failures" in codes[-1]
    assert done.returncode == 4


class FirstOnly:
    """Answers the two requests before the first level, and then refuses all."""

    def __init__(self, refusing) -> None:
        self.most, self._left, self._refusing = 0, 2, refusing

    def __call__(self, got: object) -> Reply:
        """The response to one request."""
        self._left -= 1
        return chat("m") if self._left >= 0 else self._refusing(got)


def test_rate_sweep_that_finds_saturation_succeeds(tmp_path):
    """The simulated server with slots completes some thirteen requests a second."""
    rate = ("--rate", "2,40", "--duration", "5s", "--warm-up", "1s", "--no-live", "--json")
    done = typed("sweep", *rate, cwd=tmp_path)
    low, high = json.loads(done.stdout)["levels"]
    assert "not_steady" in high["verdict"]["load_evidence"]
    codes = {reason["code"] for level in (low, high) for reason in level["verdict"]["reasons"]}
    if not codes & CLIENT_CODES:  # of a busy machine
        assert (low["verdict"]["status"], high["verdict"]["status"], done.returncode) == ("VALID", "OVERLOADED", 0)
