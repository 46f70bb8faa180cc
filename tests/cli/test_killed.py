"""A measurement that was killed: what is left can be read, and is continued."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from loadbench.results.requests import read_requests
from loadbench.results.run import to_json
from tests import recompute
from tests.building import a_level, a_run
from tests.cli.running import COMMAND, LIMIT_S, environment, started
from tests.cli.test_signals import ended, wait_for
from tests.cli.typed import typed

if TYPE_CHECKING:
    from collections.abc import Sequence

pytestmark = [pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals"), pytest.mark.slow]

# Requests are written twice a second: there is time to see some of a level, and to end it before it ends by itself.
SHORT = ("--duration", "1200ms", "--warm-up", "200ms", "--max-tokens", "4", "--drain", "5s")
SWEEP = ("sweep", "--users", "1,2,3", *SHORT)
COMPARE = ("compare", "profile=slot-server", "profile=small-gpu", "--users", "2", "--settle", "0s", *SHORT)
# With a warm-up of its own a probe fits into the budget, however long the first response took.
CAPACITY = ("capacity", "--slo", "e2e_p90<9s", "--at-most", "4", "--budget", "5s", "--warm-up", "1s")


def killed(arguments: Sequence[str], at: str, *, cwd: Path, lines: int = 0) -> Path:
    """Its only folder, after a SIGKILL when stderr has this text, and this many requests more are on disk."""
    process = started(*arguments, cwd=cwd)
    wait_for(process, at)
    (folder,) = (cwd / "results").iterdir()
    before, ends = sum(map(len, logs(folder))), time.monotonic() + LIMIT_S
    while sum(map(len, logs(folder))) < before + lines:
        assert time.monotonic() < ends, "no request was written"
        time.sleep(0.02)
    process.kill()
    ended(process)
    return folder


def logs(folder: Path) -> list[list[bytes]]:
    """The lines of each log."""
    return [file.read_bytes().splitlines() for file in folder.rglob("requests.jsonl")]


def read(folder: Path, name: str = "run.json") -> dict:
    """A result."""
    return json.loads((folder / name).read_text(encoding="utf-8"))


def test_a_killed_sweep_is_read_and_continued(tmp_path):
    """The level under way is put together from its lines; resumed, it is measured again, and no other."""
    folder = killed(SWEEP, "[2/3] users=2 of sim-chat begins", cwd=tmp_path, lines=8)
    before = read(folder)
    assert (len(before["levels"]), before["under_way"]) == (
        1,
        {"model": "sim-chat", "load": before["under_way"]["load"]},
    )
    shown = json.loads(typed("report", str(folder), "--format", "json", cwd=tmp_path).stdout)
    assert [level["load"]["users"] for level in shown["levels"]] == [1, 2]
    assert shown["levels"][0] == before["levels"][0]
    measured = [one for one in read_requests(folder / "requests.jsonl") if (one.level, one.phase) == (1, "measured")]
    assert sum(shown["levels"][1]["outcomes"].values()) == len(measured)
    text = typed("report", str(folder), cwd=tmp_path)
    assert (text.returncode, "the run ended before this level did" in text.stdout) == (0, True)

    # Other conditions, other loads, another command.
    for arguments, words in (
        ((*SWEEP, "--seed", "5"), "measured under other conditions: work.seed was 0 and is 5"),
        ((*SWEEP[:2], "2,3", *SHORT), "measured other loads: users=1"),
        (CAPACITY, "is the folder of `loadbench sweep`"),
    ):
        refused = typed(*arguments, "--resume", str(folder), cwd=tmp_path)
        assert (refused.returncode, words in refused.stderr) == (2, True), refused.stderr
    assert read(folder) == before

    resumed = typed(*SWEEP, "--resume", str(folder), "--json", cwd=tmp_path)
    assert "resumed after 1 whole level" in resumed.stderr
    run = read(folder)
    assert json.loads(resumed.stdout) == run
    assert (run["complete"], run["under_way"]) == (True, None)
    assert [level["load"]["users"] for level in run["levels"]] == [1, 2, 3]
    assert run["levels"][0] == before["levels"][0]
    assert recompute.differences(folder) == []
    assert len(list(read_requests(folder / "requests-interrupted.jsonl"))) >= len(measured)


@pytest.mark.slow
def test_a_killed_comparison_is_read_and_continued(tmp_path):
    """The whole repeat is compared; resumed, the others follow, and what was broken off lies apart."""
    arguments = (*COMPARE, "--repeats", "2")
    folder = killed(arguments, "repeat 2) begins", cwd=tmp_path)
    shown = typed("report", str(folder), cwd=tmp_path)
    assert (shown.returncode, "sim-chat" in shown.stdout) == (0, True), shown.stderr
    assert "is not complete, and not compared" in shown.stderr
    first = [read(folder / side / "01") for side in "ab"]
    other = typed(*arguments, "--seed", "3", "--resume", str(folder), cwd=tmp_path)
    assert (other.returncode, "work.seed was 0 and is 3" in other.stderr) == (2, True)

    resumed = typed(*arguments, "--resume", str(folder), "--json", cwd=tmp_path)
    assert "resumed after 1 whole repeat" in resumed.stderr
    assert len(read(folder, "compare.json")["a"]["runs"]) == len(json.loads(resumed.stdout)["b"]["runs"]) == 2
    assert [read(folder / side / "01") for side in "ab"] == first
    assert all(read(folder / side / "02")["complete"] for side in "ab")
    assert [recompute.differences(folder / side / "02") for side in "ab"] == [[], []]
    assert list((folder / "interrupted").iterdir())
    chosen = typed("select", str(folder), "--format", "json", cwd=tmp_path)
    assert "Traceback" not in chosen.stderr
    assert chosen.returncode in {0, 4, 5}, chosen.stderr


def test_a_killed_comparison_without_a_whole_repeat(tmp_path):
    """There is nothing to compare: the runs so far are shown, and the reason."""
    folder = killed((*COMPARE, "--repeats", "2"), "repeat 1) begins", cwd=tmp_path)
    shown = typed("report", str(folder), cwd=tmp_path)
    assert (shown.returncode, "No repeat is complete on both sides" in shown.stdout) == (0, True)
    as_json = typed("report", str(folder), "--format", "json", cwd=tmp_path)
    assert (as_json.returncode, "no repeat in it is complete" in as_json.stderr) == (2, True)


@pytest.mark.slow
def test_a_killed_search_is_read_and_continued(tmp_path):
    """Before its first probe is over there is a search to resume; it keeps its probes."""
    folder = killed(CAPACITY, "begins", cwd=tmp_path)
    shown = typed("report", str(folder), cwd=tmp_path)
    assert (shown.returncode, "Under way" in shown.stdout) == (0, True)
    resumed = typed(*CAPACITY, "--resume", str(folder), cwd=tmp_path)
    assert resumed.returncode in {0, 4, 5}, resumed.stderr
    assert read(folder, "capacity.json")["complete"]
    assert recompute.differences(folder) == []


def test_a_run_that_is_measured_cannot_be_resumed(tmp_path):
    """Two processes in one folder would mix their requests."""
    process = started("sweep", "--users", "1,2,3", "--duration", "60s", "--max-tokens", "4", cwd=tmp_path)
    wait_for(process, "begins")
    (folder,) = (tmp_path / "results").iterdir()
    arguments = ("sweep", "--users", "1,2,3", "--duration", "60s", "--max-tokens", "4", "--resume", str(folder))
    second = typed(*arguments, cwd=tmp_path)
    process.kill()
    ended(process)
    assert (second.returncode, "another loadbench is writing this run" in second.stderr) == (2, True), second.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_killed_run_takes_a_stopped_worker_along(tmp_path):
    """It does not hear the end of its commands, and would stay for good."""
    process = started("sweep", "--users", "2", "--duration", "60s", "--workers", "2", *SHORT[4:], cwd=tmp_path)
    wait_for(process, "begins")
    children = [
        Path(f"/proc/{pid}")
        for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text(encoding="utf-8").split()
    ]
    workers = [child for child in children if b"engine.worker" in (child / "cmdline").read_bytes()]
    os.kill(int(workers[0].name), signal.SIGSTOP)
    process.kill()
    ended(process)
    ends = time.monotonic() + LIMIT_S
    while any(worker.exists() and (worker / "cmdline").read_bytes() for worker in workers):
        assert time.monotonic() < ends, "a worker is left"
        time.sleep(0.05)


def test_a_closed_terminal_keeps_what_was_measured(tmp_path):
    """It takes the streams away too: the run is kept as far as it came, and no process is left."""
    master, terminal = os.openpty()
    script = "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"
    arguments = ("sweep", "--users", "1,2", "--duration", "30s", "--warm-up", "0s", "--max-tokens", "4")
    process = subprocess.Popen(
        [sys.executable, "-c", script, *COMMAND, *arguments, "--no-live"],
        cwd=tmp_path,
        env=environment(),
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
    )
    os.close(terminal)
    shown = b""
    while b"begins" not in shown:
        shown += os.read(master, 4096)
    (folder,) = (tmp_path / "results").iterdir()
    while not any(logs(folder)):
        time.sleep(0.02)
    os.close(master)
    try:
        process.wait(LIMIT_S)
    finally:
        process.kill()
        process.wait()
    run = read(folder)
    assert (run["complete"], len(run["levels"])) == (False, 1)
    assert run["levels"][0]["interrupted"]
    assert run["levels"][0]["outcomes"]["ok"] > 0


def test_nohup_goes_on(tmp_path):
    """Where the end of the terminal is ignored, it ends nothing."""
    script = "import os, signal, sys; signal.signal(signal.SIGHUP, signal.SIG_IGN); os.execv(sys.argv[1], sys.argv[1:])"
    process = started("sweep", "--users", "1", *SHORT, cwd=tmp_path, by=[sys.executable, "-c", script])
    wait_for(process, "begins")
    process.send_signal(signal.SIGHUP)
    code, _, err = ended(process)
    assert (code in {0, 4, 5}, "Traceback" in err) == (True, False), err
    (folder,) = (tmp_path / "results").iterdir()
    assert read(folder)["complete"]


@pytest.mark.parametrize(
    ("made", "named", "words"),
    [
        ((), "", "an empty folder"),
        (("a/01/",), "", "no repeat in it is complete"),
        (("x-sweep/run.json", "y-sweep/run.json"), "", "has 2 runs"),
        (("notes.txt",), "", "run.json"),
        (("notes.txt",), "notes.txt", "not a loadbench result"),
    ],
)
def test_a_folder_that_is_no_run_is_one_clear_message(made, named, words, tmp_path):
    """Whatever it is, the message says so and what to name."""
    folder = tmp_path / "somewhere"
    folder.mkdir()
    for name in made:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if name.endswith("/"):
            (folder / name).mkdir()
        else:
            (folder / name).write_bytes(to_json(a_run()) if name.endswith("run.json") else b"hello")
    shown = typed("report", str(folder / named), cwd=tmp_path)
    assert (shown.returncode, words in shown.stderr, "Traceback" in shown.stderr) == (2, True, False), shown.stderr
    assert "hint:" in shown.stderr


@pytest.mark.parametrize("name", ["run.json", "report.md", "requests.jsonl", "histograms.hlog"])
def test_a_file_of_a_run_stands_for_it(name, tmp_path):
    """Who names a file of the folder gets its report; a result that lies alone is one too."""
    (tmp_path / "run.json").write_bytes(to_json(a_run(a_level())))
    (tmp_path / name).touch()
    assert typed("report", str(tmp_path / name), cwd=tmp_path).returncode == 0
    (tmp_path / "run.json").rename(tmp_path / "saved.json")
    assert typed("report", str(tmp_path / "saved.json"), cwd=tmp_path).returncode == 0
