"""The lines at the end of a terminal that are drawn again and again, below all that stays.

Ours, and not `rich.live`: one frame of rich is some milliseconds of this process, which the load has to wait for, and
after the window has become narrower it leaves parts of old frames. Here a frame is one string and one write. A frame is
skipped while the terminal takes nothing (Ctrl-S, a slow connection): a write that blocks would hold up the load.

The cursor is never hidden, and there is no other screen to leave: whatever ends this process, the terminal is as it
was, with the cursor at the beginning of a line.
"""

from __future__ import annotations

import os
import select
import shutil
import sys
import textwrap
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, TextIO

from loadbench.core.terminal import wants_color
from loadbench.core.text import display_width, printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

BOLD, DIM, RED, YELLOW = "1", "2", "31", "33"
# What an encoding without these characters gets.
_ASCII = str.maketrans(
    {"·": "-", "…": ".", "█": "#", "░": ".", "±": "+", "µ": "u", "–": "-"}
    | dict(zip("▁▂▃▄▅▆▇", "_.-=+*#", strict=True))
)
_NARROWEST = 10
# Letters with their marks: more marks are no writing, and would lie over other lines.
_MOST_IN_A_COLUMN = 4


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a line, with the colour that it has where there are colours."""

    text: str
    colour: str = ""


def fitted(parts: Iterable[Part], width: int, *, separator: str = " · ") -> list[Part]:
    """The parts that fit, in their order; what does not fit is left out, and the first is cut if even that does not."""
    kept: list[Part] = []
    left = width
    for part in parts:
        # A name may be endless, and much of it may take no column.
        text = printable(part.text[: _MOST_IN_A_COLUMN * width + 1])
        is_whole = len(text) <= _MOST_IN_A_COLUMN * width
        needed = display_width(text) + (len(separator) if kept else 0)
        if is_whole and needed <= left:
            kept.append(Part(text, part.colour))
            left -= needed
        elif not kept:
            widths = accumulate(map(display_width, text[: _MOST_IN_A_COLUMN * width]))
            text = text[: sum(taken <= width - 1 for taken in widths)]
            return [Part(text + "…", part.colour)]
    return kept


class Screen:
    """Draws on a terminal; without `is_terminal` it writes lines and no frames."""

    def __init__(self, stream: TextIO, *, is_terminal: bool) -> None:
        self.is_terminal = is_terminal and _obeys_escapes()
        self.is_closed = False  # nobody reads any more
        self._stream = stream
        self._colours = self.is_terminal and wants_color(stream)
        self._waiting = ""  # what stays and could not be written yet
        self._frame: Sequence[Sequence[Part]] = ()
        self._drawn: list[int] = []  # the widths of the lines that are there
        # Most terminals wrap lines anew when they become narrower; these cut them.
        self._wraps_anew = not {"XTERM_VERSION", "STY"} & os.environ.keys()
        encoding = getattr(stream, "encoding", None) or "utf-8"
        try:
            "·█▁…".encode(encoding)
            self._is_plain = False
        except (UnicodeEncodeError, LookupError):
            self._is_plain = True

    @property
    def size(self) -> tuple[int, int]:
        """(columns, lines) of the terminal now."""
        try:
            size = os.get_terminal_size(self._stream.fileno())
        except (OSError, ValueError):
            size = shutil.get_terminal_size()
        return max(_NARROWEST, size.columns or 80), max(2, size.lines or 24)

    def draw(self, frame: Sequence[Sequence[Part]]) -> None:
        """Show these lines, each of which fits, in place of those that are shown."""
        if self._takes():
            self._frame = frame
            self._write(self._cleared() + self._lines())

    def print(self, text: str) -> None:
        """Write a line that stays, above the frame."""
        text = printable(text)
        if self.is_terminal:
            text = "\n".join(
                textwrap.wrap(
                    text, self.size[0] - 1, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
                )
            )
        self.print_as_it_is(text + "\n")

    def print_as_it_is(self, text: str) -> None:
        """Write whole lines that stay, above the frame. While the terminal takes nothing they wait."""
        self._waiting += self._encodable(text)
        if self._takes():
            self._write(self._cleared() + self._lines())

    def erase(self) -> None:
        """Remove the frame, and write what still waits, however long that takes."""
        self._frame = ()
        self._write(self._cleared())

    def fresh(self) -> None:
        """Draw the next frame below whatever is there now."""
        self._drawn = []

    def line(self, parts: Sequence[Part]) -> str:
        """The parts as a line, coloured if there are colours."""
        coloured = [
            f"\x1b[{one.colour}m{one.text}\x1b[0m" if one.colour and self._colours else one.text for one in parts
        ]
        return self._encodable(" · ".join(coloured))

    def _encodable(self, text: str) -> str:
        return text.translate(_ASCII) if self._is_plain else text

    def _lines(self) -> str:
        """The frame as it is written, after which the cursor is at the beginning of the line below it."""
        if not self._frame or not self.is_terminal:
            return ""
        self._drawn = [display_width(" · ".join(part.text for part in parts)) for parts in self._frame]
        return "".join(f"{self.line(parts)}\x1b[K\n" for parts in self._frame) + "\x1b[J"

    def _cleared(self) -> str:
        """What removes the frame, and then what waits to be written there."""
        columns, lines = self.size if self._drawn else (1, 1)
        rows = sum(max(1, -(-width // columns)) if self._wraps_anew else 1 for width in self._drawn)
        text = f"\x1b[{min(rows, lines - 1)}A\r" if self._drawn else ""
        waiting, self._waiting, had, self._drawn = self._waiting, "", self._drawn, []
        if waiting or not self._frame:
            return text + "\x1b[J" * bool(had) + waiting
        return text

    def _takes(self) -> bool:
        """Whether the stream takes a few lines at once, as far as the system says so."""
        if sys.platform != "win32":  # it says so of sockets alone
            try:
                ready = select.poll()
                ready.register(self._stream.fileno(), select.POLLOUT)
                return bool(ready.poll(0))
            except (OSError, ValueError):
                pass  # no file: a text in memory
        return True

    def _write(self, text: str) -> None:
        if self.is_closed or not text:
            return
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError):
            self.is_closed = True


def _obeys_escapes() -> bool:
    """Whether a terminal moves its cursor as it is told."""
    if sys.platform == "win32":
        import ctypes  # noqa: PLC0415 - on Windows alone

        kernel = ctypes.windll.kernel32
        handle, mode = kernel.GetStdHandle(-12), ctypes.c_ulong()  # standard error
        # 4 is ENABLE_VIRTUAL_TERMINAL_PROCESSING.
        return bool(kernel.GetConsoleMode(handle, ctypes.byref(mode)) and kernel.SetConsoleMode(handle, mode.value | 4))
    else:  # noqa: RET505 - for the type checker, which knows the system
        return os.environ.get("TERM", "") not in {"dumb", "unknown"}
