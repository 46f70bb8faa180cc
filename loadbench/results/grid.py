"""`grid.json`: a grid of sweeps, as types. People script against it, so it must stay stable.

Every cell is a run folder inside the grid's, with all that a sweep keeps; here is what was varied, how each cell ended,
and what they show together. Within a version of the schema fields may be added:

    loadbench.grid/1   the first
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

import msgspec

from loadbench.core.errors import BadInput
from loadbench.results.folder import is_part, read_plain
from loadbench.results.run import Interval, OpenInterval, Reason, Status  # noqa: TC001 - msgspec reads the annotations

if TYPE_CHECKING:
    from pathlib import Path

SCHEMA: Final = "loadbench.grid/1"
GRID_FILE: Final = "grid.json"

CellStatus = Literal["planned", "running", "complete", "interrupted", "failed"]


class VariedName(msgspec.Struct, frozen=True, kw_only=True):
    """What is varied: a setting by its `key`, or, without one, a `{name}` of the server's command.

    `changes_work` says that cells with other values did other work, so that none of them is better than another.
    """

    name: str
    key: str | None
    values: list[str]
    changes_work: bool = False


class CellFigures(msgspec.Struct, frozen=True, kw_only=True):
    """The level of a cell with the most output tokens per second, for one model: of those that count, or, where none
    `counts`, of all.

    `ttft_p95_s`, `itl_p50_s` and `tpot_p50_s` are of that level; `memory_bytes` is the largest of all levels: of the
    server's process and its boards' together, as far as they were read. `interval` has the 95 % intervals within the
    run. `on_front`: no other cell that did the same work is at least as good in every figure that both have, at the
    same loads, and surely better in one. `may_be_best`: no other cell surely has more output tokens per second.
    `unknown` says why a higher figure than this cannot be excluded. `steadiness_unknown`: the level was too short to
    see whether the server was steady. `faster_alone`: by about what factor the server may be faster without the other
    programs that kept it waiting.
    """

    model: str
    load: str
    verdict: Status
    output_tokens_per_s: float
    ttft_p95_s: float | None
    itl_p50_s: float | None
    tpot_p50_s: float | None = None
    memory_bytes: float | None = None
    joules_per_output_token: float | None = None
    interval: dict[str, OpenInterval | None] = {}
    on_front: bool = False
    may_be_best: bool = False
    unknown: str = ""
    counts: bool = True
    steadiness_unknown: bool = False
    faster_alone: float | None = None


class DepthFigures(msgspec.Struct, frozen=True, kw_only=True):
    """Prefill and decode of a cell at its lowest load, for prompts of one length.

    `input_tokens` is the mean of the measured prompts. `prefill_tokens_per_s` is that divided by the median TTFT, which
    has the network and the server's queue in it; `decode_tokens_per_s` is for each user: one over the median TPOT.
    Intervals are 95 %; an end that is null is open.
    """

    model: str
    load: str
    input_tokens: float
    prefill_tokens_per_s: float | None
    prefill_interval: OpenInterval | None = None
    decode_tokens_per_s: float | None
    decode_interval: OpenInterval | None = None


class Cell(msgspec.Struct, frozen=True, kw_only=True):
    """One combination of the values, by name. `folder` is its run folder inside the grid's; `content_hash` identifies
    its settings. A cell that failed has its `error`, with what to do, and may have levels all the same. `exit_code` is
    what its sweep would have ended with. `uncounted` is the commonest reason of its levels where none
    of them counts; `not_counted` are all that do not, with their verdict and the commonest reason's code;
    `why_not_counted` is that reason's message."""

    values: dict[str, str]
    folder: str
    content_hash: str
    status: CellStatus = "planned"
    error: Reason | None = None
    exit_code: int | None = None
    took_s: float | None = None
    levels: int = 0
    verdicts: dict[str, int] = {}
    figures: list[CellFigures] = []
    depth: list[DepthFigures] = []
    uncounted: Reason | None = None
    not_counted: str = ""
    why_not_counted: str = ""


class MoreAtLoad(msgspec.Struct, frozen=True, kw_only=True):
    """Each of the cells `more` surely has more output tokens per second at this load than each of the cells `than`."""

    load: str
    more: list[int]
    than: list[int]


class BestCell(msgspec.Struct, frozen=True, kw_only=True):
    """The best of the cells that did the same `work`: the number of the cell that surely has the most output tokens per
    second, from 1; else null, and `candidates` cannot be told apart. `model` is empty where each cell has one. `ratio`
    is its throughput over that of the next, with its interval, all such intervals together at the grid's confidence.
    `more_at_load` says which of the candidates differ at one load, from the lowest; all such pairs of the grid together
    at its confidence.
    """

    model: str
    work: dict[str, str] = {}
    best: int | None
    candidates: list[int]
    ratio: float | None = None
    ratio_interval: Interval | None = None
    more_at_load: list[MoreAtLoad] = []


class Grid(msgspec.Struct, frozen=True, kw_only=True):
    """A grid, as far as it has come. `scenario` and `origins` are those of its first cell.

    `confidence` is that with which every cell is named that is the best, all of them together: pairs of levels are
    compared by the logarithm of their ratio, at an error of (1 - confidence) divided by the number of levels
    (Bonferroni); `assumed_drift` is the standard deviation, as a share, by which the machine's speed is assumed to
    change between two cells. `unknown` says why cells may be better than they show, or have no level that counts: the
    commonest reason, and what would make all of these levels count; `again` are the flags of that.
    """

    schema: Literal["loadbench.grid/1"] = SCHEMA
    name: str
    started_at: str
    loadbench_version: str
    simulated: bool
    complete: bool
    question: str = ""
    vary: list[VariedName]
    scenario: dict[str, dict[str, object]]
    origins: dict[str, str] = {}
    budget_s: float | None = None
    spent_s: float = 0.0
    starts: int = 0
    cells: list[Cell]
    confidence: float = 0.95
    assumed_drift: float = 0.0
    best: list[BestCell] = []
    unknown: Reason | None = None
    again: list[str] = []
    conclusion: str = ""


def is_grid(folder: Path) -> bool:
    """Whether a folder is that of a grid."""
    return (folder / GRID_FILE).is_file()


def read_grid(folder: Path) -> Grid:
    """The grid in a folder; raises `BadInput` if there is none that this version can read."""
    file = folder / GRID_FILE
    try:
        grid = msgspec.json.decode(read_plain(file), type=Grid)
    except OSError as error:
        hint = "name the folder of a grid, under results/"
        raise BadInput(f"{file}: {error.strerror or error}", hint=hint) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadInput(
            f"{file}: not a grid that this version can read: {error}",
            hint="if the file is damaged, restore it; if another version of loadbench wrote it, use that one",
        ) from None
    wrong = next((cell.folder for cell in grid.cells if not is_part(folder, cell.folder)), None)
    if wrong is not None:
        raise BadInput(f"{file}: {wrong!r:.80} is no folder in this one", hint="the file was changed: restore it")
    return grid
