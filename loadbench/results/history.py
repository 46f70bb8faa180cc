"""What this user measured on this machine, so that a run folder of the user's own is known from somebody else's.

A line for each choice of servers, keys, programs and files (`loadbench.plan.sources.choices`), as a hash, the latest
last. The file is in the user's state folder and never in a run folder: who hands over a folder cannot write it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from typing import TYPE_CHECKING

from loadbench.plan.sources import choices
from loadbench.results.state import read_state, state_file

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from loadbench.results.run import Run

# Runs of one server with one key are one line: years of use. The file then has 130 kB; the older half goes first.
_MOST_LINES = 2000
# Of a name, which may be anything in a file.
_MOST_SHOWN = 80


def history_file() -> Path:
    """Where it is: `~/.local/state/loadbench/history` on Linux."""
    return state_file("history")


def is_own(record: Mapping[str, Mapping[str, object]]) -> bool:
    """Whether this user has measured with what a run's record chooses, or it chooses nothing."""
    line = _line(record)
    return line is None or line in _lines()


def foreign_name(run: Run | None) -> str:
    """The name of a run that is not this user's own, as `resolve` wants it; empty for one's own, and for none."""
    return "" if run is None or is_own(run.scenario) else f"the run {run.name[:_MOST_SHOWN]}"


def remember(record: Mapping[str, Mapping[str, object]]) -> None:
    """Add what a run's record chooses. Without a folder that can be written, no run is known as the user's own."""
    line, known, file = _line(record), _lines(), history_file()
    if line is None or line in known or not file.is_absolute():
        return
    flags = os.O_WRONLY | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
    with contextlib.suppress(OSError):
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if len(known) >= _MOST_LINES:
            draft = file.with_name(f"history.{os.getpid()}")
            with os.fdopen(os.open(draft, flags | os.O_EXCL, 0o600), "wb") as new:
                new.write(b"".join(known[-_MOST_LINES // 2 :]))
            draft.replace(file)
        # In one write, so that two runs that begin together are both kept.
        with os.fdopen(os.open(file, flags | os.O_APPEND, 0o600), "wb") as log:
            log.write(line)


def _line(record: Mapping[str, Mapping[str, object]]) -> bytes | None:
    chosen = choices({f"{section}.{name}": value for section, part in record.items() for name, value in part.items()})
    # Not with orjson, which has no whole numbers of more than 64 bits: a file may hold anything.
    content = json.dumps(chosen, sort_keys=True).encode()
    return hashlib.sha256(content).hexdigest().encode() + b"\n" if chosen else None


def _lines() -> list[bytes]:
    return read_state(history_file(), most=_MOST_LINES * 100).splitlines(keepends=True)
