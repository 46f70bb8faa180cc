"""One line of progress on stderr: the level, elapsed time, requests in flight, done and failed, tokens/s, time left.
A search has `testing users=12 · 8 to 20 so far · 11 of 20 min left` in place of elapsed time and time left.

A terminal line is overwritten four times a second; elsewhere a new line is printed every ten seconds. The load runs in
the same event loop, so a line costs one format and one write. If the stream is closed, nothing more is written: a
measurement does not end because its progress cannot be shown.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, TextIO

import anyio

from loadbench.core.text import printable
from loadbench.core.units import NS_PER_S

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from loadbench.engine.observers import RunningLevel

_TERMINAL_PERIOD_S = 0.25
_PLAIN_PERIOD_S = 10.0


class Progress:
    """Writes the progress line to `stream`; `levels` is the number of levels in the run, `None` if nobody knows it."""

    def __init__(self, stream: TextIO, *, levels: int | None, quiet: bool = False, live: bool = True) -> None:
        self._stream = stream
        self._levels = levels
        self._quiet = quiet
        self._terminal = live and not quiet and stream.isatty()
        self._level: RunningLevel | None = None
        self._standing: Callable[[], Sequence[str]] | None = None
        self._head = self._model = ""
        self._number = 0
        self._width = 0

    def expect(self, levels: int | None, *, standing: Callable[[], Sequence[str]] | None = None) -> None:
        """Set the number of levels in the run. For a search, whose levels nobody knows, `standing` says where it is."""
        self._levels, self._standing = levels, standing

    def level_begins(self, level: RunningLevel, model: str, number: int) -> None:
        """Show this level from now on."""
        self._level, self._number = level, number
        total = "" if self._levels is None else f"/{self._levels}"
        self._head = f"[{number + 1}{total}] {level.label}" if self._standing is None else f"testing {level.label}"
        self._model = model
        if not self._terminal:
            self.say(f"{self._head} of {self._model} begins")

    def level_ended(self, text: str) -> None:
        """The level is over; `text` says how it went."""
        self._level = None
        self.say(f"{self._head}: {text}")

    def say(self, text: str) -> None:
        """Print a line that stays."""
        if self._quiet:
            return
        cleared = "\r" + " " * self._width + "\r" if self._width else ""
        self._width = 0
        self._write(f"{cleared}{printable(text)}\n")

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except OSError:
            self._quiet = True

    async def run(self) -> None:
        """Keep the line up to date until cancelled."""
        while not self._quiet:
            await anyio.sleep(_TERMINAL_PERIOD_S if self._terminal else _PLAIN_PERIOD_S)
            if self._level is not None:
                self.show(self.line(self._level))

    def show(self, text: str) -> None:
        """Show this text as the progress line."""
        if not self._terminal:
            self.say(text)
            return
        # A line that wraps cannot be overwritten, only its last part.
        text = printable(text)[: shutil.get_terminal_size().columns - 1]
        self._write("\r" + text.ljust(self._width))
        self._width = len(text)

    def line(self, level: RunningLevel) -> str:
        """The line for this level, as it stands now."""
        elapsed_ns = level.now_ns - level.begin_ns
        tokens_per_s = level.tokens_so_far / max(elapsed_ns / NS_PER_S, 1e-9)
        parts = [
            *([f"{self._head}  {_clock(elapsed_ns)}"] if self._standing is None else [self._head, *self._standing()]),
            f"in flight {level.in_flight}",
            f"done {level.done}",
            f"failed {level.failed}",
            *([f"gave up {level.gave_up}"] if level.gave_up else []),
            f"{tokens_per_s:.0f} tok/s",
            *([f"waiting for {level.answers_left} more responses"] if self._waits(level) else []),
        ]
        left_ns = self._left_ns(level, elapsed_ns)
        if left_ns is not None and self._standing is None:
            parts.append(f"{_clock(left_ns)} left")
        # The model comes last, since a narrow terminal cuts the line there.
        return " · ".join([*parts, self._model])

    @staticmethod
    def _waits(level: RunningLevel) -> bool:
        """Whether the window goes on beyond its duration, since it has too few responses yet."""
        duration = level.duration
        if duration.most_ns is None or level.now_ns < level.phases.opens_ns + (duration.duration_ns or 0):
            return False
        return level.answers_left > 0

    def _left_ns(self, level: RunningLevel, elapsed_ns: int) -> int | None:
        """Time left in the run, without the drains, which cannot be foreseen; in the level if the rest is unknown."""
        to_come = 0 if self._levels is None else self._levels - self._number - 1
        duration = level.duration
        if duration.duration_ns is not None:
            whole_ns = duration.warm_up_ns + duration.duration_ns + duration.cool_down_ns
            left_ns = max(0, whole_ns - elapsed_ns)
            if duration.most_ns is not None or duration.most_warm_up_ns is not None:
                ends_ns = level.phases.load_ends_ns
                if ends_ns is not None and not level.phases.moves:
                    left_ns = max(0, ends_ns - level.now_ns)
                elif self._waits(level) or not left_ns:
                    return None  # the warm-up or the window takes longer than planned
            return left_ns + to_come * whole_ns
        left, wanted = level.measured_left, duration.requests or 0
        if left is None or left == wanted:
            return None
        measuring_ns = elapsed_ns - duration.warm_up_ns
        whole_ns = round(measuring_ns * wanted / (wanted - left))
        return max(0, whole_ns - measuring_ns) + to_come * (whole_ns + duration.warm_up_ns)


def _clock(ns: int) -> str:
    seconds = max(0, ns) // NS_PER_S
    hours, rest = divmod(seconds, 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}" if hours else f"{rest // 60}:{rest % 60:02}"
