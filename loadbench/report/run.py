"""The report of a run: for each model a table with a row for each level, then notes.

A percentile has its 95 % interval beside it: half the width, or the ends where it is not centred, or the lower end
where nothing bounds it from above (`≥`). `~` marks a quantile that is not known to 10 %; `◄` marks the knee, where
throughput stops growing.
"""

from __future__ import annotations

import math
import re
from itertools import takewhile
from typing import TYPE_CHECKING, Literal, NamedTuple
from urllib.parse import urlsplit

import msgspec

from loadbench.analyze.level.batching import batching_sentence
from loadbench.analyze.level.knee import knee, knee_sentence, named_loads, shows_throughput, unsound_sentence
from loadbench.analyze.level.load_makers import load_makers
from loadbench.analyze.level.needed import needed_for_p95
from loadbench.analyze.level.next_users import why_enough
from loadbench.analyze.level.overload import ABOVE_CAPACITY, FAILURES, limit_sentence
from loadbench.analyze.level.verdict import CLIENT_CODES
from loadbench.analyze.stats.intervals import quantile_ranks
from loadbench.core.text import some
from loadbench.core.units import NS_PER_S, format_duration, parse_duration
from loadbench.plan.cluster import REQUESTS_ELSEWHERE, WHERE_THEY_ARE
from loadbench.plan.distribution import parse_distribution
from loadbench.plan.server_url import UNVERIFIED
from loadbench.plan.setting_types import AUTO_USERS
from loadbench.record.outcome import Outcome, failed_of, without_hint
from loadbench.report import machine
from loadbench.report.document import DETAIL, Block, Document, Heading, Notes, Table, Text
from loadbench.report.values import (
    ALONE_BEFORE,
    NOT_FASTER,
    OFF_CENTRE,
    byte_size,
    counted,
    duration,
    load_name,
    low_end,
    percent,
    reason_text,
    significant,
    spread,
    time_unit,
)
from loadbench.results.run import ClosedLoad, Reason

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadbench.results.quality import Quality
    from loadbench.results.run import (
        FailureCount,
        GroupResult,
        LevelResult,
        Metric,
        OpenInterval,
        OutputEquality,
        Run,
        ServerStart,
    )

KNEE = "◄"
UNSURE = "~"
UNKNOWN = "?"
STEADINESS = f"{UNKNOWN} whether the server was steady is unknown; gates that this level passes are undecided"
AT_LEAST = "≥"
STATUSES = ("VALID", "OVERLOADED", "INCONCLUSIVE", "INVALID")
ENDS = re.compile(r"\(\d[\d.]*–\d")
# A figure that is not known better than this should not be read to three digits.
_VAGUE = 0.1
# More kinds of failure than this hide what the first of them say.
_MOST_FAILURES = 3
# More levels in front of a note hide what it says.
_MOST_NAMED = 8
# More servers in one table hide the few that matter.
_MOST_GROUPS = 20
# The figure of an objective that has a column, as in ttft_p95<1s.
_FIGURE = re.compile(r"(ttft|tpot|e2e)_(p50|p90|p95|p99)\b")
_METRICS = {"ttft_s": "TTFT", "tpot_s": "TPOT", "e2e_s": "E2E"}
# What a narrow terminal leaves out first has the highest digit. Columns that are not named here are details.
_RANKS = {
    **dict.fromkeys(("load", "tok/s", "verdict"), "0"),
    **dict.fromkeys(("TTFT p50", "failed", "gave up"), "1"),
    **dict(zip(("TPOT p50", "goodput", "TTFT p95", "E2E p50", "E2E p95", "req/s"), "234567", strict=True)),
    "TPOT p95": "8",
}
# A value is an outlier at this many standard deviations, as hyperfine has it (10 times 1.4826 median deviations), and
# among fewer values nothing is.
_FAR, _FEWEST_FOR_OUTLIERS = 14.8, 10
# Numbers in the message of a reason, which may differ from level to level; not those in a name, a load or an address.
_NUMBER = re.compile(r"(?<![\w.,:=-])\d+(?:,\d{3})*(?:\.\d+)?(?![\w:-]|[.,]\d)")
_SHARE = re.compile(r"\b(\d+) of (\d+)\b")
_CHANGE = re.compile(r"from (\d+(?:\.\d+)?) to (\d+(?:\.\d+)?)")
# The amount that an advice gives with an option.
_AMOUNT = re.compile(r"(?<=[a-z] )(\d{1,6}(?:m\d{1,2}s|m|s)?)(?![^\s,;])")
_BARS = "▁▂▃▄▅▆▇█"
_WAS_UP = "the server was up and takes no more connections: see its log for why it ended, or was overrun"
# What the objectives of a capacity search decide instead: its probes are short on purpose, failures count as misses,
# and a probe of which the load generator's delay could have changed the result does not count.
BY_OBJECTIVES = CLIENT_CODES | {
    "too_few_answers",
    "short_warm_up",
    "not_steady",
    "steadiness_unknown",
    "no_answers",
    "aborted",
    "interrupted",
    "server_ended",
    FAILURES,
}


def run_document(run: Run, *, quality: Quality | None = None) -> Document:
    """The whole report; with the quality of the responses where it is known."""
    blocks: list[Block] = [Text([run.question])] if run.question else []
    for model, levels in by_model(run).items():
        blocks += [Heading(f"model {model}"), level_table(levels, judged=not is_search(run)), *group_tables(levels)]
        blocks += machine.tables(levels)
    blocks += map(Notes, notes(run))
    if run.imported is not None:
        from loadbench.report.imported import imported_blocks  # noqa: PLC0415 - a sweep starts sooner without it

        return Document(title(run), [*blocks, *imported_blocks(run, run.imported)])
    if quality is not None and (quality.ratings or quality.checks or quality.unrated):
        from loadbench.report.quality import quality_document  # noqa: PLC0415 - a sweep starts sooner without it

        rated = quality_document(quality)
        blocks += [Heading(rated.title), *rated.blocks]
    about = run.environment
    cores = "1 usable core" if about.get("cores") == 1 else f"{about.get('cores')} usable cores"
    environment = (
        f"load generator: {about.get('cpu')}, {cores}, {about.get('python')}, "
        f"loadbench {run.loadbench_version}, timestamps: {about.get('stamp_source')}"
    )
    costs = [level.client.cpu_per_event_s for level in run.levels if level.client.cpu_per_event_s is not None]
    if costs:
        spread = dict.fromkeys((duration(min(costs)), duration(max(costs))))
        environment += f", CPU time per event: {' to '.join(spread)}"
    programs = server_programs(run)
    served = [f"server: {programs}"] if programs else []
    makers = [f"load from {by}"] if (by := load_from(run)) else []
    if not about:
        environment = "there is no run.json: the settings and the load generator are unknown, and if it was simulated"
    return Document(title(run), [*blocks, Text([*served, *makers, environment])])


def load_from(run: Run) -> str:
    """Which workers made the load, and how well they began together; empty where the main process made it alone."""
    text, clients = load_makers(run), [level.client for level in run.levels]
    skews = [client.start_skew_s for client in clients if client.start_skew_s is not None]
    began = "; workers" if ";" in text else ", which"
    text += f"{began} began at most {duration(max(skews))} apart" if text and skews else ""
    errors = [worker.clock_error_s for client in clients for worker in client.workers]
    known = f"; their clocks are known to {duration(max(errors))}" if max(errors, default=0) > 0 else ""
    return text + known if text else ""


def server_programs(run: Run) -> str:
    """The programs that served, with their versions; of several servers with different ones, whose each is."""
    programs: dict[str, list[str]] = {}
    for server in run.servers:
        if server.program:
            programs.setdefault(server.program, []).append(server.url)
    several = len(programs) > 1
    return "; ".join(f"{program} at {some(urls, most=3)}" if several else program for program, urls in programs.items())


def title(run: Run) -> str:
    """What was run, against what, when."""
    target = (
        some(run.levels[0].targets, most=3) or run.levels[0].target
        if run.levels
        else str(run.scenario.get("target", {}).get("url") or "")
    )
    where = "simulated server, not a real one" if run.simulated else target
    return f"{run.name}: {', '.join(part for part in (where, run.started_at) if part)}"


def by_model(run: Run) -> dict[str, list[LevelResult]]:
    """The levels of each model, in the order of the run."""
    grouped: dict[str, list[LevelResult]] = {}
    for level in run.levels:
        grouped.setdefault(level.model, []).append(level)
    return grouped


def level_place(run: Run, *indexes: int) -> str:
    """Levels in a sentence: their loads, as in `users=4, 8`, and their model where the run has several."""
    beyond = [f"level {index}" for index in indexes if index >= len(run.levels)]
    if beyond:
        return ", ".join(beyond)  # the run was killed before these levels were summed up
    if len(indexes) == len(run.levels) > _MOST_NAMED:
        return "all levels"
    several = len({level.model for level in run.levels}) > 1
    loads: dict[tuple[str, str], list[str]] = {}
    for index in indexes:
        level = run.levels[index]
        kind, _, amount_text = level.load.label.partition("=")
        loads.setdefault((level.model, kind), []).append(amount_text)
    return "; ".join(
        kind
        + (f"={some(list(dict.fromkeys(amounts)), most=_MOST_NAMED)}" if any(amounts) else "")
        + (f" of {model}" if several else "")
        for (model, kind), amounts in loads.items()
    )


def level_table(levels: Sequence[LevelResult], *, judged: bool = True) -> Table:
    """A row for each level; with the goodput where there are objectives for it, and a verdict where they are `judged`
    one by one."""
    at = knee(levels)
    with_goodput = any(level.goodput is not None for level in levels)
    with_gave_up = any(level.gave_up is not None for level in levels)
    # Few samples are large enough for these intervals.
    known = {
        key
        for key in _METRICS
        for level in levels
        if (metric := level.metrics.get(key)) and None not in (metric.interval.get("p999") or (None,))
    }
    # An objective's own figure is never left out, and one that has no column otherwise gets one.
    rules = {one.rule for level in levels for one in level.objectives}
    named = {f"{match[1]} {match[2]}".upper() for rule in rules if (match := _FIGURE.match(rule))}
    rows: list[dict[str, str]] = []
    for level in levels:
        tokens, good = significant(level.throughput.output_tokens_per_s), level.goodput
        row = {
            "load": load_name(level, levels),
            "req/s": significant(level.throughput.requests_per_s),
            "tok/s": f"{tokens} {KNEE}" if at is not None and level.load == at.high else tokens,
            "in flight": significant(level.concurrency.mean),
        }
        for key, name in _METRICS.items():
            metric = level.metrics.get(key)
            points = ("p50", "p90", "p95", "p99") if f"{name} P90" in named else ("p50", "p95", "p99")
            row |= {f"{name} {point}": quantile(metric, point) for point in points}
            row |= {f"{name} p99.9": quantile(metric, "p999")} if key in known else {}
        row |= {"ok": str(level.outcomes.get("ok", 0)), "failed": str(failed_of(level.outcomes)[0])}
        row |= {"gave up": str(level.outcomes.get("gave_up", 0))} if with_gave_up else {}
        if with_goodput:
            # Responses per second that met every objective, of those of req/s; and their share of all requests.
            ok = level.outcomes.get("ok", 0)
            rate = 0.0 if good is None or not ok else level.throughput.requests_per_s * min(1.0, good.good / ok)
            row["goodput"] = "-" if good is None else f"{significant(rate)}/s, {percent(good.attainment)}"
        rows.append(row | ({"verdict": verdict(level)} if judged else {}))
    headers = tuple(rows[0]) if rows else ()
    # Failures are left out where there are none.
    ranks = _RANKS | ({} if any(failed_of(level.outcomes)[0] for level in levels) else {"failed": "5"})
    rank = "".join("0" if header.upper() in named else ranks.get(header, DETAIL) for header in headers)
    return Table(headers, [list(row.values()) for row in rows], "r" * (len(headers) - judged) + "l" * judged, rank=rank)


def group_tables(levels: Sequence[LevelResult]) -> list[Block]:
    """Tables of the models of a mix, and of the servers that share the load: a row for each of them at each level."""
    blocks: list[Block] = []
    for kind, groups in (("model", "by_model"), ("server", "by_server")):
        rows, longest = [], 0
        names = dict.fromkeys(name for level in levels for name in getattr(level, groups))
        short = _without_what_all_have(list(names)) if kind == "server" else {}
        with_gave_up = any(level.gave_up is not None for level in levels)
        for level in levels:
            shown: dict[str, GroupResult] = getattr(level, groups)
            if len(shown) > _MOST_GROUPS:
                longest = max(longest, len(shown))
                telling = sorted(shown, key=lambda name: _stands_out(shown[name]), reverse=True)[:_MOST_GROUPS]
                shown = {name: group for name, group in shown.items() if name in telling}
            for name, group in shown.items():
                metrics, throughput = group.metrics, group.throughput
                rows.append(
                    [
                        level.load.label,
                        short.get(name, name),
                        "-" if throughput is None else significant(throughput.requests_per_s),
                        "-" if throughput is None else significant(throughput.output_tokens_per_s),
                        _group_quantile(metrics.get("ttft_s"), "p50", 0.5),
                        _group_quantile(metrics.get("ttft_s"), "p95", 0.95),
                        _group_quantile(metrics.get("tpot_s"), "p50", 0.5),
                        str(group.ok),
                        str(failed_of(group.outcomes)[0]),
                        *[str(group.outcomes.get("gave_up", 0))] * with_gave_up,
                    ]
                )
        further = ("gave up",) * with_gave_up
        headers = ("load", kind, "req/s", "tok/s", "TTFT p50", "TTFT p95", "TPOT p50", "ok", "failed", *further)
        rank = "003102340" + "1" * with_gave_up
        blocks += [Table(headers, rows, "rl" + "r" * (len(headers) - 2), rank=rank)] if rows else []
        if longest:
            which = f"the {_MOST_GROUPS} with the most failures and the highest TTFT p50"
            blocks.append(Text([f"of {longest} {kind}s, {which} are shown; run.json has all of them"]))
    return blocks


def _stands_out(group: GroupResult) -> tuple[int, float]:
    ttft = group.metrics.get("ttft_s")
    return failed_of(group.outcomes)[0], 0.0 if ttft is None else ttft.p50


def _without_what_all_have(urls: Sequence[str]) -> dict[str, str]:
    """Host and port of each URL, where scheme and path are the same for all and say nothing."""
    parts = {url: urlsplit(url) for url in urls}
    alike = len({(part.scheme, part.path) for part in parts.values()}) == 1
    return {url: part.netloc if alike else url for url, part in parts.items()}


def _group_quantile(metric: Metric | None, name: str, p: float) -> str:
    """A quantile of a group, which has no interval; marked where even independent requests would be too few for one."""
    if metric is None:
        return "-"
    return UNSURE * (None in quantile_ranks(metric.count, p)) + duration(getattr(metric, name))


def level_line(level: LevelResult, *, is_probe: bool = False) -> str:
    """A level in one line, for the moment it ends. A probe of a search is judged by its objectives instead."""
    ttft = level.metrics.get("ttft_s")
    return (
        f"{significant(level.throughput.output_tokens_per_s)} tok/s, "
        f"TTFT p50 {quantile(ttft, 'p50')} p95 {quantile(ttft, 'p95')}, "
        f"{level.outcomes.get('ok', 0)} ok, {failed_of(level.outcomes)[0]} failed"
        + (f", {level.gave_up.gave_up} gave up" if level.gave_up is not None else "")
        + ("" if is_probe else f", {verdict(level)}")
    )


def is_search(run: Run) -> bool:
    """Whether the levels are probes of a capacity search, which judges them by its objectives, all together."""
    return bool(run.scenario.get("capacity"))


def reasons_of(run: Run, level: LevelResult, kind: Literal["verdict", "caveats"]) -> list[Reason]:
    """The reasons of a level's verdict, or its caveats; of a probe only those that its objectives do not settle."""
    found = level.verdict.reasons if kind == "verdict" else level.caveats
    return [reason for reason in found if not (is_search(run) and reason.code in BY_OBJECTIVES)]


def failures_of(run: Run, level: LevelResult) -> list[FailureCount]:
    """What went wrong; a search ends the requests of a probe that has shown enough, which is no failure. The advice of
    a refused connection is for a server that was never there: one that has served requests has ended since."""
    found = [one for one in level.failures if not (is_search(run) and one.outcome == Outcome.CANCELLED)]
    until = [*takewhile(lambda one: one is not level, run.levels), level]
    if len(level.targets) > 1 or not any(one.target == level.target and one.outcomes.get("ok") for one in until):
        return found
    return [
        msgspec.structs.replace(one, detail=without_hint(one.detail), advice=one.advice or _WAS_UP)
        if one.outcome == Outcome.REFUSED
        else one
        for one in found
    ]


def verdict(level: LevelResult) -> str:
    """The verdict's status, marked where it is not known whether the level was steady."""
    unknown = any(caveat.code == "steadiness_unknown" for caveat in level.caveats)
    return f"{level.verdict.status} {UNKNOWN}" if unknown else level.verdict.status


def quantile(metric: Metric | None, name: str) -> str:
    """A quantile of a duration and how well it is known; `-` where the metric is unknown. A figure that has no interval
    by its kind, as the gaps between tokens have none, stands alone."""
    if metric is None:
        return "-"
    value, interval = float(getattr(metric, name)), metric.interval.get(name)
    return duration(value) if metric.effective is None and interval is None else with_interval(value, interval)


def with_interval(seconds: float, interval: OpenInterval | None) -> str:
    """A quantile of a duration with its interval, and the mark of one that is not known well."""
    low, high = interval or (None, None)
    if low is None:
        return f"{UNSURE}{duration(seconds)}"
    scale = time_unit(seconds)[1]
    if high is None:
        return f"{UNSURE}{duration(seconds)} ({AT_LEAST}{low_end(seconds * scale, low * scale)})"
    share = (high - low) / 2 / seconds if seconds else 0.0
    known = spread(seconds, low, high, scale=scale)
    return f"{UNSURE * (share > _VAGUE)}{duration(seconds)} {known}"


def interval_notes(cells: Sequence[str], *others: str, remedy: str = "measure longer") -> list[str]:
    """What the marks of quantiles in these cells mean, and in others of which only the first mark is known; `remedy` is
    what to do about figures that are not known well."""
    lines = ["± half the width of the 95 % interval"] * any("±" in text for text in cells)
    if any(ENDS.search(text) for text in cells):
        lines.append(
            "(low–high) the ends of the 95 % interval, in the same unit: its middle is more than "
            f"{100 * OFF_CENTRE:g} % from the value, so that ± would mislead"
        )
    if any(AT_LEAST in text for text in cells):
        lines.append(f"({AT_LEAST}low) the lower end of the 95 % interval: nothing bounds the value from above")
    if any(UNSURE in text for text in (*cells, *others)):
        lines.append(f"{UNSURE} too few independent requests to know this percentile to 10 %: {remedy}")
    return lines


def _how_long(run: Run) -> str:
    """What to do about percentiles that are not known to 10 %: how long a level must be for every p95 that is shown, by
    the figures of the levels that can be believed."""
    longest_s, most, where = 0.0, 0, ""
    scenario = run.scenario.get("load", {})
    if is_search(run) or run.imported is not None or scenario.get("trace") or scenario.get("pattern"):
        return "measure longer"
    for index, level in enumerate(run.levels):
        ok = level.outcomes.get("ok", 0)
        if level.verdict.status not in {"VALID", "INCONCLUSIVE"} or not ok or level.window_s <= 0:
            continue
        for key in _METRICS:
            metric = level.metrics.get(key)
            if metric is None or not quantile(metric, "p95").startswith(UNSURE):
                continue
            needed = needed_for_p95(level, metric, within=_VAGUE)
            if needed is None:
                return "measure longer"
            seconds = level.window_s * needed / ok
            if seconds > longest_s:
                longest_s, where = seconds, level_place(run, index)
            most = max(most, needed)
    if not most:
        return "measure longer"
    step_s = next(step for step, below in ((10, 100), (30, 600), (300, 3600), (1800, math.inf)) if longest_s < below)
    length = format_duration(math.ceil(longest_s / step_s) * step_s * NS_PER_S)
    digits = 10 ** max(0, len(str(most)) - 2)
    requests = f"{math.ceil(most / digits) * digits}"
    slowest = f" ({where} takes the longest)" if len(run.levels) > 1 else ""
    return f"measure longer; about --duration {length}, or --requests {requests}, would do for every p95{slowest}"


# Notes.


def notes(run: Run) -> tuple[list[str], list[str], list[str]]:
    """(what the run shows, what is wrong and what to do about it, what the marks mean and how it was measured)."""
    models = by_model(run)
    whose = {model: f" of {model}" if len(models) > 1 else "" for model in models}
    conclusion = []
    for model, levels in models.items():
        unsound = "" if is_search(run) else unsound_sentence(levels, of=model if len(models) > 1 else "this run")
        at, sentence = knee(levels), unsound or knee_sentence(levels, whose=whose[model])
        # Nobody asked a search for a knee: only one that its loads show is worth a line.
        sentence = "" if is_search(run) and (at is None or at.high is None) else sentence
        mark = f"{KNEE} " if at is not None and at.high is not None else ""
        conclusion += [f"{mark}{sentence}"] if sentence else []
        sentence = batching_sentence(levels, whose=f"the server of {model}" if len(models) > 1 else "this server")
        conclusion += [sentence] if sentence else []
        if run.scenario.get("load", {}).get("users") == "auto" and run.complete:
            ended = {"aborted", "interrupted", "server_ended"} & {one.code for one in levels[-1].verdict.reasons}
            enough = why_enough(levels, most=AUTO_USERS[-1]) or "the time of --max-total was spent" * (not ended)
            conclusion += [f"--users auto ended at {levels[-1].load.label}{whose[model]}: {enough}"] if enough else []
        sentence = limit_sentence(levels)
        conclusion += [f"{model}: {sentence}" if len(models) > 1 else sentence] if sentence else []
    for model, levels in () if is_search(run) else models.items():
        conclusion += _objective_notes(levels, whose[model])
    # A line of the model has its first tokens, cold and warm.
    started = start_text(run.server_start, first_tokens=all(one.warm_ttft_s is None for one in run.models))
    conclusion += [f"started by loadbench: {started}"] if started else []

    problems = [] if run.complete else ["the run is not complete: it was stopped or is still running"]
    problems += [f"{status.model}: {status.status}: {status.reason}" for status in run.models if status.status != "ok"]
    problems += [*_reason_notes(run, "verdict"), *_failure_notes(run), *_reason_notes(run, "caveats")]
    problems += [*_outlier_notes(run), *_cold_notes(run)]
    problems += [UNVERIFIED] if run.scenario.get("target", {}).get("insecure") else []

    # The rows show neither think times nor arrivals, and tables of equal loads compare only where these are equal.
    details = []
    load = run.levels[0].load if run.levels else None
    if isinstance(load, ClosedLoad) and load.think:
        details.append(f"users think {load.think} between a response and their next request")
    elif load is not None and not isinstance(load, ClosedLoad):
        arrivals = load.arrivals if " " in load.arrivals else f"{load.arrivals} arrivals"
        details.append(
            f"open loop: requests are sent on schedule ({arrivals}), however fast the server responds: "
            "latencies from due (ttft_response_s, e2e_response_s) are free of coordinated omission"
        )
    shares = [line for model, levels in models.items() for line in _share_notes(levels, whose[model])]
    cells = [
        quantile(level.metrics.get(key), name)
        for level in run.levels
        for key in _METRICS
        for name in ("p50", "p95", "p99")
    ]
    groups = [block for levels in models.values() for block in group_tables(levels) if isinstance(block, Table)]
    marked = [cell for table in groups for row in table.rows for cell in row[2:] if cell.startswith(UNSURE)]
    details += interval_notes(cells, *shares, *marked, remedy=_how_long(run))
    for model, levels in models.items():
        details += _own_window_notes(levels, whose[model])
    if groups or any(len(level.personas) > 1 for level in run.levels):
        details.append(
            f"figures of one model, server or persona have no interval; {UNSURE} is at those whose requests would be "
            "too few for one even if they were independent"
        )
    if not is_search(run) and any(UNKNOWN in verdict(level) for level in run.levels):
        details.append(STEADINESS)
    cut = sum(level.outcomes.get(Outcome.CANCELLED, 0) for level in run.levels) if is_search(run) else 0
    if cut:
        details.append(f"{counted(cut, 'request')} ended by the search once it knew enough; this is no failure")
    for model, levels in models.items():
        details += _gave_up_notes(levels, whose[model])
        details += [_timeline_note(level, whose[model]) for level in levels if level.course]
    details += [*shares, *_request_notes(run), *equality_notes(run.outputs or ()), *_model_notes(run)]
    far = run.levels_elsewhere
    of = f" (those of {level_place(run, *far)})" if len(far) < len(run.levels) else ""
    details += [f"{REQUESTS_ELSEWHERE}{of}; {WHERE_THEY_ARE}"] if far else []
    return conclusion, problems, [*details, *machine.notes(run)]


def _own_window_notes(levels: Sequence[LevelResult], whose: str) -> list[str]:
    """Lines on the levels whose latencies go on changing after their window, which no interval of theirs includes.

    In a closed loop with think time, the queue has its length only after every user has come round; where more requests
    arrive than complete, it has none. Elsewhere the reasons of the verdict say that a level was not steady.
    """
    short, growing, long_run = [], [], []
    alone = [level for level in levels if isinstance(level.load, ClosedLoad) and level.load.think is None]
    sound = [level for level in alone if shows_throughput(level) and level.throughput.requests_per_s > 0]
    most = max(sound, key=lambda level: level.load.amount, default=None)
    for level in levels:
        e2e, load = level.metrics.get("e2e_s"), level.load
        if e2e is None or not any(metric.interval for metric in level.metrics.values() if metric is not None):
            continue
        if not isinstance(load, ClosedLoad):
            growing += [load.label] if ABOVE_CAPACITY in level.verdict.load_evidence else []
            continue
        try:
            think_s = parse_distribution(load.think or "0", parse_value=parse_duration).mean / NS_PER_S
        except ValueError:
            continue
        if not think_s or level.window_s >= think_s + e2e.mean:
            continue
        short.append(load.label)
        # By Little's law, with the throughput that the server keeps up.
        later_s = 0.0 if most is None else load.users / most.throughput.requests_per_s - think_s
        if later_s > (1 + _VAGUE) * e2e.mean:
            long_run.append((load.users, f"{load.label} {duration(later_s)} (here {duration(e2e.mean)})"))
    lines, own = [], "those of their window alone"
    if short:
        lines.append(
            f"intervals of {named_loads(short)}{whose}: {own}, which is shorter than a user takes for a response and "
            "the think time, so that the queue may go on growing or shrinking after it"
        )
    if long_run and most is not None:
        rate = f"{significant(most.throughput.requests_per_s)} requests/s of {most.load.label} without think time"
        times = some([text for _, text in sorted(long_run, reverse=True)], most=_MOST_NAMED)
        lines[-1] += (
            f"; in the long run a mean response takes users / (requests/s) less the think time, at the {rate}: "
        )
        lines[-1] += times
    if growing:
        lines.append(
            f"intervals of {named_loads(growing)}{whose}: {own}; more requests arrive than complete, so that "
            "latencies grow as long as the load goes on"
        )
    return lines


def _outlier_notes(run: Run) -> list[str]:
    """A line where single responses were far beyond all others: something else happened there than load."""
    found: dict[str, list[int]] = {}
    worst: dict[str, float] = {}
    for index, level in enumerate(run.levels):
        for key, name in (("ttft_s", "first token"), ("tpot_s", "time per output token")):
            metric = level.metrics.get(key)
            if metric is None or metric.count < _FEWEST_FOR_OUTLIERS or metric.p50 <= 0:
                continue
            # The 90th percentile of normal values is 1.28 standard deviations above their median.
            deviation = (metric.p90 - metric.p50) / 1.2816
            if metric.max > metric.p50 + _FAR * deviation and metric.max > 2 * metric.p50:
                found.setdefault(name, []).append(index)
                worst[name] = max(worst.get(name, 0.0), metric.max / metric.p50)
    causes = "look for other programs, a cold cache or a pause of the server"
    return [
        f"{level_place(run, *places)}: outliers: the slowest {name} is {significant(worst[name])} times the median; "
        f"{causes}"
        for name, places in found.items()
    ]


def _cold_notes(run: Run) -> list[str]:
    """A line for each model whose first response was much slower: its first user waits as long."""
    notes = []
    for status in run.models:
        cold_s, warm_s = status.cold_ttft_s, status.warm_ttft_s
        if cold_s is not None and warm_s is not None and cold_s > 3 * warm_s and cold_s - warm_s > 0.5:
            slow = f"the first response was slow: TTFT {duration(cold_s)} cold, {duration(warm_s)} warm"
            notes.append(f"{status.model}: {slow}; levels are measured warm, and whoever comes first waits as long")
    return notes


def _objective_notes(levels: Sequence[LevelResult], whose: str) -> list[str]:
    """A line for each objective: the decision and the value at each level. A capacity search decides by other rules."""
    lines: dict[tuple[bool, str], list[str]] = {}
    for level in levels:
        for decided in level.objectives:
            parts = []
            if decided.value is not None and decided.rule.startswith("failures"):
                parts.append(percent(decided.value))
            elif decided.value is not None:
                is_rate = ">" in decided.rule
                parts.append(f"{significant(decided.value)}/s" if is_rate else duration(decided.value))
            if decided.decision != "PASS" and decided.note:
                parts.append(decided.note)
            if level.verdict.status == "INVALID" and decided.decision in {"PASS", "FAIL"}:
                parts.append("INVALID level")
            text = f"{level.load.label} {decided.decision}" + (f" ({', '.join(parts)})" if parts else "")
            lines.setdefault((decided.gate, decided.rule), []).append(text)
    return [
        f"{'gate' if gate else 'objective'} {rule}{whose}: {' · '.join(texts)}" for (gate, rule), texts in lines.items()
    ]


def _gave_up_notes(levels: Sequence[LevelResult], whose: str) -> list[str]:
    """A line on the users with limited patience, and one on what the server did after some had left."""
    users, server = [], []
    for level in levels:
        gave_up = level.gave_up
        if gave_up is None:
            continue
        text = f"{level.load.label} {gave_up.gave_up} of {gave_up.impatient} gave up"
        if gave_up.gave_up:
            before = gave_up.before_first_token
            early = f"{before} before the first token, " if before else ""
            text += f" ({early}{counted(gave_up.output_tokens, 'token')} received until then)"
            after = gave_up.server
            did = {True: "went on", False: "stopped", None: "unknown"}[None if after is None else after.went_on]
            unread = "" if after is None else f" ({after.unread} tokens unread, about {after.remaining} were to come)"
            server.append(f"{level.load.label} {did}{unread}")
        users.append(text)
    lines = [f"users with limited patience{whose}: {' · '.join(users)}"] if users else []
    return lines + ([f"the server after they had left{whose}, by its counter: {' · '.join(server)}"] if server else [])


def _timeline_note(level: LevelResult, whose: str) -> str:
    """How a level with a planned change of rate went: a bar for each part of its window."""
    rates = [part.answers_per_s for part in level.course]
    in_flight = [part.in_flight for part in level.course]
    ttft = [part.ttft_mean_s for part in level.course]
    return (
        f"timeline of {level.load.label}{whose}: responses {bars(rates)} (up to {significant(max(rates))}/s), "
        f"in flight {bars(in_flight)} (up to {significant(max(in_flight))}), "
        f"mean TTFT {bars(ttft)} (up to {duration(max(value or 0.0 for value in ttft))})"
    )


def bars(values: Sequence[float | None]) -> str:
    """Each value as a bar, from 0 to the largest; a dot for a value that is unknown."""
    most = max((value for value in values if value is not None), default=0.0) or 1.0
    return "".join(
        "·" if value is None else _BARS[min(len(_BARS) - 1, int(len(_BARS) * value / most))] for value in values
    )


def _share_notes(levels: Sequence[LevelResult], whose: str) -> list[str]:
    """A line for each of several personas, and one for requests that a prefix cache should have served."""
    lines: dict[str, list[str]] = {}
    for level in levels:
        for name, share in level.personas.items() if len(level.personas) > 1 else ():
            parts = [f"{share.ok} of {share.requests} ok"]
            for word, key in (("TTFT", "ttft_response_s"), ("E2E", "e2e_response_s")):
                metric = share.metrics.get(key)
                if metric is not None:
                    parts.append(f"{word} p95 {_group_quantile(metric, 'p95', 0.95)}")
            lines.setdefault(f"persona {name}{whose}", []).append(f"{level.load.label} ({', '.join(parts)})")
        if level.warm is not None:
            share_text = "the server does not report cached tokens"
            if level.warm.cached_share is not None:
                share_text = f"{percent(level.warm.cached_share)} of their input tokens from the server's cache"
            lines.setdefault(f"requests{whose} whose prefix was sent before", []).append(
                f"{level.load.label} ({level.warm.requests}, {share_text})"
            )
    return [f"{title}: {' · '.join(parts)}" for title, parts in lines.items()]


class MergedReason(NamedTuple):
    """A verdict's reason or a caveat of the levels `places`. Where its figures differ from level to level, its message
    has their ranges; where its words do too, they are those of the worst level, which `figures_of` names."""

    reason: Reason
    places: list[int]
    figures_of: str = ""

    def text(self, run: Run) -> str:
        """What is known, with its levels and its code."""
        where = level_place(run, *sorted(self.places)) + (f" (figures of {self.figures_of})" if self.figures_of else "")
        return f"{where}: {reason_text(self.reason.message, self.reason.code)}"


def merged_reasons(run: Run, kind: Literal["verdict", "caveats"]) -> list[tuple[str, MergedReason]]:
    """The reasons of each verdict with its status, or the caveats with the word `note`; one for each code and advice,
    so that every level has its own."""
    found: dict[tuple[int, str, str], dict[Reason, list[int]]] = {}
    for index, level in enumerate(run.levels):
        seen = set()
        # Levels of a search have no verdict.
        judged = kind == "verdict" and not is_search(run)
        order = STATUSES.index(level.verdict.status) if judged else len(STATUSES)
        for reason in reasons_of(run, level, kind):
            # A level may have a reason twice, as for two models of a mix.
            key = reason.message if reason.code in seen else reason.code
            seen.add(reason.code)
            advice = _AMOUNT.sub("#", reason.advice)
            found.setdefault((order, key, advice), {}).setdefault(reason, []).append(index)
    lines = []
    for (order, *_), reasons in sorted(found.items(), key=lambda one: one[0][0]):
        groups = [reasons]
        if len(set(map(_badness, reasons))) == 1:
            # None is worse than the others: those with the same words have one line.
            by_words: dict[str, dict[Reason, list[int]]] = {}
            for reason, places in reasons.items():
                by_words.setdefault(_NUMBER.sub("#", reason.message), {})[reason] = places
            groups = [*by_words.values()]
        lines += [((*STATUSES, "note")[order], _merged(run, group)) for group in groups]
    return lines


def _merged(run: Run, reasons: dict[Reason, list[int]]) -> MergedReason:
    """Reasons of one code, whose advice differs in its amounts at most, with their levels, as one."""
    places = [index for indexes in reasons.values() for index in indexes]
    chosen, figures_of, messages = next(iter(reasons)), "", [one.message for one in reasons]
    words = {_NUMBER.sub("#", message) for message in messages}
    message = chosen.message
    shares = {share for text in messages for share in _SHARE.findall(text)}
    # The ends of `5 to 9 of 12 to 20` belong to no level.
    if len(words) == 1 and not any("# to #" in text for text in words) and len({of for _, of in shares}) < 2:
        columns = zip(*map(_NUMBER.findall, messages), strict=True)
        ordered = [sorted(set(column), key=lambda text: float(text.replace(",", ""))) for column in columns]
        ranges = iter([" to ".join(dict.fromkeys((column[0], column[-1]))) for column in ordered])
        message = _NUMBER.sub(lambda _: next(ranges), message)
    elif len(set(messages)) > 1:
        chosen = max(reasons, key=_badness)
        message, figures_of = chosen.message, f"{level_place(run, *reasons[chosen])}, the worst"
    # The most is enough for all.
    advice = max((one.advice for one in reasons), key=_most)
    return MergedReason(Reason(chosen.code, message, advice), places, figures_of)


def _badness(reason: Reason) -> tuple[float, int]:
    """How bad it is, next to others of its code: by what changed the most, or else by the share of what it is of, or by
    what its advice takes."""
    ratios = [float(b) / float(a) for a, b in _CHANGE.findall(reason.message) if float(a) > 0]
    ratios = [max(ratio, 1 / ratio) for ratio in ratios if ratio]
    ratios += [float(some_of) / float(all_of) for some_of, all_of in _SHARE.findall(reason.message) if float(all_of)]
    return max(ratios, default=0.0), _most(reason.advice)


def _most(advice: str) -> int:
    """The largest amount in an advice."""
    return max(map(_amount, _AMOUNT.findall(advice)), default=0)


def _amount(text: str) -> int:
    return int(text) if text.isdigit() else parse_duration(text)


def _reason_notes(run: Run, kind: Literal["verdict", "caveats"]) -> list[str]:
    return [f"{word}: {one.text(run)}; {one.reason.advice}" for word, one in merged_reasons(run, kind)]


def _failure_notes(run: Run) -> list[str]:
    """A line for each kind of failure, with its levels; and for each level with more kinds than are named."""
    counts: dict[tuple[str, str, str], dict[int, int]] = {}
    further = []
    for index, level in enumerate(run.levels):
        failures = failures_of(run, level)
        for failure in failures[:_MOST_FAILURES]:
            counts.setdefault((failure.outcome, failure.detail, failure.advice), {})[index] = failure.count
        more = sum(failure.count for failure in failures[_MOST_FAILURES:])
        if more:
            further.append(f"{level_place(run, index)}: {more} further failure{'s'[: more > 1]}, see run.json")
    lines, advised = [], {""}
    for (outcome, detail, advice), levels in counts.items():
        what = f"{sum(levels.values())} × {outcome}" + (f": {detail}" if detail else "")
        lines.append(f"{level_place(run, *levels)}: {what}" + ("" if advice in advised else f" → {advice}"))
        advised.add(advice)
    return lines + further


def _request_notes(run: Run) -> list[str]:
    """How requests were adapted to the server, and whether it was told to keep to the requested lengths."""
    lines = []
    for one in run.adapted:
        done = f"was sent as {one.to!r}" if one.to is not None else "was not sent"
        since = f", from {level_place(run, one.from_level)} on" if one.from_level else ""
        lines.append(f"requests: {one.field!r} {done}{since}, because the server refuses it: {one.words}")
    if run.exact_output is not None:
        fields = " and ".join(run.exact_output.fields)
        trial = "had the requested length" if run.exact_output.kept else "had another length"
        by = f"requested with {fields}; a trial response {trial}"
        lines.append(f"--exact-output: {by if fields else 'the server has no field for it, as a trial showed'}")
    return lines


def equality_notes(outputs: Sequence[OutputEquality]) -> list[str]:
    """Whether a deterministic run gave equal texts: a line if all are equal, else one for each prompt that differs."""
    differing = [output for output in outputs if not output.equal]
    if outputs and not differing:
        models = ", ".join(dict.fromkeys(output.model for output in outputs))
        number = sum(output.answers for output in outputs)
        return [f"response texts: all {number} equal the first one to the same prompt ({models})"]
    lines = []
    for output in differing:
        level, number = output.first_difference or (0, 0)
        lines.append(
            f"response texts: {output.model} differs on prompt {output.prompt}: {output.distinct} texts in "
            f"{output.answers} responses, first at request {number} of level {level + 1}"
        )
    return lines


def start_text(start: ServerStart | None, *, first_tokens: bool = True) -> str:
    """How long a server that loadbench started took until it served, and how much memory; empty for another one."""
    if start is None or start.ready_s is None:
        return ""
    parts = [f"ready {duration(start.ready_s)} after its start"]
    if start.first_response_s is not None:
        parts.append(f"first response after {duration(start.first_response_s)}")
    if first_tokens and start.cold_ttft_s is not None and start.warm_ttft_s is not None:
        parts.append(f"first token in {duration(start.cold_ttft_s)} cold, {duration(start.warm_ttft_s)} warm")
    memory = [
        f"{byte_size(size)} {when}"
        for size, when in ((start.memory_loaded_bytes, "after loading"), (start.memory_peak_bytes, "at most"))
        if size is not None
    ]
    several = f" of its {start.processes} processes, shared pages counted in each:" * ((start.processes or 1) > 1)
    parts += [f"memory{several} {', '.join(memory)}"] if memory else []
    return "; ".join(parts)


def _model_notes(run: Run) -> list[str]:
    """How each model started, as far as that is known."""
    lines = []
    for status in run.models:
        parts = [] if status.load_s is None else [f"loaded in {duration(status.load_s)}"]
        parts += [] if status.load_warm_s is None else [f"loaded again in {duration(status.load_warm_s)}"]
        if status.cold_ttft_s is not None and status.warm_ttft_s is not None:
            whose = f" of {status.mix[0].model}" if status.mix else ""
            parts.append(f"TTFT{whose} {duration(status.cold_ttft_s)} cold, {duration(status.warm_ttft_s)} warm")
            slower = f"; {NOT_FASTER}" if status.warm_ttft_s >= status.cold_ttft_s else ""
            parts[-1] += f" (the run's first request and a later one of the same length, {ALONE_BEFORE}{slower})"
        if status.kept_warm is not None:
            failures = f", of which {status.kept_warm_failed} failed" if status.kept_warm_failed else ""
            parts.append(f"kept warm by {counted(status.kept_warm, 'small request')}{failures}")
        if parts:
            lines.append(f"{status.model}: {', '.join(parts)}")
    return lines
