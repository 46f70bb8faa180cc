"""A run that was killed, as far as its folder shows it: levels that only `requests.jsonl` has are put together again.

What a level's requests say is recomputed from them as it was measured: outcomes, latencies, tokens. What no line says
is missing: how the load generator fared, the server's counters, telemetry. Requests that were in flight at the end have
no line, so the window closes where the first of them may have been due: until then every request is known.
"""

from __future__ import annotations

import logging
import re
from array import array
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from loadbench.analyze.level.summary import load_result, summarize
from loadbench.core.errors import BadInput
from loadbench.plan.arrivals import Arrivals, Spacing, parse_arrivals
from loadbench.plan.load import Closed, LevelDuration, Open, Phase, Phases
from loadbench.plan.settings import setting_of
from loadbench.record.histogram import Histogram
from loadbench.record.recorder import Health, Recorder
from loadbench.record.request import Destination
from loadbench.results.append_log import is_being_written
from loadbench.results.folder import read_run
from loadbench.results.requests import read_requests, warn_of_damaged
from loadbench.results.run import Reason, Run

if TYPE_CHECKING:
    from pathlib import Path

    from loadbench.plan.load import Load
    from loadbench.results.requests import RequestRecord
    from loadbench.results.run import LevelResult

_log = logging.getLogger(__name__)

_MISSING = "how the load generator fared, the server's counters and telemetry"
_NAMED = re.compile(r"(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z-(.+)")


@dataclass(slots=True)
class _Seen:
    """What a first look at the lines of a level shows; times in ns since the run's start."""

    models: Counter[str] = field(default_factory=Counter)
    urls: Counter[str] = field(default_factory=Counter)
    sent_ns: array[int] = field(default_factory=lambda: array("q"))
    due_ns: array[int] = field(default_factory=lambda: array("q"))  # of measured requests
    numbers: dict[int, int] = field(default_factory=dict)  # of an open loop, with their due times
    users: dict[int, int] = field(default_factory=dict)  # of a closed loop, with the end of their last request
    begins_ns: int = 1 << 62
    ends_ns: int = 0

    def add(self, one: RequestRecord) -> None:
        """Add a line."""
        self.models[one.model or ""] += 1
        self.urls[one.url or ""] += 1
        self.sent_ns.append(one.due_ns if one.sent_ns is None else one.sent_ns)
        if one.phase == Phase.MEASURED:
            self.due_ns.append(one.due_ns)
        if one.user is None:
            self.numbers[one.number] = one.due_ns
        else:
            self.users[one.user] = one.end_ns
        self.begins_ns, self.ends_ns = min(self.begins_ns, one.due_ns), max(self.ends_ns, one.end_ns)

    @property
    def window(self) -> tuple[int, int]:
        """From the first measured request to where all requests are known; to the last end where that is no time."""
        opens_ns = min(self.due_ns, default=self.ends_ns)
        known_ns = min(self.users.values(), default=0)
        if self.numbers:
            number = min(self.numbers)
            while number + 1 in self.numbers:
                number += 1
            known_ns = self.numbers[number] + 1
        return opens_ns, known_ns if known_ns > opens_ns else self.ends_ns


def run_in(folder: Path) -> Run:
    """The run in a folder, with a level that was not finished as far as it came.

    Raises `BadInput` if there is neither a result nor a request.
    """
    log = folder / "requests.jsonl"
    try:
        run = read_run(folder)
    except BadInput:
        named = _NAMED.fullmatch(folder.name)
        if (folder / "run.json").exists() or not log.exists():
            raise
        run = Run(
            name=folder.name if named is None else named[7],
            started_at="" if named is None else "{}-{}-{}T{}:{}:{}Z".format(*named.groups()[:6]),
            loadbench_version="",
            simulated=False,
            complete=False,
            scenario={},
            environment={},
        )
    if run.complete or not log.exists():
        return run
    seen: dict[int, _Seen] = {}
    damaged: list[int] = []
    try:
        for one in read_requests(log, damaged):
            if one.level >= len(run.levels):
                seen.setdefault(one.level, _Seen()).add(one)
    except BadInput as error:  # no line can be read
        if not (folder / "run.json").exists():
            raise
        _log.warning("%s", error.message)
    if damaged:
        warn_of_damaged(log, len(damaged), damaged[0])
    runs = is_being_written(log)
    levels = []
    for number in sorted(seen):
        try:
            levels.append(_rebuilt(run, log, number, seen[number], runs=runs, damaged=len(damaged)))
        except BadInput as error:
            _log.warning("%s: level %d cannot be put together", error.message, number + 1)
    return msgspec.structs.replace(run, levels=[*run.levels, *levels])


def _rebuilt(run: Run, log: Path, number: int, seen: _Seen, *, runs: bool, damaged: int) -> LevelResult:
    """One level from its lines; so many more are damaged, of this level or of others."""
    planned = run.under_way if number == len(run.levels) else None
    load = _load(run, seen) if planned is None else _planned(planned.load)
    model = ", ".join(sorted(seen.models)) if planned is None else planned.model
    (opens_ns, closes_ns), limits = seen.window, run.scenario.get("limits", {})
    objectives = _read("slo.objectives", run.scenario.get("slo", {}).get("objectives")) or ()
    recorder = Recorder(
        Phases(
            LevelDuration(duration_ns=closes_ns - opens_ns, warm_up_ns=max(0, opens_ns - seen.begins_ns)),
            min(seen.begins_ns, opens_ns),
        ),
        [one for one in objectives if one.applies(load.label)],
    )
    # In the order of time: the lines are in that of their ends.
    started, begun = sorted(seen.sent_ns), 0
    for one in read_requests(log, []):
        if one.level != number:
            continue
        while begun < len(started) and started[begun] <= one.end_ns:
            recorder.started(started[begun])
            begun += 1
        several = one.model if len(seen.models) > 1 else None, one.url if len(seen.urls) > 1 else None
        try:
            recorder.add(one.sample(Destination(0, *several)))
        except (ValueError, OverflowError) as error:
            raise BadInput(f"{log}: a request is damaged: {error}", hint="restore it from a copy") from None
    recording = recorder.close(
        window=(opens_ns, closes_ns),
        arrivals_due=sum(due_ns < closes_ns for due_ns in seen.due_ns),
        missed=0,
        interrupted=True,
        health=Health(
            stamp_source=str(run.environment.get("stamp_source", "user")),
            loop_lag=Histogram(),
            gc_pauses=Histogram(),
            cpu_share=None,
        ),
    )
    level = summarize(
        recording,
        target=min(seen.urls),
        targets=sorted(seen.urls) if len(seen.urls) > 1 else [],
        model=model,
        load=load,
        failure_limit=_read("limits.failures", limits.get("failures")) or setting_of("limits.failures").default,
    )
    why = "the level is still running" if runs else "the run ended before this level did"
    why += "; put together from its requests" if seen.due_ns else "; its requests were all of the warm-up"
    advice = "wait for its end" if runs else "measure it again: repeat the command with --resume"
    reasons = [
        Reason(one.code, why, advice) if one.code == "interrupted" else one
        for one in level.verdict.reasons
        if seen.due_ns or one.code != "no_answers"
    ]
    missing = _MISSING if planned is not None else f"{_MISSING}, and the planned load, which was counted"
    missing += f"; {damaged} damaged lines of it are left out" if damaged else ""
    caveat = Reason("rebuilt", f"put together from requests.jsonl, without {missing}", "use its figures with care")
    return msgspec.structs.replace(
        level,
        load=load_result(load) if planned is None else planned.load,
        verdict=msgspec.structs.replace(level.verdict, reasons=reasons),
        caveats=[caveat, *level.caveats],
    )


def _planned(load: Any) -> Load:
    """The load that `run.json` names; a plan of its own, as that of a trace, is a constant rate here."""
    if hasattr(load, "users"):
        return Closed(load.users, _read("load.think", load.think))
    try:
        return Open(load.rate_per_s, parse_arrivals(load.arrivals))
    except ValueError:
        return Open(load.rate_per_s, Arrivals(Spacing.CONSTANT))


def _load(run: Run, seen: _Seen) -> Load:
    """The load as the requests show it, where nothing else says it."""
    if seen.users:
        return Closed(max(seen.users) + 1, _read("load.think", run.scenario.get("load", {}).get("think")))
    first, last = min(seen.numbers), max(seen.numbers)
    span_s = max(1, seen.numbers[last] - seen.numbers[first]) / 1e9
    return Open(float(f"{max(1, last - first) / span_s:.3g}"), Arrivals(Spacing.CONSTANT))


def _read(key: str, value: object) -> Any:
    """A setting as `run.json` has it; `None` where it has none that can be read."""
    try:
        return None if value is None else setting_of(key).type.read(value)
    except ValueError:
        return None
