"""What a measurement continues from: the whole levels, or repeats, that were measured under the same conditions."""

from __future__ import annotations

import re
import shlex
import stat
from itertools import count, takewhile
from typing import TYPE_CHECKING, Any

import msgspec

from loadbench.core.errors import BadInput
from loadbench.engine.sweep import EarlierLevels, LastLevel
from loadbench.plan.conditions import conditions, differing
from loadbench.plan.load import Closed
from loadbench.plan.sources import recorded
from loadbench.results.append_log import is_being_written
from loadbench.results.folder import read_run
from loadbench.results.history import foreign_name
from loadbench.results.run import ClosedLoad

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from loadbench.engine.paired import EarlierRepeats
    from loadbench.plan.load import Load
    from loadbench.plan.scenario import Scenario
    from loadbench.results.run import LevelResult, Run

_NEW = "or start a new run without --resume"


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
    from loadbench.results.saved import has_pairs  # noqa: PLC0415

    kinds = {
        "capacity": any((path / name).exists() for name in (FILE, SEVERAL_FILE)),
        "compare": has_pairs(path),
        "sweep": (path / "run.json").exists(),
    }
    kind = next((name for name, is_kind in kinds.items() if is_kind), command)
    if kind != command:
        hint = f"continue it with `loadbench {kind} --resume {path}` and its other settings"
        raise BadInput(f"--resume {path}: is the folder of `loadbench {kind}`", hint=hint)


def settings_of_run(path: Path | None, command: str, *, file: Path | None) -> dict[str, Any]:
    """What `resolve` takes from the run in a folder that is continued: its settings, unless a scenario file is given.

    Raises `BadInput` for the folder of another command, and for one with links in it, which lead to other files.
    """
    if path is None:
        return {}
    refuse_other_kind(path, command)
    for entry in path.rglob("*"):
        kind = entry.lstat().st_mode
        if not stat.S_ISREG(kind) and not stat.S_ISDIR(kind):
            what = "a link" if stat.S_ISLNK(kind) else "no plain file"
            raise BadInput(
                f"--resume {path}: {entry} is {what}", hint="only whole run folders are continued: remove it"
            )
    if file is not None or not (path / "run.json").is_file():
        return {}
    run = read_run(path)
    return {"reused": recorded(run.scenario, run.origins), "foreign": foreign_name(run)}


def sides_text(path: Path) -> str:
    """The sides of a comparison in a folder as far as its record says what they were, for a message."""
    from loadbench.plan.pairs import SIDES  # noqa: PLC0415 - only comparisons need it

    texts = []
    for side in SIDES:
        record = read_run(path / side / "01").scenario.get("target", {})
        own = {name: record.get(name) for name in ("url", "profile", "model") if record.get(name)}
        own.pop("profile" if "url" in own else "", None)
        parts = [f"{name}={one[0] if isinstance(one, list) and one else one}" for name, one in own.items()]
        texts.append(f"--{side} {shlex.quote(','.join(parts))}")
    return " ".join(texts)


def whole_levels(path: Path, scenario: Scenario) -> Run:
    """The sweep in a folder, without a level that was stopped before its end.

    Raises `BadInput` if this scenario cannot continue it: other conditions, or other loads than the first of its own.
    """
    refuse_other_kind(path, "sweep")
    run = read_run(path)
    refuse_other_conditions(path, conditions(scenario), run.conditions, free="further loads")
    levels = list(takewhile(lambda level: not _has(level, "interrupted"), run.levels))
    planned = [load.label for load in scenario.loads]
    for model in {level.model for level in levels} if not scenario.finds_levels else ():
        measured = [level.load.label for level in levels if level.model == model]
        if measured != planned[: len(measured)]:
            loads = ", ".join(measured)
            raise BadInput(f"--resume {path}: measured other loads: {loads}", hint=f"begin with the same loads, {_NEW}")
    return msgspec.structs.replace(run, levels=levels, complete=False, under_way=None)


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
    """Move the repeats after so many, which are not complete, out of the way of those that will be measured now."""
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
