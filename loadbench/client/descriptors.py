"""The limit on open files: every connection needs one. It is checked before a run, not discovered during it."""

from __future__ import annotations

import sys

from loadbench.core.errors import BadInput

# Open besides the connections: files, pipes, the event loop, sockets that are being replaced.
_OTHER_FILES = 64


def descriptor_limit() -> tuple[int, int] | None:
    """(soft, hard) limit on open files; `None` where the system has no such limit."""
    if sys.platform == "win32":
        return None
    import resource  # noqa: PLC0415 - not on Windows

    return resource.getrlimit(resource.RLIMIT_NOFILE)


def ensure_descriptors(connections: int, *, required: bool = True) -> None:
    """Raise the soft limit so that this number of connections fits.

    Raises `BadInput` if the hard limit is too low. If the number is only an upper bound, not `required`, the limit is
    raised as far as the hard limit allows.
    """
    if sys.platform == "win32":
        return
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
