"""Streams that are closed, full or not read: the exit code of the measurement stands, and no stream is an error."""

from __future__ import annotations

import json
import os
import shlex
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.cli.running import COMMAND, LIMIT_S, environment

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="closes and redirects streams as a POSIX shell does"),
    pytest.mark.slow,
]

SWEEP = ("sweep", "--users", "1", "--requests", "3", "--warm-up", "0s", "--max-tokens", "3")
FAILS = (*SWEEP, "--fail-on", "e2e_p50<1us")
NO_FULL_DEVICE = not os.path.exists("/dev/full")  # noqa: PTH110


def shell(line: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[bytes]:
    """Run loadbench with these arguments in a line of the shell, `%` standing for the command."""
    command = shlex.join([*COMMAND, *arguments])
    return subprocess.run(
        ["bash", "-c", line.replace("%", command)],
        cwd=cwd,
        env=environment(),
        capture_output=True,
        timeout=LIMIT_S,
        check=False,
    )


def the_run(folder: Path) -> dict:
    """The result of the only run."""
    (file,) = (folder / "results").glob("*/run.json")
    return json.loads(file.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    "line",
    [
        "% | true; exit ${PIPESTATUS[0]}",
        "% >&-",
        "% 2>&-",
        "% <&-",
        "% <&- >&- 2>&-",
        "% 2> >(true)",
        "% 2> >(true) | true; exit ${PIPESTATUS[0]}",
        pytest.param("% >/dev/full", marks=pytest.mark.skipif(NO_FULL_DEVICE, reason="there is no /dev/full")),
        pytest.param("% 2>/dev/full", marks=pytest.mark.skipif(NO_FULL_DEVICE, reason="there is no /dev/full")),
    ],
)
def test_gate_stands_whatever_becomes_of_the_output(line, tmp_path):
    """3 for a gate that failed, the run kept whole, and no traceback on what is left of the streams."""
    done = shell(line, *FAILS, cwd=tmp_path)
    assert done.returncode in {3, 4}, done.stderr  # on a busy machine the level may be INVALID
    assert b"Traceback" not in done.stderr + done.stdout
    assert the_run(tmp_path)["complete"] is True


@pytest.mark.parametrize(("line", "code"), [("% | true; exit ${PIPESTATUS[0]}", 0), ("% >&-", 0), ("% >/dev/full", 2)])
def test_output_that_is_lost_is_an_error_only_where_somebody_wanted_it(line, code, tmp_path):
    """A reader who leaves has read enough, and a closed stream has none; on a full disk a file is cut short."""
    if "full" in line and NO_FULL_DEVICE:
        pytest.skip("there is no /dev/full")
    done = shell(line, "scenarios", cwd=tmp_path)
    assert (done.returncode, b"Traceback" in done.stderr) == (code, False)
    assert (b"the output could not be written: No space left on device" in done.stderr) == (code == 2)


@pytest.mark.parametrize(
    "arguments", [("--help",), ("sweep", "--help"), ("sweep", "--nonsense"), ("report", "nowhere")]
)
def test_messages_that_nobody_reads_change_no_exit_code(arguments, tmp_path):
    """Help and errors to closed streams end as they do on a terminal."""
    expected = shell("%", *arguments, cwd=tmp_path).returncode
    for line in ("% >&- 2>&-", "% 2> >(true) | true; exit ${PIPESTATUS[0]}"):
        done = shell(line, *arguments, cwd=tmp_path)
        assert (done.returncode, done.stderr) == (expected, b"")


def test_files_do_not_take_the_place_of_closed_streams(tmp_path):
    """With both streams closed nothing that is printed gets into a file of the run or a connection."""
    done = shell("% <&- >&- 2>&-", *SWEEP, cwd=tmp_path)
    assert done.returncode in {0, 4}  # a busy machine may delay the load generator
    run = the_run(tmp_path)
    assert run["levels"][0]["outcomes"] == {"ok": 3}
    (log,) = (tmp_path / "results").glob("*/requests.jsonl")
    assert [json.loads(text)["outcome"] for text in log.read_bytes().splitlines()] == ["ok"] * 3


def test_pipe_that_does_not_block_gets_everything(tmp_path):
    """A reader that is slower than we write, on a pipe that somebody has set to non-blocking, loses nothing."""
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    process = subprocess.Popen(
        [*COMMAND, "report", "--schema"], cwd=tmp_path, env=environment(), stdout=theirs, stderr=subprocess.PIPE
    )
    theirs.close()
    received = b""
    ours.settimeout(LIMIT_S)
    while part := ours.recv(1000):
        received += part
    _, err = process.communicate(timeout=LIMIT_S)
    ours.close()
    assert (process.returncode, err) == (0, b"")
    assert json.loads(received)["title"]
