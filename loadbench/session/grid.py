"""A grid of sweeps from beginning to end: each cell is swept in a folder of its own, one after another.

results/<UTC time>-<name>/
    grid.json, grid.md, grid.svg     what was varied, how each cell ended, what they show; replaced after each cell
    01-<values>/                     a run folder each, as `loadbench sweep` keeps it
    02-<values>/ …

A cell that cannot be measured is kept with its error, and the others go on. `--resume` measures what is missing: cells
that were not begun, failed, or were interrupted, and those whose settings have changed since.
"""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from itertools import count
from statistics import fmean
from typing import TYPE_CHECKING

import anyio
import msgspec

from loadbench import __version__
from loadbench.analyze.grid.cells import concluded
from loadbench.analyze.level.rebuild import run_in
from loadbench.core import event_loop
from loadbench.core.alongside import run_alongside
from loadbench.core.errors import BadInput, ExitCode, Interrupted, LoadbenchError, TargetUnavailable, worst_of
from loadbench.core.units import NS_PER_S, format_duration
from loadbench.plan.cells import cell_text, changes_work, names_in_command, varied_setting
from loadbench.plan.grid import START_NS, check_grid_budget, starts_of, within
from loadbench.report.chart import svg
from loadbench.report.grid import front_chart, grid_document, with_conclusion
from loadbench.report.render_markdown import render_markdown
from loadbench.report.values import counted
from loadbench.results.folder import RunFolder, slug
from loadbench.results.grid import GRID_FILE, Cell, Grid, VariedName, is_grid, read_grid
from loadbench.results.history import remember
from loadbench.results.run import Reason, to_json
from loadbench.session.consent import confirm_command, confirm_load
from loadbench.session.resume import whole_levels
from loadbench.session.run_writer import new_folder
from loadbench.session.setup import check, stopping
from loadbench.session.sweep import sweep
from loadbench.targets.server_command import StartedServer, free_log, port_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from loadbench.live.progress import Progress
    from loadbench.plan.grid import PlannedCell
    from loadbench.plan.scenario import Scenario
    from loadbench.results.run import Run

# Inside a grid's folder: what was measured with other settings.
SET_ASIDE = "set-aside"


def check_grid(
    base: Scenario, cells: Sequence[PlannedCell], environment: Mapping[str, str], resume: Path | None
) -> None:
    """Refuse what cannot be measured, before anything starts; raises `BadInput` with the cell that it is about."""
    if resume is not None and not is_grid(resume):
        hint = "leave --vary out, or start a new grid without --resume"
        raise BadInput(f"--resume {resume}: is one sweep, and no grid", hint=hint)
    for cell in cells:
        try:
            check(cell.scenario, environment)
        except BadInput as error:
            error.message = f"{cell_text(cell.values)}: {error.message}"
            raise
    complete = measured_before(resume, cells)
    left = [cell for place, cell in enumerate(cells) if place not in complete]
    check_grid_budget(left, base.grid.budget, base.place("grid.budget"))


def measured_before(resume: Path | None, cells: Sequence[PlannedCell]) -> set[int]:
    """The places of the cells that the grid in a folder has measured completely, with the same settings."""
    earlier = {} if resume is None else {tuple(sorted(cell.values.items())): cell for cell in read_grid(resume).cells}
    return {
        place
        for place, cell in enumerate(cells)
        if resume is not None and (known := earlier.get(tuple(sorted(cell.values.items())))) is not None
        if _is_complete(resume, known, cell)
    }


def _is_complete(path: Path, known: Cell, cell: PlannedCell) -> bool:
    is_there = (path / known.folder / "run.json").is_file()
    return is_there and known.content_hash == cell.content_hash and known.status == "complete"


class Servers:
    """The servers that loadbench starts for the cells: one for those that follow each other with one command.

    `starts_s` has how long each start took. Each command has a log of its own in the grid's folder.
    """

    def __init__(self, environment: Mapping[str, str], progress: Progress, folder: RunFolder) -> None:
        self.starts_s: list[float] = []
        self._environment, self._progress, self._folder = environment, progress, folder
        self._server: StartedServer | None = None
        self._command: object = None
        self._failed: dict[object, LoadbenchError] = {}

    async def of(self, cell: PlannedCell) -> StartedServer | None:
        """The server of this cell, which runs; `None` if nothing starts it. What ran for another command is ended.

        Raises what went wrong with the start; what a command failed with once, it fails with again.
        """
        if cell.command != self._command:
            await self.stop()
            self._command = cell.command
        if cell.command is None:
            return None
        if cell.command in self._failed:
            raise self._failed[cell.command]
        if self._server is None:
            log = free_log(self._folder.path)
            with suppress(OSError):
                log.touch(mode=0o600)
            self._server = StartedServer(
                cell.scenario,
                self._environment,
                port=port_of(cell.scenario),
                say=self._progress.say,
                doing=self._progress.doing,
                log=log,
            )
        elif self._server.ended is None:
            return self._server
        began_s = time.monotonic()
        try:
            await self._server.stop()  # one that has ended by itself leaves its guard
            await self._server.start()
        except LoadbenchError as error:
            self._failed[cell.command] = error
            raise
        self.starts_s.append(time.monotonic() - began_s)
        return self._server

    def left_ns(self, cell: PlannedCell, later: Sequence[PlannedCell]) -> int:
        """About how long the starts will take that come after this cell."""
        each_ns = round(fmean(self.starts_s) * NS_PER_S) if self.starts_s else START_NS
        return starts_of([one for one in later if one.command != cell.command]) * each_ns

    async def stop(self) -> None:
        """End the server that runs, if one does."""
        server, self._server = self._server, None
        if server is not None:
            await server.stop()


@dataclass(slots=True)
class GridWriter:
    """A grid that is measured: its folder, and the run of each cell by its place. `addresses` are those of the hosts
    that the user has let be loaded."""

    grid: Grid
    folder: RunFolder
    servers: Servers
    addresses: Mapping[str, Sequence[str]]
    runs: dict[int, Run] = field(default_factory=dict)
    stopped: bool = False
    has_no_workers: bool = False  # it was stopped because its cluster has ended
    began_ns: int = field(default_factory=time.monotonic_ns)

    @property
    def spent_ns(self) -> int:
        """How long this command has measured."""
        return time.monotonic_ns() - self.began_ns

    def cell(self, place: int, **changes: object) -> None:
        """Change what is known of a cell, conclude, and save."""
        cells = list(self.grid.cells)
        cells[place] = msgspec.structs.replace(cells[place], **changes)
        self.grid = with_conclusion(concluded(msgspec.structs.replace(self.grid, cells=cells), self.runs))
        self.folder.save(GRID_FILE, to_json(self.grid))
        self.folder.save("grid.md", render_markdown(grid_document(self.grid, self.folder.path, self.runs)).encode())
        chart = front_chart(self.grid)
        if chart is not None:
            self.folder.save("grid.svg", svg(chart).encode())

    def exit_code(self) -> ExitCode:
        """How the process ends: the worst of the cells' codes; inconclusive if the time was too short for some."""
        codes = [ExitCode(cell.exit_code) for cell in self.grid.cells if cell.exit_code is not None]
        codes += [ExitCode.INCONCLUSIVE for cell in self.grid.cells if cell.status == "planned"]
        codes += [ExitCode.INTERRUPTED] if self.stopped and not self.has_no_workers else []
        return worst_of(codes) or self.folder.place.exit_code


def run_grid(
    base: Scenario,
    cells: Sequence[PlannedCell],
    environment: Mapping[str, str],
    progress: Progress,
    *,
    resume: Path | None = None,
) -> GridWriter:
    """Measure every cell, or those that are missing in the folder `resume`; returns what was measured.

    Raises `BadInput` if the folder cannot be written.
    """

    async def run() -> GridWriter:
        return await run_alongside(partial(_run, base, cells, environment, progress, resume), progress.run)

    return event_loop.run(run)


async def _run(
    base: Scenario,
    cells: Sequence[PlannedCell],
    environment: Mapping[str, str],
    progress: Progress,
    resume: Path | None,
) -> GridWriter:
    if base.target.server_cmd is not None:
        confirm_command(base, say=progress.say)
    addresses: dict[str, tuple[str, ...]] = {}  # of every host, which the user confirms once for all cells
    for scenario in {cell.scenario.target.url: cell.scenario for cell in cells}.values():
        with suppress(TargetUnavailable):  # there is no such host: its cells fail
            addresses |= await confirm_load(scenario, say=progress.say)
    started_at = datetime.now(UTC)
    folder = new_folder(base, started_at, progress.say) if resume is None else RunFolder(resume)
    before = None if resume is None else read_grid(resume)
    digits = max(2, len(str(len(cells))))
    names = [slug(f"{place:0{digits}}-{cell_text(cell.values)}") for place, cell in enumerate(cells, 1)]
    effective, origins, in_command = base.effective(), base.recorded_origins(), names_in_command(base)
    writer = GridWriter(
        Grid(
            name=base.report.name if before is None else before.name,
            started_at=started_at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
            if before is None
            else before.started_at,
            loadbench_version=__version__,
            simulated=base.simulated,
            complete=False,
            question=base.question or ("" if before is None else before.question),
            vary=[
                VariedName(
                    name=one.name,
                    key=None if (setting := varied_setting(one.name, in_command)) is None else setting.key,
                    values=list(one.values),
                    changes_work=changes_work(one.name, in_command),
                )
                for one in base.grid.vary or ()
            ],
            scenario=effective,
            origins=origins,
            budget_s=None if base.grid.budget is None else base.grid.budget / NS_PER_S,
            spent_s=0.0 if before is None else before.spent_s,
            starts=0 if before is None else before.starts,
            cells=[
                Cell(values=cell.values, folder=name, content_hash=cell.content_hash)
                for cell, name in zip(cells, names, strict=True)
            ],
        ),
        folder,
        Servers(environment, progress, folder),
        addresses,
    )
    remember(effective)
    to_continue = {} if before is None else _take_over(writer, before, cells, progress)
    scope = anyio.CancelScope()

    def stop() -> None:
        writer.stopped = True
        scope.cancel()

    try:
        with scope, stopping(stop):
            for place, cell in enumerate(cells):
                if writer.grid.cells[place].status == "complete":
                    continue
                later = [
                    one
                    for one, known in zip(cells[place + 1 :], writer.grid.cells[place + 1 :], strict=True)
                    if known.status != "complete"
                ]
                budget_ns = None if base.grid.budget is None else base.grid.budget - writer.spent_ns
                if budget_ns is not None and budget_ns < cell.least_ns:
                    left = format_duration(max(0, budget_ns) // NS_PER_S * NS_PER_S)
                    progress.say(
                        f"{counted(len(later) + 1, 'cell')} not measured: {left} of --budget left is too short"
                    )
                    break
                await _measure(writer, place, cell, later, environment, progress, budget_ns, to_continue.get(place))
                if writer.stopped:
                    break
    finally:
        await writer.servers.stop()
        spent_s = writer.grid.spent_s + writer.spent_ns / NS_PER_S
        complete = all(cell.status in {"complete", "failed"} for cell in writer.grid.cells)
        starts = writer.grid.starts + len(writer.servers.starts_s)
        writer.grid = msgspec.structs.replace(writer.grid, complete=complete, spent_s=spent_s, starts=starts)
        for place, known in enumerate(writer.grid.cells):
            if known.status == "running":  # nothing of it was begun
                writer.cell(place, status="interrupted", exit_code=int(ExitCode.INTERRUPTED))
        writer.cell(0)
        folder.place.wait()
        folder.place.release()
    return writer


async def _measure(
    writer: GridWriter,
    place: int,
    cell: PlannedCell,
    later: Sequence[PlannedCell],
    environment: Mapping[str, str],
    progress: Progress,
    budget_ns: int | None,
    before: Run | None,
) -> None:
    """Sweep one cell, and keep how it ended; `budget_ns` is left for it and those that come `later`."""
    cells, scenario, cell_began_ns = writer.grid.cells, cell.scenario, time.monotonic_ns()
    number = f"{place + 1} of {len(cells)}"
    progress.part_begins(f"cell {number.replace(' of ', '/')}", f"cell {number}: {cell_text(cell.values)}")
    writer.cell(place, status="running", error=None, exit_code=None)
    folder, error = writer.folder.inside(cells[place].folder), None
    levels_after = sum(one.levels for one in later)
    try:
        server = await writer.servers.of(cell)
        starts_ns = writer.servers.left_ns(cell, later)
        if budget_ns is not None:
            scenario = within(cell, budget_ns - (time.monotonic_ns() - cell_began_ns) - starts_ns, later)
        of_cell = await sweep(
            scenario,
            environment,
            progress,
            folder=folder,
            before=before,
            then_ns=lambda whole_ns: whole_ns * levels_after // cell.levels + starts_ns,
            server=server,
            addresses=writer.addresses,
        )
        writer.runs[place], code = of_cell.run, of_cell.exit_code()
        # A cluster that has ended makes no other cell's load; local workers are started for each.
        if of_cell.ended is not None and scenario.load.cluster is None:
            error = Reason("failed", of_cell.ended.message, of_cell.ended.hint)
        writer.stopped = not of_cell.run.complete and error is None
        writer.has_no_workers = writer.stopped and of_cell.ended is not None
        if server is not None and server.ended is not None:
            failure = server.end_error()
            error, code = Reason("server_ended", failure.message, failure.hint), failure.exit_code
            progress.say(f"cell {number} failed: {failure}")
    except Interrupted:
        writer.stopped, code = True, ExitCode.INTERRUPTED
    except LoadbenchError as failure:
        error, code = Reason("failed", failure.message, failure.hint), failure.exit_code
        progress.say(f"cell {number} failed: {failure}")
        if (folder.path / "run.json").is_file():
            writer.runs[place] = run_in(folder.path)
    writer.cell(
        place,
        status="failed" if error is not None else "interrupted" if writer.stopped else "complete",
        error=error,
        exit_code=int(code),
        took_s=(time.monotonic_ns() - cell_began_ns) / NS_PER_S,
    )


def _take_over(writer: GridWriter, before: Grid, cells: Sequence[PlannedCell], progress: Progress) -> dict[int, Run]:
    """Take the cells over that a grid in this folder has measured with the same settings; returns the runs of those
    that can be continued. What was measured with other settings is set aside."""
    path, taken = writer.folder.path, list(writer.grid.cells)
    to_continue: dict[int, Run] = {}
    earlier = {tuple(sorted(cell.values.items())): cell for cell in before.cells}
    for place, cell in enumerate(cells):
        known = earlier.pop(tuple(sorted(cell.values.items())), None)
        if known is None:
            # Another cell of the earlier grid may have this number.
            taken[place] = msgspec.structs.replace(taken[place], folder=_free(path, taken[place].folder).name)
            continue
        taken[place] = msgspec.structs.replace(taken[place], folder=known.folder)
        if not (path / known.folder / "run.json").is_file():
            continue
        if _is_complete(path, known, cell):
            taken[place], writer.runs[place] = known, run_in(path / known.folder)
            continue
        try:
            to_continue[place] = whole_levels(path / known.folder, cell.scenario)
        except BadInput as error:
            (path / SET_ASIDE).mkdir(mode=0o700, exist_ok=True)
            (path / known.folder).rename(_free(path / SET_ASIDE, known.folder))
            progress.say(f"{cell_text(cell.values)}: measured again: {error.message.partition(': ')[2]}")
    for left in earlier.values():
        progress.say(f"{cell_text(left.values)}: no cell of this grid any more; it stays in {path / left.folder}")
    writer.grid = msgspec.structs.replace(writer.grid, cells=taken)
    done = len(writer.runs)
    progress.say(f"resumed: {done} of {counted(len(cells), 'cell')} complete")
    return to_continue


def _free(folder: Path, name: str) -> Path:
    """The first of NAME, NAME-2, NAME-3 … that is not in the folder."""
    numbered = (folder / (name + f"-{again}" * (again > 1)) for again in count(1))
    return next(path for path in numbered if not path.exists())
