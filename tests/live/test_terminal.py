"""The progress of real runs on a real terminal: a pty, whose screen `pyte` keeps."""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from typing import TYPE_CHECKING

import pyte
import pytest

from tests.cli.any_server import any_server
from tests.cli.running import COMMAND, LIMIT_S, environment
from tests.cli.typed import typed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

if sys.platform == "win32":
    pytest.skip("needs a pty", allow_module_level=True)

import fcntl
import pty
import select
import struct
import termios

pytestmark = pytest.mark.slow

SIZES = [(40, 24), (60, 24), (80, 24), (200, 50), (80, 4)]
SHORT = ("--warm-up", "500ms", "--telemetry", "off")


class Terminal:
    """A command on a terminal of its own; `shows` waits until the screen has what is looked for."""

    def __init__(self, *arguments: str, cwd: Path, columns: int = 80, lines: int = 24, **variables: str) -> None:
        self.screen = pyte.HistoryScreen(columns, lines, history=5000)
        self.code: int | None = None
        self.raw = b""
        self._stream = pyte.ByteStream(self.screen)
        # pyte cuts lines when it becomes narrower, as xterm does.
        settings = environment(TERM="xterm-256color", XTERM_VERSION="pyte", **variables)
        self.pid, self._fd = pty.fork()
        if not self.pid:
            os.chdir(cwd)
            os.execve(sys.executable, [*COMMAND, *arguments], settings)
        self.resize(columns, lines)

    def resize(self, columns: int, lines: int) -> None:
        """Make the window another size."""
        fcntl.ioctl(self._fd, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self.screen.resize(lines, columns)

    def type(self, keys: bytes) -> None:
        """Press keys."""
        os.write(self._fd, keys)

    @property
    def lines(self) -> list[str]:
        """All lines that there are, those that have scrolled off too."""
        above = ["".join(row[at].data for at in range(self.screen.columns)) for row in self.screen.history.top]
        return [line.rstrip() for line in [*above, *self.screen.display]]

    @property
    def text(self) -> str:
        """The same as a text."""
        return "\n".join(self.lines)

    def read(self, within_s: float = 0.1) -> bool:
        """Read what there is; false at the end."""
        if select.select([self._fd], [], [], within_s)[0]:
            try:
                data = os.read(self._fd, 65536)
            except OSError:
                data = b""
            if not data:
                if self.code is None:
                    self.code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
                return False
            self.raw += data
            self._stream.feed(data)
        return True

    def shows(self, found: Callable[[Terminal], object]) -> None:
        """Read until this is so."""
        ends_s = time.monotonic() + LIMIT_S
        while not found(self):
            alive = self.read()
            assert time.monotonic() < ends_s, self.text
            assert alive or found(self), self.text

    def end(self) -> int:
        """Read to the end; the exit code."""
        ends_s = time.monotonic() + LIMIT_S
        while self.read():
            assert time.monotonic() < ends_s, self.text
        assert self.code is not None
        assert not self.screen.cursor.hidden
        return self.code


@pytest.fixture
def started() -> Iterator[Callable[..., Terminal]]:
    """Starts commands on terminals, and ends those that have not ended."""
    made: list[Terminal] = []

    def start(*arguments: str, **settings) -> Terminal:
        made.append(Terminal(*arguments, **settings))
        return made[-1]

    yield start
    for terminal in made:
        if terminal.code is None:
            os.kill(terminal.pid, signal.SIGKILL)
            os.waitpid(terminal.pid, 0)
        os.close(terminal._fd)


def sweep(*arguments: str) -> tuple[str, ...]:
    """A short sweep of the simulated server."""
    return ("sweep", *arguments, *SHORT)


@pytest.mark.parametrize(("columns", "lines"), SIZES)
def test_a_level_is_shown_at_any_size_and_nothing_wraps(tmp_path, started, columns, lines):
    """The level, the time left and the rates come and go; each level leaves one line, with its rate."""
    arguments = sweep("--users", "1,2", "--duration", "9s", "--out", "o")
    terminal = started(*arguments, cwd=tmp_path, columns=columns, lines=lines)
    terminal.shows(lambda it: "users=1 · measuring" in it.text and " left" in it.text)
    if lines > 10:
        terminal.shows(lambda it: "TTFT p50" in it.text and "load generator: " in it.text)
        assert sum(line.startswith("[1/2] users=1 · ") for line in terminal.lines) == 1
    terminal.shows(lambda it: "users=2 · measuring" in it.text)
    (ended,) = [line for line in terminal.lines if "users=1" in line]
    assert " tok/s" in ended
    assert "TTFT p95" in ended
    assert terminal.end() in {0, 4, 5}
    assert "warming up" not in terminal.text
    assert "░" not in terminal.text


def test_a_window_that_changes_its_size_keeps_no_old_frame(tmp_path, started):
    """Narrower, wider, and lower than the frame: one frame, as wide as the window."""
    terminal = started(*sweep("--users", "2", "--duration", "6s"), cwd=tmp_path, columns=120)
    terminal.shows(lambda it: "TTFT p50" in it.text)
    for columns, lines in ((44, 24), (100, 8), (60, 3)):
        terminal.resize(columns, lines)
        before = len(terminal.raw)
        # Two whole frames later.
        terminal.shows(lambda it, before=before: it.raw[before:].count(b" left") >= 3)
        assert sum("users=2" in line for line in terminal.screen.display) == 1
        assert sum(" left" in line for line in terminal.screen.display) == 1
    terminal.end()


def test_ctrl_c_keeps_the_results_and_a_second_one_cancels_what_is_in_flight(tmp_path, started):
    """The first says what is waited for; the second ends that. The terminal is left with the report."""
    long = ("--users", "2", "--duration", "60s", "--max-tokens", "2000", "--drain", "80s")
    terminal = started(*sweep(*long), cwd=tmp_path)
    terminal.shows(lambda it: "in flight 2" in it.text)
    terminal.type(b"\x03")
    terminal.shows(lambda it: "stopping: results are kept; waiting for 2 in flight" in it.text)
    assert "press Ctrl-C" in terminal.text
    terminal.type(b"\x03")
    assert terminal.end() == 130
    assert "stopping" not in terminal.text
    assert "saved in" in terminal.text
    assert b"Traceback" not in terminal.raw


def test_a_crash_leaves_the_terminal_as_it_was(tmp_path, started):
    """The frame is gone, the cursor is there, and the traceback is whole."""
    crash = tmp_path / "crash"
    crash.mkdir()
    (crash / "sitecustomize.py").write_text(
        "import loadbench.live.progress as p\n"
        "def broken(self, *a, **k): raise AssertionError('a bug')\n"
        "p.Progress.level_begins = broken\n",
        encoding="utf-8",
    )
    paths = os.pathsep.join(filter(None, [str(crash), os.environ.get("PYTHONPATH", "")]))
    terminal = started(*sweep("--users", "1", "--duration", "1s"), cwd=tmp_path, PYTHONPATH=paths)
    assert terminal.end() != 0
    assert "AssertionError: a bug" in terminal.text
    assert "sending the first requests" not in terminal.text


def test_output_that_is_held_up_holds_up_nothing(tmp_path, started):
    """After Ctrl-S the terminal takes nothing: the run goes on and ends, and nothing that stays is lost."""
    terminal = started(*sweep("--users", "1,2", "--duration", "1s", "--json", "--out", "o"), cwd=tmp_path, columns=100)
    terminal.shows(lambda it: "users=1 · " in it.text)
    terminal.type(b"\x13")
    folder = tmp_path / "o"
    ends_s = time.monotonic() + LIMIT_S
    while not any(
        '"complete":true' in one.read_text(encoding="utf-8").replace(" ", "") for one in folder.glob("*/run.json")
    ):
        assert time.monotonic() < ends_s
        time.sleep(0.1)
    terminal.type(b"\x11")
    terminal.end()
    assert "[1/2] users=1 · " in terminal.text
    assert "[2/2] users=2 · " in terminal.text


@pytest.mark.parametrize("variables", [{"TERM": "dumb"}, {}])
def test_without_escapes_there_are_plain_lines(tmp_path, variables):
    """`TERM=dumb` and --no-live: no escape sequence, a line when a level begins and one when it ends."""
    flags = () if variables else ("--no-live",)

    terminal = Terminal.__new__(Terminal)
    settings = environment(**{"TERM": "xterm", **variables})
    terminal.screen, terminal.code, terminal.raw = pyte.HistoryScreen(100, 50), None, b""
    terminal._stream = pyte.ByteStream(terminal.screen)
    terminal.pid, terminal._fd = pty.fork()
    if not terminal.pid:
        os.chdir(tmp_path)
        os.execve(sys.executable, [*COMMAND, *sweep("--users", "1", "--duration", "1s", *flags)], settings)
    terminal.resize(100, 50)
    terminal.end()
    os.close(terminal._fd)
    # The report, which follows, may have colours.
    assert b"\x1b" not in terminal.raw.partition(b"sweep: ")[0]
    assert "[1/1] users=1 of sim-chat begins" in terminal.text
    assert "[1/1] users=1: " in terminal.text


HOSTILE = [
    "\x1b]0;mine\x07\x1b[2J\x1b[8m\x1b[?25lm\x9b31m",
    "m\u202e\u2066lanif\u200f\u2069\u200b",
    "m\r\n[1/1] users=1 · VALID\x08\x08",
    "x" * 10_000,
    "模" * 10_000,
    "m" + "\u0301" * 5_000,
]


@pytest.mark.parametrize("name", HOSTILE, ids=lambda name: f"{name[:1]!r}-{len(name)}")
def test_the_name_of_a_model_changes_nothing_on_the_terminal(tmp_path, started, name):
    """Escape sequences, marks for the direction, line ends, 10,000 letters, marks upon marks: a text in its line."""
    with any_server(listed=lambda _: None) as server:
        arguments = sweep("--url", server.root, "--users", "1", "--duration", "2s", "--model", name, "--out", "o")
        terminal = started(*arguments, cwd=tmp_path)
        terminal.shows(lambda it: "users=1 · measuring" in it.text)
        # While it measures, one line has the name at most, and the others are where they always are.
        terminal.shows(lambda it: "load generator: " in it.text)
        at = next(number for number, line in enumerate(terminal.lines) if "users=1 · measuring" in line)
        assert terminal.lines[at].startswith("[1/1] users=1 · ")
        assert " left" in terminal.lines[at + 1]
        live = terminal.raw
        assert terminal.end() in {0, 4, 5}
    ours = re.sub(rb"\x1b\[[0-9;]*[mKJAF]", b"", terminal.raw).decode()
    assert {letter for letter in ours if not letter.isprintable()} <= {"\r", "\n"}
    # A frame is no longer than its lines allow, however long the name is.
    assert max(map(len, live.split(b"\x1b[J"))) < 6_000


@pytest.mark.parametrize("columns", [60, 70])
def test_errors_and_hints_fit_the_terminal(tmp_path, started, columns):
    """They are wrapped between words; in a pipe each is a line, for programs that look for its words."""
    words = ("compare", "--a-cmd", "serve --profile cpu-laptop", "--b-cmd", "serve --port {port}")
    piped = typed(*words, cwd=tmp_path).stderr.splitlines()
    assert [line.partition(":")[0] for line in piped] == ["error", "hint"]
    terminal = started(*words, cwd=tmp_path, columns=columns)
    assert terminal.end() == 2
    lines = [line for line in terminal.lines if line]
    assert " ".join(line.strip() for line in lines) == " ".join(piped)
    assert len(lines) > len(piped)
    assert all(line.startswith(("error: ", "hint: ", "  ")) for line in lines)
