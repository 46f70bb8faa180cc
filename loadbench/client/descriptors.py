"""The limit on open files: every connection needs one. It is checked before a run, not discovered during it."""

from __future__ import annotations

import errno
import os
import sys
from typing import TYPE_CHECKING

from loadbench.core.errors import BadInput

if TYPE_CHECKING:
    import socket

# Open besides the connections: files, pipes, the event loop, sockets that are being replaced.
_OTHER_FILES = 64
# Those that are opened while the load runs: the files of the run, pages of the server's metrics.
_FILES_OF_THE_RUN = 32


def descriptor_limit() -> tuple[int, int] | None:
    """(soft, hard) limit on open files; `None` where the system has no such limit."""
    limit = None
    if sys.platform != "win32":
        import resource  # noqa: PLC0415 - not on Windows

        limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    return limit


def keep_descriptors(sock: socket.socket) -> None:
    """Raise the error of a limit on open files if this new socket has one of the last descriptors: they are for the
    files of the run. The system gives out the lowest number that is free."""
    limit = descriptor_limit()
    if limit is not None and limit[0] >= 0 and sock.fileno() >= max(limit[0] - _FILES_OF_THE_RUN, limit[0] // 2):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


def ensure_descriptors(connections: int, *, required: bool = True) -> None:
    """Raise the soft limit so that this number of connections fits.

    Raises `BadInput` if the hard limit is too low. If the number is only an upper bound, not `required`, the limit is
    raised as far as the hard limit allows.
    """
    if sys.platform != "win32":
        import resource  # noqa: PLC0415 - not on Windows

        needed = round(connections * 1.2) + _OTHER_FILES
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft == resource.RLIM_INFINITY or soft >= needed:
            return
        if hard != resource.RLIM_INFINITY and hard < needed and not required:
            needed = hard
        if hard != resource.RLIM_INFINITY and hard < needed:
            raise BadInput(
                f"{connections} requests in flight need {needed} open files, and this process may have {hard}",
                hint=f"raise the limit (ulimit -n {needed}), or reduce the load (--users, --max-in-flight, --at-most)",
            )
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
        except (OSError, ValueError) as error:
            raise BadInput(f"{needed} open files are needed: {error}", hint=f"ulimit -n {needed}") from None
