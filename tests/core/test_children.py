"""What child processes get, and which programs are run."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from loadbench.core.children import child_environment, find_program, python_command


def test_children_get_no_keys(monkeypatch):
    """What they need is there, and nothing else, whatever it is called."""
    keys = {"LOADBENCH_API_KEY", "AWS_SECRET_ACCESS_KEY", "MY_FAVOURITE", "PYTHON_API_KEY", "XDG_TOKEN"}
    for name in keys:
        monkeypatch.setenv(name, "canary")
    monkeypatch.setenv("DOTNET_ROOT", "/opt/dotnet")
    given = child_environment()
    assert "canary" not in given.values()
    assert given["PATH"] == os.environ["PATH"]
    assert "DOTNET_ROOT" not in given
    assert child_environment("DOTNET_")["DOTNET_ROOT"] == "/opt/dotnet"


def test_module_in_the_current_directory_is_not_imported(tmp_path):
    """A folder with a `json.py` does not run in our children."""
    (tmp_path / "json.py").write_text("print('taken over')\n", encoding="utf-8")
    for name in ("sent", "left"):  # where a worker counts
        (tmp_path / name).write_bytes(bytes(4096))
    modules = {"loadbench.telemetry": "--help", "loadbench.sim": "--help", "loadbench.engine.worker": "sent"}
    for module, argument in modules.items():
        done = subprocess.run(
            python_command(module, argument),
            cwd=tmp_path,
            env=child_environment(),
            input="",
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=60,
        )
        assert (done.returncode, "taken over" in done.stdout) == (0, False), done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="makes a script executable")
def test_program_in_the_current_directory_is_not_found(tmp_path, monkeypatch):
    """Not by `.`, not by an empty entry, not by a relative folder; an absolute folder is somebody's choice."""
    (tmp_path / "bin").mkdir()
    for folder in (tmp_path, tmp_path / "bin"):
        (folder / "tool").write_text("#!/bin/sh\n", encoding="utf-8")
        (folder / "tool").chmod(0o755)
    monkeypatch.chdir(tmp_path)
    for path in (".", "", os.pathsep, f"bin{os.pathsep}.", "./bin"):
        assert find_program("tool", {"PATH": path}) is None
    assert find_program("tool", {"PATH": f".{os.pathsep}{tmp_path / 'bin'}"}) == str(tmp_path / "bin/tool")
