"""Where a run took place: what is needed to judge whether two runs are comparable."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_PACKAGES = ("anyio", "hdrhistogram", "httpcore", "httptools", "httpx", "msgspec", "numpy", "orjson")


def environment(*, event_loop: str, stamp_source: str) -> dict[str, object]:
    """Machine, system, Python, packages, and the git state of the working directory."""
    packages: dict[str, str | None] = {}
    for name in _PACKAGES:
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            packages[name] = None
    commit = _run_git("rev-parse", "HEAD")
    changes = _run_git("status", "--porcelain", "--untracked-files=no") if commit else ""
    return {
        "host": platform.node(),
        "cpu": _cpu(),
        "cores": usable_cores(),
        "os": platform.platform(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "packages": packages,
        "event_loop": event_loop,
        "stamp_source": stamp_source,
        # Null outside of a work tree.
        "git": {"commit": commit, "dirty": bool(changes)} if commit else None,
    }


def usable_cores() -> int:
    """The cores that this process may use; all cores if the system does not say."""
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
