"""The notebook of the docs, run from its first cell to its last against a real engine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.engine

NOTEBOOK = Path(__file__).parents[2] / "docs" / "workshop.ipynb"
# In a process of its own: what a kernel leaves behind is not this one's.
_RUN = """
import sys, nbclient, nbformat
notebook = nbformat.read(sys.argv[1], 4)
nbclient.NotebookClient(notebook, timeout=100, kernel_name="python3", resources={"metadata": {"path": "."}}).execute()
nbformat.write(notebook, sys.argv[2])
"""


def cells(notebook: Path) -> list[dict[str, Any]]:
    """The cells that hold code."""
    document = json.loads(notebook.read_text(encoding="utf-8"))
    return [cell for cell in document["cells"] if cell["cell_type"] == "code"]


def test_the_notebook_is_kept_without_outputs() -> None:
    """What a run printed is no part of it: it would be another machine's."""
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells(NOTEBOOK))


@pytest.mark.timeout(240)
def test_the_notebook_runs_against_a_real_engine(llamacpp: Callable[..., str], tmp_path: Path) -> None:
    """Every cell, in order: the checklist, the benchmark, the bend with its picture, the scores, the choice."""
    pytest.importorskip("ipykernel")
    pytest.importorskip("nbclient")
    done = tmp_path / "done.ipynb"
    environment = {**os.environ, "LOADBENCH_URL": llamacpp(parallel=4)}
    command = [sys.executable, "-c", _RUN, str(NOTEBOOK), str(done)]
    process = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr[-2000:]
    outputs = [output for cell in cells(done) for output in cell["outputs"]]
    printed = "".join("".join(output.get("text", "")) for output in outputs)
    assert "server llama.cpp" in printed
    assert "simulated" not in printed
    assert "users=8:" in printed
    assert "notebook" in printed  # the rater
    # A machine that is busy with other tests may make the measurement invalid: then nothing is recommended.
    is_sound = "This measurement is not sound" not in printed
    assert ("is the only model that was measured" if is_sound else "no recommendation") in printed
    assert any("image/svg+xml" in output.get("data", {}) for output in outputs)
    rows = json.loads((max((tmp_path / "results").glob("*-workshop")) / "benchmark_report.json").read_text())
    assert [(row["status"], row["rounds"]) for row in rows] == [("ok", 3)]
