"""What a list of runs shows of each: little of its files is decoded, and a folder that is damaged is one that says so.

loadbench.labels/1   the first: what people noted of a run, in `labels.json` in its folder, and no part of the run
"""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Final, Literal, TypeVar

import msgspec

from loadbench.core.errors import BadInput
from loadbench.results.append_log import is_run_being_written
from loadbench.results.capacity import FILE, SEVERAL_FILE
from loadbench.results.compare import RULES
from loadbench.results.compare_capacity import FILE as COMPARED_FILE
from loadbench.results.compare_capacity import searches_in
from loadbench.results.folder import UNREADABLE, RunFolder, read_plain
from loadbench.results.grid import is_grid, read_grid
from loadbench.results.run import ClosedLoad, OpenInterval, OpenLoad, counts_as_throughput, to_json
from loadbench.results.saved import FILES, has_pairs, repeats_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from loadbench.results.run_list import FoundRun

T = TypeVar("T")
State = Literal["complete", "interrupted", "running", "empty", "damaged"]
LABELS_FILE: Final = "labels.json"
# A run of a thousand levels has 30 MB; a list does not wait for more.
_MOST_BYTES = 64 * 1024 * 1024
_MOST_LABEL_BYTES = 64 * 1024
_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
_LONGEST_VALUE = 200


class _Throughput(msgspec.Struct):
    output_tokens_per_s: float


class _Reason(msgspec.Struct):
    code: str = ""


class _Verdict(msgspec.Struct):
    status: str
    reasons: list[_Reason] = []


class _Level(msgspec.Struct):
    model: str
    load: ClosedLoad | OpenLoad
    verdict: _Verdict
    throughput: _Throughput
    outcomes: dict[str, int] = {}
    interrupted: bool = False


class _Model(msgspec.Struct):
    model: str


class _Git(msgspec.Struct):
    commit: str = ""
    dirty: bool | None = None


class _Environment(msgspec.Struct):
    git: _Git | None = None


class _Load(msgspec.Struct):
    trace: str | None = None


class _Scenario(msgspec.Struct):
    load: _Load = msgspec.field(default_factory=_Load)


class _Run(msgspec.Struct):
    name: str
    started_at: str
    complete: bool
    simulated: bool
    environment: _Environment
    scenario: _Scenario
    command: str = ""
    levels: list[_Level] = []
    models: list[_Model] = []


class _Answer(msgspec.Struct):
    users: float | None = None
    rate_per_s: float | None = None
    strength: str = ""
    low: float | None = None
    high: float | None = None
    likely_low: float | None = None
    likely_high: float | None = None


class _Search(msgspec.Struct):
    status: str
    model: str
    answer: _Answer | None = None
    complete: bool = False


class _Searches(msgspec.Struct):
    folders: dict[str, str]
    searches: list[_Search] = []
    failed: dict[str, str] = {}


class _Comparison(msgspec.Struct):
    conclusion: str
    rules: int = 0

    @property
    def said(self) -> str:
        """The conclusion; where older rules made it, the report may say something else."""
        return f"by older rules, {self.conclusion}" if self.conclusion and self.rules < RULES else self.conclusion


class _SearchedSide(msgspec.Struct):
    capacity: _Search | None = None


class _ComparedSearches(msgspec.Struct):
    a: _SearchedSide
    b: _SearchedSide
    conclusion: str
    complete: bool = False


class _Labels(msgspec.Struct):
    labels: dict[str, str]
    schema: Literal["loadbench.labels/1"] = "loadbench.labels/1"


class Peak(msgspec.Struct, frozen=True, kw_only=True):
    """The highest output tokens/s of the levels that are neither INVALID nor OVERLOADED, and the load there.

    `counts` says whether it shows the server's throughput, as headlines of reports require: a level with too few
    responses does not, and is the peak only where no level counts. `invalid_above` are higher loads on the same model
    whose levels are INVALID: what they give is unknown."""

    output_tokens_per_s: float
    load: str
    model: str
    invalid_above: list[str] = []
    counts: bool = True


class CapacityFound(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of a search for one model: users or requests per second, null if there is none, and the range that
    answers, whose ends may be open."""

    model: str
    status: str
    users: float | None = None
    rate_per_s: float | None = None
    interval: OpenInterval | None = None
    strength: str = ""


class RunSummary(msgspec.Struct, frozen=True, kw_only=True):
    """A run as a list shows it. `verdicts` counts the levels; `commit` is that of the folder that it ran in, and
    `dirty` whether files had changed since; `problem` says what is wrong with a folder that is damaged."""

    run: str
    path: str
    name: str
    started_at: str
    command: str = ""
    state: State
    simulated: bool | None = None
    models: list[str] = []
    loads: list[str] = []
    verdicts: dict[str, int] = {}
    peak: Peak | None = None
    capacity: list[CapacityFound] = []
    conclusion: str = ""
    cells: int = 0  # of a grid
    commit: str | None = None
    dirty: bool | None = None
    labels: dict[str, str] = {}
    problem: str = ""


def summary_of(found: FoundRun) -> RunSummary:
    """The summary of a run folder, whatever is in it."""
    path = found.path
    fields: dict[str, object] = {}
    command, state, problem = "", "complete", ""
    try:
        fields["labels"] = read_labels(path)
        searches: list[_Search] = []
        complete = True
        parts = [path]
        if (path / COMPARED_FILE).is_file():
            compared = _read(path / COMPARED_FILE, _ComparedSearches)
            command, complete = "compare", compared.complete
            searches = [side.capacity for side in (compared.a, compared.b) if side.capacity is not None]
            parts = searches_in(path)
            fields["conclusion"] = compared.conclusion
        elif not (path / "run.json").exists() and searches_in(path):
            # The searches of two sides, before both have their answers.
            command, complete, parts = "compare", False, searches_in(path)
            searches = [_read(part / FILE, _Search) for part in parts if (part / FILE).is_file()]
        elif has_pairs(path):
            command = "compare"
            parts = [*repeats_of(path, "a").values(), *repeats_of(path, "b").values()]
            complete = (path / "compare.json").is_file()
            if complete:
                fields["conclusion"] = _read(path / "compare.json", _Comparison).said
        elif (path / SEVERAL_FILE).is_file():
            several = _read(path / SEVERAL_FILE, _Searches)
            command, searches = "capacity", several.searches
            fields["models"] = list(several.folders)
            parts = [path / name for name in several.folders.values() if "/" not in name and "\\" not in name]
            complete = len({*several.failed, *(search.model for search in searches)}) == len(several.folders)
            fields["conclusion"] = "; ".join(f"{model}: cannot be searched" for model in several.failed)
        elif is_grid(path):
            grid, command = read_grid(path), "sweep"
            parts, complete = [path / cell.folder for cell in grid.cells], grid.complete
            # Its cells did different work: the fastest level of all says nothing.
            fields |= {"conclusion": grid.conclusion, "cells": len(grid.cells)}
        elif (path / FILE).is_file():
            command, searches = "capacity", [_read(path / FILE, _Search)]
        runs = [_read(part / "run.json", _Run) for part in parts if (part / "run.json").is_file()]
        if searches:
            complete = complete and all(search.complete for search in searches)
        elif command != "compare" and not fields.get("cells"):
            complete = all(run.complete for run in runs)
        levels = [level for run in runs for level in run.levels]
        models = dict.fromkeys([level.model for level in levels] + [one.model for run in runs for one in run.models])
        usable = [level for level in levels if level.verdict.status in {"VALID", "INCONCLUSIVE"}]
        best = max(usable, key=lambda level: (_counts(level), level.throughput.output_tokens_per_s), default=None)
        fields.setdefault("models", list(models))
        fields |= {
            "loads": list(dict.fromkeys(level.load.label for level in levels)),
            "verdicts": dict(Counter(level.verdict.status for level in levels)),
            "capacity": [_found(search) for search in searches],
        }
        if best is not None and not searches and command != "compare" and not fields.get("cells"):
            speed = best.throughput.output_tokens_per_s
            above = [
                level.load.label
                for level in levels
                if (level.model, type(level.load)) == (best.model, type(best.load))
                and level.verdict.status == "INVALID"
                if level.load.amount > best.load.amount
            ]
            fields["peak"] = Peak(
                output_tokens_per_s=speed,
                load=best.load.label,
                model=best.model,
                invalid_above=above,
                counts=_counts(best),
            )
        if runs:
            first = runs[0]
            replays = "replay" if first.scenario.load.trace is not None else ""
            workshop = "workshop" if (path / "benchmark_report.json").is_file() else ""
            command = command or first.command or replays or workshop or "sweep"
            fields |= {"simulated": first.simulated, "started_at": first.started_at}
            if command not in {"compare", "capacity"} and not fields.get("cells"):
                fields["name"] = first.name
            if first.environment.git is not None:
                fields |= {"commit": first.environment.git.commit or None, "dirty": first.environment.git.dirty}
        elif not any((path / name).exists() for name in FILES) and not has_pairs(path):
            state = "empty"
        if not complete or not (runs or searches or fields.get("conclusion")):
            # A run that is not complete may be under way; nothing else is worth a look at its locks.
            state = "running" if is_run_being_written(path) else "interrupted" if state == "complete" else state
    except (BadInput, OSError) as error:
        state, problem = "damaged", error.message if isinstance(error, BadInput) else str(error)
    base: dict[str, object] = {"name": found.name, "started_at": found.began.isoformat().replace("+00:00", "Z")}
    about: dict[str, object] = {"run": path.name, "path": str(path), "command": command, "state": state}
    return msgspec.convert({**base, **msgspec.to_builtins(fields), **about, "problem": problem}, RunSummary)


def _counts(level: _Level) -> bool:
    return counts_as_throughput(
        level.verdict.status,
        [reason.code for reason in level.verdict.reasons],
        ok=level.outcomes.get("ok", 0),
        output_tokens_per_s=level.throughput.output_tokens_per_s,
        interrupted=level.interrupted,
    )


def _found(search: _Search) -> CapacityFound:
    answer = search.answer
    if answer is None:
        return CapacityFound(model=search.model, status=search.status)
    # Where nothing bounds it from above, what is proven says more than the curve.
    is_open = answer.likely_high is None and answer.low is not None and answer.low >= (answer.likely_low or 0)
    proven = answer.strength == "proven" or answer.likely_low is None or is_open or search.status == "at_least"
    return CapacityFound(
        model=search.model,
        status=search.status,
        users=answer.users,
        rate_per_s=answer.rate_per_s,
        interval=(answer.low, answer.high) if proven else (answer.likely_low, answer.likely_high),
        strength=answer.strength,
    )


def read_labels(folder: Path) -> dict[str, str]:
    """The labels of a run, by key; raises `BadInput` for a file that is none of loadbench."""
    file = folder / LABELS_FILE
    return _read(file, _Labels, most_bytes=_MOST_LABEL_BYTES).labels if file.is_file() or file.is_symlink() else {}


def parse_labels(texts: tuple[str, ...]) -> dict[str, str]:
    """Labels as people write them, `KEY=VALUE`; an empty value takes the label away. Raises `BadInput`."""
    labels = {}
    for text in texts:
        key, sign, value = text.partition("=")
        if not sign or _KEY.fullmatch(key) is None or len(value) > _LONGEST_VALUE or not value.isprintable():
            hint = (
                f"write KEY=VALUE, as in gpu=4090: a key of letters, digits, _.-, a value of {_LONGEST_VALUE} at most"
            )
            raise BadInput(f"{text:.80}: is no label", hint=hint)
        labels[key] = value
    return labels


def write_labels(folder: Path, changes: Mapping[str, str]) -> dict[str, str]:
    """Change the labels of a run, and return those that it has now; raises `BadInput` if that fails."""
    labels = {key: value for key, value in {**read_labels(folder), **changes}.items() if value}
    content = to_json(_Labels(labels=labels))
    if len(content) > _MOST_LABEL_BYTES:
        raise BadInput(f"{folder}: too many labels", hint="take some away: KEY=")
    RunFolder(folder).write(LABELS_FILE, content)
    return labels


def _read(file: Path, of_type: type[T], *, most_bytes: int = _MOST_BYTES) -> T:
    try:
        return msgspec.json.decode(read_plain(file, most_bytes=most_bytes), type=of_type)
    except OSError as error:
        raise BadInput(f"{file.name}: {error.strerror or error}") from None
    except UNREADABLE as error:
        raise BadInput(f"{file.name}: {error}") from None
