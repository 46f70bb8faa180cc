"""What a page shows of a run: what was requested, the conclusion, charts, tables, and every level in time.

The tables and notes are those of the text report (`report/run.py`); a page adds what takes room.
"""

from __future__ import annotations

from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING

from loadbench.analyze.level.batching import batching_sentence
from loadbench.analyze.level.by_prompt import by_prompt
from loadbench.analyze.level.knee import (
    knee,
    knee_sentence,
    knee_tile,
    named_with_verdict,
    shows_throughput,
    unsound_sentence,
)
from loadbench.analyze.level.machine import faster_alone
from loadbench.analyze.level.over_time import over_time
from loadbench.core.errors import BadInput
from loadbench.core.secrets import MASK
from loadbench.core.text import some
from loadbench.core.units import NS_PER_S, parse_duration
from loadbench.plan.cluster import REQUESTS_ELSEWHERE
from loadbench.record.outcome import failed_of
from loadbench.report import machine
from loadbench.report.by_prompt import by_prompt_document
from loadbench.report.document import Block, Choice, Document, Heading, Notes, Table, Text, Tiles
from loadbench.report.run import (
    STATUSES,
    UNKNOWN,
    MergedReason,
    by_model,
    failures_of,
    group_tables,
    is_search,
    level_place,
    level_table,
    load_from,
    merged_reasons,
    notes,
    server_programs,
    start_text,
    verdict,
)
from loadbench.report.run_charts import (
    distribution_charts,
    latency_charts,
    median_charts,
    throughput_chart,
    timeline,
    trade_off_chart,
)
from loadbench.report.terms import TERMS
from loadbench.report.values import alone_text, byte_size, counted, duration, significant
from loadbench.results.quality import read_quality
from loadbench.results.readings import read_readings
from loadbench.results.requests import read_requests

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from loadbench.results.run import LevelResult, ModelStatus, Run

# A file of more requests would be read for minutes; the levels in time are then left out, and the page says so.
_MOST_BYTES = 1 << 30
# The terms that a page explains, and how it writes them.
_WORDS = {
    "ttft": "TTFT",
    "tpot": "TPOT",
    "itl": "ITL",
    "e2e": "E2E",
    "output_tokens_per_s": "output tokens/s",
    "concurrency": "in flight",
    "knee": "knee",
    "interval": "interval",
    "window": "window",
}


def run_page(run: Run, folder: Path | None) -> Document:
    """The page of a run; without a folder, of what `run.json` has."""
    what = "loadbench replay" if run.scenario.get("load", {}).get("trace") else "loadbench sweep"
    if run.imported is not None:
        what = f"measured by {run.imported.tool}, not by loadbench"
    title = f"{run.name or 'run'}"
    blocks: list[Block] = [Text([f"{what} · {when(run.started_at)}"])] if run.started_at else []
    return Document(title, [*blocks, *summary(run), *run_blocks(run, folder), *words()])


def when(started_at: str) -> str:
    """A time as people read it; as it stands where it is none."""
    try:
        return datetime.fromisoformat(started_at).strftime("%Y-%m-%d %H:%M UTC")
    except ValueError:
        return started_at


def summary(run: Run) -> list[Block]:
    """The conclusion and the figures that matter most."""
    blocks: list[Block] = []
    blocks += [Text([f"Question: {run.question}"])] if run.question else []
    blocks.append(Text(conclusion(run)))
    return [*blocks, Tiles(_tiles(run)), *_models(run)]


def run_blocks(run: Run, folder: Path | None, *, charts: Sequence[Block] | None = None) -> list[Block]:
    """Everything below the summary; with these charts of loads, if they are given, else with those of all levels."""
    models, judged = by_model(run), not is_search(run)
    blocks: list[Block] = [Heading("What was requested"), requested(run)]
    if charts is None:
        charts = [*load_charts(models, judged=judged), *distributions(models, judged=judged)]
    blocks += charts
    blocks += [Heading("All levels")]
    for model, found in models.items():
        blocks += [Text([f"model {model}"])] if len(models) > 1 else []
        blocks += [level_table(found, judged=judged), *_other_tables(found)]
    blocks += [*verdicts(run)]
    if any(failures_of(run, level) for level in run.levels):
        blocks += [Heading("Failures"), _failures(run)]
    times = _in_time(run, folder)
    blocks += [Heading("A level in time"), *times] if times else []
    prompts = _prompts(run, folder)
    blocks += [Heading("By prompt"), *prompts] if prompts else []
    quality = None if folder is None else read_quality(folder)
    if quality is not None and (quality.ratings or quality.checks or quality.unrated):
        from loadbench.report.quality import quality_document  # noqa: PLC0415 - few runs are rated

        blocks += [Heading("Quality of the responses"), *quality_document(quality).blocks]
    if run.imported is not None:
        from loadbench.report.imported import imported_blocks  # noqa: PLC0415 - few runs are imported

        blocks += imported_blocks(run, run.imported)
    return [*blocks, Heading("Notes"), *map(Notes, further_notes(run))]


def load_charts(models: Mapping[str, Sequence[LevelResult]], *, judged: bool) -> list[Block]:
    """Throughput and latencies over the load."""
    if not any(models.values()):
        return []
    blocks: list[Block] = [Heading("Throughput and latency")]
    blocks += [throughput_chart(models, judged=judged), trade_off_chart(models, judged=judged)]
    blocks += median_charts(models, judged=judged) if len(models) > 1 else []
    return [*blocks, *_of_each(models, partial(latency_charts, judged=judged))]


def distributions(models: Mapping[str, Sequence[LevelResult]], *, judged: bool) -> list[Block]:
    """The distributions at each load."""
    charts = _of_each(models, partial(distribution_charts, judged=judged)) if any(models.values()) else []
    return [Heading("Distributions"), *charts] if charts else []


def further_notes(run: Run) -> list[list[str]]:
    """The notes of other media without the reasons, which have a table on a page."""
    said = [f"{word}: {one.text(run)}" for word, one in _all_reasons(run)]
    return [[line for line in lines if not any(map(line.startswith, said))] for lines in notes(run)]


def words(*more: str) -> list[Block]:
    """What the figures of a page are, for readers who did not measure; with `more` terms."""
    texts = {term.name: term.text.replace("`", "") for term in TERMS}
    shown = {name: name for name in more} | _WORDS
    return [Heading("Words"), Table((), [(word, texts[name]) for name, word in shown.items() if name in texts], "ll")]


def conclusion(run: Run) -> list[str]:
    """The highest throughput that is worth its load, and what a user waits there, in one sentence; of several models
    that of the fastest, since a table has the others. Where no level counts, that comes first."""
    models, judged = by_model(run), not is_search(run)
    chosen = {model: _chosen(levels) for model, levels in models.items()}
    of_run = unsound_sentence(run.levels) if judged else ""
    lines = [f"{of_run[0].upper()}{of_run[1:]}."] if of_run else []
    for model in _fastest_first(chosen)[:1]:
        best, at = chosen[model], knee(models[model])
        rate = best.throughput.output_tokens_per_s
        interval = best.throughput.interval.get("output_tokens_per_s")
        between = f" ({significant(interval[0])} to {significant(interval[1])})" if interval else ""
        most = f"Of {len(models)} models, {model} has the highest throughput:" if len(models) > 1 else f"{model} gives"
        text = f"{most} {significant(rate)} output tokens/s{between} at {_load(best)}{alone_text(faster_alone(best))}"
        if at is not None and at.high is not None:
            text += f" (the knee, where throughput stops growing, is {at.where})"
        ttft = best.metrics.get("ttft_s")
        if ttft is not None:
            low, high = ttft.interval.get("p95") or (None, None)
            at_least = f", {duration(low)} or more" if low is not None and high is None else ""
            text += f"; the first token then comes after {duration(ttft.p50)} (median), "
            text += f"{duration(ttft.p95)} (p95{at_least})"
        text += "" if shows_throughput(best) else f" (this level is {best.verdict.status} and decides nothing)"
        failed, of = failed_of(best.outcomes, best.missed)
        text += f"; {failed} of {counted(of, 'request')} failed" if failed else ""
        lines.append(f"{text}.")
        sentence = "" if of_run else knee_sentence(models[model], whose=f" of {model}" if len(models) > 1 else "")
        if sentence and (at is None or at.high is None or at.beyond):
            lines.append(f"{sentence[0].upper()}{sentence[1:]}.")
        sentence = batching_sentence(
            models[model], whose=f"The server of {model}" if len(models) > 1 else "This server"
        )
        lines += [f"{sentence}."] if sentence else []
    if run.simulated:
        lines.append("This is the simulated server of loadbench, not a real one.")
    out = [level for level in run.levels if judged and not shows_throughput(level)]
    if out and not of_run:
        verb = "does" if len(out) == 1 else "do"
        which = f"{len(out)} of {counted(len(run.levels), 'level')} {verb} not count ({named_with_verdict(out)})"
        lines.append(f"{which}: see the verdicts below.")
    if not run.levels:
        lines.append("No level was measured.")
    if not run.complete:
        lines.append("The run is not complete: it was stopped or is still running.")
    return lines


def _chosen(levels: Sequence[LevelResult]) -> LevelResult:
    """The level at the knee, or the one with the highest throughput of those that can be believed."""
    sound = [level for level in levels if shows_throughput(level)] or list(levels)
    at = knee(levels)
    most = max(sound, key=lambda level: level.throughput.output_tokens_per_s)
    return most if at is None else next((level for level in sound if level.load == at.high), most)


def _fastest_first(chosen: Mapping[str, LevelResult]) -> list[str]:
    """The models by throughput; those of which no level counts are the last."""
    return sorted(
        chosen, key=lambda model: (not shows_throughput(chosen[model]), -chosen[model].throughput.output_tokens_per_s)
    )


def _models(run: Run) -> list[Block]:
    """A row for each of several models, the fastest first."""
    rows = []
    models = by_model(run)
    chosen = {model: _chosen(levels) for model, levels in models.items()}
    for model in _fastest_first(chosen):
        level, at = chosen[model], knee(models[model])
        ttft, tpot = level.metrics.get("ttft_s"), level.metrics.get("tpot_s")
        rows.append(
            [
                model,
                level.verdict.status,
                significant(level.throughput.output_tokens_per_s),
                level.load.label,
                "-" if at is None or at.high is None else at.high.label,
                *(["-"] * 2 if ttft is None else [duration(ttft.p50), duration(ttft.p95)]),
                "-" if tpot is None else duration(tpot.p50),
                str(failed_of(level.outcomes, level.missed)[0]),
            ]
        )
    headers = ("model", "verdict", "output tokens/s", "at", "knee", "TTFT p50", "TTFT p95", "TPOT p50", "failed")
    return [Table(headers, rows, "llrrrrrrr")] if len(rows) > 1 else []


def levels_of_runs(runs: Sequence[tuple[str, Run]]) -> list[Block]:
    """The throughput and latencies of several runs in common charts: a line for each run and model."""
    lines: dict[str, list[LevelResult]] = {}
    for name, run in runs:
        for model, levels in by_model(run).items():
            lines[f"{name}: {model}" if len(by_model(run)) > 1 else name] = levels
    if not lines:
        return []
    return [throughput_chart(lines), trade_off_chart(lines), *median_charts(lines)]


def _load(level: LevelResult) -> str:
    """A load in a sentence."""
    kind, _, number = level.load.label.partition("=")
    return counted(int(number), "user") if kind == "users" else f"{number} requests/s"


def _tiles(run: Run) -> list[tuple[str, str, str]]:
    if not run.levels:
        return []
    tiles = []
    sound = [level for level in run.levels if is_search(run) or shows_throughput(level)]
    best = max(sound, key=lambda level: level.throughput.output_tokens_per_s, default=None)
    if best is not None:
        whose = f" ({best.model})" if len(by_model(run)) > 1 else ""
        rate = f"{significant(best.throughput.output_tokens_per_s)} tok/s"
        tiles.append(("highest throughput", rate, f"at {_load(best)}{whose}{alone_text(faster_alone(best))}"))
    if len(by_model(run)) == 1:
        tile = knee_tile(run.levels)
        tiles += [("knee", *tile)] if tile is not None else []
    first = min(sound, key=lambda level: (level.verdict.status == "OVERLOADED", level.load.amount), default=None)
    if first is not None and (ttft := first.metrics.get("ttft_s")) is not None:
        doubt = "" if first.verdict.status == "VALID" or is_search(run) else f", {first.verdict.status}"
        lowest = "lowest load that counts" if len(sound) < len(run.levels) else "lowest load"
        tiles.append((f"first token, {lowest}", duration(ttft.p50), f"median at {_load(first)}{doubt}"))
    counts = {status: sum(level.verdict.status == status for level in run.levels) for status in STATUSES}
    others = ", ".join(f"{count} {status}" for status, count in counts.items() if count and status != "VALID")
    if not others and any(one.code == "steadiness_unknown" for level in run.levels for one in level.caveats):
        others = "whether the server was steady is not known for all (?)"
    else:
        others = f"{others}: see the verdicts" if others else "the figures can be used"
    unknown = sum(UNKNOWN in verdict(level) for level in run.levels if level.verdict.status == "VALID")
    if unknown and not is_search(run):
        others += f"; whether the server was steady is unknown at {unknown} (VALID {UNKNOWN})"
    tiles.append(("VALID levels", f"{counts['VALID']} of {len(run.levels)}", others))
    failed, of = map(sum, zip(*(failed_of(level.outcomes, level.missed) for level in run.levels), strict=True))
    tiles.append(("failed requests", f"{failed:,}", f"of {of:,}"))
    return tiles


def _text_of(label: str) -> str:
    kind, _, number = label.partition("=")
    return f"{number} {'users' if kind == 'users' else 'requests/s'}"


def _windows_text(windows: Sequence[float], given: object) -> str:
    """How long the windows were; nothing more is to be said where all of them lasted as long as was requested."""
    if not windows or (
        isinstance(given, str) and all(abs(one * NS_PER_S / parse_duration(given) - 1) < 0.01 for one in windows)
    ):
        return ""
    return f"window of {' to '.join(dict.fromkeys((duration(min(windows)), duration(max(windows)))))}"


def requested(run: Run) -> Table:
    """What was asked of whom, from where: everything that the run records of it, as far as it is known."""
    parts: dict[str, dict[str, object]] = {name: dict(values) for name, values in run.scenario.items()}
    target, load, work = (parts.get(name, {}) for name in ("target", "load", "work"))
    about = run.environment
    rows: list[tuple[str, str]] = []

    def add(name: str, *values: object) -> None:
        text = ", ".join(str(value) for value in values if value or (value == 0 and value is not False))
        if text:
            rows.append((name, text))

    servers = list(dict.fromkeys(url for level in run.levels for url in (level.targets or [level.target])))
    add(
        "server",
        "simulated server, not a real one" if run.simulated else "",
        some(servers, most=5) or target.get("url"),
    )
    add("profile", target.get("profile") if run.simulated else None)
    add("server software", server_programs(run))
    start = run.server_start
    if start is not None:
        add("started with", " ".join([*(f"{name}={MASK}" for name in start.variables), start.command]))
    add("cold start", start_text(start))
    add("API", target.get("api"))
    for status in run.models:
        add("model", status.model, *_about_model(status))
    loads = {
        model: [_text_of(level.load.label).split(" ")[0] for level in found] for model, found in by_model(run).items()
    }
    first = next(iter(loads.items()), None)
    if first is not None:
        closed = run.levels[0].load.label.startswith("users")
        add(
            "loads (chosen by the search)" if is_search(run) else "load",
            f"{some(first[1], most=20)} {'users'[: 4 + (first[1] != ['1'])] if closed else 'requests/s'} "
            f"({'closed' if closed else 'open'} loop)",
        )
    add("arrivals", *dict.fromkeys(str(getattr(level.load, "arrivals", "")) for level in run.levels[:1]))
    add("think time", load.get("think"))
    add("trace", load.get("trace"))
    add("pattern of rates", load.get("pattern"))
    windows = [level.window_s for level in run.levels]
    requests = load.get("requests")
    given = load.get("duration") or (f"{requests} requests" if requests else "")
    add("measured per level", given, _windows_text(windows, load.get("duration")))
    if run.imported is None:
        add("warm-up", load.get("warm_up") or "chosen by loadbench")
        add("prompts", *_prompts_of(work, run))
        add("unique prompts", "yes: no prefix cache can help" if work.get("unique") else "no: prefixes may be cached")
    else:
        add("measured by", run.imported.tool, run.imported.version)
    add(
        "prompt length",
        f"{work['input_tokens']} tokens requested" if work.get("input_tokens") else "",
        _seen(run, "input"),
    )
    lengths = f"at most {work['max_tokens']} tokens" if work.get("max_tokens") else ""
    lengths = f"{work['output_tokens']} tokens requested" if work.get("output_tokens") else lengths
    add("response length", lengths, "exact" if work.get("exact_output") else "", _seen(run, "output"))
    add("temperature", "" if work.get("temperature") is None else str(work["temperature"]))
    add("seed", "" if work.get("seed") is None else str(work["seed"]))
    rules = parts.get("slo", {})
    for name, key in (("objectives", "objectives"), ("gates", "fail_on")):
        values = rules.get(key)
        add(name, *(values if isinstance(values, list | tuple) else [values]))
    cores = about.get("cores")
    add(
        "load generator", about.get("cpu"), f"{cores} usable core{'s' * (cores != 1)}" if cores else "", about.get("os")
    )
    add("load from", load_from(run))
    host = about.get("telemetry")
    host = host if isinstance(host, dict) else {}
    memory = host.get("host", {}).get("memory_bytes") if isinstance(host.get("host"), dict) else None
    add("memory of this machine", byte_size(memory) if isinstance(memory, int | float) else "")
    boards = host.get("boards")
    for board in boards if isinstance(boards, list) else []:
        if isinstance(board, dict):
            size = board.get("memory_bytes")
            driver = f"driver {board['driver']}" if board.get("driver") else ""
            add("GPU", board.get("name"), byte_size(size) if isinstance(size, int | float) else "", driver)
    if host and not boards:
        add("GPU", "none seen on this machine")
    process = host.get("process")
    if isinstance(process, dict):
        add("server process", process.get("name"), f"pid {process['pid']}" if process.get("pid") else "")
    add("timestamps", f"{about['stamp_source']}" if about.get("stamp_source") else "")
    add("loadbench", run.loadbench_version, about.get("python"))
    git = about.get("git")
    if isinstance(git, dict) and git.get("commit"):
        add("git commit", str(git["commit"])[:12], "with changes" if git.get("dirty") else "")
    add(
        "settings",
        f"fingerprint {run.content_hash[:12]}, that of all runs with the same settings" if run.content_hash else "",
    )
    return Table((), rows, "ll")


def _about_model(status: ModelStatus) -> list[str]:
    facts, known = status.catalogue, status.known
    parts = [f"requested as {status.asked}"] if status.asked else []
    if facts is not None:
        parts += [f"version {facts.version}"] if facts.version is not None else []
        parts += [text for text in (facts.device, facts.execution_provider, facts.license) if text]
        parts += [byte_size(facts.size_bytes)] if facts.size_bytes else []
        parts += [f"context of {facts.context_length} tokens"] if facts.context_length else []
    elif known is not None and known.size_bytes:
        parts.append(byte_size(known.size_bytes))
    return parts + ([f"{status.status}: {status.reason}"] if status.status != "ok" else [])


def _prompts_of(work: dict[str, object], run: Run) -> Iterable[object]:
    """Where the prompts are from; never their text."""
    if work.get("prompts"):
        return [work["prompts"], counted(run.data_set.prompts, "prompt") if run.data_set is not None else ""]
    if work.get("prompt"):
        return ["one given text"]
    return [f"persona {work['persona']}" if work.get("persona") else "generated"]


def _seen(run: Run, kind: str) -> str:
    """The mean length in the measured responses, over all levels."""
    ok = sum(level.outcomes.get("ok", 0) for level in run.levels)
    tokens = sum(getattr(level.tokens, kind) for level in run.levels)
    return f"{significant(tokens / ok)} tokens on average, as measured" if ok and tokens else ""


def _of_each(models: Mapping[str, Sequence[LevelResult]], charts: Callable[..., Iterable[Block]]) -> list[Block]:
    """The charts of each model: of several, one at a time."""
    if len(models) == 1:
        return list(charts(next(iter(models.values()))))
    options = [
        (model, list(charts(levels, of=f", {model}", name=f"-{place}")))
        for place, (model, levels) in enumerate(models.items(), 1)
    ]
    return [Choice("Model", [option for option in options if option[1]])]


def _other_tables(levels: Sequence[LevelResult]) -> list[Block]:
    return [*group_tables(levels), *machine.tables(levels)]


def _all_reasons(run: Run) -> list[tuple[str, MergedReason]]:
    return [*merged_reasons(run, "verdict"), *merged_reasons(run, "caveats")]


def verdicts(run: Run, *, level: int = 2) -> list[Block]:
    """Under a title of this level, a row for each reason of each verdict, then for each caveat, merged as in notes."""
    shown = [[word, one.text(run), one.reason.advice] for word, one in _all_reasons(run)]
    good = sum(level.verdict.status == "VALID" for level in run.levels)
    means = (
        "in a VALID level the load generator kept up, the server was steady, and there were as many responses as "
        "users, 20 at least; how well a percentile is known is another question, which its interval answers"
    )
    lines = [f"{good} of {counted(len(run.levels), 'level')} VALID; {means}."]
    if is_search(run):
        lines = ["Probes have no verdicts of their own: the objectives decide, by the requests of all of them."]
    table = Table(("verdict", "why", "what to do"), shown, "lll")
    return [Heading("Verdicts and what to do", level), Text(lines), table]


def _failures(run: Run) -> Table:
    rows = [
        [level_place(run, index), str(failure.count), failure.outcome, failure.detail, failure.advice]
        for index, level in enumerate(run.levels)
        for failure in failures_of(run, level)
    ]
    return Table(("load", "count", "outcome", "what the server or the network said", "what to do"), rows, "lrlll")


def _in_time(run: Run, folder: Path | None) -> list[Block]:
    file = None if folder is None else folder / "requests.jsonl"
    if file is None or not file.is_file() or not run.levels:
        return []
    if run.requests_elsewhere:
        return [Text([f"left out: {REQUESTS_ELSEWHERE}, as the notes say"])]
    if file.stat().st_size > _MOST_BYTES:
        size = byte_size(file.stat().st_size)
        return [Text([f"left out: requests.jsonl has {size}, and reading it would take minutes"])]
    try:
        times = over_time(read_requests(file), run.levels)
    except BadInput:
        return []
    readings_file = file.with_name("telemetry.jsonl")
    readings = list(read_readings(readings_file)) if readings_file.is_file() else []
    names = [level_place(run, index) for index in range(len(run.levels))]
    doubled = {name for name in names if names.count(name) > 1}
    names = [f"{name}, level {place + 1}" if name in doubled else name for place, name in enumerate(names)]
    return timeline(run.levels, times, readings, names, judged=not is_search(run))


def _prompts(run: Run, folder: Path | None) -> list[Block]:
    """The table of each level, one at a time, and the outliers."""
    file = None if folder is None else folder / "requests.jsonl"
    if file is None or not file.is_file() or not run.prompts or file.stat().st_size > _MOST_BYTES:
        return []
    if run.requests_elsewhere:
        return [Text([f"left out: {REQUESTS_ELSEWHERE}, as the notes say"])]
    try:
        figures = by_prompt(read_requests(file))
    except BadInput:
        return []
    if not figures:
        return []
    blocks = by_prompt_document(run, figures).blocks
    headings = [block.text for block in blocks if isinstance(block, Heading)]
    tables = [block for block in blocks if isinstance(block, Table)]
    options = [(name, [table]) for name, table in zip(headings, tables, strict=True)]
    return [Choice("Level", options), *(block for block in blocks if isinstance(block, Notes))]
