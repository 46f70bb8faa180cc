"""Files of this user in the state folder, which no run folder has: who hands over a folder cannot write them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from platformdirs import user_state_path

if TYPE_CHECKING:
    from pathlib import Path


def state_file(name: str) -> Path:
    """Where it is: in `~/.local/state/loadbench` on Linux."""
    return user_state_path("loadbench", appauthor=False) / name


def read_state(file: Path, *, most: int) -> bytes:
    """Up to so many bytes of it; none where there is no such file.

    Nothing is taken from a file that another user may have written, or that is in the current folder: without a home,
    or with a relative path in XDG_STATE_HOME.
    """
    if not file.is_absolute():
        return b""
    try:
        with file.open("rb") as opened:
            about = os.fstat(opened.fileno())
            if hasattr(os, "getuid") and (about.st_uid != os.getuid() or about.st_mode & 0o022):
                return b""
            return opened.read(most)
    except OSError:
        return b""
