"""What a comparison says, in the words and cells that text and Markdown share.

What a server does before the first token (prefill) and after it (decode) stands apart: the two go by different
hardware. The ratio is b over a with its interval; what is not shown here is in the JSON.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from loadbench.plan.gate import COST, ENERGY
from loadbench.plan.objective import FAILURES, RATES
from loadbench.report.values import duration, significant
from loadbench.results.compare import TOO_FEW_REQUESTS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadbench.results.compare import Compared, Comparison, Gate, GateCheck, Side

HEADERS = ("load", "figure", "A", "B", "B/A", "interval", "B is")
_FIGURES = {
    "Throughput": ("output_tokens_per_s", "requests_per_s"),
    "Time to first token (prefill)": ("ttft_p", "ttft_response_p"),
    "Time per output token (decode)": ("tpot_p",),
    "Whole answers": ("e2e_p", "e2e_response_p"),
    "Energy and cost": (ENERGY, COST),
    "Failures": (FAILURES,),
}
_NAMES = {
    "output_tokens_per_s": "tok/s",
    "requests_per_s": "req/s",
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
# Of these less is better, and not faster.
_NOT_TIME = (FAILURES, ENERGY, COST)
# Between gaps of tokens and TPOT there is little to choose: one of them is enough here.
_HIDDEN = ("itl_",)
_MARK = "*"


@dataclass(frozen=True, slots=True)
class LevelBlock:
    """Some figures of all levels, under one heading."""

    title: str
    rows: list[list[str]]


def blocks(comparison: Comparison) -> list[LevelBlock]:
    """Rows as `HEADERS` names them; a gate's figures are always among them."""
    rows = [*comparison.comparisons, *comparison.overall]
    gated = tuple(gate.rule for gate in comparison.gates)
    found = []
    for title, beginnings in _FIGURES.items():
        shown = [row for row in rows if row.metric.startswith(beginnings) and not _dull(row)]
        found.append(LevelBlock(title, [_row(row) for row in shown]))
    named = [row for row in rows if row.metric.startswith(_HIDDEN) and _is_gated(row, gated)]
    found.append(LevelBlock("Between tokens", [_row(row) for row in named]))
    return [block for block in found if block.rows]


def _dull(row: Compared) -> bool:
    """Failures that there were none of."""
    return row.metric == FAILURES and not row.a and not row.b


def _is_gated(row: Compared, rules: Sequence[str]) -> bool:
    return any(rule.startswith((f"{row.metric}>", f"{row.metric}<")) for rule in rules)


def _row(row: Compared) -> list[str]:
    return [
        level_text(row.level),
        metric_text(row.metric),
        value_text(row.metric, row.a),
        value_text(row.metric, row.b),
        "-" if row.ratio is None else f"{ratio_text(row.ratio)}x",
        interval_text(row.metric, row.interval),
        _decision(row) + (_MARK if row.note else ""),
    ]


def _decision(row: Compared) -> str:
    if row.metric not in _NOT_TIME or row.decision == "~":
        return row.decision
    return "worse" if row.decision == "slower" else "better"


def level_text(level: str) -> str:
    """A level's label for people: `8 users`, `0.5/s`, `all`."""
    kind, _, amount = level.partition("=")
    if kind == "users":
        return f"{amount} user" + ("s" if amount != "1" else "")
    return f"{amount}/s" if kind == "rate" else level


def metric_text(metric: str) -> str:
    """A figure as tables call it: `TTFT p95`."""
    if metric in _NAMES:
        return _NAMES[metric]
    figure, _, point = metric.rpartition("_")
    return f"{_NAMES[figure]} {point}"


def value_text(metric: str, value: float) -> str:
    """In the unit of its figure."""
    if metric == FAILURES:
        return f"{100 * value:.3g}%"
    return significant(value) if metric in {*RATES, ENERGY, COST} else duration(value)


def ratio_text(ratio: float) -> str:
    """Three digits, and near 1 one more."""
    return f"{ratio:.3f}" if 0.8 <= ratio < 1.25 else significant(ratio)


def interval_text(metric: str, interval: tuple[float, float] | None) -> str:
    """From low to high; of failures the difference, in percentage points."""
    if interval is None:
        return "-"
    if metric == FAILURES:
        return " to ".join(f"{100 * end:+.2g}" for end in interval) + " points"
    return " to ".join(map(ratio_text, interval))


def side_line(name: str, side: Side) -> str:
    """Which model where, by how many runs."""
    where = "simulated server" if side.simulated else side.target
    label = "" if side.name.lower() == name.lower() else f" {side.name},"
    runs = f"{len(side.runs)} run" + ("s" if len(side.runs) != 1 else "")
    device = f", on {side.device}" if side.device else ""
    return f"{name}:{label} {side.model} at {where}{device}, {runs}"


def gate_lines(gate: Gate) -> list[str]:
    """A line each level that was checked."""
    found = []
    for check in gate.checks:
        where = f" at {level_text(check.level)}" if check.level and "@" not in gate.rule else ""
        told = [text for text in (seen_text(check), check.note) if text]
        found.append(f"{check.decision:9}  {gate.rule}{where}" + (f": {'; '.join(told)}" if told else ""))
    return found


def seen_text(check: GateCheck) -> str:
    """The change and its interval; nothing where none was seen."""
    if check.interval is None:
        return "" if check.ratio is None else _change(check.ratio)
    if check.ratio is None:
        return interval_text(FAILURES, check.interval)
    low, high = map(_change, check.interval)
    return f"{_change(check.ratio)} ({low} to {high})"


def _change(ratio: float) -> str:
    return f"{100 * (ratio - 1):+.1f}%"


def notes(comparison: Comparison) -> list[str]:
    """What the marks mean, what was left out, and what a reader must know."""
    marked = dict.fromkeys(row.note for row in (*comparison.comparisons, *comparison.overall) if row.note)
    found = [f"{_MARK} {note}" for note in marked]
    found.append(_basis(comparison))
    left: dict[tuple[str, str], list[str]] = {}
    for one in comparison.left_out:
        if one.code == TOO_FEW_REQUESTS:
            continue
        where = f"{one.run}: {one.message}" if one.run else one.message
        left.setdefault((level_text(one.level), where), []).append(one.metric)
    alike: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for (level, why), missing in left.items():
        alike.setdefault((why, tuple(missing)), []).append(level)
    for (why, metrics), levels in alike.items():
        what = f"{_figures(metrics)} at {', '.join(levels)}" if any(metrics) else ", ".join(levels)
        found.append(f"not compared: {what}: {why}")
    if any(one.code == TOO_FEW_REQUESTS for one in comparison.left_out):
        found.append(
            "quantiles for which there are too few requests, or runs, are left out: measure for longer, or more often"
        )
    found += _answers(comparison)
    return found + [f"{one.message}; {one.advice}" for one in comparison.caveats]


def _answers(comparison: Comparison) -> list[str]:
    """What deterministic runs answered; nothing where that is not known."""
    found = comparison.answers
    if found is None:
        return []
    if found.equal == found.prompts:
        return [f"answers: both sides said the same to {_prompts(found.prompts)}"]
    told = [f"the same to {found.equal} of {_prompts(found.prompts)}"]
    told += [f"another text than A's is B's to {len(found.differing)}"] if found.differing else []
    told += [f"to {len(found.unsteady)} a side does not always say the same itself"] if found.unsteady else []
    return [f"answers: {', '.join(told)}: what differs is not the speed alone"]


def _prompts(number: int) -> str:
    return f"{number} prompt" + ("s" if number != 1 else "")


def _figures(metrics: Sequence[str]) -> str:
    """Their names, without each one's points."""
    return ", ".join(dict.fromkeys(_NAMES.get(name) or _NAMES[name.rpartition("_")[0]] for name in metrics))


def _basis(comparison: Comparison) -> str:
    share = f"{100 * comparison.confidence:g} %"
    if comparison.basis == "inside":
        return f"intervals are of {share}, from inside of one run a side"
    pairs = "pairs of runs" if comparison.paired else "runs"
    return (
        f"intervals are of {share}, from the spread of {pairs}; a difference is stated where it holds for all figures "
        "of a level together"
    )
