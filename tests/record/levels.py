"""Levels in virtual time, recorded by one recorder or in parts, and how two recordings differ."""

from __future__ import annotations

import math
import pickle
import random
import re
from dataclasses import fields, is_dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

import numpy as np

from loadbench.plan.abandonment import Patience
from loadbench.plan.load import LevelDuration, Phase, Phases
from loadbench.plan.objective import parse_objective
from loadbench.record.histogram import Histogram
from loadbench.record.outcome import Outcome, TokenSource
from loadbench.record.recorder import Health, LevelRecording, Recorder
from loadbench.record.request import Destination
from loadbench.record.timings import Timings
from loadbench.record.usage_check import PLAUSIBLE, UsageCheck
from tests.building import record_in_order
from tests.record.test_sample import make_sample

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from loadbench.record.sample import Sample

MS = 1_000_000
OPENS, CLOSES, STOPS, ENDS = 1_000 * MS, 9_000 * MS, 9_300 * MS, 10_000 * MS
HEALTH = Health(stamp_source="virtual", loop_lag=Histogram(), gc_pauses=Histogram(), cpu_share=None)
RULES = ("ttft_p95<90ms", "itl_p99<30ms", "tpot_mean<20ms", "failures<1%", "e2e_p90<150ms", "ttft_mean<80ms")
OBJECTIVES = [parse_objective(rule) for rule in RULES]
SERVERS = [Destination(0, "a", "http://a"), Destination(1, "b", "http://b")]
UNHAPPY = (
    *(Outcome.HTTP_ERROR, Outcome.TIMEOUT_TOTAL, Outcome.GAVE_UP, Outcome.GAVE_UP, Outcome.RESET),
    *(Outcome.REFUSED, Outcome.CANCELLED, Outcome.CLIENT_LIMIT, Outcome.ABANDONED),
)


def requests(count: int, seed: int = 1, *, slower: int = 1) -> list[Sample]:
    """Requests of every kind in ten seconds, or in a time so many times as long. No two are due, or end, at once. One
    of two servers stops before the end."""
    rng = random.Random(seed)
    made = []
    for number, due in enumerate(rng.sample(range(ENDS * slower), count)):
        sent = due + rng.randrange(MS)
        phase = Phase.WARM_UP if due < OPENS * slower else Phase.MEASURED
        about = {"number": number, "phase": phase if due < CLOSES * slower else Phase.COOL_DOWN, "due_ns": due}
        about |= {"destination": SERVERS[number % 2], "persona": f"p{number % 3}", "turn": 1 + number % 4}
        about |= {"warm": number % 5 == 0, "target_input_tokens": 50, "max_tokens": 8, "connect_ns": number % 7}
        if rng.random() < 0.3:
            about["patience"] = Patience(rng.randrange(40, 200) * MS, first_token=rng.random() < 0.5)
        about |= {"input_tokens": rng.choice((None, 40, 50, 59)), "reused": rng.random() < 0.5}
        outcome = Outcome.OK if rng.random() < 0.92 else rng.choice(UNHAPPY)
        if number % 2 and due > STOPS * slower:
            outcome = rng.choice((Outcome.REFUSED, Outcome.HTTP_ERROR, Outcome.RESET))
        tokens = [rng.choice((1, 1, 2)) for _ in range(rng.randrange(1, 8))]
        stamps = list(
            accumulate(
                (rng.randrange(10 * MS, 35 * MS) for _ in tokens[1:]), initial=sent + rng.randrange(40 * MS, 140 * MS)
            )
        )
        if outcome is not Outcome.OK:
            about["status"], about["detail"] = rng.choice((None, 500, 503)), f"HTTP 500: request {number} of a"
            if rng.random() < 0.5 or outcome is Outcome.HTTP_ERROR:
                unsent = outcome in {Outcome.REFUSED, Outcome.CLIENT_LIMIT}
                times = {"sent_ns": None if unsent else sent, "end_ns": sent + 30 * MS + number}
                made.append(make_sample([], outcome=outcome, **about, **times))  # type: ignore[arg-type]
                continue
        unread = number % 31 == 0
        about |= {"unread_frames": unread, "content_type": "text/html" if number % 37 == 0 else None}
        if unread:
            about["detail"] = "a frame"
        known = number % 11 != 0
        made.append(
            make_sample(
                stamps, tokens=tokens if known else None, output_tokens=sum(tokens), outcome=outcome, sent_ns=sent,
                end_ns=stamps[-1] + 1 + number, first_byte_ns=sent + 3 * MS, headers_ns=sent + 3 * MS,
                token_source=TokenSource.USAGE if known else TokenSource.EVENTS,
                cached_tokens=rng.choice((None, 0, 40)), finish_reason=rng.choice(("stop", "length")),
                model=rng.choice(("a", "b")), keep_alives=number % 3, reads=len(tokens), merged_reads=number % 2,
                separate_events=number % 2, censored_events=number % 13 == 0, late_first_token=number % 17 == 0,
                timings=Timings(queue_ns=MS, prefill_ns=rng.choice((2, 200)) * MS, decode_ns=None),
                usage=PLAUSIBLE if number % 3 else UsageCheck(hidden=number % 2, has_few=number % 4 == 0, fault="f"),
                reconnects=number % 19 == 0, **about,
            )
        )  # fmt: skip
    assert len({sample.end_ns for sample in made}) == count
    return made


def recorder_of(samples: Sequence[Sample], parts: int, *, slower: int = 1, moves: bool = False) -> Recorder:
    """One of so many that has recorded these, in the order of time. With `moves` the window's bounds are not known
    before half of the warm-up."""
    bounds, late = (OPENS * slower, CLOSES * slower), {}
    if moves:
        late = {"most_warm_up_ns": 4 * OPENS * slower, "most_ns": 2 * ENDS * slower}
    length = LevelDuration(duration_ns=bounds[1] - bounds[0], warm_up_ns=bounds[0], cool_down_ns=10**15, **late)
    phases = Phases(length, 0)
    recorder = Recorder(phases, OBJECTIVES, template_tokens=5, parts=parts)
    if moves:
        assert phases.opens_ns != bounds[0] != phases.closes_ns != bounds[1]
        begun = [sample for sample in samples if sample.end_ns < bounds[0] // 2]
        record_in_order(recorder, begun)
        phases.opens_ns, phases.closes_ns, phases.moves = *bounds, False
        samples = [sample for sample in samples if sample.end_ns >= bounds[0] // 2]
    record_in_order(recorder, samples)
    return recorder


def closed(recorder: Recorder, *, slower: int = 1) -> LevelRecording:
    """What it has recorded."""
    window = OPENS * slower, CLOSES * slower
    return recorder.close(window=window, arrivals_due=0, missed=0, interrupted=False, health=HEALTH)


def together(
    parts: Sequence[Sequence[Sample]], *, slower: int = 1, moves: bool = False, lost: int = 0
) -> LevelRecording:
    """What the recorders of all parts have, each from another process, but for so many at the end that were lost; a
    single one is the whole."""
    recorders = [recorder_of(samples, len(parts), slower=slower, moves=moves) for samples in parts[: len(parts) - lost]]
    for recorder in recorders:
        recorder.finish()
    copies = [pickle.loads(pickle.dumps(recorder)) for recorder in recorders]
    if len(parts) == 1:
        return closed(copies[0], slower=slower)
    whole = recorder_of([], len(parts), slower=slower)
    for copy in copies:
        whole.absorb(copy)
    return closed(whole, slower=slower)


def differences(one: object, other: object, where: str = "", *, without: Sequence[str] = ()) -> Iterator[str]:
    """Where two values differ, in every part of them; sums of fractions are equal to nine digits. Of what the failures
    said the kinds count: the words of the first stand for all of a kind, and which are the first parts do not know."""
    if where in without or one is other:
        return
    if type(one) is not type(other):
        yield f"{where}: {type(one).__name__}, not {type(other).__name__}"
    elif isinstance(one, float):
        if not math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-9) and not (math.isnan(one) and math.isnan(other)):
            yield f"{where}: {one}, not {other}"
    elif isinstance(one, np.ndarray):
        if one.shape != other.shape or not np.allclose(one, other, rtol=1e-9, atol=1e-9, equal_nan=True):
            yield f"{where}: {one}, not {other}"
    elif where == ".details":
        kinds = [{(kind, re.sub(r"\d+", "0", text)): n for (kind, text), n in side.items()} for side in (one, other)]
        yield from differences(*kinds, "details")
    elif isinstance(one, dict):
        for key in one.keys() | other.keys():
            if key not in one or key not in other:
                yield f"{where}[{key}]: {one.get(key)}, not {other.get(key)}"
            else:
                yield from differences(one[key], other[key], f"{where}[{key}]", without=without)
    elif is_dataclass(one):
        for each in fields(one):
            mine, theirs = getattr(one, each.name), getattr(other, each.name)
            yield from differences(mine, theirs, f"{where}.{each.name}", without=without)
    elif isinstance(one, tuple | list):
        if len(one) != len(other):
            yield f"{where}: {len(one)} of them, not {len(other)}"
        for at, (mine, theirs) in enumerate(zip(one, other, strict=False)):
            yield from differences(mine, theirs, f"{where}[{at}]", without=without)
    elif one != other:
        yield f"{where}: {one}, not {other}"
