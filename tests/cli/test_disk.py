"""A disk that fills up, files that may not grow, a folder that turns read-only: what was measured is kept somewhere."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from loadbench.sim.process import SimProcess
from tests.cli.running import COMMAND, LIMIT_S, environment

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="limits and mounts as Linux has them"),
    pytest.mark.slow,
]

# Some 300 kB of requests, in a second or two.
SWEEP = ("sweep", "--users", "20,30", "--requests", "300", "--warm-up", "0s", "--max-tokens", "60")


def mounts() -> str:
    """Why nothing can be mounted here; empty if something can."""
    if shutil.which("unshare") is None:
        return "there is no unshare"
    tried = subprocess.run(
        ["unshare", "-rm", "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True, text=True, check=False
    )
    return f"this system lets nobody mount: {tried.stderr.strip()}" if tried.returncode else ""


needs_mounts = pytest.mark.skipif(bool(mounts()), reason=mounts() or "-")


def shell(line: str, *arguments: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run loadbench with these arguments in a line of the shell, `%` standing for the command."""
    command = shlex.join([*COMMAND, *arguments])
    return subprocess.run(
        ["bash", "-c", line.replace("%", command)],
        cwd=cwd,
        env=environment(**variables),
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )


@pytest.fixture(scope="module")
def server():
    """A quick one."""
    with SimProcess("slot-server", speed=30.0) as process:
        yield process.url


@pytest.fixture
def other(tmp_path) -> Path:
    """Where there is room for what is temporary."""
    place = tmp_path / "other"
    place.mkdir()
    return place


def kept(other: Path) -> Path:
    """The only run that went there."""
    (folder,) = (path for path in other.glob("loadbench-*/*") if path.is_dir() and "sweep" in path.name)
    return folder


def read(folder: Path) -> tuple[dict, list[bytes]]:
    """Its result and its lines, each of which is whole."""
    lines = (folder / "requests.jsonl").read_bytes().splitlines()
    assert all(json.loads(line)["outcome"] == "ok" for line in lines)
    return json.loads((folder / "run.json").read_bytes()), lines


def asked(run: dict) -> int:
    """The measured requests of its levels."""
    return sum(sum(level["outcomes"].values()) for level in run["levels"])


@needs_mounts
def test_run_on_a_full_disk_goes_on_elsewhere(server, other, tmp_path):
    """All levels and every line are in the other place, which the last line names; the exit code is not 0."""
    (tmp_path / "small").mkdir()
    done = shell(
        "unshare -rm bash -c 'mount -t tmpfs -o size=400k tmpfs small; %; code=$?; cp -r small seen; exit $code'",
        *(*SWEEP, "--url", server, "--out", "small"),
        cwd=tmp_path,
        TMPDIR=str(other),
    )
    assert (done.returncode in {2, 4}, "Traceback" in done.stderr) == (True, False), done.stderr
    folder = kept(other)
    run, lines = read(folder)
    assert (run["complete"], asked(run), run["unwritten_requests"]) == (True, 600, 0)
    assert len(lines) == 600
    assert done.stderr.splitlines()[-1].startswith(f"saved in {folder} (small/")
    assert "No space left on device" in done.stderr.splitlines()[-1]
    assert "warning: there may be too little room: about" in done.stderr
    # What was there before stays readable.
    (before,) = (tmp_path / "seen").iterdir()
    assert read(before)[0]["complete"] is False
    assert shell("%", "report", str(folder), cwd=tmp_path).returncode == 0


@needs_mounts
def test_run_in_a_folder_that_turns_read_only_goes_on_elsewhere(server, other, tmp_path):
    """Nothing of what came later is lost, though the log was open before."""
    (tmp_path / "small").mkdir()
    waits = 'until compgen -G "small/*/requests.jsonl" >/dev/null; do sleep 0.02; done'
    turns = "mount --bind small small; mount -o remount,ro,bind small"
    done = shell(
        f"unshare -rm bash -c '% & {waits}; {turns}; wait $!'",
        *(*SWEEP, "--url", server, "--out", "small"),
        cwd=tmp_path,
        TMPDIR=str(other),
    )
    assert (done.returncode in {2, 4}, "Traceback" in done.stderr) == (True, False), done.stderr
    run, lines = read(kept(other))
    assert (run["complete"], asked(run), len(lines)) == (True, 600, 600)
    assert "Read-only file system" in done.stderr.splitlines()[-1]


@pytest.mark.skipif(shutil.which("prlimit") is None, reason="there is no prlimit")
def test_files_that_may_not_grow_cost_lines_and_no_level(server, other, tmp_path):
    """Every level is in run.json, which also says how many lines are missing; the log has whole lines."""
    done = shell("prlimit --fsize=45000 %", *SWEEP, "--url", server, cwd=tmp_path, TMPDIR=str(other))
    assert (done.returncode in {2, 4}, "Traceback" in done.stderr) == (True, False), done.stderr
    (folder,) = (tmp_path / "results").iterdir()
    run, lines = read(folder)
    assert (run["complete"], asked(run)) == (True, 600)
    assert len(lines) + run["unwritten_requests"] == 600
    assert 0 < len(lines) < 600
    last = done.stderr.splitlines()[-1]
    assert last.startswith("not all is saved in results/")
    assert f"requests.jsonl: {run['unwritten_requests']} lines are missing: File too large" in last
    assert list(other.glob("loadbench-*/*sweep*")) == []


@needs_mounts
def test_no_run_begins_where_none_has_room(server, tmp_path):
    """It is refused with what is free and what is needed, before a request is sent; a dry run says so too."""
    (tmp_path / "small").mkdir()
    mount = "unshare -rm bash -c 'mount -t tmpfs -o size=64k tmpfs small; %; code=$?; ls small; exit $code'"
    for more in ((), ("--dry-run",)):
        done = shell(mount, *SWEEP, "--url", server, "--out", "small", *more, cwd=tmp_path)
        assert (done.returncode, done.stdout) == (2, "")
        assert "small: 64.0 KiB free, and a run needs 97.7 KiB at least" in done.stderr
        assert "--out" in done.stderr


@needs_mounts
def test_comparison_on_a_full_disk_is_printed_and_kept(server, other, tmp_path):
    """Both sides, the comparison and its files move together."""
    (tmp_path / "small").mkdir()
    done = shell(
        "unshare -rm bash -c 'mount -t tmpfs -o size=400k tmpfs small; %'",
        *(
            "compare",
            "--url",
            server,
            "--same",
            "--repeats",
            "2",
            "--users",
            "10",
            "--requests",
            "150",
            "--warm-up",
            "0s",
        ),
        *("--settle", "0s", "--max-tokens", "60", "--out", "small", "--name", "sweep"),
        cwd=tmp_path,
        TMPDIR=str(other),
    )
    assert (done.returncode != 0, "Traceback" in done.stderr) == (True, False), done.stderr
    assert "the run goes on in" in done.stderr, done.stderr
    folder = kept(other)
    assert done.stdout
    assert done.stderr.splitlines()[-1].startswith(f"saved in {folder} (small/")
    assert json.loads((folder / "compare.json").read_bytes())["schema"] == "loadbench.compare/1"
    for side in ("a/01", "a/02", "b/01", "b/02"):
        run, lines = read(folder / side)
        assert (run["complete"], asked(run), len(lines)) == (True, 150, 150)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")  # noqa: PTH110
def test_files_that_flags_name_are_kept_elsewhere(server, other, tmp_path):
    """Each is tried for itself, the report is printed all the same, and the message says where it is."""
    workshop = ("workshop", "--url", server, "--rounds", "1", "--max-tokens", "3", "--prompt", "Hello.")
    done = shell("%", *workshop, "--csv-file", "/dev/full", "--output", "table.md", cwd=tmp_path, TMPDIR=str(other))
    assert "Traceback" not in done.stderr
    assert done.returncode != 0
    assert done.stdout
    assert (tmp_path / "table.md").read_text(encoding="utf-8")
    (csv,) = other.glob("loadbench-*/full")
    assert f"error: --csv-file /dev/full: No space left on device; it is in {csv}" in done.stderr
    assert csv.read_text(encoding="utf-8").count("\n") >= 2
    assert done.stderr.splitlines()[-1].startswith("saved in results/")


def test_two_runs_of_one_second_and_name_both_live(server, tmp_path):
    """Each has its own folder, and says which."""
    command = ("sweep", "--url", server, "--users", "1", "--requests", "3", "--warm-up", "0s", "--name", "twin")
    done = shell("% & % & % & wait", *command, cwd=tmp_path)
    said = {line.removeprefix("saved in ") for line in done.stderr.splitlines() if line.startswith("saved in ")}
    made = {f"results/{path.name}" for path in (tmp_path / "results").iterdir()}
    assert said == made
    assert len(made) == 3
    assert all((tmp_path / name / "run.json").exists() for name in made)


HANGING = """
import os, sys, time
from loadbench.results import folder
folder.HANGS_S, real, seen, until = 0.5, os.fsync, [], sys.argv.pop(1)
def fsync(file):
    if os.readlink(f"/proc/self/fd/{file}").endswith(".run.json.part"):
        seen.append(file)
        while len(seen) == 2 and not os.path.exists(until):
            time.sleep(0.02)
    real(file)
os.fsync = fsync
from loadbench.cli import main
main()
"""


@pytest.mark.parametrize("responds", [False, True])
def test_a_disk_that_hangs_as_the_result_is_saved_holds_no_level_up(server, tmp_path, responds):
    """Levels go on, requests are written, the last line says what is missing; or nothing is, if it responds again."""
    until = tmp_path / "until"
    arguments = ("sweep", "--url", server, "--users", "2,3", "--requests", "30", "--warm-up", "0s", "--max-tokens", "4")
    process = subprocess.Popen(
        [sys.executable, "-c", HANGING, str(until), *arguments],
        cwd=tmp_path, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    said = []
    with process.stderr as stream:
        for line in stream:
            said.append(line)
            if "does not respond" in line and responds:
                until.touch()
    assert process.wait(LIMIT_S) in ({0, 4, 5} if responds else {2, 4, 5}), said
    assert sum(" begins" in line for line in said) == 2, said
    assert any("run.json: the disk does not respond" in line for line in said), said
    (folder,) = (tmp_path / "results").iterdir()
    run, lines = read(folder)
    assert len(lines) == 60
    assert (run["complete"], len(run["levels"])) == ((True, 2) if responds else (False, 0))
    assert ("not all is saved" in said[-1]) != responds
