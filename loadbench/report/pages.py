"""The page of whatever a path names: a run, a search, a comparison, or several of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadbench.analyze.level.rebuild import run_in
from loadbench.report.page import run_page

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from loadbench.report.document import Document


def page_of(folders: Sequence[Path]) -> Document:
    """The page of these run folders; raises `BadInput` for one that cannot be read."""
    (folder,) = folders
    return run_page(run_in(folder), folder)
