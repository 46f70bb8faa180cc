"""The report of a comparison: what it means and the gates, B against A load by load, what each side needs, then a table
for each kind of figure, then notes.

The time before the first token (prefill) and that after it (decode) have separate tables: different hardware limits
them. Ratios are b over a, with their intervals. What is not shown here is in the JSON.
"""

from __future__ import annotations

import math
from statistics import median
from typing import TYPE_CHECKING

from loadbench.analyze.compare.gates import standing
from loadbench.analyze.compare.undecided import word_of
from loadbench.core.text import some
from loadbench.plan.gate import COST, ENERGY
from loadbench.plan.objective import FAILURES, RATES
from loadbench.plan.server_url import UNVERIFIED
from loadbench.report.document import Block, Document, Notes, Table, Text
from loadbench.report.values import (
    ALONE_BEFORE,
    NOT_FASTER,
    byte_size,
    counted,
    duration,
    percent,
    reason_text,
    significant,
)
from loadbench.results.compare import DECODE, NOT_COMPARED, PREFILL, TOO_FEW_REQUESTS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadbench.results.compare import ComparedFigure, ComparedSide, Comparison, GateCheck, MetObjectives

# TPOT says nearly the same as the gaps between tokens, so that these are shown only where a gate names them.
_GAPS = "itl_"
_HEADERS = ("load", "figure", "A", "B", "B/A", "interval", "B is")
_TABLES = {
    "Throughput": ("output_tokens_per_s", "requests_per_s"),
    "Time to first token (prefill)": ("ttft_p", "ttft_response_p", PREFILL),
    "Time per output token (decode)": ("tpot_p", DECODE),
    "Whole responses": ("e2e_p", "e2e_response_p"),
    "Energy and cost": (ENERGY, COST),
    "Failures": (FAILURES,),
    "Between tokens": (_GAPS,),
}
_NAMES = {
    "output_tokens_per_s": "tok/s",
    "requests_per_s": "req/s",
    PREFILL: "prompt tok/s",
    DECODE: "tok/s/user",
    "ttft": "TTFT",
    "ttft_response": "TTFT from due",
    "tpot": "TPOT",
    "itl": "ITL",
    "e2e": "E2E",
    "e2e_response": "E2E from due",
    "e2e_per_token": "E2E/token",
    ENERGY: "J/token",
    COST: "per 1M tok",
    FAILURES: "failed",
}
_MARK = "*"
_MOST_DIGITS = 10
# How far the logarithms of two ratios may be apart that should be the same.
_APART = 0.05
# B against A in one line for each load: the figure of each column.
_AT_A_GLANCE = {"output_tokens_per_s": "tok/s", PREFILL: "prefill", DECODE: "decode", ENERGY: "J/token", COST: ""}


def compare_document(comparison: Comparison, *, undecided: str | None = None) -> Document:
    """The whole report; its title says whether the gates passed, where there are any. What an undecided one counts as
    (`undecided`) is part of the exit code, so that the title has it too."""
    title = "loadbench compare"
    standings = {standing(gate, comparison.left_out) for gate in comparison.gates}
    if "failed" in standings:
        title += ": failed"
    elif "invalid" in standings:
        title += ": undecided, since a level is INVALID"
    elif "undecided" in standings:
        title += ": undecided" + {"pass": ", counted as passed", "fail": ", counted as failed"}.get(undecided or "", "")
    elif standings:
        title += ": passed"
    gates = [
        [gate.rule, check.level, gate_change(check), check.decision, check.note]
        for gate in comparison.gates
        for check in gate.checks
    ]
    blocks: list[Block] = [
        Text(conclusions(comparison)),
        Table(("gate", "load", "change", "decision", "note"), gates, "lllll"),
        Notes([_side_line("A", comparison.a), _side_line("B", comparison.b)]),
        _at_a_glance(comparison),
        _needs(comparison),
    ]
    for summary, beginnings in _TABLES.items():
        rows = [_row(row, comparison) for row in _shown_rows(comparison) if row.metric.startswith(beginnings)]
        # A narrow screen has both sides and their ratio; `B is` says what the interval means.
        blocks.append(Table(_HEADERS, rows, "rlrrrll", summary, rank="0000010"))
    return Document(title, [*blocks, Notes(_notes(comparison))])


def conclusions(comparison: Comparison) -> list[str]:
    """Which side is which, what the comparison means, how many runs count, and its conclusion with the figures; of the
    latter three an older comparison has only the last."""
    summary = comparison.summary
    if summary is None:
        return [comparison.conclusion]
    # The sentence has why it is undecided, and what to do.
    said = comparison.conclusion.lower()
    is_told = said.startswith(("undecided", "nothing can be compared")) or said == summary.sentence.rstrip(".").lower()
    sides = [f"{name}: {apart_text(side)}" for name, side in (("A", comparison.a), ("B", comparison.b)) if side.apart]
    lines = ("; ".join(sides), summary.sentence, comparison.counted, "" if is_told else comparison.conclusion)
    return [line for line in lines if line]


def apart_text(side: ComparedSide) -> str:
    """What the side is and the other is not: `--parallel 4, 4 requests at once`."""
    return some(side.apart, most=4)


def _at_a_glance(comparison: Comparison) -> Table:
    """B divided by A at each load: throughput, prefill and decode apart, energy and cost."""
    by_level: dict[str, dict[str, str]] = {}
    for row in (*comparison.comparisons, *comparison.speed):
        if row.metric in _AT_A_GLANCE and row.ratio is not None:
            ends = "" if row.ends is None else f" ({range_of(row.metric, row.ends).replace(' to ', '-')})"
            # What is undecided is no result: the tables have its ratio.
            text = ("undecided" if word_of(row) == "undecided" else f"{ratio_text(row.ratio)}x") + ends
            by_level.setdefault(row.level, {})[row.metric] = text
    shown = [metric for metric in _AT_A_GLANCE if any(metric in cells for cells in by_level.values())]
    names = [_AT_A_GLANCE[metric] or name_of(metric, comparison) for metric in shown]
    rows = [[label, *(cells.get(metric, "-") for metric in shown)] for label, cells in by_level.items()]
    # Energy and cost have a table of their own below, with the same ratios.
    rank = "0" + "".join("1" if metric in {ENERGY, COST} else "0" for metric in shown)
    return Table(("B/A at", *names), rows if len(shown) > 1 else [], "r" + "l" * len(shown), rank=rank)


def _needs(comparison: Comparison) -> Table:
    """What each side needs besides time, the objectives that it meets, and the figures that it alone has; a row for
    each that is known."""
    sides = (comparison.a, comparison.b)
    rows: list[list[str]] = []

    def add(name: str, cells: Sequence[str | None]) -> None:
        if any(cells):
            rows.append([name, *(cell or "-" for cell in cells)])

    memories = [side.memory for side in sides]
    add(
        "server memory",
        [None if one is None or one.process_bytes is None else byte_size(one.process_bytes) for one in memories],
    )
    of_board = any(one is not None and one.board_of == "board" for one in memories)
    add(
        "GPU memory" + " (all programs)" * of_board,
        [None if one is None or not one.board_bytes else byte_size(one.board_bytes) for one in memories],
    )
    for name, field in (
        ("server ready after its start", "ready_s"),
        ("first response after the start", "first_response_s"),
        ("loading the model", "load_s"),
        ("first token, cold", "cold_ttft_s"),
        ("first token, warm", "warm_ttft_s"),
    ):
        times = [None if side.cold_start is None else getattr(side.cold_start, field) for side in sides]
        add(name, [None if time is None else duration(time) for time in times])
    met = [side.objectives for side in sides]
    rules = next((one.rules for one in met if one is not None), [])
    if rules:
        add(f"meets {', '.join(rules)}", [None if one is None else _met_text(one) for one in met])
    missing = {left.level: NOT_COMPARED[left.code] for left in comparison.left_out if not left.metric and not left.run}
    for place, side in enumerate(sides):
        for figure in side.alone:
            text = _value_text(figure.metric, figure.value)
            # Why the other side has none is said of a load that it measured; else it does not have this load, or meter.
            other = missing.get(figure.level, "-")
            other = other if other == NOT_COMPARED["invalid"] else "-"
            add(f"{name_of(figure.metric, comparison)} at {figure.level}", (other, text) if place else (text, other))
    return Table(("", "A", "B"), rows, "lll")


def _met_text(met: MetObjectives) -> str:
    """`up to users=4; misses ttft_p95<1s at users=8`."""
    if met.up_to is None and met.missed_at is None:
        return "not decided"
    parts = ["not shown at any load" if met.up_to is None else f"up to {met.up_to}"]
    if met.missed_at is not None:
        rules = f" {', '.join(met.missed)}" if len(met.rules) > 1 else ""
        parts.append(f"misses{rules} at {met.missed_at}")
    return "; ".join(parts)


def name_of(metric: str, comparison: Comparison) -> str:
    """A figure as tables name it; money in its currency."""
    if metric == COST and comparison.currency:
        return f"{comparison.currency} per 1M tok"
    figure, _, point = metric.rpartition("_")
    return _NAMES.get(metric) or f"{_NAMES[figure]} {point}"


def _side_line(name: str, side: ComparedSide) -> str:
    where = "simulated server" if side.simulated else some(side.targets, most=3) or side.target
    label = "" if side.name.lower() == name.lower() else f" {side.name},"
    who = f" ({apart_text(side)})" if side.apart else ""
    device = f", on {side.device}" if side.device else ""
    unverified = f"; {UNVERIFIED}" if side.insecure else ""
    starts = ""
    if side.starts_s:
        least, most = (duration(end) for end in (min(side.starts_s), max(side.starts_s)))
        starts = f", {'started' if side.command else 'loaded'} before each in {duration(median(side.starts_s))}"
        starts += f" ({least} to {most})" if least != most else ""
    by = f", by `{side.command}`" if side.command else ""
    by += f"; load from {side.load_from}" if side.load_from else ""
    return (
        f"{name}:{label} {side.model}{who} at {where}{device}, {counted(len(side.runs), 'run')}{starts}{by}{unverified}"
    )


def _shown_rows(comparison: Comparison) -> list[ComparedFigure]:
    """The rows of all tables: without failures where none was on either side."""
    gated = {gate.rule.partition(">")[0].partition("<")[0] for gate in comparison.gates}
    return [
        row
        for row in (*comparison.speed, *comparison.comparisons, *comparison.overall)
        if (row.metric != FAILURES or row.a or row.b) and (not row.metric.startswith(_GAPS) or row.metric in gated)
    ]


def _row(row: ComparedFigure, comparison: Comparison) -> list[str]:
    return [
        row.level,
        name_of(row.metric, comparison),
        *(_value_text(row.metric, value) for value in (row.a, row.b)),
        "-" if row.ratio is None else f"{ratio_text(row.ratio)}x",
        range_of(row.metric, row.ends),
        word_of(row) + (_MARK if row.note else ""),
    ]


def _value_text(metric: str, value: float) -> str:
    """A figure in its unit: the share that failed, a rate or a price, or a time."""
    if metric == FAILURES:
        return percent(value)
    return significant(value) if metric in {*RATES, PREFILL, DECODE, ENERGY, COST} else duration(value)


def ratio_text(ratio: float) -> str:
    """Three digits, and near 1 one more. Two runs may have intervals that no digits make clearer."""
    if not 0.001 <= ratio <= 1000:
        return "<0.001" if ratio < 1 else ">1000"
    return f"{ratio:.3f}" if 0.8 <= ratio < 1.25 else significant(ratio)


def ends_text(interval: tuple[float, float]) -> list[str]:
    """Both ends of a ratio; one that is near 1 has as many digits as show on which side of it."""
    texts = [ratio_text(end) for end in interval]
    for place, end in enumerate(interval):
        digits = 4
        while texts[place] == "1.000" and end != 1 and digits < _MOST_DIGITS:
            texts[place] = f"{end:.{digits}f}"
            texts[place] = "1.000" if float(texts[place]) == 1 else texts[place]
            digits += 1
    return texts


def range_of(metric: str, interval: tuple[float, float] | None) -> str:
    """From low to high, or one end of it; for failures of the difference, in percentage points."""
    if interval is None:
        return "-"
    if metric == FAILURES:
        return " to ".join(f"{100 * end:+.2g}" for end in interval) + " points"
    low, high = ends_text(interval)
    if math.isinf(interval[1]):
        return f"{low} or more"
    return f"{low} to {high}" if interval[0] else f"{high} or less"


def gate_change(check: GateCheck) -> str:
    """The change and its interval; empty where none was seen."""
    changes = [f"{100 * (ratio - 1):+.1f} %" for ratio in (check.ratio, *(check.interval or ())) if ratio is not None]
    if check.ratio is None:
        return "" if check.interval is None else range_of(FAILURES, check.interval)
    return changes[0] if check.interval is None else f"{changes[0]} ({changes[1]} to {changes[2]})"


def _two_rates(comparison: Comparison) -> list[str]:
    """Why the ratios of tok/s and req/s differ, although responses have the same length."""
    ratios: dict[str, dict[str, float]] = {}
    for row in comparison.comparisons:
        if row.metric in RATES and row.ratio:
            ratios.setdefault(row.level, {})[row.metric] = row.ratio
    apart = [
        f"{level}: {ratio_text(of['output_tokens_per_s'])}x and {ratio_text(of['requests_per_s'])}x"
        for level, of in ratios.items()
        if {"output_tokens_per_s", "requests_per_s"} <= of.keys()
        and abs(math.log(of["output_tokens_per_s"] / of["requests_per_s"])) > _APART
    ]
    if not apart or any(row.metric.startswith("e2e_per_token") for row in comparison.comparisons):
        return []
    counted = "tok/s counts the tokens that arrived in the window, req/s the responses that ended in it"
    differ = f"with few responses the two differ ({some(apart, most=2)}); a longer --duration brings them together"
    return [f"{counted}, so that {differ}"]


# Ends of intervals that differ by no more, as a share, look the same.
_ALIKE = 0.01


def _alike(comparison: Comparison) -> str:
    """Of intervals that are nearly the same at all loads, why; they look like a mistake. Empty where there are none."""
    ends = [
        tuple(math.log(end) for end in row.interval if end)
        for row in comparison.comparisons
        if row.metric == "output_tokens_per_s" and row.interval is not None
    ]
    if comparison.basis != "runs" or len(ends) < 2 or any(len(each) < 2 for each in ends):
        return ""
    if any(max(side) - min(side) > _ALIKE for side in zip(*ends, strict=True)):
        return ""
    return "; tok/s differed from repeat to repeat in the same way at every load, so that its intervals are alike"


def _fewer(comparison: Comparison) -> str:
    """That the means over the loads are of fewer runs than a load has; empty where they are of the same ones."""
    most: dict[str, tuple[int, int]] = {}
    for row in comparison.comparisons:
        most[row.metric] = max(most.get(row.metric, row.n), row.n)
    fewer = [(row.n, most[row.metric]) for row in comparison.overall if row.metric in most and row.n < most[row.metric]]
    if not fewer:
        return ""
    (a, b), (of_a, of_b) = min(fewer)
    whose = f"{a} of {of_a} pairs of runs" if comparison.paired else f"{a} of {of_a} runs of A and {b} of {of_b} of B"
    return f", of the {whose} that count at every load, so that it may lie outside of what the loads have"


def _marked(comparison: Comparison) -> list[str]:
    """What `*` means; of several reasons each names its figures. Those that differ in a p alone are one."""
    marked: dict[str, list[ComparedFigure]] = {}
    for row in _shown_rows(comparison):
        if row.note and row not in comparison.speed:
            marked.setdefault(row.note.partition(": p ")[0], []).append(row)
    lines = []
    for note, rows in marked.items():
        # The mean over all loads is told with them.
        named = [row for row in rows if row not in comparison.overall] or rows
        names = dict.fromkeys(f"{name_of(row.metric, comparison)} at {row.level}" for row in named)
        about = f"{some(list(names), most=3)}: " if len(marked) > 1 else ""
        values = sorted({text for row in rows if (text := row.note.partition(": p ")[2])}, key=float)
        of_p = f": p {' to '.join(dict.fromkeys((values[0], values[-1])))}" if values else ""
        lines.append(f"{_MARK} {about}{note}{of_p}")
    return lines


def _notes(comparison: Comparison) -> list[str]:
    """What the marks mean, what was left out, and the caveats."""
    rows = (*comparison.comparisons, *comparison.overall)
    lines = _marked(comparison)
    words = {word_of(row) for row in _shown_rows(comparison)}
    if "undecided" in words:
        or_mark = f", or {_MARK} says why" if lines else ""
        lines.append(f"undecided: there is no interval, or it includes 1 and reaches 0.5 or 2{or_mark}")
    if "no difference" in words:
        lines.append("no difference: the interval includes 1, so that none is shown")
    share = f"{100 * comparison.confidence:g} %"
    basis = {
        "runs": "the spread of pairs of runs",
        "sessions": f"the spread between sessions ({comparison.a.sessions} of A, {comparison.b.sessions} of B)",
        "inside": "the requests within the one run of each side",
    }[comparison.basis]
    drift = comparison.assumed_drift
    basis += "" if drift is None else f", and an assumed drift of {100 * drift:.0f} % between sessions"
    if comparison.ended_early:
        lines.insert(0, f"ended early: {comparison.ended_early}; only the repeats before this are compared")
    speeds = {row.metric for row in comparison.speed}
    starts = [(name, side.cold_start) for name, side in (("A", comparison.a), ("B", comparison.b))]
    first = [(name, one.cold_ttft_s, one.warm_ttft_s) for name, one in starts if one is not None]
    known = [(name, cold, warm) for name, cold, warm in first if cold is not None and warm is not None]
    if known:
        slower = [name for name, cold, warm in known if warm >= cold]
        lines.append(f"first token: of the side's first request and of a later one of the same length, {ALONE_BEFORE}")
        lines[-1] += f"; on {' and '.join(slower)} {NOT_FASTER}" if slower else ""
    if PREFILL in speeds:
        lines.append("prefill: prompt tokens per second until the first token (TTFT p50), of one request at a time")
    if DECODE in speeds:
        lines.append("decode: output tokens per second that one user sees after the first token (1 / TPOT p50)")
    gated = "; a gate's is that of its rule alone" if comparison.gates else ""
    if any(row.interval is not None for row in rows):
        lines.append(
            f"intervals are from {basis}; those of a level hold together with {share}, and decide what is stated{gated}"
        )
    one, other = comparison.a, comparison.b
    if not (one.apart or other.apart) and one.model == other.model and one.target != other.target:
        name_them = "give the runs of each a --name of its own, or start the servers with --a-cmd and --b-cmd"
        lines.append(f"nothing but the address is known to tell A from B; to have it in the report, {name_them}")
    if not any(row.metric == COST for row in rows):
        give = "--hourly PRICE, or --purchase PRICE with --lifetime and --kwh-price"
        lines.append(f"cost per token needs prices when measuring: {give}; of one side: url=URL,hourly=PRICE")
    if comparison.overall:
        lines.append(f"all: the geometric mean over the loads{_fewer(comparison)}{_alike(comparison)}")
    lines += _two_rates(comparison)

    # One line for each reason: the figures that it leaves out, and at which levels.
    metrics_of: dict[tuple[str, str], list[str]] = {}
    for left in comparison.left_out:
        if left.code != TOO_FEW_REQUESTS:
            repeat = next(
                (side.runs.index(left.run) + 1 for side in (comparison.a, comparison.b) if left.run in side.runs), 0
            )
            why, where = left.message, left.level
            if comparison.paired and repeat:
                where = f"repeat {repeat} of {where}"
            elif left.run:
                why = f"{left.run}: {why}"
            metrics_of.setdefault((where, why), []).append(left.metric)
    levels_of: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for (level, why), metrics in metrics_of.items():
        levels_of.setdefault((why, tuple(metrics)), []).append(level)
    for (why, left_out), levels in levels_of.items():
        names = dict.fromkeys(
            name_of(metric, comparison) if metric in _NAMES else _NAMES[metric.rpartition("_")[0]]
            for metric in left_out
            if metric
        )
        figures = f"{', '.join(names)} at " if names else ""
        lines.append(f"not compared: {figures}{', '.join(levels)}: {why}")
    if any(left.code == TOO_FEW_REQUESTS for left in comparison.left_out):
        lines.append("percentiles with too few requests or runs are left out: measure longer, or more often")

    texts = comparison.answers
    if texts is not None and texts.equal == texts.prompts:
        lines.append(f"response texts: equal on both sides for {counted(texts.prompts, 'prompt')}")
    elif texts is not None:
        parts = [f"equal on both sides for {texts.equal} of {counted(texts.prompts, 'prompt')}"]
        parts += [f"B's differs from A's for {len(texts.differing)}"] if texts.differing else []
        parts += [f"a side differs from itself for {len(texts.unsteady)}"] if texts.unsteady else []
        lines.append(f"response texts: {', '.join(parts)}: more than the speed differs")
    return lines + [f"{reason_text(caveat.message, caveat.code)}; {caveat.advice}" for caveat in comparison.caveats]
