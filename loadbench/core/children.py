"""Child processes: they get the variables that they need and no others, and no folder chooses a program for us."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from loadbench.core.secrets import is_secret

if TYPE_CHECKING:
    from collections.abc import Mapping

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
