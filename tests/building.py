"""Builders of what tests need: samples, recordings and runs, in round numbers."""

from __future__ import annotations

import copy
import dataclasses
from array import array
from functools import cache
from typing import TYPE_CHECKING

from loadbench.analyze.level.steady import Steadiness
from loadbench.analyze.level.summary import summarize
from loadbench.analyze.level.verdict import judge
from loadbench.plan.load import Closed, LevelDuration, Phase, Phases
from loadbench.record.histogram import Histogram
from loadbench.record.outcome import Outcome, TokenSource
from loadbench.record.recorder import Health, LevelRecording, Recorder
from loadbench.record.request import Request
from loadbench.record.sample import Sample
from loadbench.results.run import LevelResult, ModelStatus, Run, Verdict

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from loadbench.plan.load import Load
    from loadbench.plan.objective import Objective

MS = 1_000_000
S = 1_000_000_000


def a_sample(
    number: int = 0, *, due_ns: int = 0, ttft_ns: int = 100 * MS, gaps_ns: int = 20 * MS, **over: object
) -> Sample:
    """An answer of 11 tokens, one an event, sent as it was due; any field can be overridden."""
    stamps = [due_ns + ttft_ns + index * gaps_ns for index in range(11)]
    fields: dict[str, object] = {
        "number": number,
        "phase": Phase.MEASURED,
        "outcome": Outcome.OK,
        "due_ns": due_ns,
        "sent_ns": due_ns,
        "headers_ns": stamps[0],
        "first_byte_ns": stamps[0],
        "first_token_ns": stamps[0],
        "first_visible_ns": stamps[0],
        "last_token_ns": stamps[-1],
        "end_ns": stamps[-1],
        "event_ns": array("q", stamps),
        "event_tokens": array("q", [1] * 11),
        "reads": 11,
        "output_tokens": 11,
        "token_source": TokenSource.USAGE,
        "input_tokens": 50,
        "finish_reason": "stop",
        "model": "m",
        **over,
    }
    return make_sample(**fields)


def make_sample(**fields: object) -> Sample:
    """A sample of these fields, those of its request among them."""
    about: dict[str, object] = {"max_tokens": 100}
    about |= {one.name: fields.pop(one.name) for one in dataclasses.fields(Request) if one.name in fields}
    return Sample(request=Request(**about), **fields)  # type: ignore[arg-type]


def a_failure(outcome: Outcome, *, number: int = 0, due_ns: int = 0, detail: str = "", **more: object) -> Sample:
    """A request that had no answer."""
    return make_sample(
        number=number,
        phase=Phase.MEASURED,
        outcome=outcome,
        detail=detail,
        due_ns=due_ns,
        sent_ns=due_ns,
        end_ns=due_ns + S,
        **more,
    )


def calm(*, lag_ns: int = 10_000) -> Health:
    """A client that was never late by more than this."""
    lag = Histogram()
    lag.record(lag_ns, 1000)
    return Health(stamp_source="user", loop_lag=lag, gc_pauses=Histogram(), cpu_share=0.1)


def record_in_order(recorder: Recorder, samples: Sequence[Sample]) -> None:
    """Record these requests, started as they were sent and ended in the order of time."""
    moves = [(sample.sent_ns or sample.due_ns, 1, at) for at, sample in enumerate(samples)]
    moves += [(sample.end_ns, 0, at) for at, sample in enumerate(samples)]
    for at_ns, begins, at in sorted(moves):
        if begins:
            recorder.started(at_ns)
        else:
            recorder.add(samples[at])


def a_recording(
    samples: Iterable[Sample],
    *,
    window_ns: int = 100 * S,
    missed: int = 0,
    interrupted: bool = False,
    warm_up_ns: int = 10 * S,
    health: Health | None = None,
    objectives: Sequence[Objective] = (),
) -> LevelRecording:
    """The recording of a level whose window is `[0, window_ns)`, and which was to have as many requests as there are
    samples."""
    samples = list(samples)
    recorder = Recorder(Phases(LevelDuration(duration_ns=window_ns, warm_up_ns=warm_up_ns), -warm_up_ns), objectives)
    changes = [(sample.due_ns, 0, sample) for sample in samples] + [(sample.end_ns, 1, sample) for sample in samples]
    for at_ns, ends, sample in sorted(changes, key=lambda change: change[:2]):
        if ends:
            recorder.add(sample)
        else:
            recorder.started(at_ns)
    recording = recorder.close(
        window=(0, window_ns),
        arrivals_due=len(samples) + missed,
        missed=missed,
        interrupted=interrupted,
        health=health or calm(),
    )
    return dataclasses.replace(recording, planned_requests=len(samples))


def a_level(
    samples: Iterable[Sample] | None = None,
    *,
    load: Load | None = None,
    recording: LevelRecording | None = None,
    listed: Collection[str] | None = None,
) -> LevelResult:
    """A level of 400 quiet answers, or of these samples."""
    load = load or Closed(1)
    if samples is None and recording is None and listed is None:
        return copy.deepcopy(_quiet_level(load))
    if recording is None:
        recording = a_recording(_quiet_samples() if samples is None else samples)
    return summarize(recording, target="http://127.0.0.1:1/v1", model="m", load=load, failure_limit=0.01, listed=listed)


def _quiet_samples() -> list[Sample]:
    return [a_sample(n, due_ns=n * S // 4, ttft_ns=(100 + n * 37 % 100) * MS) for n in range(400)]


@cache
def _quiet_level(load: Load) -> LevelResult:
    """Made once: hundreds of tests begin with it."""
    return a_level(_quiet_samples(), load=load)


def verdict_of(recording: LevelRecording, load: Load, *, failure_limit: float) -> Verdict:
    """The verdict on a level of the model m, before gates."""
    return judge(recording, Steadiness(recording, load), load=load, model="m", failure_limit=failure_limit)


def a_run(*levels: LevelResult, simulated: bool = False, complete: bool = True) -> Run:
    """A run of these levels, or of one."""
    return Run(
        name="trial",
        started_at="2026-01-02T03:04:05.678Z",
        loadbench_version="0.0.0",
        simulated=simulated,
        complete=complete,
        scenario={"load": {"users": [1]}},
        environment={"cpu": "a processor", "cores": 2, "python": "CPython 3.11", "stamp_source": "user"},
        models=[ModelStatus("m", "ok")],
        levels=list(levels or (a_level(),)),
    )
