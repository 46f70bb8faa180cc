"""What a terminal shows of the lines that are drawn again and again: on one in memory, character by character."""

from __future__ import annotations

import io
import os

import pyte
import pytest

from loadbench.live import screen as module
from loadbench.live.screen import RED, Part, Screen, fitted


class Terminal(io.StringIO):
    """A terminal of this size, as `pyte` emulates it, with some text on it."""

    def __init__(self, columns: int = 30, lines: int = 12) -> None:
        super().__init__()
        self.screen = pyte.Screen(columns, lines)
        self._stream = pyte.Stream(self.screen)
        self.write("$ loadbench\n")

    def write(self, text: str) -> int:
        self._stream.feed(text.replace("\n", "\r\n"))
        return super().write(text)

    def isatty(self) -> bool:
        return True

    @property
    def shown(self) -> list[str]:
        """Its lines, without the empty ones at the end."""
        return "\n".join(line.rstrip() for line in self.screen.display).rstrip().split("\n")

    def narrow(self, columns: int, *, wraps_anew: bool) -> None:
        """Make it narrower: what is there is cut, or wrapped anew as most terminals do."""
        lines = self.shown
        self.screen.resize(columns=columns)
        if wraps_anew:
            self.screen.reset()
            self._stream.feed("\r\n".join(lines) + "\r\n")


@pytest.fixture
def terminal(monkeypatch):
    """A terminal that obeys escapes, and whose size is known."""
    for name in ("XTERM_VERSION", "STY"):
        monkeypatch.delenv(name, raising=False)
    made = Terminal()
    monkeypatch.setattr(
        module.shutil, "get_terminal_size", lambda: os.terminal_size((made.screen.columns, made.screen.lines))
    )
    return made


def frame(*lines: str) -> list[list[Part]]:
    """A frame of these lines."""
    return [[Part(line)] for line in lines]


def test_a_frame_takes_the_place_of_the_one_before(terminal):
    """Longer, shorter, with more lines and with fewer; the cursor is below it, and shown."""
    screen = Screen(terminal, is_terminal=True)
    screen.draw(frame("one", "a second line"))
    assert terminal.shown == ["$ loadbench", "one", "a second line"]
    screen.draw(frame("two", "short", "third"))
    assert terminal.shown == ["$ loadbench", "two", "short", "third"]
    screen.draw(frame("three"))
    assert terminal.shown == ["$ loadbench", "three"]
    assert (terminal.screen.cursor.y, terminal.screen.cursor.x) == (2, 0)
    assert not terminal.screen.cursor.hidden


def test_what_stays_goes_above_the_frame_in_whole_words(terminal):
    """And leaves nothing of the frame behind."""
    screen = Screen(terminal, is_terminal=True)
    screen.draw(frame("a frame", "of two"))
    screen.print("a line that stays and is longer than there is room")
    assert terminal.shown == [
        "$ loadbench",
        "a line that stays and is",
        "  longer than there is room",
        "a frame",
        "of two",
    ]
    screen.erase()
    assert terminal.shown == ["$ loadbench", "a line that stays and is", "  longer than there is room"]


def test_at_the_bottom_the_terminal_scrolls(terminal):
    """Lines that stay move up, the frame stays whole."""
    screen = Screen(terminal, is_terminal=True)
    screen.draw(frame("first", "second"))
    for number in range(13):
        screen.print(f"line {number}")
        screen.draw(frame(f"first {number}", "second"))
    assert terminal.shown == [*(f"line {number}" for number in range(4, 13)), "first 12", "second"]


@pytest.mark.parametrize("wraps_anew", [True, False])
def test_a_narrower_terminal_keeps_no_part_of_an_old_frame(terminal, monkeypatch, wraps_anew):
    """Whether it wraps lines anew or cuts them; and what was there before the frame stays."""
    if not wraps_anew:
        monkeypatch.setenv("XTERM_VERSION", "XTerm(390)")
    screen = Screen(terminal, is_terminal=True)
    screen.print("kept")
    screen.draw(frame("a line of 25 characters..", "another one, as long as it"))
    terminal.narrow(12, wraps_anew=wraps_anew)
    screen.draw(frame("narrow", "frame"))
    assert terminal.shown == ["$ loadbench", "kept", "narrow", "frame"]


def test_colours_only_where_they_are_wanted(terminal, monkeypatch):
    """With NO_COLOR there are none, and the rest is the same."""
    Screen(terminal, is_terminal=True).draw([[Part("failed 2", RED)]])
    assert terminal.screen.buffer[1][0].fg == "red"
    monkeypatch.setenv("NO_COLOR", "1")
    screen = Screen(terminal, is_terminal=True)
    screen.draw([[Part("failed 2", RED)]])
    assert terminal.screen.buffer[2][0].fg == "default"
    assert terminal.shown[-1] == "failed 2"


def test_a_dumb_terminal_gets_lines_only(terminal, monkeypatch):
    """No frame, and no character that it would not understand."""
    monkeypatch.setenv("TERM", "dumb")
    screen = Screen(terminal, is_terminal=True)
    screen.draw(frame("a frame"))
    screen.print("a line")
    screen.erase()
    assert not screen.is_terminal
    assert "\x1b" not in terminal.getvalue()
    assert terminal.shown == ["$ loadbench", "a line"]


def test_an_encoding_without_blocks_gets_plain_signs(terminal, monkeypatch):
    """In place of what would be shown as question marks, or as codes."""
    monkeypatch.setattr(Terminal, "encoding", "ascii", raising=False)
    screen = Screen(terminal, is_terminal=True)
    screen.draw([[Part("██░░ 50 %"), Part("▁▄█")]])
    assert terminal.shown[-1] == "##.. 50 % - _=#"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("é" * 200_000, "é" * 79 + "…"),
        ("模" * 200_000, "模" * 39 + "…"),
        ("\x1b" * 200_000, "?" * 79 + "…"),
        ("é" * 80, "é" * 80),
        ("模" * 40, "模" * 40),
    ],
    ids=["letters", "wide letters", "escapes", "as long as the line", "as wide as the line"],
)
def test_a_long_text_is_cut_where_the_line_ends(text, shown):
    """At once, however long it is: this is done ten times a second beside the load."""
    assert [part.text for part in fitted([Part(text)], 80)] == [shown]


def test_marks_that_take_no_column_are_cut_too():
    """A letter has a few of them in writing; a text of marks alone is left out after another part."""
    (part,) = fitted([Part("a" + "\u0301" * 5000)], 20)
    assert len(part.text) < 100
    assert [part.text for part in fitted([Part("head"), Part("\u0301" * 5000)], 20)] == ["head"]
