"""The folder of two searches: what is part of it, and what cannot be read."""

from __future__ import annotations

import sys

import pytest

from loadbench.core.errors import BadInput
from loadbench.results.compare_capacity import FILE, read_capacity_comparison, searches_in


@pytest.mark.skipif(sys.platform == "win32", reason="not everybody may make links there")
def test_a_link_is_no_search_of_a_comparison(tmp_path):
    """It leads to a run that somebody else may have chosen."""
    other = tmp_path / "other"
    (tmp_path / "both" / "a").mkdir(parents=True)
    other.mkdir()
    for folder in (tmp_path / "both" / "a", other):
        (folder / "run.json").write_text("{}")
    (tmp_path / "both" / "b").symlink_to(other)
    assert searches_in(tmp_path / "both") == [tmp_path / "both" / "a"]


@pytest.mark.parametrize("text", [None, "{}", "no JSON", '{"schema": "loadbench.compare-capacity/2"}'])
def test_a_file_that_cannot_be_read_is_named(tmp_path, text):
    """That is missing, damaged, or of another version."""
    if text is not None:
        (tmp_path / FILE).write_text(text)
    with pytest.raises(BadInput, match=FILE):
        read_capacity_comparison(tmp_path)
