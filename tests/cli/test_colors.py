"""Colours and widths on a real terminal, in a pipe, and as the environment asks for them."""

from __future__ import annotations

import os
import re
import struct
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from loadbench.core.terminal import color_choice
from loadbench.core.text import display_width
from loadbench.report.render_text import PLAIN_WIDTH
from loadbench.results.run import to_json
from tests.cli.running import COMMAND, LIMIT_S, environment
from tests.report.golden import objectives

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX terminal")
COLOR = re.compile(r"\x1b\[[\d;]*m")
VARIABLES = ("NO_COLOR", "FORCE_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "TERM", "COLUMNS", "LINES")


def plain_environment(**variables: str) -> dict[str, str]:
    """One that says nothing of colours and widths but this."""
    kept = {name: value for name, value in environment().items() if name not in VARIABLES}
    return {**kept, "TERM": "xterm-256color", **variables}


def on_terminal(*arguments: str, cwd: Path, width: int = 120, **variables: str) -> str:
    """What a command writes to a terminal of this width, its errors included."""
    import fcntl  # noqa: PLC0415 - not on Windows
    import termios  # noqa: PLC0415

    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, width, 0, 0))
    process = subprocess.Popen(
        [*COMMAND, *arguments], cwd=cwd, env=plain_environment(**variables), stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    written = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:
            break  # Linux: the other side is closed
        if not part:
            break
        written += part
    process.wait(LIMIT_S)
    os.close(ours)
    return written.decode()


def in_pipe(*arguments: str, cwd: Path, **variables: str) -> str:
    """What a command writes to a pipe."""
    done = subprocess.run(
        [*COMMAND, *arguments],
        cwd=cwd,
        env=plain_environment(**variables),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding=variables.get("PYTHONIOENCODING", "utf-8"),
        timeout=LIMIT_S,
        check=False,
    )
    return done.stdout + done.stderr


@pytest.fixture
def folder(tmp_path):
    """A folder with a run that has a VALID and an INCONCLUSIVE level, and a failure."""
    (tmp_path / "run.json").write_bytes(to_json(objectives()))
    return tmp_path


def test_a_terminal_gets_colours_and_its_own_width(folder):
    """Verdicts and failures have one, and no line is longer than the window."""
    shown = on_terminal("report", "run.json", cwd=folder, width=72)
    assert {"\x1b[32m", "\x1b[33m", "\x1b[31m", "\x1b[0m"} == {*COLOR.findall(shown)}
    assert max(display_width(line) for line in COLOR.sub("", shown).splitlines()) in range(60, 73)


@pytest.mark.parametrize("variables", [{"NO_COLOR": "1"}, {"TERM": "dumb"}, {"CLICOLOR": "0"}])
def test_a_terminal_gets_none_where_they_are_not_wanted(folder, variables):
    """Neither a report nor an error nor the progress of a sweep has one."""
    sweep = ("sweep", "--users", "1", "--requests", "3", "--warm-up", "0s", "--max-tokens", "4", "--out", "made")
    for arguments in (("report", "run.json"), ("nonsense",), ("report", "gone"), sweep):
        shown = on_terminal(*arguments, cwd=folder, **variables)
        assert shown.strip()
        assert not COLOR.search(shown), arguments


def test_an_error_has_a_colour_on_a_terminal_only(folder):
    """The word `error:`, whether click or loadbench has found it."""
    for arguments in (("sweep", "--nonsense"), ("report", "gone")):
        assert "\x1b[31merror:\x1b[0m" in on_terminal(*arguments, cwd=folder)
        assert "error:" in in_pipe(*arguments, cwd=folder)
        assert "\x1b" not in in_pipe(*arguments, cwd=folder)


def test_a_pipe_gets_plain_lines_of_one_width(folder):
    """The documented one, or that of COLUMNS; no colours."""
    for variables, width in (({}, PLAIN_WIDTH), ({"COLUMNS": "150"}, 150)):
        lines = in_pipe("report", "run.json", cwd=folder, **variables).splitlines()
        assert width - 20 < max(map(display_width, lines)) <= width
        assert not any("\x1b" in line for line in lines)


def test_a_pipe_gets_colours_where_they_are_forced(folder):
    """By FORCE_COLOR and by CLICOLOR_FORCE, if NO_COLOR does not say no."""
    for variables in ({"FORCE_COLOR": "1"}, {"CLICOLOR_FORCE": "1"}, {"FORCE_COLOR": "1", "NO_COLOR": ""}):
        assert COLOR.search(in_pipe("report", "run.json", cwd=folder, **variables))
    assert not COLOR.search(in_pipe("report", "run.json", cwd=folder, FORCE_COLOR="1", NO_COLOR="1"))


@pytest.mark.parametrize(
    ("variables", "choice"),
    [
        ({}, None),
        ({"NO_COLOR": "", "FORCE_COLOR": "", "CLICOLOR_FORCE": "0", "CLICOLOR": "1", "TERM": "xterm"}, None),
        ({"NO_COLOR": "0"}, False),
        ({"FORCE_COLOR": "1", "TERM": "dumb"}, True),
        ({"CLICOLOR_FORCE": "1", "CLICOLOR": "0"}, True),
        ({"TERM": "dumb"}, False),
        ({"CLICOLOR": "0"}, False),
    ],
)
def test_variables_go_before_each_other(variables, choice):
    """No over yes, and both over what a terminal is."""
    assert color_choice(variables) is choice


def test_wide_is_for_text(folder):
    """It shows every column, in a pipe too; where the output is no table for people it is refused."""
    shown = in_pipe("report", "run.json", "--wide", cwd=folder)
    assert "TTFT p99" in shown
    assert "not shown" not in shown
    assert "--wide: is for text, and the output is csv" in in_pipe(
        "report", "run.json", "--wide", "--format", "csv", cwd=folder
    )
    assert "--wide: is for text, and the output is JSON" in in_pipe("models", "--wide", "--json", cwd=folder)


def test_a_code_page_without_our_signs_gets_ascii_ones(folder):
    """Each of the same width, so that columns stay in line; those that it has are kept, as ± here."""
    whole = in_pipe("report", "run.json", "--wide", cwd=folder)
    shown = in_pipe("report", "run.json", "--wide", cwd=folder, PYTHONIOENCODING="cp437")
    assert "~1.20 s (≥" in whole
    assert shown == whole.translate(str.maketrans("◄×–", "<x-"))
