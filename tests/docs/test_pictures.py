"""The pictures of the documents: each is made by `python -m tests.docs.pictures`, and shows what is true now."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.cli.typed import typed
from tests.docs.blocks import DOCUMENTS
from tests.docs.pictures import CHARTS, FOLDER, PAGES, ROOT

# A page with it is still quick on a slow connection.
MOST_BYTES = 280_000


def test_pictures_are_those_of_the_command():
    """It makes each, and nothing else is there."""
    assert sorted(file.name for file in FOLDER.iterdir()) == sorted([*CHARTS, *PAGES])
    assert [file.name for file in FOLDER.iterdir() if file.stat().st_size > MOST_BYTES] == []


@pytest.mark.slow
@pytest.mark.parametrize("name", CHARTS)
def test_chart_is_up_to_date(name, tmp_path):
    """It is what `loadbench plot` draws of the committed run."""
    run, chart = CHARTS[name]
    assert typed("plot", str(ROOT / run), "--chart", chart, "--out", name, cwd=tmp_path).returncode == 0
    assert (tmp_path / name).read_text(encoding="utf-8") == (FOLDER / name).read_text(encoding="utf-8")


def test_pictures_are_used_and_described():
    """Each is in a document, with words for those who do not see it."""
    shown = set()
    for document in DOCUMENTS:
        for words, target in re.findall(r"!\[([^\]]*)\]\(([^)]+)\)", document.read_text(encoding="utf-8")):
            assert len(words.split()) > 3, f"{document.name}: {target}"
            shown.add((document.parent / target).resolve())
    assert {Path(name) for name in shown} >= {FOLDER / name for name in (*CHARTS, *PAGES)}
