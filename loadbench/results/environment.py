"""Where a run took place: what another needs to know to judge whether two runs may be compared."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_PACKAGES = ("anyio", "hdrhistogram", "httpcore", "httptools", "httpx", "msgspec", "numpy", "orjson")


def environment(*, event_loop: str, stamp_source: str) -> dict[str, object]:
    """Machine, system, Python, packages, and the state of the user's own work tree."""
    return {
        "host": platform.node(),
        "cpu": _cpu(),
        "cores": usable_cores(),
        "os": platform.platform(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "packages": {name: _version(name) for name in _PACKAGES},
        "event_loop": event_loop,
        "stamp_source": stamp_source,
        "git": _git(),
    }


def usable_cores() -> int:
    """The cores that this process may use, where the system tells."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cpu() -> str:
    if sys.platform == "linux":
        try:
            lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            lines = []
        for text in lines:
            if text.startswith("model name"):
                return text.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _git() -> dict[str, object] | None:
    """Commit of the work tree that the command runs in, and whether it has changes; `None` outside of one."""
    commit = _run_git("rev-parse", "HEAD")
    if not commit:
        return None
    return {"commit": commit, "dirty": bool(_run_git("status", "--porcelain", "--untracked-files=no"))}


def _run_git(*arguments: str) -> str:
    try:
        done = subprocess.run(  # noqa: S603 - fixed arguments
            ["git", *arguments],  # noqa: S607 - the user's own git
            capture_output=True,
            text=True,
            timeout=5,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
