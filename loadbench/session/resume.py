"""What a measurement continues from: the whole levels, or repeats, that were measured under the same conditions."""

from __future__ import annotations

import dataclasses
import os
import re
import shlex
import stat
from contextlib import contextmanager
from itertools import count, takewhile
from typing import TYPE_CHECKING, Any

import msgspec

from loadbench.core.errors import BadInput
from loadbench.engine.sweep import EarlierLevels, LastLevel
from loadbench.plan.conditions import conditions, differing
from loadbench.plan.load import Closed
from loadbench.plan.scenario import leave_out, with_entries, with_not_used
from loadbench.plan.scenario_file import read
from loadbench.plan.settings import DEFAULT, setting_of
from loadbench.plan.sources import as_flags, choices, recorded, resolve
from loadbench.results.append_log import is_being_written, lock
from loadbench.results.folder import read_run
from loadbench.results.history import foreign_name, is_own
from loadbench.results.run import ClosedLoad

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from loadbench.engine.paired import EarlierRepeats
    from loadbench.plan.load import Load
    from loadbench.plan.scenario import Scenario
    from loadbench.results.run import LevelResult, Run

# Of a name, which may be anything in a file.
_MOST_SHOWN = 80
_NEW = "or start a new run without --resume"


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Nobody else continues the run in this folder while the context lasts; raises `BadInput` if somebody measures it.

    Whoever reads a run to continue it holds it first: nothing can be added to it behind its back then.
    """
    try:
        folder = os.open(path, os.O_RDONLY)
    except OSError:  # there is none, or this system opens no folders
        yield
        return
    try:
        if not lock(folder) or any(is_being_written(log) for log in path.rglob("requests.jsonl")):
            raise BadInput(f"{path}: another loadbench is writing this run", hint="wait until it ends, or stop it")
        yield
    finally:
        os.close(folder)


def refuse_other_conditions(path: Path, now: Mapping[str, object], then: Mapping[str, object], *, free: str) -> None:
    """Raise `BadInput` if a measurement was made under other conditions than these; `free` may differ."""
    if not then:
        hint = "measure again without --resume"
        raise BadInput(f"--resume {path}: an older version of loadbench did not record its conditions", hint=hint)
    changed = differing(now, then)
    if changed:
        changes = "; ".join(f"{key} was {then.get(key)!r:.200} and is {now.get(key)!r:.200}" for key in changed[:5])
        raise BadInput(
            f"--resume {path}: measured under other conditions: {changes}",
            hint=f"give the same settings (only {free} may differ), {_NEW}",
        )


def refuse_other_kind(path: Path, command: str) -> None:
    """Raise `BadInput` if the folder is that of another command."""
    from loadbench.results.capacity import FILE, SEVERAL_FILE  # noqa: PLC0415 - only what is resumed needs it
    from loadbench.results.compare_capacity import FILE as COMPARED  # noqa: PLC0415
    from loadbench.results.grid import is_grid  # noqa: PLC0415
    from loadbench.results.saved import has_pairs  # noqa: PLC0415

    kinds = {
        "compare --capacity": (path / COMPARED).exists(),
        "capacity": any((path / name).exists() for name in (FILE, SEVERAL_FILE)),
        "compare": has_pairs(path),
        "sweep": (path / "run.json").exists() or is_grid(path),
    }
    kind = next((name for name, is_kind in kinds.items() if is_kind), command)
    if kind != command:
        hint = f"continue it with `loadbench {kind} --resume {path}`"
        raise BadInput(f"--resume {path}: is the folder of `loadbench {kind}`", hint=hint)


def settings_of_run(path: Path, command: str, *, file: Path | None) -> dict[str, Any]:
    """What `resolve` takes from the run in a folder that is continued: its settings, unless a scenario file is given.
    The searches of several models have those of the first in common.

    Raises `BadInput` for the folder of another command, and for one with links in it, which lead to other files.
    """
    if not path.is_dir():
        raise BadInput(
            f"--resume {path}: no such folder", hint="name a run folder, as in results/20260101T120000Z-sweep"
        )
    refuse_other_kind(path, command)
    for entry in path.rglob("*"):
        kind = entry.lstat().st_mode
        if not stat.S_ISREG(kind) and not stat.S_ISDIR(kind):
            what = "a link" if stat.S_ISLNK(kind) else "no plain file"
            raise BadInput(
                f"--resume {path}: {entry} is {what}", hint="only whole run folders are continued: remove it"
            )
    from loadbench.results.capacity import SEVERAL_FILE, read_capacities  # noqa: PLC0415 - few runs are continued
    from loadbench.results.grid import is_grid, read_grid  # noqa: PLC0415

    if file is None and is_grid(path):
        grid = read_grid(path)
        foreign = "" if is_own(grid.scenario) else f"the grid {grid.name[:_MOST_SHOWN]}"
        reused = recorded(grid.scenario, grid.origins)
        return {"reused": reused, "reused_personas": grid.scenario.get("personas", {}), "foreign": foreign}
    folders = read_capacities(path).folders if (path / SEVERAL_FILE).is_file() else {"": "."}
    begun = next((path / name for name in folders.values() if (path / name / "run.json").is_file()), None)
    if file is not None or begun is None:
        return {}
    settings = _settings_of(read_run(begun))
    if len(folders) > 1:
        reused = settings["reused"]
        if "target.model_set" not in reused:
            reused["target.model"] = list(folders)
        if "capacity.budget" in reused:
            part = setting_of("capacity.budget").type.read(reused["capacity.budget"])
            reused["capacity.budget"] = setting_of("capacity.budget").type.show(part * len(folders))
    return settings


def settings_of_sides(path: Path, *, file: Path | None, named: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """What `resolve` takes from the searches of two sides that are continued. Their budget is that of both.

    Raises `BadInput` for another folder; and if the second side was not begun, unless the sides are `named` again.
    """
    from loadbench.plan.pairs import SIDES  # noqa: PLC0415 - few runs are continued
    from loadbench.results.compare_capacity import FILE  # noqa: PLC0415

    if not (path / FILE).is_file():
        hint = "name a folder of `loadbench compare --capacity`, or continue this one without --capacity"
        raise BadInput(f"--resume {path}: is no comparison of capacities", hint=hint)
    found: list[dict[str, Any]] = []
    for side in SIDES:
        if not (path / side / "run.json").is_file():
            if not named:
                hint = "name both sides again, with all settings"
                raise BadInput(f"--resume {path}: side {side.upper()} was not begun", hint=hint)
            found.append({})
            continue
        settings = {} if named else settings_of_run(path / side, "capacity", file=file)
        reused = settings.get("reused", {})
        if "capacity.budget" in reused:
            type_ = setting_of("capacity.budget").type
            reused["capacity.budget"] = type_.show(len(SIDES) * type_.read(reused["capacity.budget"]))
        found.append(settings)
    a, b = found
    return a, b


def _settings_of(run: Run) -> dict[str, Any]:
    personas = run.scenario.get("personas", {})
    return {"reused": recorded(run.scenario, run.origins), "reused_personas": personas, "foreign": foreign_name(run)}


def in_its_folder(scenario: Scenario, resume: Path | None) -> Scenario:
    """The scenario of a run that is resumed: it has its name and its folder already."""
    for key in ("report.name", "report.out"):
        if resume is not None and scenario.is_set(key):
            scenario = leave_out(scenario, key, "the run continues in its folder", by=None)
    return scenario


def resumed_sides(
    path: Path, *, flags: Mapping[str, object], environment: Mapping[str, str]
) -> tuple[Scenario, Scenario]:
    """The sides of a comparison of this user's own that is continued by its folder alone.

    Raises `BadInput` for one of somebody else's, with its choices as flags that give them again.
    """
    from loadbench.plan.pairs import SIDES, settled_sides  # noqa: PLC0415 - only comparisons need it

    firsts = [path / side / "01" for side in SIDES]
    if not all((folder / "run.json").is_file() for folder in firsts):
        raise BadInput(f"--resume {path}: it was killed as it began", hint="measure again without --resume")
    runs = [read_run(folder) for folder in firsts]
    if not all(is_own(run.scenario) for run in runs):
        texts: list[str] = []
        more: dict[str, object] = {}
        for side, run in zip(SIDES, runs, strict=True):
            record = run.scenario.get("target", {})
            own = {name: record.get(name) for name in ("url", "profile", "model") if record.get(name)}
            own.pop("profile" if "url" in own else "", None)
            parts = [f"{name}={one[0] if isinstance(one, list) and one else one}" for name, one in own.items()]
            texts.append(f"--{side} {shlex.quote(','.join(parts))}")
            chosen = choices({f"{part}.{name}": one for part, of in run.scenario.items() for name, one in of.items()})
            more |= {key: one for key, one in chosen.items() if key.removeprefix("target.") not in own}
        raise BadInput(
            f"--resume {path} is not in the history of your own runs, or was changed since. Only you choose servers, "
            f"keys, programs and files; its sides were {' '.join([*texts, *as_flags(more, command='compare')])}",
            hint="give them again as flags if you trust them, with the other settings",
        )
    sides = []
    for side, run in zip(SIDES, runs, strict=True):
        scenario = resolve(flags=flags, environment=environment, command="compare", **_settings_of(run))
        scenario = in_its_folder(scenario, path)
        name = re.sub(rf" {side.upper()}1$", "", run.name)
        report = dataclasses.replace(scenario.report, name=name)
        sides.append(dataclasses.replace(scenario, report=report, question=run.question))
    return settled_sides(sides[0], sides[1])


def whole_levels(path: Path, scenario: Scenario) -> Run:
    """The sweep in a folder, without a level that was stopped before its end, or in which the server ended, and without
    the last ones if workers ended in them.

    Raises `BadInput` if this scenario cannot continue it: other conditions, or other loads than the first of its own.
    """
    from loadbench.results.grid import is_grid  # noqa: PLC0415 - few runs are continued

    refuse_other_kind(path, "sweep")
    if is_grid(path):
        raise BadInput(f"--resume {path}: is a grid", hint="give what it varies too, or no scenario file")
    run = read_run(path)
    refuse_other_conditions(path, conditions(_at_loads_of(run, scenario)), run.conditions, free="further loads")
    levels = list(takewhile(lambda level: not (_has(level, "interrupted") or _has(level, "server_ended")), run.levels))
    # Where further levels followed, the workers that were left made their load.
    while levels and _has(levels[-1], "lost_worker"):
        levels.pop()
    planned = [load.label for load in scenario.loads]
    for model in {level.model for level in levels} if not scenario.finds_levels else ():
        measured = [level.load.label for level in levels if level.model == model]
        if measured != planned[: len(measured)]:
            loads = ", ".join(measured)
            raise BadInput(f"--resume {path}: measured other loads: {loads}", hint=f"begin with the same loads, {_NEW}")
    return msgspec.structs.replace(run, levels=levels, complete=False, under_way=None)


def _at_loads_of(run: Run, scenario: Scenario) -> Scenario:
    """The scenario with the loads of a run: what has an effect at further loads alone is no condition of the run."""
    for name in ("users", "rate"):
        then = run.scenario.get("load", {}).get(name)
        if isinstance(then, list) and scenario.values.loop == name and not scenario.finds_levels:
            entry = read(setting_of(f"load.{name}"), then, scenario.origins.get(f"load.{name}", DEFAULT))
            return with_not_used(with_entries(scenario, {f"load.{name}": entry}))
    return scenario


def earlier_levels(run: Run, scenario: Scenario, models: Sequence[str]) -> EarlierLevels:
    """What a sweep of these models has to know of the levels that it has already.

    Raises `BadInput` if the run is of other models.
    """
    of_model: dict[str, list[LevelResult]] = {}
    for level in run.levels:
        of_model.setdefault(level.model, []).append(level)
    if not of_model.keys() <= set(models):
        names = ", ".join(of_model)
        raise BadInput(f"--resume: the run is of other models: {names}", hint=f"name the same models, {_NEW}")
    return EarlierLevels(
        last={model: _last_level(levels[-1], scenario) for model, levels in of_model.items()},
        counts={model: len(levels) for model, levels in of_model.items()},
        complete={
            model
            for model, levels in of_model.items()
            if _has(levels[-1], "aborted") or (not scenario.finds_levels and len(levels) >= len(scenario.loads))
        },
        spent_ns=sum(round(level.window_s * 1e9) for level in run.levels),
    )


def _last_level(level: LevelResult, scenario: Scenario) -> LastLevel:
    """The level as the next one's warm-up is estimated by it."""
    e2e, load = level.metrics.get("e2e_response_s"), level.load
    # A sweep that finds its levels itself may have had one between those that it lists.
    planned: Load = (
        Closed(load.users, scenario.think)
        if isinstance(load, ClosedLoad)
        else next(one for one in scenario.loads if one.label == load.label)
    )
    return LastLevel(0 if e2e is None else round(e2e.p95 * 1e9), planned)


def whole_repeats(path: Path, sides: tuple[Scenario, Scenario]) -> tuple[list[Run], list[Run]]:
    """The repeats of a comparison in a folder up to the first that is not complete on both sides.

    Raises `BadInput` if these sides cannot continue it.
    """
    from loadbench.plan.pairs import SIDES, at_repeat  # noqa: PLC0415 - only comparisons need it

    refuse_other_kind(path, "compare")
    runs: tuple[list[Run], list[Run]] = ([], [])
    for repeat in count():
        folders = [path / side / f"{repeat + 1:02}" for side in SIDES]
        if not all((folder / "run.json").is_file() for folder in folders):
            break
        pair = [read_run(folder) for folder in folders]
        for folder, side, run in zip(folders, sides, pair, strict=True):
            now = conditions(at_repeat(side, repeat))
            refuse_other_conditions(folder, now, run.conditions, free="loads, repeats and budget")
        if not all(run.complete for run in pair):
            break
        planned = [load.label for load in sides[0].loads]
        for folder, run in zip(folders, pair, strict=True):
            measured = [level.load.label for level in run.levels]
            if measured != planned[: len(measured)] or (
                len(measured) < len(planned) and _aborted_at([*pair, *runs[0], *runs[1]]) is None
            ):
                hint = f"give the same loads, {_NEW}"
                raise BadInput(f"--resume {folder}: measured other loads: {', '.join(measured)}", hint=hint)
        for of_side, run in zip(runs, pair, strict=True):
            of_side.append(run)
    return runs


def set_aside(path: Path, repeats: int) -> None:
    """Move the repeats after so many, which are not complete, out of the way of those that will be measured now.

    Raises `BadInput` if somebody measures them, or has done so since they were read.
    """
    from loadbench.plan.pairs import SIDES  # noqa: PLC0415 - only comparisons need it

    after = [path / side / f"{repeats + 1:02}" for side in SIDES]
    if all((folder / "run.json").is_file() and read_run(folder).complete for folder in after):
        raise BadInput(f"{path}: another loadbench has measured this meanwhile", hint="repeat the command")
    for folder in sorted(path.glob("[ab]/*")):
        number = re.fullmatch(r"\d+", folder.name)
        if number and int(folder.name) > repeats:
            if is_being_written(folder / "requests.jsonl"):
                raise BadInput(f"{path}: another loadbench is measuring this", hint="wait until it ends, or stop it")
            place = path / "interrupted"
            place.mkdir(mode=0o700, exist_ok=True)
            names = (f"{folder.parent.name}-{folder.name}" + f"-{again}" * (again > 1) for again in count(1))
            folder.rename(next(place / name for name in names if not (place / name).exists()))


def earlier_repeats(runs: tuple[Sequence[Run], Sequence[Run]], sides: tuple[Scenario, Scenario]) -> EarlierRepeats:
    """What a comparison has to know of the repeats that it has already."""
    from loadbench.engine.paired import EarlierRepeats  # noqa: PLC0415 - only comparisons need it

    return EarlierRepeats(
        repeats=len(runs[0]),
        levels=_aborted_at([*runs[0], *runs[1]]),
        last=tuple(
            {at: _last_level(level, side) for run in of_side[-1:] for at, level in enumerate(run.levels)}
            for of_side, side in zip(runs, sides, strict=True)
        ),
    )


def _aborted_at(runs: Sequence[Run]) -> int | None:
    """The position of the first level that an abort rule ended in one of the runs."""
    return min((at for run in runs for at, level in enumerate(run.levels) if _has(level, "aborted")), default=None)


def _has(level: LevelResult, code: str) -> bool:
    return any(reason.code == code for reason in level.verdict.reasons)
