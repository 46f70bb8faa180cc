"""Child processes: they get the variables that they need and no others, and no folder chooses a program for us."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from loadbench.core.secrets import is_secret

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

# Without one of these a program is not found, or does not start, or talks another language. Everything else stays here:
# keys are in variables of any name.
_NAMES = frozenset(
    {"PATH", "HOME", "USER", "LOGNAME", "LANG", "LANGUAGE", "TZ", "TERM", "TMPDIR", "TMP", "TEMP", "VIRTUAL_ENV"}
    | {"LD_LIBRARY_PATH", "LD_PRELOAD", "SSL_CERT_FILE", "SSL_CERT_DIR", "CUDA_VISIBLE_DEVICES", "OPENBLAS_NUM_THREADS"}
    | {"SYSTEMROOT", "SYSTEMDRIVE", "WINDIR", "COMSPEC", "PATHEXT", "USERPROFILE", "USERNAME", "HOMEDRIVE", "HOMEPATH"}
    | {"APPDATA", "LOCALAPPDATA", "PROGRAMDATA", "PROGRAMFILES", "PROGRAMFILES(X86)", "PROCESSOR_ARCHITECTURE"}
)
_PREFIXES = ("LC_", "XDG_", "PYTHON", "DYLD_", "COV_", "COVERAGE_")


def child_environment(*more: str) -> dict[str, str]:
    """The variables for a child process, with those whose names begin with `more`."""
    return {
        name: value
        for name, value in os.environ.items()
        if (name.upper() in _NAMES or name.upper().startswith((*_PREFIXES, *more))) and not is_secret(name)
    }


def python_command(module: str, *options: str) -> list[str]:
    """The command that runs one of our modules. Modules in the current directory are not imported instead of others."""
    return [sys.executable, "-P", "-m", module, *options]


def find_program(name: str, environment: Mapping[str, str] | None = None) -> str | None:
    """The path of a program on the PATH, and never one in the current directory, as `.` and empty entries mean."""
    path = (os.environ if environment is None else environment).get("PATH", os.defpath)
    folders = [folder for folder in path.split(os.pathsep) if Path(folder).is_absolute()]
    found = shutil.which(name, path=os.pathsep.join(folders)) if folders else None
    # Windows looks in the current directory first.
    return found if found is not None and Path(found).is_absolute() else None


# The child's side.


def end_with_parent(end: Callable[[], object]) -> None:
    """Call `end` on SIGINT, SIGTERM and the end of standard input, from a signal handler or another thread."""
    for name in ("SIGINT", "SIGTERM", "SIGBREAK"):  # Windows sends the last to a process group
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), lambda *_: end())

    def await_end_of_input() -> None:
        # Read the file descriptor: a thread that waits in `sys.stdin` holds a lock that the interpreter needs to exit.
        while os.read(0, 4096):
            pass
        end()

    threading.Thread(target=await_end_of_input, daemon=True).start()
