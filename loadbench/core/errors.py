"""Errors with a reason outside loadbench, and their exit codes.

    LoadbenchError
    ├── BadInput            2    the command line, a scenario or a file is wrong: the user can fix it
    ├── TargetUnavailable   6    the server cannot be reached, is not what it should be, or lacks the model
    │   └── TargetEnded     6    the server that loadbench started has ended by itself
    ├── ClusterUnavailable  6    the Ray cluster cannot be reached, does not answer, or starts no workers
    ├── WorkersEnded        4    every process that sends requests has ended: what was measured is kept
    └── Interrupted       130    the user stopped the run

A failed *request* is not an exception: it is a sample with an outcome (`loadbench.record.outcome`).
Any other exception is a bug of loadbench, and stops the program with its traceback.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class ExitCode(IntEnum):
    """How the process ends; scripts depend on these numbers."""

    OK = 0
    BAD_INPUT = 2
    GATE_FAILED = 3
    INVALID = 4
    INCONCLUSIVE = 5
    TARGET_UNAVAILABLE = 6
    INTERRUPTED = 130

    @property
    def meaning(self) -> str:
        """In a few words."""
        return _MEANINGS[self]


def worst_of(codes: Iterable[ExitCode]) -> ExitCode:
    """Of several parts of one command, the code that it ends with: the first of these that one of them has."""
    found = set(codes)
    return next((code for code in _WORST_FIRST if code in found), ExitCode.OK)


_WORST_FIRST = (
    *(ExitCode.INTERRUPTED, ExitCode.TARGET_UNAVAILABLE),
    *(ExitCode.INVALID, ExitCode.GATE_FAILED, ExitCode.INCONCLUSIVE, ExitCode.BAD_INPUT),
)
_MEANINGS = {
    ExitCode.OK: "done",
    ExitCode.BAD_INPUT: "bad command line or scenario",
    ExitCode.GATE_FAILED: "a gate (--fail-on) failed",
    ExitCode.INVALID: "the measurement is invalid",
    ExitCode.INCONCLUSIVE: "inconclusive",
    ExitCode.TARGET_UNAVAILABLE: "the server or the cluster cannot be reached, or the server lacks the model",
    ExitCode.INTERRUPTED: "interrupted",
}


class LoadbenchError(Exception):
    """One line for the user: `message` names the place and the problem, `hint` says how to fix it."""

    exit_code = ExitCode.BAD_INPUT

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class BadInput(LoadbenchError):  # noqa: N818 - reads as what it is at the raise
    """The command line, the scenario or a file that it names cannot be used."""

    exit_code = ExitCode.BAD_INPUT


class TargetUnavailable(LoadbenchError):  # noqa: N818
    """The server cannot be reached, does not speak the protocol, or lacks the model."""

    exit_code = ExitCode.TARGET_UNAVAILABLE


class TargetEnded(TargetUnavailable):
    """The server that loadbench started has ended by itself."""


class ClusterUnavailable(LoadbenchError):  # noqa: N818
    """The Ray cluster that should make the load cannot be reached, does not answer, or starts no workers."""

    exit_code = ExitCode.TARGET_UNAVAILABLE


class WorkersEnded(LoadbenchError):  # noqa: N818
    """Every process that sends the requests has ended by itself. The exit code is that of the level it happens in."""

    exit_code = ExitCode.INVALID


class Interrupted(LoadbenchError):  # noqa: N818
    """The user stopped the run; what was measured is kept."""

    exit_code = ExitCode.INTERRUPTED


# What Python raises if a socket cannot listen on a host and a port: what the system says, a port that is none, and a
# host that cannot be encoded, for which each layer of Python has an error of its own.
CANNOT_LISTEN = (OSError, OverflowError, TypeError, ValueError)


def why_not_listening(error: Exception) -> str:
    """The reason in one of these errors."""
    if isinstance(error, TypeError | UnicodeError):
        return "no host has this name"
    return getattr(error, "strerror", None) or str(error)
