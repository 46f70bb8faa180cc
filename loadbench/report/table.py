"""The table of a run that text and Markdown share: one row per level, in people's units.

A quantile whose sample is too small for a 95 % interval is marked with `~`; where throughput stops growing, with `◄`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from loadbench.analyze.level.knee import WORTHWHILE, knee
from loadbench.analyze.stats.intervals import quantile_ranks
from loadbench.results.run import ClosedLoad

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from loadbench.results.run import (
        Decided,
        LevelResult,
        Metric,
        ModelStatus,
        OpenLoad,
        OutputEquality,
        PersonaShare,
        Reason,
        Run,
        Warm,
    )

BEND = "◄"
UNSURE = "~"
# More kinds of failure than this hide what the first of them say.
_MOST_FAILURES = 3

HEADERS = (
    "load",
    "req/s",
    "tok/s",
    "in flight",
    "TTFT p50",
    "p95",
    "p99",
    "TPOT p50",
    "p95",
    "E2E p50",
    "p95",
    "ok",
    "failed",
    "verdict",
)
GOODPUT = "goodput"


def by_model(run: Run) -> dict[str, list[LevelResult]]:
    """The levels of each model, in the order of the run."""
    grouped: dict[str, list[LevelResult]] = {}
    for level in run.levels:
        grouped.setdefault(level.model, []).append(level)
    return grouped


def headers(levels: Sequence[LevelResult]) -> tuple[str, ...]:
    """The names of the columns: `HEADERS`, with the goodput where there are objectives for it."""
    return (*HEADERS[:-1], GOODPUT, HEADERS[-1]) if _with_goodput(levels) else HEADERS


def _with_goodput(levels: Sequence[LevelResult]) -> bool:
    return any(level.goodput is not None for level in levels)


def rows(levels: Sequence[LevelResult]) -> list[list[str]]:
    """A row per level, as `headers` names them."""
    whole = [level for level in levels if not level.interrupted]
    at = knee(whole)
    bends_at = None if at is None else levels.index(whole[at])
    cells = [_row(level, bends=position == bends_at) for position, level in enumerate(levels)]
    if not _with_goodput(levels):
        return cells
    return [[*row[:-1], _goodput(level), row[-1]] for row, level in zip(cells, levels, strict=True)]


def _goodput(level: LevelResult) -> str:
    """Good requests a second, and the share of all that they are."""
    good = level.goodput
    return "-" if good is None else f"{significant(good.requests_per_s)}/s {100 * good.attainment:.3g}%"


def _row(level: LevelResult, *, bends: bool) -> list[str]:
    metrics = level.metrics
    answered = level.outcomes.get("ok", 0)
    return [
        load_text(level),
        significant(level.throughput.requests_per_s),
        significant(level.throughput.output_tokens_per_s) + (f" {BEND}" if bends else ""),
        significant(level.concurrency.mean),
        *(quantile(metrics.get("ttft_s"), name) for name in ("p50", "p95", "p99")),
        *(quantile(metrics.get("tpot_s"), name) for name in ("p50", "p95")),
        *(quantile(metrics.get("e2e_s"), name) for name in ("p50", "p95")),
        str(answered),
        str(failed(level)),
        level.verdict.status,
    ]


def level_line(level: LevelResult) -> str:
    """A level in one line, for the moment it ends."""
    ttft = level.metrics.get("ttft_s")
    return (
        f"{significant(level.throughput.output_tokens_per_s)} tok/s, "
        f"TTFT p50 {quantile(ttft, 'p50')} p95 {quantile(ttft, 'p95')}, "
        f"{level.outcomes.get('ok', 0)} ok, {failed(level)} failed, {level.verdict.status}"
    )


def failed(level: LevelResult) -> int:
    """Measured requests that were not answered in whole, those apart that the user cut."""
    return sum(count for outcome, count in level.outcomes.items() if outcome not in {"ok", "cancelled"})


def load_text(level: LevelResult) -> str:
    """The load as its unit says it: `8 users`, `0.5/s`."""
    if isinstance(level.load, ClosedLoad):
        return f"{level.load.users} user" + ("s" if level.load.users > 1 else "")
    return f"{level.load.rate_per_s:g}/s"


def quantile(metric: Metric | None, name: str) -> str:
    """A duration for people; `-` where there is none."""
    if metric is None:
        return "-"
    mark = "" if metric.interval.get(name) else UNSURE
    return mark + duration(getattr(metric, name))


def duration(seconds: float) -> str:
    """Three digits and the unit that suits: `850 µs`, `41.3 ms`, `1.62 s`."""
    for unit, scale in (("s", 1.0), ("ms", 1e3)):
        if seconds * scale >= 0.9995 or (unit == "s" and seconds == 0):
            return f"{significant(seconds * scale)} {unit}"
    return f"{significant(seconds * 1e6)} µs"


def size(amount: float) -> str:
    """Bytes for people, in powers of ten as disks are sold: `528 MB`, `4.10 GB`."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if amount >= 0.9995 * scale:
            return f"{significant(amount / scale)} {unit}"
    return f"{amount:.0f} B"


def significant(value: float) -> str:
    """Three significant digits, never as a power of ten."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    # Of the rounded value: 9.996 is 10.0, not 10.00.
    digits = max(0, 2 - math.floor(math.log10(float(f"{abs(value):.2e}"))))
    return f"{value:.{min(digits, 6)}f}"


def notes(run: Run) -> list[str]:
    """What the marks mean, as far as they were used, and what a reader must know."""
    found = []
    models = by_model(run)
    for model, levels in models.items():
        found += _bend_note(levels, f" of {model}" if len(models) > 1 else "")
    found += _load_note(run)
    shown = [metric for level in run.levels for metric in _shown(level)]
    cohorts = {
        model: _cohort_notes(levels, f" of {model}" if len(models) > 1 else "") for model, levels in models.items()
    }
    unsure = any(metric.interval.get(name) is None for metric, names in shown for name in names)
    if unsure or any(UNSURE in line for lines in cohorts.values() for line in lines):
        found.append(f"{UNSURE} too few independent requests for a 95 % interval of this quantile: measure for longer")
    for model, levels in models.items():
        found += _objective_notes(levels, f" of {model}" if len(models) > 1 else "")
        found += _course_notes(levels, f" of {model}" if len(models) > 1 else "")
        found += cohorts[model]
    found += _reason_notes(run, lambda level: level.verdict.reasons)
    found += _reason_notes(run, lambda level: level.caveats)
    for level in run.levels:
        found += _failure_notes(level, _where(level, run))
    found += equality_notes(run.outputs)
    found += _start_notes(run.models)
    found += [f"{status.model}: {status.status}: {status.reason}" for status in run.models if status.status != "ok"]
    if not run.complete:
        found.append("the run is not complete: it was stopped, or is still going on")
    return found


def _start_notes(models: Sequence[ModelStatus]) -> list[str]:
    """What it took each model to begin, as far as that was seen."""
    found = []
    for one in models:
        said = [] if one.load_s is None else [f"loaded in {duration(one.load_s)}"]
        said += [] if one.load_warm_s is None else [f"loaded again in {duration(one.load_warm_s)}"]
        if one.cold_ttft_s is not None and one.warm_ttft_s is not None:
            said.append(f"TTFT {duration(one.cold_ttft_s)} cold, {duration(one.warm_ttft_s)} warm")
        if one.kept_warm is not None:
            failed = f", of which {one.kept_warm_failed} failed" if one.kept_warm_failed else ""
            said.append(f"kept warm by {one.kept_warm} light prompts{failed}")
        if said:
            found.append(f"{one.model}: {', '.join(said)}")
    return found


def equality_notes(outputs: Sequence[OutputEquality] | None) -> list[str]:
    """What a deterministic run says of its answers: one line if all are equal, else one for each that are not."""
    compared = list(outputs or ())
    differing = [one for one in compared if not one.equal]
    if compared and not differing:
        answers = sum(one.answers for one in compared)
        models = ", ".join(dict.fromkeys(one.model for one in compared))
        return [f"answers: each of {answers} equal to the first one to its prompt, of {models}"]
    return [
        f"answers: {one.model} differs on prompt {one.prompt}: {one.distinct} texts among {one.answers} answers, "
        f"{_first_difference(one)}"
        for one in differing
    ]


def _first_difference(one: OutputEquality) -> str:
    level, number = one.first_difference or (0, 0)
    return f"first at request {number} of level {level + 1}"


def _objective_notes(levels: Sequence[LevelResult], whose: str) -> list[str]:
    """A line for each objective: what it came to at each level."""
    lines: dict[tuple[bool, str], list[str]] = {}
    for level in levels:
        for one in level.objectives:
            lines.setdefault((one.gate, one.rule), []).append(f"{load_text(level)} {_decided(one)}")
    return [
        f"{'gate' if gate else 'objective'} {rule}{whose}: {' · '.join(decided)}"
        for (gate, rule), decided in lines.items()
    ]


def _decided(one: Decided) -> str:
    seen = [] if one.value is None else [_value(one.rule, one.value)]
    if one.decision != "PASS" and one.note:
        seen.append(one.note)
    return one.decision + (f" ({', '.join(seen)})" if seen else "")


def _value(rule: str, value: float) -> str:
    """In the unit of what the rule names."""
    if rule.startswith("failures"):
        return f"{100 * value:.3g}%"
    return f"{significant(value)}/s" if ">" in rule else duration(value)


def _load_note(run: Run) -> list[str]:
    """What the rows do not say of the load: without it two tables of the same users cannot be compared."""
    first = run.levels[0].load if run.levels else None
    if isinstance(first, ClosedLoad):
        return [f"users think {first.think} between an answer and the next request"] if first.think else []
    return [f"requests come by {arrivals_text(first)}, whatever the server does"] if first else []


def arrivals_text(load: OpenLoad) -> str:
    """How its requests come, as a sentence has it."""
    return load.arrivals if " " in load.arrivals else f"{load.arrivals} arrivals"


_BARS = "▁▂▃▄▅▆▇█"


def _course_notes(levels: Sequence[LevelResult], whose: str) -> list[str]:
    """How a level went whose rate was meant to change: a bar for each part of its window."""
    return [
        f"course of {load_text(level)}{whose}: answers {bars([part.answers_per_s for part in level.course])} "
        f"(up to {significant(max(part.answers_per_s for part in level.course))}/s), "
        f"in flight {bars([part.in_flight for part in level.course])} "
        f"(up to {significant(max(part.in_flight for part in level.course))}), "
        f"mean TTFT {bars([part.ttft_mean_s for part in level.course])} "
        f"(up to {duration(max(part.ttft_mean_s or 0.0 for part in level.course))})"
        for level in levels
        if level.course
    ]


def bars(values: Sequence[float | None]) -> str:
    """Each value as a bar, from nothing to the largest; a dot where there is none."""
    most = max((value for value in values if value is not None), default=0.0) or 1.0
    return "".join(
        "·" if value is None else _BARS[min(len(_BARS) - 1, int(len(_BARS) * value / most))] for value in values
    )


def _cohort_notes(levels: Sequence[LevelResult], whose: str) -> list[str]:
    """A line for each of several personas, and one for the requests that a server should have in its cache."""
    lines: dict[str, list[str]] = {}
    for level in levels:
        for name, part in level.personas.items() if len(level.personas) > 1 else ():
            lines.setdefault(f"persona {name}{whose}", []).append(f"at {load_text(level)} {_persona(part)}")
        if level.warm is not None:
            title = f"prompts{whose} that begin with what was asked before"
            lines.setdefault(title, []).append(f"at {load_text(level)} {_warm(level.warm)}")
    return [f"{title}: {' · '.join(parts)}" for title, parts in lines.items()]


def _persona(part: PersonaShare) -> str:
    ttft, e2e = part.metrics.get("ttft_response_s"), part.metrics.get("e2e_response_s")
    times = [
        # They have no intervals; but of so few as this none could be, however little they had to do with each other.
        f"{word} p95 {UNSURE * (quantile_ranks(metric.count, 0.95) is None)}{duration(metric.p95)}"
        for word, metric in (("TTFT", ttft), ("E2E", e2e))
        if metric is not None
    ]
    return f"({', '.join([f'{part.ok} of {part.requests} ok', *times])})"


def _warm(warm: Warm) -> str:
    if warm.cached_share is None:
        return f"({warm.requests}, the server does not tell what it had cached)"
    return f"({warm.requests}, {warm.cached_share:.0%} of their tokens from the server's cache)"


def _where(level: LevelResult, run: Run) -> str:
    return load_text(level) + (f" of {level.model}" if len({one.model for one in run.levels}) > 1 else "")


def _reason_notes(run: Run, reasons: Callable[[LevelResult], Sequence[Reason]]) -> list[str]:
    """One line for each code: what it says of the first level, and which others it holds for too."""
    first: dict[str, tuple[str, Reason]] = {}
    others: dict[str, list[str]] = {}
    for level in run.levels:
        for reason in reasons(level):
            if reason.code in first:
                others.setdefault(reason.code, []).append(_where(level, run))
            else:
                first[reason.code] = (_where(level, run), reason)
    return [
        f"{where}: {reason.message}"
        + (f" (and likewise {', '.join(others[code])})" if code in others else "")
        + f"; {reason.advice}"
        for code, (where, reason) in first.items()
    ]


def _failure_notes(level: LevelResult, where: str) -> list[str]:
    """The most frequent failures in the server's own words."""
    shown = [
        f"{where}: {one.count} × {one.outcome}" + (f": {one.detail}" if one.detail else "")
        for one in level.failures[:_MOST_FAILURES]
    ]
    rest = sum(one.count for one in level.failures[_MOST_FAILURES:])
    return [*shown, f"{where}: {rest} further failures, in run.json"] if rest else shown


def _shown(level: LevelResult) -> list[tuple[Metric, tuple[str, ...]]]:
    wanted = {"ttft_s": ("p50", "p95", "p99"), "tpot_s": ("p50", "p95"), "e2e_s": ("p50", "p95")}
    return [(metric, names) for key, names in wanted.items() if (metric := level.metrics.get(key)) is not None]


def _bend_note(levels: Sequence[LevelResult], whose: str) -> list[str]:
    levels = [level for level in levels if not level.interrupted]
    at = knee(levels)
    if at is not None:
        where = load_text(levels[at])
        return [
            f"{BEND} throughput{whose} stops growing at {where}: no level beyond surely brings {WORTHWHILE:.0%} more"
        ]
    if len(levels) > 1 and levels[-1].throughput.output_tokens_per_s > 0:
        return [f"throughput{whose} still grows at {load_text(levels[-1])}: the bend lies beyond"]
    return []


def title(run: Run) -> str:
    """What was run, against what, when."""
    target = run.levels[0].target if run.levels else str(run.scenario.get("target", {}).get("url") or "")
    where = "simulated server, not a real one" if run.simulated else target
    return f"{run.name}: {where}, {run.started_at}"


def environment_line(run: Run) -> str:
    """The client's machine and how arrivals were stamped."""
    about = run.environment
    return (
        f"client: {about.get('cpu')}, {_cores(about.get('cores'))}, {about.get('python')}, "
        f"loadbench {run.loadbench_version}, stamps: {about.get('stamp_source')}"
    )


def _cores(number: object) -> str:
    return "1 usable core" if number == 1 else f"{number} usable cores"
