"""The limit on open files, of which every connection takes one. Checked before a run, not discovered in it."""

from __future__ import annotations

import sys

from loadbench.core.errors import BadInput

# What a process has open besides its connections: files, pipes, the event loop, sockets that are being replaced.
_ASIDE = 64


def descriptor_limit() -> tuple[int, int] | None:
    """(soft, hard) limit on open files; `None` where the system has no such limit."""
    if sys.platform == "win32":
        return None
    import resource  # noqa: PLC0415 - not on Windows

    return resource.getrlimit(resource.RLIMIT_NOFILE)


def ensure_descriptors(connections: int, *, required: bool = True) -> None:
    """Raise the soft limit so far that so many connections fit.

    Raises `BadInput` where the hard limit forbids it, unless they are not `required` but only the most that may be:
    then the limit is raised as far as it goes.
    """
    if sys.platform == "win32":
        return
    import resource  # noqa: PLC0415 - not on Windows

    needed = round(connections * 1.2) + _ASIDE
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return
    if hard != resource.RLIM_INFINITY and hard < needed and not required:
        needed = hard
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise BadInput(
            f"{connections} requests in flight need {needed} open files, and this process may have {hard}",
            hint=f"raise the limit (ulimit -n {needed}), or lower --users or --max-in-flight",
        )
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
    except (OSError, ValueError) as error:
        raise BadInput(f"{needed} open files are needed: {error}", hint=f"ulimit -n {needed}") from None
