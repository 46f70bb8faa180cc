"""The list of runs, and how a figure went over them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadbench.core.text import some
from loadbench.plan.objective import FAILURES, RATES
from loadbench.report.document import Document, Notes, Table, Text
from loadbench.report.values import clipped, counted, duration, percent, significant

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from loadbench.analyze.compare.trend import Trend
    from loadbench.results.run_summary import RunSummary

_LONGEST_CELL = 40
_LONGEST_RESULT = 90
_BLOCKS = "▁▂▃▄▅▆▇█"
# On a narrow screen those with the highest digits are left out first.
_RANKS = {"run": 0, "result": 0, "verdicts": 1, "model": 2, "command": 3, "loads": 4, "labels": 5, "commit": 6}


def result_of(run: RunSummary) -> str:
    """What came of a run in a few words: its state, its answer or its peak."""
    if run.state in {"damaged", "empty"}:
        return f"{run.state}: {run.problem}" if run.problem else run.state
    texts = []
    for search in run.capacity:
        who = f"{search.model}: " if len(run.capacity) > 1 else ""
        if search.users is None and search.rate_per_s is None:
            texts.append(f"{who}{search.status}")
        else:
            best, unit = (search.rate_per_s or 0, "requests/s") if search.users is None else (search.users, "users")
            low = best if search.interval is None or search.interval[0] is None else search.interval[0]
            amount = f"plan with {low:g} {unit} ({search.strength}; best estimate {best:g})"
            if search.status == "at_least":
                amount = f"at least {best:g} {unit}"
            elif search.status != "found":
                is_open = search.interval is not None and search.interval[1] is None
                end = f"{low:g} {unit} or more" if is_open else f"best estimate {best:g} {unit}"
                amount = f"not certain ({end})"
            texts.append(f"{who}{amount}")
    if run.conclusion:
        texts.append(run.conclusion)
    if run.peak is not None and run.peak.counts:
        who = f" ({run.peak.model})" if len(run.models) > 1 else ""
        above = f", {some(run.peak.invalid_above, most=1)} INVALID" if run.peak.invalid_above else ""
        texts.append(f"{significant(run.peak.output_tokens_per_s)} tok/s at {run.peak.load}{above}{who}")
    if run.state != "complete":
        # What a search has concluded so far is no result: it has one state, that of its run.
        texts = [run.state, *(text for text in texts if not text.endswith("inconclusive"))]
    return "; ".join(texts) or (f"no level counts ({_verdicts(run)})" if run.verdicts else "nothing measured")


def _first_part(text: str) -> str:
    """A text up to the end of its last sentence that fits, or of a part of one, or up to a bracket that does not fit;
    where nothing ends, it is cut between two words."""
    if len(text) <= _LONGEST_RESULT:
        return text
    for marks in (".;", ":", ","):
        at = max(text.rfind(f"{mark} ", 0, _LONGEST_RESULT + 2) for mark in marks)
        if at >= _LONGEST_RESULT // 3:
            return text[:at]
    begins, _, rest = text[:_LONGEST_RESULT].rpartition(" (")
    return begins if begins and ")" not in rest else f"{text[:_LONGEST_RESULT].rpartition(' ')[0]} …"


def _verdicts(run: RunSummary) -> str:
    return ", ".join(f"{count} {status}" for status, count in run.verdicts.items())


def runs_document(runs: Sequence[RunSummary], *, results: str, left_out: int) -> Document:
    """The table of runs, the newest first; `left_out` more are not shown."""
    if not runs:
        return Document(f"no run in {results}" + (" fits" if left_out else ""), [])
    columns: dict[str, list[str]] = {
        "run": [run.run for run in runs],
        "command": [(run.command or "-") + f", {run.cells} cells" * bool(run.cells) for run in runs],
        "model": [
            clipped(some(run.models, most=1), _LONGEST_CELL) + (" (simulated)" if run.simulated else "") or "-"
            for run in runs
        ],
        "loads": [_loads(run.loads) or "-" for run in runs],
        "result": [_first_part(result_of(run)) for run in runs],
        # The probes of a search are short on purpose: its answer is judged, and not they.
        "verdicts": ["-" if run.capacity or run.command == "capacity" else _verdicts(run) or "-" for run in runs],
        "commit": [_commit(run.commit, dirty=run.dirty) for run in runs],
        "labels": [" ".join(f"{key}={value}" for key, value in run.labels.items()) for run in runs],
    }
    shown = {name: [cell or "-" for cell in cells] for name, cells in columns.items() if any(cells)}
    rows = list(zip(*shown.values(), strict=True))
    notes = []
    if any(run.dirty for run in runs):
        notes.append("commit: + where files had changed since")
    if left_out:
        notes.append(f"{counted(left_out, 'older run')} not shown: --all shows every run, --help how to filter")
    return Document(
        f"{counted(len(runs), 'run')} in {results}, the newest first",
        [Table(list(shown), rows, "l" * len(shown), rank="".join(str(_RANKS[name]) for name in shown)), Notes(notes)],
    )


def trend_document(trend: Trend) -> Document:
    """The values from the oldest run to the newest, as a line of blocks and as a table."""
    show = _units(trend.metric)
    where = " at ".join(part for part in (trend.model, trend.at) if part)
    title = f"{trend.metric} of {where}: {counted(len(trend.points), 'run')}, the newest last"
    values = [point.value for point in trend.points]
    blocks: list[Text | Table | Notes] = []
    if len(values) > 1:
        low, high = min(values), max(values)
        steps = [round((len(_BLOCKS) - 1) * (value - low) / (high - low or 1)) for value in values]
        line = "".join(_BLOCKS[step] for step in steps)
        change = f", {100 * (values[-1] / values[0] - 1):+.1f} % in all" if values[0] else ""
        blocks.append(Text([f"{line}  {show(values[0])} → {show(values[-1])}{change}"]))
    rows, before = [], None
    for point in trend.points:
        ends = point.interval or (None, None)
        shown = [show(end) if end is not None else "?" for end in ends]
        span = f"{shown[0]} or more" if ends[1] is None and ends[0] is not None else f"{shown[0]} to {shown[1]}"
        ratio = f"{100 * (point.value / before - 1):+.1f} %" if before else "-"
        rows.append(
            [
                point.run,
                show(point.value),
                span if point.interval else "-",
                ratio,
                "undecided" if point.change == "~" else point.change or "-",
                point.verdict or "-",
                _commit(point.commit, dirty=point.dirty) or "-",
                " ".join(f"{key}={value}" for key, value in point.labels.items()) or "-",
            ]
        )
        before = point.value
    names = ["run", trend.metric, "95 % interval", "change", "it is", "verdict", "commit", "labels"]
    rank = "00001345"
    used = [at for at in range(len(names)) if at < 5 or any(row[at] != "-" for row in rows)]
    blocks.append(
        Table(
            [names[at] for at in used],
            [[row[at] for at in used] for row in rows],
            "".join("lrlrllll"[at] for at in used),
            rank="".join(rank[at] for at in used),
        )
    )
    notes = list(trend.notes)
    if any(point.change == "~" for point in trend.points):
        notes.append("undecided: the intervals touch; `loadbench compare` decides whether two runs differ")
    reasons: dict[str, list[str]] = {}
    for one in trend.left_out:
        reasons.setdefault(one.reason, []).append(one.run)
    notes += [f"left out: {some(names, most=2)}: {reason}" for reason, names in reasons.items()]
    return Document(title, [*blocks, Notes(notes)])


def _units(metric: str) -> Callable[[float], str]:
    if metric == FAILURES:
        return percent
    return significant if metric in {*RATES, "capacity"} else duration


def _commit(commit: str | None, *, dirty: bool | None) -> str:
    return "" if not commit else commit[:9] + ("+" if dirty else "")


def deletion_document(folders: Sequence[tuple[str, int, int]]) -> Document:
    """What a deletion would remove: folders with their files and their size in bytes."""
    from loadbench.report.values import byte_size  # noqa: PLC0415 - a list of runs needs it not

    rows = [(name, str(files), byte_size(size)) for name, files, size in folders]
    total = byte_size(sum(size for _, _, size in folders))
    return Document(
        f"to be deleted: {counted(len(folders), 'run')}, {total}",
        [Table(["run", "files", "size"], rows, "lrr"), Text([])],
    )


def _loads(labels: Sequence[str]) -> str:
    """`users=1,2,4` for several of a kind; a long list by its ends."""
    kinds: dict[str, list[str]] = {}
    for label in labels:
        kind, _, amount = label.partition("=")
        kinds.setdefault(kind, []).append(amount)
    texts = []
    for kind, amounts in kinds.items():
        shown = amounts if len(amounts) <= 5 else [*amounts[:3], "…", amounts[-1]]
        texts.append(f"{kind}={','.join(shown)}")
    return " ".join(texts)
