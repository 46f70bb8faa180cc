"""The hardware of each side: the device that its model is meant for, and the boards in use during the run.

The intended device is in the run's environment, else in the server's catalogue, else in the model's id, as in
`qwen2.5-0.5b-instruct-cuda-gpu`. The device in use is what telemetry measured: boards that were busy, or none. A server
may silently fall back from the intended device to another one; two sides meant for two devices are then one.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from loadbench.analyze.level.machine import IDLE_USE
from loadbench.results.run import Reason

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from loadbench.results.compare import ComparedFigure
    from loadbench.results.run import Run

# A device in a model's id.
_DEVICE = re.compile(r"(?:^|[-_.:/ ])(cpu|gpu|npu)(?=$|[-_.:/ ])", re.IGNORECASE)
# What follows a model's name in its id: execution provider, device and version.
_VARIANT = re.compile(
    r"([-_.](generic|cuda|trtrtx|tensorrt|openvino|qnn|vitis|vitisai|webgpu|directml|dml|migraphx|rocm))?"
    r"[-_.](cpu|gpu|npu)(:\d+)?$",
    re.IGNORECASE,
)
# Of some boards only the use by the server's processes is known.
_USE = re.compile(r"(gpu|npu)(\d+)_(?:process_)?use")
_NONE_IN_USE = "no GPU in use"
# Two different devices hardly ever have speeds this close.
_ALIKE_WITHIN = 0.05
_FELL_BACK = "check whether one side fell back to the device of the other"


def device(runs: Sequence[Run]) -> str | None:
    """The device of a side, as far as its runs show it: `gpu (NVIDIA L4)`, `cpu`."""
    intended, used = _intended_device(runs), _boards_in_use(runs)
    if intended is None or used is None or (used == _NONE_IN_USE and intended == "cpu"):
        return intended or used
    return f"{intended} ({used})"


def server_models(runs: Sequence[Run]) -> set[tuple[str, str]]:
    """(target, model) of a side, with the server's own name where the model is an alias; several servers that share
    the load are one target."""
    pairs = set()
    for run in runs:
        names = {
            status.model: status.asked or (status.model if status.catalogue is None else status.catalogue.id)
            for status in run.models
        }
        pairs |= {
            (" + ".join(level.targets) or level.target, names.get(level.model, level.model)) for level in run.levels
        }
    return pairs


def model_families(runs: Sequence[Run]) -> set[str]:
    """The models of a side without their device: the catalogue's alias, else the id without its variant."""
    families = set()
    for run in runs:
        aliases = {status.model: status.catalogue.alias for status in run.models if status.catalogue is not None}
        families |= {aliases.get(level.model) or _VARIANT.sub("", level.model) for level in run.levels}
    return families


def device_caveats(a: Sequence[Run], b: Sequence[Run], tokens: ComparedFigure | None) -> Iterator[Reason]:
    """Signs that two devices are in fact one; `tokens` compares the tokens per second of both sides."""
    intended, used, named = ([of(side) for side in (a, b)] for of in (_intended_device, _boards_in_use, _named_device))
    if intended[0] != intended[1] and None not in intended and used[0] == used[1] and used[0] is not None:
        both = "no GPU was in use on either side" if used[0] == _NONE_IN_USE else f"{used[0]} was in use on both sides"
        yield Reason("same_device", f"a is for {intended[0]} and b for {intended[1]}, but {both}", _FELL_BACK)
    elif named[0] != named[1] and None not in named and intended[0] == intended[1]:
        message = f"by name, a is for {named[0]} and b for {named[1]}, but the catalogue has both on {intended[0]}"
        yield Reason("same_device", message, "choose two variants that differ: loadbench models lists them")

    device_a, device_b = device(a), device(b)
    if device_a is None or device_b is None or device_a == device_b or tokens is None or tokens.interval is None:
        return
    low, high = tokens.interval
    if low >= 1 / (1 + _ALIKE_WITHIN) and high <= 1 + _ALIKE_WITHIN:
        speeds = f"their tokens/s are alike: {tokens.ratio:.3f}x ({low:.3f}-{high:.3f})"
        yield Reason("devices_alike", f"a ran on {device_a} and b on {device_b}, but {speeds}", _FELL_BACK)


def _intended_device(runs: Sequence[Run]) -> str | None:
    listed = set()
    for run in runs:
        measured = {level.model for level in run.levels}
        statuses = [status.catalogue for status in run.models if status.model in measured]
        listed |= {entry.device.lower() for entry in statuses if entry is not None and entry.device}
    reported = _joined(str(run.environment["device"]) for run in runs if run.environment.get("device"))
    return reported or _joined(listed) or _named_device(runs)


def _named_device(runs: Sequence[Run]) -> str | None:
    """The device in the ids of the models."""
    ids = {name for _, name in server_models(runs)} | {level.model for run in runs for level in run.levels}
    return _joined(match[1].lower() for name in ids if (match := _DEVICE.search(name)))


def _boards_in_use(runs: Sequence[Run]) -> str | None:
    """The boards that were busy at any level; `None` where none was sampled."""
    sampled, busy = False, set()
    for run in runs:
        about = run.environment.get("telemetry")
        names = {}
        for kind, listed in (("gpu", "boards"), ("npu", "npus")):
            boards = about.get(listed) if isinstance(about, dict) else None
            for number, board in enumerate(boards if isinstance(boards, list) else ()):
                if isinstance(board, dict) and board.get("name"):
                    names[kind, number] = str(board["name"])
        gauges = [gauge for level in run.levels if level.telemetry for gauge in level.telemetry.gauges.items()]
        for name, gauge in gauges:
            if match := _USE.fullmatch(name):
                sampled = True
                if gauge.mean >= IDLE_USE:
                    busy.add(names.get((match[1], int(match[2])), f"{match[1].upper()} {match[2]}"))
    return (_joined(busy) or _NONE_IN_USE) if sampled else None


def _joined(words: Iterable[str]) -> str | None:
    return ", ".join(sorted(set(words))) or None
