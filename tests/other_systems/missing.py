"""What Python's standard library lacks on other systems: `python -m tests.other_systems.missing` writes it anew.

The names are those of typeshed, whose stubs say for each one on which systems it exists. They come with mypy, so this
runs where the tools of `lint` are installed; the tests read the file.
"""

from __future__ import annotations

import ast
import json
from pathlib import Path
from types import SimpleNamespace

FILE = Path(__file__).with_name("missing.json")
SYSTEMS = ("win32", "darwin")
# Modules as such, and those of which a part is missing.
_MODULES = ("crypt", "fcntl", "grp", "nis", "ossaudiodev", "posix", "pty", "pwd", "readline", "resource", "spwd", "tty")
_PARTS = ("errno", "mmap", "os", "select", "selectors", "signal", "socket", "subprocess", "time")


def names(module: str, system: str) -> set[str]:
    """The names that a module has on a system."""
    import mypy  # noqa: PLC0415 - one of the tools of `lint`

    stubs = Path(mypy.__path__[0]) / "typeshed" / "stdlib"
    path = next(path for path in (stubs / f"{module}.pyi", stubs / module / "__init__.pyi") if path.exists())
    sys_there = SimpleNamespace(platform=system, version_info=(3, 14))
    found: set[str] = set()

    def walk(body: list[ast.stmt]) -> None:
        for node in body:
            match node:
                case ast.If():
                    # The stub's condition, on the system or the version of Python.
                    walk(node.body if eval(ast.unparse(node.test), {"sys": sys_there}) else node.orelse)
                case ast.ImportFrom():
                    found.update(alias.asname or alias.name for alias in node.names)
                case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                    found.add(name)
                case ast.AnnAssign(target=ast.Name(id=name)) | ast.Assign(targets=[ast.Name(id=name)]):
                    found.add(name)
                case _:
                    pass

    walk(ast.parse(path.read_text(encoding="utf-8")).body)
    return found


def main() -> None:
    """Write the file: for each system, what of each module is missing, and under "" the modules."""
    missing: dict[str, dict[str, str]] = {}
    for system in SYSTEMS:
        # Of termios the stubs name constants everywhere.
        modules = [*(name for name in _MODULES if not names(name, system)), *["termios"] * (system == "win32")]
        lacks = {name: names(name, "linux") - names(name, system) for name in _PARTS}
        missing[system] = {"": " ".join(modules)} | {name: " ".join(sorted(lacks[name])) for name in lacks}
    FILE.write_text(json.dumps(missing, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
