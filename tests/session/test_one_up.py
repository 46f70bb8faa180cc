"""Two servers that loadbench starts are compared with one of them up at a time, and nothing of them is left."""

from __future__ import annotations

import json
import shlex
import signal
import sys
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from loadbench.plan.sources import resolve
from loadbench.sim.process import SimProcess
from loadbench.targets.server_command import port_of
from tests.cli.running import loadbench, started
from tests.cli.typed import typed
from tests.core.test_guard import linux_only, until, with_mark

SERVER = Path(__file__).with_name("small_server.py")
TINY = ("--warm-up=0s", "--settle=0s", "--drain=2s", "--max-tokens=3", "--telemetry=off", "--no-live")
SHORT = ("--users=1,2", "--requests=6", *TINY)
ENDLESS = ("--users=1", "--duration=300s", *TINY)


@pytest.fixture
def mark() -> str:
    """A word that no other process has."""
    return f"mark-{uuid4().hex}"


def sides(mark: str, *options: str, b: tuple[str, ...] = ()) -> tuple[str, str, str]:
    """The comparison of the small server with itself, or with one that has further options."""
    command = shlex.join([sys.executable, str(SERVER), "--mark", mark, *options])
    other = shlex.join([sys.executable, str(SERVER), "--mark", mark, *options, *(b or ("--loads", "0"))])
    return "compare", f"--a-cmd={command} --port {{port}}", f"--b-cmd={other} --port {{port}}"


def alone(folder: Path) -> tuple[str, str]:
    """The option with which a server ends as soon as another one is up."""
    return "--alone", str(folder / "alone")


def runs_of(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """The runs of each side of the only comparison, by repeat."""
    (kept,) = (folder / "results").iterdir()
    return {side: [json.loads(path.read_bytes()) for path in sorted(kept.glob(f"{side}/*/run.json"))] for side in "ab"}


def order(stderr: str) -> str:
    """The sides of the levels in their order."""
    return "".join(line.split("(")[1][0] for line in stderr.splitlines() if line.endswith("begins"))


@linux_only
def test_one_server_is_up_at_a_time_and_each_turn_starts_it(tmp_path, mark):
    """A server that would see another one is never started; each run says how its start went; none is left."""
    done = loadbench(*sides(mark, *alone(tmp_path)), *SHORT, "--repeats=2", "--json", cwd=tmp_path)
    assert "Traceback" not in done.stderr
    assert done.returncode in {0, 4, 5}, done.stderr
    assert with_mark(mark) == []
    assert order(done.stderr) in {"AABBBBAA", "BBAAAABB"}
    runs = runs_of(tmp_path)
    assert [len(side) for side in runs.values()] == [2, 2]
    for run in (*runs["a"], *runs["b"]):
        assert (run["one_up"], run["complete"]) == (True, True)
        assert 0 < run["server_start"]["ready_s"] < run["server_start"]["first_response_s"]
        assert run["models"][0]["cold_ttft_s"] > 0
        # What was connected to the server before is no failure, and nothing had to be connected again.
        assert [level["outcomes"] for level in run["levels"]] == [{"ok": 6}] * 2
        assert [level["client"]["reconnects"] for level in run["levels"]] == [0, 0]
    comparison = json.loads(done.stdout)
    assert comparison["a"]["starts_s"] == [run["server_start"]["ready_s"] for run in runs["a"]]
    assert mark in comparison["b"]["command"]
    # The port of a side stays; the output of all of its starts is in one file.
    assert len({run["server_start"]["url"] for run in runs["a"]}) == 1
    assert len(list(tmp_path.rglob("server.log"))) == 2


@linux_only
def test_keep_up_has_both_up_and_alternates_level_by_level(tmp_path, mark):
    """Started once each; with a server that cannot stand another one, the one that did not start is named."""
    done = loadbench(*sides(mark), "--keep-up", *SHORT, "--repeats=1", cwd=tmp_path)
    assert "Traceback" not in done.stderr
    assert order(done.stderr) in {"ABBA", "BAAB"}
    assert {run["one_up"] for side in runs_of(tmp_path).values() for run in side} == {False}
    assert with_mark(mark) == []
    failed = loadbench(*sides(mark, *alone(tmp_path)), "--keep-up", *SHORT, cwd=tmp_path)
    assert failed.returncode == 6
    assert "error: B: the server ended with exit code 9 before it was ready" in failed.stderr
    assert with_mark(mark) == []


@linux_only
def test_telemetry_follows_the_process_of_each_start(tmp_path, mark):
    """Each run has the process that served it, which is another one in each repeat; none seems to have restarted."""
    tiny = [one for one in TINY if one != "--telemetry=off"]
    # Ten readings a level, of which a busy machine may lack some.
    sampled = ("--users=1", "--telemetry=on", "--telemetry-interval=100ms", "--duration=1s")
    done = loadbench(*sides(mark), *tiny, *sampled, "--repeats=2", cwd=tmp_path)
    assert "Traceback" not in done.stderr
    runs = runs_of(tmp_path)
    pids = [run["environment"]["telemetry"]["process"]["pid"] for side in "ab" for run in runs[side]]
    assert len(set(pids)) == 4
    for run in (*runs["a"], *runs["b"]):
        for level in run["levels"]:
            assert level["telemetry"]["gauges"]["process_rss_bytes"]["max"] > 0
            assert "process_restarted" not in {caveat["code"] for caveat in level["caveats"]}


@linux_only
def test_server_that_crashes_in_a_turn_is_named_and_the_rest_is_compared(tmp_path, mark):
    """Its exit code, its side, exit code 6; the repeat before is compared, the level of the crash is kept."""
    crash = ("--after", "12", "exit:3", "--from-start", str(tmp_path / "starts"), "4")
    done = loadbench(*sides(mark, b=crash), *SHORT, "--repeats=4", "--json", cwd=tmp_path)
    assert done.returncode == 6, done.stderr
    assert "B: the server ended with exit code 3" in done.stderr
    assert "only the repeats before this are compared" in done.stderr
    comparison = json.loads(done.stdout)
    assert len(comparison["a"]["runs"]) == len(comparison["b"]["runs"]) >= 1
    assert "B: the server ended with exit code 3" in comparison["ended_early"]
    (folder,) = (tmp_path / "results").iterdir()
    junit = loadbench("report", str(folder), "--format=junit", cwd=tmp_path).stdout
    assert '<error message="ended early: B: the server ended with exit code 3' in junit
    crashed = runs_of(tmp_path)["b"][len(comparison["b"]["runs"])]
    assert crashed["complete"] is False
    assert "exit code 3" in crashed["server_start"]["ended"]
    assert with_mark(mark) == []


@linux_only
def test_server_that_does_not_become_ready_again_is_named(tmp_path, mark):
    """At a later start, with the side and the last line of its output; what was complete is compared."""
    gone = ("--prints", "no memory", "--ends", "exit:1", "--from-start", str(tmp_path / "starts"), "3")
    done = loadbench(*sides(mark, b=gone), *SHORT, "--repeats=4", "--json", cwd=tmp_path)
    assert done.returncode == 6, done.stderr
    assert "B: the server ended with exit code 1 before it was ready: no memory" in done.stderr
    assert len(json.loads(done.stdout)["a"]["runs"]) == 1
    assert with_mark(mark) == []


@linux_only
@pytest.mark.parametrize("name", ["SIGINT", "SIGKILL"])
@pytest.mark.parametrize("moment", ["in a level", "in a restart"])
def test_nothing_is_left_after_an_end_in_the_middle(tmp_path, mark, name, moment):
    """Ctrl-C and a kill of loadbench, in a level and while a server is started again."""
    slow = ("--never", "--from-start", str(tmp_path / "starts"), "3") if moment == "in a restart" else ()
    options = SHORT if slow else ENDLESS
    with started(*sides(mark, "--fork", "detached", b=slow), *options, "--repeats=4", cwd=tmp_path) as process:
        assert process.stderr is not None
        if slow:
            until(lambda: (tmp_path / "starts").exists() and (tmp_path / "starts").stat().st_size >= 3)
        else:
            until(lambda: "begins" in process.stderr.readline())
        process.send_signal(getattr(signal, name))
        _, errors = process.communicate(timeout=90)
    assert "Traceback" not in errors
    assert process.returncode == (130 if name == "SIGINT" else -signal.SIGKILL)
    until(lambda: not with_mark(mark))


@linux_only
def test_resume_starts_the_servers_again_and_goes_on(tmp_path, mark):
    """With both commands from the folder; the new repeats come in their order, one server up at a time."""
    first = loadbench(*sides(mark, *alone(tmp_path)), *SHORT, "--repeats=1", cwd=tmp_path)
    (folder,) = (tmp_path / "results").iterdir()
    done = loadbench("compare", "--resume", str(folder), "--repeats=3", cwd=tmp_path)
    assert "Traceback" not in done.stderr
    assert done.returncode in {0, 4, 5}, done.stderr
    assert order(first.stderr) + order(done.stderr) in {"AABBBBAABBAA", "BBAAAABBAABB"}
    runs = runs_of(tmp_path)
    assert [len(side) for side in runs.values()] == [3, 3]
    assert all(run["one_up"] for side in runs.values() for run in side)
    assert with_mark(mark) == []


@linux_only
def test_side_that_is_a_url_is_up_all_the_time(tmp_path, mark):
    """Only the other side is started, for each of its turns, and stopped for those of the first."""
    _, command, _ = sides(mark)
    with SimProcess("slot-server") as server:
        done = loadbench("compare", command, "--b", server.url, *SHORT, "--repeats=2", "--json", cwd=tmp_path)
    assert "Traceback" not in done.stderr
    comparison = json.loads(done.stdout)
    assert (len(comparison["a"]["starts_s"]), comparison["b"]["starts_s"]) == (2, [])
    assert order(done.stderr) in {"AABBBBAA", "BBAAAABB"}
    assert with_mark(mark) == []


def test_plan_starts_nothing_and_says_how_often_it_would(tmp_path, mark):
    """The commands, the order of the turns, how many starts there are and how long each may take."""
    done = typed(*sides(mark), *SHORT, "--repeats=4", "--ready-timeout=90s", "--dry-run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(mark) >= 2
    assert "only one side is up at a time" in done.stdout
    assert "The 2 starts of each repeat, at most 1m30s each," in done.stdout
    assert "BA AB AB BA" in done.stdout or "AB BA BA AB" in done.stdout
    both = typed(*sides(mark), *SHORT, "--repeats=4", "--keep-up", "--dry-run", cwd=tmp_path)
    assert "one side is up" not in both.stdout
    assert not (tmp_path / "results").exists()


def test_one_command_on_both_sides_must_be_meant(tmp_path, mark):
    """It is refused unless --same says so; both at one port cannot be up together."""
    _, command, _ = sides(mark)
    same = ("compare", command, command.replace("--a-cmd", "--b-cmd"), *SHORT, "--dry-run")
    refused = typed(*same, cwd=tmp_path)
    assert (refused.returncode, "--same" in refused.stderr) == (2, True)
    assert typed(*same, "--same", cwd=tmp_path).returncode == 0
    at_one = ("--url=http://127.0.0.1:18765/v1", "--keep-up", "--dry-run")
    refused = typed(*sides(mark), *SHORT, *at_one, cwd=tmp_path)
    assert (refused.returncode, "both servers would listen at" in refused.stderr) == (2, True)


def test_port_is_none_that_a_connection_could_take_meanwhile(mark):
    """Between two starts of a server its port is free, and the system may give its own ones to connections."""
    scenario = resolve(flags={"server_cmd": f"{mark} {{port}}"}, environment={})
    ports = {port_of(scenario) for _ in range(20)}
    assert len(ports) > 1
    assert all(20_000 <= port < 32_000 for port in ports)
