"""The reference has what the code declares, and no second copy of it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from loadbench.cli import COMMANDS
from loadbench.core.errors import ExitCode
from loadbench.plan.settings import settings
from loadbench.report.terms import TERMS
from tests.docs.reference import FOLDER, PAGES, code

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """What a process of its own writes: in this one, click may keep a command's help option from another test."""
    folder = tmp_path_factory.mktemp("reference")
    program = f"from pathlib import Path; from tests.docs.reference import write; write(Path({str(folder)!r}))"
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)
    return folder


@pytest.mark.parametrize("page", PAGES)
def test_reference_is_up_to_date(written, page):
    """It is what `python -m tests.docs.reference` writes."""
    assert (FOLDER / page).read_text(encoding="utf-8") == (written / page).read_text(encoding="utf-8")


def test_reference_is_whole():
    """Every command, setting, verdict and exit code is there."""
    texts = {page: make() for page, make in PAGES.items()}
    assert re.findall(r"^## loadbench (.*)$", texts["cli.md"], re.MULTILINE) == list(COMMANDS)
    assert [one.key for one in settings() if code(one.variable) not in texts["settings.md"]] == []
    words = texts["verdicts.md"] + texts["metrics.md"]
    assert [one.name for one in TERMS if one.kind != "concept" and f"[{code(one.name)}]" not in words] == []
    assert [one for one in ExitCode if f"| `{one.value}` |" not in texts["exit-codes.md"]] == []


@pytest.mark.parametrize("page", PAGES)
def test_tables_are_tables(page):
    """Each row has as many cells as the head of its table."""
    wide = 0
    for line in PAGES[page]().splitlines():
        cells = line.count("|") if line.startswith("| ") else 0
        assert wide in {0, cells} or not cells, line
        wide = cells
