"""Where a run took place: what is needed to judge whether two runs are comparable."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from loadbench.core.children import child_environment, find_program

_PACKAGES = ("anyio", "hdrhistogram", "httpcore", "httptools", "httpx", "msgspec", "numpy", "orjson")


def environment(*, event_loop: str, stamp_source: str) -> dict[str, object]:
    """Machine, system, Python, packages, and the git state of the working directory."""
    packages: dict[str, str | None] = {}
    for name in _PACKAGES:
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            packages[name] = None
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
        "git": _git(),
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


def _git() -> dict[str, object] | None:
    """Commit of the work tree, and whether files that it tracks have changed; `None` outside of one.

    The configuration of a repository may name programs: to watch its files, as hooks, as filters of their contents, to
    fetch what is missing. None of them is run.
    """
    git, variables = find_program("git"), child_environment("GIT_CEILING_DIRECTORIES")
    variables |= {"GIT_NO_LAZY_FETCH": "1", "GIT_TERMINAL_PROMPT": "0"}
    off = ["core.fsmonitor=false", f"core.hooksPath={os.devnull}", "core.untrackedCache=false", "protocol.allow=never"]

    def run(*arguments: str) -> str:
        options = [part for setting in off for part in ("-c", setting)]
        try:
            done = subprocess.run(  # noqa: S603 - the user's own git, our arguments
                [git or "", "--no-pager", "--no-optional-locks", *options, *arguments],
                env=variables,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                timeout=5,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired):
            return ""
        return done.stdout.strip() if done.returncode == 0 else ""

    commit = run("rev-parse", "HEAD") if git else ""
    if not commit:
        return None
    names = run("config", "--null", "--name-only", "--get-regexp", r"^filter\..*\.(clean|smudge|process|required)$")
    filters = [name for name in names.split("\0") if name]
    if any("=" in name for name in filters):  # such a name cannot be set on the command line
        return {"commit": commit, "dirty": None}
    off += [f"{name}={'false' if name.endswith('.required') else ''}" for name in filters]
    return {
        "commit": commit,
        "dirty": bool(run("status", "--porcelain", "--untracked-files=no", "--ignore-submodules")),
    }
