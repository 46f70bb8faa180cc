"""The signals by which a person or the system ends a program; each ends a measurement in order, as Ctrl-C does."""

from __future__ import annotations

import os
import signal
import sys
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import FrameType


_stuck: list[bool] = []


def ending_signals() -> list[signal.Signals]:
    """Ctrl-C, SIGTERM, the end of the terminal, and Windows' Ctrl-Break: those that the system has.

    Under `nohup` the end of the terminal ends nothing.
    """
    known = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK") if hasattr(signal, name)]
    return [one for one in known if one.name != "SIGHUP" or signal.getsignal(one) is not signal.SIG_IGN]


def end_as_ctrl_c_does() -> None:
    """Have every ending signal do what Ctrl-C does at that moment; only the main thread can."""

    def on_signal(_number: int, frame: FrameType | None) -> None:
        ctrl_c = signal.getsignal(signal.SIGINT)
        if not callable(ctrl_c):  # ignored, as in a shell's background job
            raise KeyboardInterrupt
        ctrl_c(signal.SIGINT, frame)

    if threading.current_thread() is threading.main_thread():
        for one in ending_signals()[1:]:
            signal.signal(one, on_signal)


def take_signals_back() -> None:
    """Have Python handle every ending signal again, as it did before a library put a handler of its own in its place,
    below Python: Python is told neither of that one nor of the signals that it gets."""
    if threading.current_thread() is threading.main_thread():
        for one in ending_signals():
            handler = signal.getsignal(one)
            if handler is not None:
                signal.signal(one, handler)


def is_stuck() -> None:
    """A library hangs in one of its threads: Python's own end would wait for it, or break in it."""
    _stuck.append(True)


def end_at_once(code: int) -> None:
    """Have every ending signal end this process without a word: its work is done, and Python is about to leave, where
    an exception would only be printed. The exit code stands. Where a library `is_stuck`, it ends now."""
    if _stuck:
        with suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)
    if threading.current_thread() is threading.main_thread():
        for one in ending_signals():
            if signal.getsignal(one) is not signal.SIG_IGN:
                signal.signal(one, lambda *_: os._exit(code))
