"""What a run is called, and what may be deleted as one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from loadbench.core.errors import BadInput
from loadbench.results.run_delete import own_folder
from loadbench.results.run_list import find_run, runs_in

if TYPE_CHECKING:
    from pathlib import Path


def test_digits_at_the_end_of_a_name_belong_to_it(tmp_path: Path) -> None:
    """But for those of a run that began in the same second as another of its name."""
    names = ("20261101T000000Z-llama", "20261102T000000Z-llama-70", "20261103T000000Z-phi", "20261103T000000Z-phi-2")
    for name in names:
        (tmp_path / name).mkdir()
    assert [run.name for run in runs_in(tmp_path)] == ["phi", "phi", "llama-70", "llama"]
    assert find_run("llama", tmp_path).name == names[0]
    assert find_run("phi", tmp_path).name == names[3]


@pytest.mark.parametrize("file", ["report.md", "compare.md"])
def test_a_folder_with_a_report_alone_is_no_run(tmp_path: Path, file: str) -> None:
    """Nor is one that has runs in it, whatever else it has."""
    (tmp_path / file).write_text("summary", encoding="utf-8")
    with pytest.raises(BadInput, match="is no run folder"):
        own_folder(tmp_path)
    (tmp_path / "run.json").write_text("{}", encoding="utf-8")
    own_folder(tmp_path)
    (tmp_path / "20261101T000000Z-llama").mkdir()
    with pytest.raises(BadInput, match="has runs in it"):
        own_folder(tmp_path)
