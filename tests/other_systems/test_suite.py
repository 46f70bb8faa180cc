"""The tests themselves can be collected on other systems: what they need from Linux is imported where it is used."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.running import environment
from tests.other_systems.missing import SYSTEMS

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(sys.platform != "linux", reason="makes Linux look like other systems")
@pytest.mark.slow
@pytest.mark.parametrize("system", SYSTEMS)
def test_suite_is_collected(system):
    """All of it; a module that has nothing to test there says so."""
    paths = [str(Path(__file__).parent), str(ROOT)]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-n0", "-p", "no:cacheprovider", "--collect-only", "tests"],
        cwd=ROOT,
        env=environment(PYTHON_OTHER_SYSTEM=system, PYTHONPATH=os.pathsep.join(paths)),
        capture_output=True,
        encoding="utf-8",
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "tests/cli/test_cli.py::" in done.stdout
