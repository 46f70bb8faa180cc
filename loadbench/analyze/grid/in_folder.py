"""The grid in a folder, as its cells are now, also of one that was killed or is under way."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from loadbench.analyze.grid.cells import concluded
from loadbench.analyze.level.rebuild import run_in
from loadbench.core.errors import BadInput
from loadbench.results.append_log import is_run_being_written
from loadbench.results.grid import read_grid
from loadbench.results.run import Reason

if TYPE_CHECKING:
    from pathlib import Path

    from loadbench.results.grid import Grid
    from loadbench.results.run import Run


def grid_in(folder: Path) -> tuple[Grid, dict[int, Run]]:
    """The grid, and the run of each cell that has one, by the cell's place; raises `BadInput` if there is no grid.

    A cell that was running when the grid was killed is interrupted, and what its requests show counts.
    """
    grid = read_grid(folder)
    runs: dict[int, Run] = {}
    cells = list(grid.cells)
    for place, cell in enumerate(cells):
        inner = folder / cell.folder
        if (inner / "run.json").is_file():
            try:
                runs[place] = run_in(inner)
            except BadInput as error:  # a damaged cell does not hide the others
                reason = Reason("damaged", error.message, error.hint)
                cells[place] = msgspec.structs.replace(cell, status="failed", error=reason)
        if cell.status == "running" and not is_run_being_written(folder):
            cells[place] = msgspec.structs.replace(cells[place], status="interrupted")
    return concluded(msgspec.structs.replace(grid, cells=cells), runs), runs
