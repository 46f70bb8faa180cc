"""The report of a grid: the conclusion, a row for each cell, prefill and decode by prompt length, then notes."""

from __future__ import annotations

import math
import shlex
from itertools import takewhile
from typing import TYPE_CHECKING

import msgspec

from loadbench.analyze.level.knee import commonest_reason
from loadbench.core.text import printable, some
from loadbench.core.units import NS_PER_S, format_duration, parse_duration
from loadbench.plan.cells import cell_text, shown_value
from loadbench.report.chart import band_note
from loadbench.report.document import Block, Chart, Document, Heading, Notes, Series, Table, Text
from loadbench.report.run import STEADINESS, UNKNOWN, interval_notes, with_interval
from loadbench.report.values import alone_text, byte_size, counted, duration, percent, reason_text, significant, spread

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from loadbench.results.grid import BestCell, Cell, CellFigures, DepthFigures, Grid
    from loadbench.results.run import OpenInterval, Run

BEST, MAYBE, FRONT = "★", "≈", "◆"
# More cells in a sentence hide what it says.
_MOST_NAMED = 4
_INPUT_TOKENS = "work.input_tokens"
_NO_INTERVAL = "±?"
# A rate that is not known better than this tells few cells apart.
_VAGUE = 0.1


def with_conclusion(grid: Grid) -> Grid:
    """The grid with what it shows in a sentence or two."""
    return msgspec.structs.replace(grid, conclusion=" ".join(_sentences(grid)))


def _sentences(grid: Grid) -> list[str]:
    """Which cell is the best of those that did the same work, or that this is not sure."""
    sentences, work = [], [one.name for one in grid.vary if one.changes_work]
    several = len({found.model for found in grid.best}) > 1
    compared = [found for found in grid.best if found.best is not None or len(found.candidates) > 1]
    for found in compared:
        given = [found.model] * several + ([f"with {cell_text(found.work)}"] if found.work else [])
        head = ", ".join(given) + ": " if given else ""
        sentences.append(f"{head}{_best_text(grid, found)}.")
        sentences.append(_at_load_text(grid, found, several=several))
    measured = [(number, one) for number, cell in enumerate(grid.cells, 1) for one in cell.figures if one.counts]
    if not compared and measured:
        number, most = max(measured, key=lambda pair: pair[1].output_tokens_per_s)
        why = f"Each cell did other work ({', '.join(work)}), so none is better than another." if work else ""
        if len(measured) == 1:
            why = "One cell alone has levels that count, so nothing is compared."
        fastest = f"Most output tokens/s: {significant(most.output_tokens_per_s)} at {most.load} in cell {number}"
        fastest += f" ({cell_text(grid.cells[number - 1].values)}){alone_text(most.faster_alone)}"
        sentences += [why, f"{fastest}."]
    if measured and grid.unknown is not None:
        sentences.append(_unknown_text(grid, several=bool(compared)))
    failed = sum(cell.status == "failed" for cell in grid.cells)
    missing = sum(cell.status in {"planned", "running", "interrupted"} for cell in grid.cells)
    if failed:
        sentences.append(f"{failed} of {counted(len(grid.cells), 'cell')} failed.")
    if missing:
        sentences.append(f"{missing} of {counted(len(grid.cells), 'cell')} not complete.")
    if not measured and not missing and not failed:
        missed = any(one.verdict in {"VALID", "OVERLOADED"} for cell in grid.cells for one in cell.figures)
        sentences.append(f"No cell has a level that counts{' and meets the objectives' * missed}.")
        reason = commonest_reason([one.uncounted] for one in grid.cells if one.uncounted is not None)
        if reason is not None:
            text = f"{reason_text(reason.message, reason.code)}; {reason.advice}"
            sentences[-1] += f" The most frequent reason{' of those that do not count' * missed}: {text}."
    return [sentence for sentence in sentences if sentence]


def _unknown_text(grid: Grid, *, several: bool) -> str:
    """Which cells have no level that counts, or may be better than they show; why, and what to do."""
    cells = [(number, cell) for number, cell in enumerate(grid.cells, 1) if cell.status == "complete"]
    none = [number for number, cell in cells if cell.uncounted is not None]
    beyond = [number for number, cell in cells if any(one.unknown for one in cell.figures)]
    texts = dict.fromkeys(one.unknown for _, cell in cells for one in cell.figures if one.unknown)
    parts = [f"{_named_cells(none)} {'has' if len(none) == 1 else 'have'} no level that counts"] if none else []
    if beyond:
        shows, them = ("it shows", "it") if len(beyond) == 1 else ("they show", "them")
        text = f"{_named_cells(beyond)} may be better than {shows} ({some(list(texts), most=2)})"
        text += f", so that no other rules {them} out" * several
        parts.append(f"{text[:1].lower()}{text[1:]}" if none else text)
    if grid.unknown is None:
        return ""
    below, told = [], {grid.unknown.message}
    for number, cell in cells:
        if cell.not_counted and number not in {*none, *beyond}:
            # A reason that was given is not repeated.
            since = f", since {cell.why_not_counted}" * bool(cell.why_not_counted and cell.why_not_counted not in told)
            told.add(cell.why_not_counted)
            below.append(f"in cell {number} {cell.not_counted}{since}")
    why, advice = reason_text(grid.unknown.message, grid.unknown.code), grid.unknown.advice
    if not parts:
        text = "; ".join(below)
        return f"{text[:1].upper()}{text[1:]}; {advice}." if text else ""
    which = " and ".join(parts)
    return f"{'; '.join([f'{which}, since {why}', *below, advice])}."


def _best_text(grid: Grid, found: BestCell) -> str:
    def figures(number: int) -> CellFigures:
        return next(one for one in grid.cells[number - 1].figures if found.model in {"", one.model})

    if found.best is None:
        names = [f"{number} ({cell_text(_choice(grid, number))})" for number in found.candidates]
        first = figures(found.candidates[0])
        most = f"{significant(first.output_tokens_per_s)} output tokens/s at {first.load}"
        most += alone_text(first.faster_alone)
        halves = []
        for number in found.candidates:
            one = figures(number)
            low, high = one.interval.get("output_tokens_per_s") or (None, None)
            if low is not None and high is not None and one.output_tokens_per_s:
                known = spread(one.output_tokens_per_s, low, high)
                halves.append(((high - low) / 2 / one.output_tokens_per_s, f"cell {number} {known}"))
        wide = [text for half, text in sorted(halves, reverse=True) if half > _VAGUE]
        if wide:
            # Neither a high figure nor a low one decides then.
            most += f"; wide intervals rule nothing out ({some(wide, most=3)})"
        compared = sum(
            cell.status == "complete"
            and any(one.counts and found.model in {"", one.model} for one in cell.figures)
            and found.work.items() <= cell.values.items()
            for cell in grid.cells
        )
        # A remedy for the levels that do not count is the first one.
        remedy = f"; to tell them apart, measure fewer of them, each for longer, then {_in_turns(grid)}"
        remedy = "" if grid.again else remedy
        if len(names) == compared:
            which = f"none of the {compared} cells can be ruled out; the most was measured in cell {names[0]}, {most}"
        else:
            which = f"these {len(names)} of {compared} cells cannot be told apart: {some(names, most=_MOST_NAMED)}"
        return f"not sure which cell is the best: {which}{remedy}"
    best = figures(found.best)
    text = f"the best is cell {found.best}, {cell_text(_choice(grid, found.best))}: "
    text += f"{significant(best.output_tokens_per_s)} output tokens/s at {best.load}{alone_text(best.faster_alone)}"
    if found.ratio is not None and found.ratio_interval is not None:
        low, high = found.ratio_interval
        text += f", {significant(found.ratio)} times the next ({significant(low)} to {significant(high)})"
    return text


def _at_load_text(grid: Grid, found: BestCell, *, several: bool) -> str:
    """Which cells that cannot be told apart surely differ at one load: of each load the statement on most pairs, of the
    three lowest loads; empty where there is none."""
    loads: dict[str, tuple[list[int], list[int]]] = {}
    for one in found.more_at_load:
        loads.setdefault(one.load, (one.more, one.than))
    texts: dict[str, list[str]] = {}
    for load, (more, than) in [*loads.items()][:3]:
        # What these have in common, and none of the others.
        common = set(_choice(grid, more[0]).items()).intersection(*(grid.cells[at - 1].values.items() for at in more))
        own = common.difference(*(grid.cells[at - 1].values.items() for at in than))
        values = {name: value for name, value in _choice(grid, more[0]).items() if (name, value) in own}
        which = f"{_named_cells(more).lower()}{f' ({cell_text(values)})' if values else ''}"
        have = "has" if len(more) == 1 else "have"
        text = f"{which} surely {have} more output tokens/s than {_named_cells(than).lower()}"
        texts.setdefault(text, []).append(load)
    text = "; ".join(f"at {' and '.join(same)} {text}" for text, same in texts.items())
    if several and text:
        return f"{found.model}: {text}."
    return f"{text[:1].upper()}{text[1:]}." if text else ""


def _choice(grid: Grid, number: int) -> dict[str, str]:
    """The values of a cell that tell it from others that did the same work."""
    names = [one.name for one in grid.vary if not one.changes_work]
    values = grid.cells[number - 1].values
    return {name: values[name] for name in names} or values


def _named_cells(numbers: Sequence[int]) -> str:
    """`Cell 3`, `Cells 1 and 3`, `Cells 1, 3 and 5`."""
    texts = list(map(str, numbers))
    if len(texts) == 1:
        return f"Cell {texts[0]}"
    return f"Cells {', '.join(texts[:-1])} and {texts[-1]}"


def _in_turns(grid: Grid) -> str:
    """What tells the cells apart that are left, as each was measured once, at another time than the others."""
    sides = "--a-cmd '…' --b-cmd '…'" if grid.scenario.get("target", {}).get("server_cmd") else "--a … --b …"
    return f"compare the cells that are left in turns, two at a time: `loadbench compare {sides}`"


def again_text(grid: Grid, folder: Path | None) -> str:
    """The command that measures again what does not count, or what is missing; empty where there is nothing to do, or
    the folder of the grid is not known."""
    if folder is None:
        return ""
    command = f"loadbench sweep --resume {shlex.quote(str(folder))}"
    is_open = any(found.best is None and len(found.candidates) > 1 for found in grid.best)
    then = f" Then {_in_turns(grid)}." if is_open else ""
    if grid.again:
        every = "every cell, since they may differ in nothing else; what is there is kept in set-aside/"
        again = f"To measure again with what that takes: `{' '.join([command, *grid.again])}`"
        took = _again_takes(grid)
        return f"{again}. It measures {every}.{took}{then}"
    lost = [
        (number, cell.folder)
        for number, cell in enumerate(grid.cells, 1)
        if cell.status == "complete" and cell.not_counted
    ]
    if lost and grid.complete:
        which, folders = _named_cells([number for number, _ in lost]).lower(), [name for _, name in lost]
        whose = "its folder" if len(lost) == 1 else "their folders"
        again = f"To measure {which} again: move {whose} ({some(folders, most=4)}) out of {folder}, then `{command}`"
        took = _takes([grid.cells[number - 1].took_s for number, _ in lost])
        return f"{again}.{took}{then}"
    if any(cell.status in {"planned", "interrupted", "failed"} for cell in grid.cells):
        return f"To measure the cells that failed or are missing: `{command}`."
    return ""


def _takes(seconds: Sequence[float | None]) -> str:
    """A sentence on how long these take together; empty where one is not known."""
    known = [one for one in seconds if one is not None]
    if not known or len(known) < len(seconds):
        return ""
    whole_s = sum(known)
    step_s = 60 if whole_s >= 100 else 10
    return f" This takes about {format_duration(max(1, math.ceil(whole_s / step_s)) * step_s * NS_PER_S)}."


def _again_takes(grid: Grid) -> str:
    """How long all cells take with the settings that are advised: as long as they took, and what levels are longer by;
    empty where that is not known."""
    load, longer_s, times = grid.scenario.get("load", {}), 0.0, 1.0
    try:
        for flag in grid.again:
            name, _, amount = flag.removeprefix("--").partition(" ")
            before = load.get(name.replace("-", "_"))
            if name == "requests":
                times = max(times, int(amount) / int(str(before)))
            else:
                longer_s += (parse_duration(amount) - parse_duration(str(before))) / NS_PER_S
    except (ValueError, ZeroDivisionError):
        return ""
    return _takes(
        [None if cell.took_s is None else times * cell.took_s + longer_s * cell.levels for cell in grid.cells]
    )


def _requested(grid: Grid, runs: Mapping[int, Run]) -> list[Block]:
    """What was varied, and what was requested in all cells alike; what differs from cell to cell is named."""
    if not runs:
        return []
    from loadbench.report.page import requested  # noqa: PLC0415 - a sweep starts sooner without it

    tables = [{name: text.split(", ") for name, text in requested(run).rows} for run in runs.values()]
    varied = "; ".join(f"{one.name} {', '.join(map(shown_value, one.values))}" for one in grid.vary)
    rows, others = [["varied", varied]], []
    command = grid.scenario.get("target", {}).get("server_cmd")
    if command and isinstance(command, str):
        rows.append(["started with", command])
    for name, parts in tables[0].items():
        each = [*map(set, zip(*(table.get(name, []) for table in tables), strict=False))]
        same = [part for part, found in takewhile(lambda pair: len(pair[1]) == 1, zip(parts, each, strict=False))]
        if same and name != "started with":
            rows.append([name, ", ".join(same)])
        elif name != "started with":
            others.append(name)
    if others:
        rows.append(["not alike", f"{', '.join(others)}: see the report of each cell"])
    return [Heading("What was requested"), Table((), rows, "ll")]


def grid_document(grid: Grid, folder: Path | None = None, runs: Mapping[int, Run] | None = None) -> Document:
    """The whole report; with the folder of the grid, the command that measures again what does not count, and with the
    runs of its cells, what was requested of them."""
    target = "the simulated server, not a real one" if grid.simulated else ""
    about = ", ".join(part for part in (target, grid.started_at) if part)
    text = grid.conclusion[:1].upper() + grid.conclusion[1:]
    blocks: list[Block] = [
        Text([grid.question] if grid.question else []),
        Text([line for line in (text, again_text(grid, folder)) if line]),
        cell_table(grid),
    ]
    if _has_depth(grid):
        blocks += [Heading("Prefill and decode by prompt length (depth)"), depth_table(grid)]
    return Document(
        f"{grid.name}, {counted(len(grid.cells), 'cell')}: {about}",
        [*blocks, Notes(grid_notes(grid)), *_requested(grid, runs or {})],
    )


def _has_depth(grid: Grid) -> bool:
    return any(one.key == _INPUT_TOKENS for one in grid.vary) and any(cell.depth for cell in grid.cells)


def cell_table(grid: Grid) -> Table:
    """A row for each cell, and for each of its models."""
    several = len({one.model for cell in grid.cells for one in cell.figures}) > 1
    best, front = {(found.best, found.model) for found in grid.best}, known_front(grid)
    names = [one.name for one in grid.vary]
    rows: list[list[str]] = []
    for number, cell in enumerate(grid.cells, 1):
        shown: list[CellFigures | None] = [*cell.figures] or [None]
        for one in shown:
            rows.append([str(number), *(shown_value(cell.values[name]) for name in names)])
            rows[-1] += ["-" if one is None else one.model] * several
            mark = ""
            if one is not None:
                is_best = bool(best & {(number, one.model), (number, "")})
                mark = (BEST if is_best else MAYBE * one.may_be_best) + FRONT * ((number, one.model) in front)
            rows[-1] += [*_cells(cell, one), mark]
    heads = ["cell", *names, *["model"] * several, *_FIGURES, "mark"]
    align = "r" + "l" * (len(names) + several) + "lrrrrrrll"
    rank = "0" * (1 + len(names)) + "1" * several + "10244330" + "0"
    empty = {"TPOT p50", "ITL p50", "memory", "J/token", "mark"}
    used = [
        at
        for at, head in enumerate(heads)
        if at <= len(names) or head not in empty or any(row[at].strip("-") for row in rows)
    ]
    return Table(
        [heads[at] for at in used],
        [[row[at] for at in used] for row in rows],
        "".join(align[at] for at in used),
        rank="".join(rank[at] for at in used),
    )


_FIGURES = ("load", "tok/s", "TTFT p95", "TPOT p50", "ITL p50", "memory", "J/token", "verdict")


def _cells(cell: Cell, one: CellFigures | None) -> list[str]:
    """The cells of a row below `_FIGURES`."""
    status = {"complete": "", "planned": "not measured"}.get(cell.status, cell.status)
    if one is None:
        others = ", ".join(f"{count} {name}" for name, count in cell.verdicts.items())
        return ["-"] * (len(_FIGURES) - 1) + [status or others or "-"]
    verdict = f"{one.verdict} {UNKNOWN}" if one.steadiness_unknown else one.verdict
    valid = cell.verdicts.get("VALID", 0)
    if valid < cell.levels:
        verdict = f"{verdict} {valid}/{cell.levels}"
    return [
        one.load,
        _rate(one.output_tokens_per_s, one.interval.get("output_tokens_per_s")),
        "-" if one.ttft_p95_s is None else with_interval(one.ttft_p95_s, one.interval.get("ttft_p95_s")),
        "-" if one.tpot_p50_s is None else duration(one.tpot_p50_s),
        # Grids of earlier versions have no TPOT.
        "-" if one.itl_p50_s is None or one.tpot_p50_s is not None else duration(one.itl_p50_s),
        "-" if one.memory_bytes is None else byte_size(one.memory_bytes),
        "-" if one.joules_per_output_token is None else f"{significant(one.joules_per_output_token)} J",
        status or verdict,
    ]


def known_front(grid: Grid) -> set[tuple[int, str]]:
    """The number and model of each cell that is on a Pareto front: where some cell of the same work is dominated, and
    as far as no load that does not count may put it there."""
    work = [one.name for one in grid.vary if one.changes_work]
    several = any(found.model for found in grid.best)
    groups: dict[tuple[str, ...], list[tuple[int, CellFigures]]] = {}
    for number, cell in enumerate(grid.cells, 1):
        for one in cell.figures if cell.status == "complete" else ():
            if one.counts:
                same = (one.model if several else "", *(cell.values[name] for name in work))
                groups.setdefault(same, []).append((number, one))
    return {
        (number, one.model)
        for group in groups.values()
        if not all(one.on_front for _, one in group)
        for number, one in group
        if one.on_front and not one.unknown
    }


def cell_lines(grid: Grid) -> str:
    """A line for each cell, and the conclusion, to be pasted into an issue or a chat."""
    table = cell_table(grid)
    lines = [
        ", ".join(f"{name} {text}" for name, text in zip(table.headers, row, strict=True) if text not in {"", "-"})
        for row in table.rows
    ]
    return "".join(f"{printable(line)}\n" for line in [*lines, grid.conclusion] if line)


def depth_table(grid: Grid) -> Table:
    """How fast prompts of each length are read, and tokens are generated after them, at the lowest load."""
    several = len({one.model for cell in grid.cells for one in cell.depth}) > 1
    names = [one.name for one in grid.vary]
    rows = [
        [
            *(shown_value(cell.values[name]) for name in names),
            *[one.model] * several,
            one.load,
            f"{one.input_tokens:.0f}",
            _rate(one.prefill_tokens_per_s, one.prefill_interval),
            _rate(one.decode_tokens_per_s, one.decode_interval),
        ]
        for cell in grid.cells
        for one in cell.depth
    ]
    heads = (*names, *["model"] * several, "load", "prompt tokens", "prefill tok/s", "decode tok/s per user")
    align = "l" * (len(names) + several + 1) + "rrr"
    return Table(heads, rows, align, rank="0" * len(names) + "1" * several + "21" + "00")


def _rate(value: float | None, interval: OpenInterval | None) -> str:
    if value is None:
        return "-"
    low, high = interval or (None, None)
    if low is None or high is None or not value:
        return f"{significant(value)} {_NO_INTERVAL}"
    return f"{significant(value)} {spread(value, low, high)}"


def _why_out(one: CellFigures) -> str:
    """Why figures that do not count are not compared: a level that is sound may miss an objective."""
    return (
        "no level counts" if one.verdict not in {"VALID", "OVERLOADED"} else "no level that counts meets the objectives"
    )


def _why_no_front(grid: Grid) -> str:
    """Why no cell is off the Pareto front: no other dominates it, or a load of it that does not count may be better."""
    text = "no cell is surely dominated: none is, at the load with its most output tokens/s, surely worse than another "
    text += "in one figure and better in none, there and at its other loads"
    cells = [number for number, cell in enumerate(grid.cells, 1) if any(one.unknown for one in cell.figures)]
    if not cells:
        return text
    return f"{text}; {_named_cells(cells).lower()} may be better at a higher load, which does not count"


def grid_notes(grid: Grid) -> list[str]:
    """Cells that failed, and why; what the marks mean, and by which rule they are set."""
    lines = []
    for number, cell in enumerate(grid.cells, 1):
        if cell.error is not None:
            lines.append(f"cell {number} ({cell_text(cell.values)}) failed: {cell.error.message}")
            lines[-1] += f" → {cell.error.advice}" if cell.error.advice else ""
    figures = [one for cell in grid.cells for one in cell.figures if one.counts]
    out: dict[str, list[int]] = {}
    for number, cell in enumerate(grid.cells, 1):
        for reason in dict.fromkeys(_why_out(one) for one in cell.figures if not one.counts):
            out.setdefault(reason, []).append(number)
    for reason, numbers in out.items():
        one = len(numbers) == 1
        which = f"cell {numbers[0]}" if one else f"cells {some(list(map(str, numbers)), most=8)}"
        what = "it is not compared; see its own report" if one else "they are not compared; see their own reports"
        folders = some([grid.cells[number - 1].folder for number in numbers], most=2)
        lines.append(f"{which}: {reason}, so {what} (loadbench report FOLDER, in the grid's folder: {folders})")
    compared = any(one.may_be_best for one in figures)
    confidence = f"{100 * grid.confidence:g} %"
    if compared:
        if any(found.best is not None for found in grid.best):
            lines.append(f"{BEST} surely the best of the cells that did the same work")
        if any(found.best is None and len(found.candidates) > 1 for found in grid.best):
            lines.append(f"{MAYBE} may be the best: no other cell surely has more output tokens/s")
            if any(one.may_be_best and one.unknown for one in figures):
                lines[-1] += ", or its own are not known at a higher load, which does not count"
        lines.append(
            f"how sure: levels are compared in pairs, together at {confidence} (Bonferroni over all levels; selection "
            f"of the best by Gupta and Hsu); each cell was measured once, so a drift of {percent(grid.assumed_drift)} "
            "between cells is assumed"
        )
        at_load = f"; more at one load: all pairs of cells at the same load, together at {confidence} too"
        lines[-1] += at_load * any(found.more_at_load for found in grid.best)
    front = known_front(grid)
    if front:
        lines.append(
            f"{FRONT} on the Pareto front: no other cell is at least as good in throughput, TTFT, memory and energy at "
            "the same load, as far as these are known, and surely better in one (memory and energy: by 5 % or more)"
        )
    elif compared:
        lines.append(f"Pareto front: not known, since {_why_no_front(grid)}")
    maybe = [str(at) for at, cell in enumerate(grid.cells, 1) for one in cell.figures if one.on_front and one.unknown]
    if front and maybe:
        lines[-1] += f"; cell {some(maybe, most=8)} may be on it too, by a higher load that does not count"
    if figures:
        lines.append(
            "load: of each cell the one with the most output tokens/s of those that count, with the figures of that "
            "level; the report of each cell has its other loads"
        )
    shown = [cell_table(grid)] + [depth_table(grid)] * _has_depth(grid)
    marked = [text for table in shown for row in table.rows for text in row[1 + len(grid.vary) :]]
    lines += interval_notes([text for text in marked if not text.endswith(_NO_INTERVAL)])
    if any(text.endswith(_NO_INTERVAL) for text in marked):
        lines.append(f"{_NO_INTERVAL} too few requests for an interval of this rate: measure longer")
    if any(one.steadiness_unknown for cell in grid.cells for one in cell.figures):
        lines.append(STEADINESS)
    if any(cell.figures and cell.verdicts.get("VALID", 0) < cell.levels for cell in grid.cells):
        lines.append("verdict: of that load; n/m: so many of the cell's levels are VALID")
    if _has_depth(grid):
        lines.append(
            "prefill: prompt tokens by the median TTFT, with the network and the server's queue in it; decode: one by "
            "the median TPOT; both at the lowest load that counts"
        )
        busy = list(dict.fromkeys(one.load for cell in grid.cells for one in cell.depth if one.load != "users=1"))
        if busy:
            lines[-1] += f", of which {some(busy, most=4)} may queue: with users=1 prefill may be faster"
        complete = [(str(number), cell) for number, cell in enumerate(grid.cells, 1) if cell.status == "complete"]
        none = [number for number, cell in complete if not cell.depth]
        if none:
            which = f"cell {none[0]}" if len(none) == 1 else f"cells {some(none, most=8)}"
            lines.append(f"prefill and decode have no row for {which}: no level counts there")
    return lines


def depth_charts(grid: Grid) -> list[Chart]:
    """Prefill and decode over the length of the prompts, a line for each combination of what else was varied."""
    depth = next((one.name for one in grid.vary if one.key == _INPUT_TOKENS), None)
    if depth is None:
        return []
    lines: dict[str, list[tuple[float, DepthFigures]]] = {}
    for cell in grid.cells:
        others = {name: value for name, value in cell.values.items() if name != depth}
        for one in cell.depth:
            if one.input_tokens > 0:
                lines.setdefault(cell_text(others) or one.model, []).append((one.input_tokens, one))
    charts = []
    for name, title in (("prefill", "Prefill: prompt tokens per second"), ("decode", "Decode: tokens/s for each user")):
        series = []
        for line, of_line in lines.items():
            ordered = sorted(of_line, key=lambda point: point[0])
            points = [(at, getattr(one, f"{name}_tokens_per_s")) for at, one in ordered]
            ends = [(at, getattr(one, f"{name}_interval") or (None, None)) for at, one in ordered]
            band = [(at, low, math.inf if high is None else high) for at, (low, high) in ends if low is not None]
            series.append(Series(line, points, band))
        if any(y is not None for one in series for _, y in one.points):
            charts.append(
                Chart(
                    name=name,
                    title=f"{title}, by prompt length",
                    series=series,
                    x="prompt tokens",
                    y="tokens/s",
                    switches="xy",
                    note=f"At the lowest load that counts. {band_note(series)}".strip(),
                )
            )
    return charts


def front_chart(grid: Grid) -> Chart | None:
    """Throughput against the time to first token: a point for each cell, and a line for the Pareto front of those at
    the same load, as far as it is known; `None` without two cells."""
    work, on_front = [one.name for one in grid.vary if one.changes_work], known_front(grid)
    shown = [
        (number, one, cell_text({name: cell.values[name] for name in work}), one.ttft_p95_s)
        for number, cell in enumerate(grid.cells, 1)
        for one in (cell.figures if cell.status == "complete" else ())
        if one.ttft_p95_s is not None
    ]
    if len(shown) < 2:
        return None
    loads, kinds = {one.load for _, one, _, _ in shown}, {same for _, _, same, _ in shown}
    front: dict[str, list[tuple[float, float, str]]] = {}
    others: list[tuple[float, float, str]] = []
    hollow: list[tuple[float, float | None]] = []
    for number, one, same, ttft in shown:
        at = f" at {one.load}" * (len(loads) > 1)
        is_drawn = (number, one.model) in on_front and not any(
            (its.load, its_same) == (one.load, same)
            and (its.output_tokens_per_s, -its_ttft) != (one.output_tokens_per_s, -ttft)
            and its.output_tokens_per_s >= one.output_tokens_per_s
            and its_ttft <= ttft
            and its.counts
            for _, its, its_same, its_ttft in shown
        )
        name = f"Pareto front{at}{f', {same}' if same else ''}"
        (front.setdefault(name, []) if is_drawn else others).append(
            (one.output_tokens_per_s, ttft, f"{number}{f' ({one.load})' * (len(loads) > 1)}")
        )
        hollow += [] if one.counts else [(one.output_tokens_per_s, ttft)]
    series = [
        Series(name, [point[:2] for point in sorted(line)], labels=[point[2] for point in sorted(line)])
        for name, line in front.items()
    ]
    if others:
        # Each by itself: a line would say that they belong together.
        apart: list[tuple[float, float | None]] = [
            one for point in sorted(others) for one in (point[:2], (point[0], None))
        ]
        labels = [one for point in sorted(others) for one in (point[2], "")]
        series.append(Series("other cells" if series else "cells", apart, labels=labels, hollow=hollow))
    sentences = ["Each point is a cell, with its number, at the load with the most output tokens/s."]
    if len(kinds) == len(shown):
        sentences.append(f"Each cell did other work ({', '.join(work)}): none is better than another.")
    else:
        sentences.append(f"Of cells with the same {' and '.join(work)}, best" if work else "Best")
        sentences[-1] += " is to the right and low."
        if len(loads) > 1:
            sentences.append("Compare points of the same load only: with more users, requests wait longer.")
        if front:
            sentences.append("Other cells may be on the front too, for their memory, energy or another load: see ◆.")
        else:
            sentences.append(f"The Pareto front is not known, since {_why_no_front(grid)}.")
    if hollow:
        sentences.append("Hollow points: cells of which no level counts, or none that does meets the objectives.")
    return Chart(
        name="front",
        title="Cells: throughput against latency",
        series=series,
        x="output tokens/s",
        y="TTFT p95",
        log_x=False,
        seconds=True,
        scatter=True,
        switches="y",
        hollow="not compared",
        note=" ".join(sentences),
    )
