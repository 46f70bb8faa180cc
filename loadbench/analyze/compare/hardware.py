"""On what each side ran: what its model promises, and which boards were in use while it answered.

A promise is what the run's environment says, else the server's catalogue, else the model's id, as in
`qwen2.5-0.5b-instruct-cuda-gpu`. Seen is what telemetry saw: a board that was in use, or that none was. A server may
fall back from the promised device to another without a word: then two sides that were to be two devices are one.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from loadbench.analyze.level.machine import IDLE_USE
from loadbench.results.run import Reason

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from loadbench.results.compare import Compared
    from loadbench.results.run import ModelStatus, Run

# A device in a model's id.
_DEVICE = re.compile(r"(?:^|[-_.:/ ])(cpu|gpu|npu)(?=$|[-_.:/ ])", re.IGNORECASE)
# What follows a model's own name there: its execution provider, device and version.
_VARIANT = re.compile(
    r"([-_.](generic|cuda|trtrtx|tensorrt|openvino|qnn|vitis|vitisai|webgpu|directml|dml|migraphx|rocm))?"
    r"[-_.](cpu|gpu|npu)(:\d+)?$",
    re.IGNORECASE,
)
_USE = re.compile(r"gpu(\d+)_use")
_NONE_IN_USE = "no GPU in use"
# Two devices of another name are hardly ever alike within this.
_ALIKE_WITHIN = 0.05
_FELL_BACK = "look whether one of them fell back to the other's device"


def device(runs: Sequence[Run]) -> str | None:
    """On what a side ran, as far as its runs tell: `gpu (NVIDIA L4)`, `cpu`."""
    promised, seen = _promised(runs), _seen(runs)
    if promised is None or seen is None or (seen == _NONE_IN_USE and promised == "cpu"):
        return promised or seen
    return f"{promised} ({seen})"


def variants(runs: Sequence[Run]) -> set[tuple[str, str]]:
    """(where, which model) a side is, by the server's own name for it: an alias stands for one."""
    found = set()
    for run in runs:
        known = {status.model: _name(status) for status in run.models}
        found |= {(level.target, known.get(level.model, level.model)) for level in run.levels}
    return found


def families(runs: Sequence[Run]) -> set[str]:
    """Its models, whatever the device: by the catalogue's alias, else by the id without what says the device."""
    found = set()
    for run in runs:
        aliases = {status.model: status.catalogue.alias for status in run.models if status.catalogue is not None}
        found |= {aliases.get(level.model) or _VARIANT.sub("", level.model) for level in run.levels}
    return found


def place_caveats(a: Sequence[Run], b: Sequence[Run], tokens: Compared | None) -> list[Reason]:
    """What makes two devices look like one; `tokens` are the tokens per second of both."""
    return [*_same_device(a, b), *_alike(a, b, tokens)]


def _same_device(a: Sequence[Run], b: Sequence[Run]) -> Iterator[Reason]:
    promised, seen, named = ([of(side) for side in (a, b)] for of in (_promised, _seen, _named))
    if promised[0] != promised[1] and None not in promised and seen[0] == seen[1] and seen[0] is not None:
        what = "no GPU was in use on either side" if seen[0] == _NONE_IN_USE else f"{seen[0]} was in use on both sides"
        yield Reason("same_device", f"a is for {promised[0]} and b for {promised[1]}, yet {what}", _FELL_BACK)
    elif named[0] != named[1] and None not in named and promised[0] == promised[1]:
        message = (
            f"a is for {named[0]} and b for {named[1]} by their names, and the catalogue has both on {promised[0]}"
        )
        yield Reason("same_device", message, "choose two variants that differ: loadbench models lists them")


def _alike(a: Sequence[Run], b: Sequence[Run], tokens: Compared | None) -> Iterator[Reason]:
    """Two devices that are equally fast are one, it may be."""
    ours, theirs = device(a), device(b)
    if ours is None or theirs is None or ours == theirs or tokens is None or tokens.interval is None:
        return
    low, high = tokens.interval
    if low >= 1 / (1 + _ALIKE_WITHIN) and high <= 1 + _ALIKE_WITHIN:
        speeds = f"their tokens/s are alike: {tokens.ratio:.3f}x ({low:.3f}-{high:.3f})"
        yield Reason("devices_alike", f"a ran on {ours} and b on {theirs}, yet {speeds}", _FELL_BACK)


def _promised(runs: Sequence[Run]) -> str | None:
    told = _joined(str(run.environment["device"]) for run in runs if run.environment.get("device"))
    listed = _joined(
        status.catalogue.device.lower()
        for run in runs
        for status in _of_levels(run)
        if status.catalogue is not None and status.catalogue.device
    )
    return told or listed or _named(runs)


def _named(runs: Sequence[Run]) -> str | None:
    """By the ids of its models."""
    ids = {name for run in runs for _, name in variants([run])} | {level.model for run in runs for level in run.levels}
    return _joined(match[1].lower() for name in ids if (match := _DEVICE.search(name)))


def _seen(runs: Sequence[Run]) -> str | None:
    """The boards that were in use at any level; `None` where none was watched."""
    watched, used = False, set()
    for run in runs:
        names = _boards(run.environment)
        gauges = [gauge for level in run.levels if level.telemetry for gauge in level.telemetry.gauges.items()]
        for name, gauge in gauges:
            if match := _USE.fullmatch(name):
                watched = True
                used |= {names.get(int(match[1]), f"GPU {match[1]}")} if gauge.mean >= IDLE_USE else set()
    return (_joined(used) or _NONE_IN_USE) if watched else None


def _boards(environment: Mapping[str, object]) -> dict[int, str]:
    """The names of the boards by their numbers, as telemetry told them."""
    about = environment.get("telemetry")
    boards = about.get("boards") if isinstance(about, dict) else None
    return {
        number: str(board["name"])
        for number, board in enumerate(boards if isinstance(boards, list) else ())
        if isinstance(board, dict) and board.get("name")
    }


def _of_levels(run: Run) -> list[ModelStatus]:
    measured = {level.model for level in run.levels}
    return [status for status in run.models if status.model in measured]


def _name(status: ModelStatus) -> str:
    return status.asked or (status.model if status.catalogue is None else status.catalogue.id)


def _joined(words: Iterable[str]) -> str | None:
    return ", ".join(sorted(set(words))) or None
