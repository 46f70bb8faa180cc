"""Write a file where the user may have one already."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path


def is_taken(path: Path) -> bool:
    """Whether there is something of this name: a link that leads nowhere is."""
    return os.path.lexists(path)


def write_new(path: Path, content: bytes, *, replace: bool) -> None:
    """Write a file that is not there yet, or, with `replace`, the one that is, or that the link leads to, as a whole
    and with the owner and the permissions that it has. It is written in place where that is not possible: where it has
    other names (hard links), where its owner cannot be kept, and where its folder takes no new file.

    Raises `FileExistsError` if something is there that may not be replaced, even if it was made a moment ago, and
    `OSError` if it cannot be written.
    """
    place = Path(os.path.realpath(path)) if replace else path
    if not (replace and is_taken(place)):
        with place.open("xb") as new:
            try:
                new.write(content)
                new.flush()
            except OSError:
                place.unlink(missing_ok=True)
                raise
        return
    about = place.stat()
    if about.st_nlink > 1:
        place.write_bytes(content)
        return
    # A short name: that of the file may be as long as names may be, and a draft of a killed process may lie there.
    draft = place.with_name(f".{os.urandom(6).hex()}.tmp")
    try:
        # Nobody else reads it before it has the permissions of the file.
        new = open(draft, "xb", opener=lambda name, flags: os.open(name, flags, 0o600))  # noqa: SIM115 - closed below
    except PermissionError:  # nothing can be added to this folder: the file itself may be written all the same
        place.write_bytes(content)
        return
    try:
        with new:
            new.write(content)
        made = draft.stat()
        if sys.platform != "win32" and (made.st_uid, made.st_gid) != (about.st_uid, about.st_gid):
            try:
                os.chown(draft, about.st_uid, about.st_gid)
            except PermissionError:
                place.write_bytes(content)
                return
        shutil.copymode(place, draft)
        draft.replace(place)
    finally:
        draft.unlink(missing_ok=True)
