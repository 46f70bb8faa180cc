"""Completion in a shell: the script, and what it asks for."""

from __future__ import annotations

import pytest

from tests.cli.typed import typed


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_script_is_printed(tmp_path, shell):
    """Each shell gets a script that asks loadbench."""
    done = typed("completion", shell, cwd=tmp_path)
    assert done.returncode == 0
    assert "_LOADBENCH_COMPLETE" in done.stdout


def test_runs_are_completed(tmp_path):
    """The name of a run is completed from the folder of results."""
    (tmp_path / "results" / "20260101T000000Z-night").mkdir(parents=True)
    variables = {"_LOADBENCH_COMPLETE": "bash_complete", "COMP_WORDS": "loadbench report ni", "COMP_CWORD": "2"}
    assert typed(cwd=tmp_path, **variables).stdout.split() == ["plain,night"]
