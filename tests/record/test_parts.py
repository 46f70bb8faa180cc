"""A load in parts, each with a recorder of its own: together they are what one recorder for all would be."""

from __future__ import annotations

import math
import pickle
import random
import re
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING

import numpy as np
import pytest

from loadbench.plan.load import LevelDuration, Phase, Phases
from loadbench.plan.objective import parse_objective
from loadbench.record import attainment, stretches, timeline
from loadbench.record.histogram import Histogram
from loadbench.record.outage import Outage
from loadbench.record.outcome import Outcome
from loadbench.record.recorder import Health, LevelRecording, Recorder
from loadbench.record.request import Destination
from loadbench.record.timings import Timings
from loadbench.record.usage_check import UsageCheck
from tests.building import record_in_order
from tests.record.test_sample import make_sample

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadbench.record.sample import Sample

MS = 1_000_000
OPENS, CLOSES = 1_000 * MS, 9_000 * MS
HEALTH = Health(stamp_source="virtual", loop_lag=Histogram(), gc_pauses=Histogram(), cpu_share=None)
OBJECTIVES = [parse_objective(rule) for rule in ("ttft_p95<90ms", "itl_p99<30ms", "tpot_mean<20ms", "failures<1%")]
SERVERS = [Destination(0, "a", "http://a"), Destination(1, "b", "http://b")]


def a_failure(outcome: Outcome, **fields: object) -> Sample:
    """A request without any event."""
    return make_sample([], outcome=outcome, **fields)  # type: ignore[arg-type]


def phases() -> Phases:
    """A window from 1 to 9 s."""
    return Phases(LevelDuration(duration_ns=CLOSES - OPENS, warm_up_ns=OPENS, cool_down_ns=10**12), 0)


def requests(count: int, seed: int = 1) -> list[Sample]:
    """Requests of every kind, all of whose moments differ."""
    rng = random.Random(seed)
    moments = iter(rng.sample(range(10_000 * MS), count))
    made = []
    for number in range(count):
        due = next(moments)
        sent = due + rng.randrange(MS)
        phase = Phase.WARM_UP if due < OPENS else Phase.MEASURED if due < CLOSES else Phase.COOL_DOWN
        about = {"number": number, "phase": phase, "destination": SERVERS[number % 2], "persona": f"p{number % 3}"}
        about |= {"turn": 1 + number % 4, "warm": number % 5 == 0, "target_input_tokens": 50, "max_tokens": 8}
        if rng.random() < 0.05:
            outcome = rng.choice([Outcome.HTTP_ERROR, Outcome.TIMEOUT_TOTAL, Outcome.GAVE_UP])
            words = f"HTTP 500: request {number} of {rng.choice('abc')}"
            made.append(a_failure(outcome, due_ns=due, detail=words, sent_ns=sent, end_ns=sent + 30 * MS, **about))
            continue
        tokens = [rng.choice((1, 1, 2)) for _ in range(rng.randrange(1, 8))]
        stamps = np.cumsum(
            [sent + rng.randrange(40 * MS, 140 * MS), *(rng.randrange(10 * MS, 35 * MS) for _ in tokens[1:])]
        )
        made.append(
            make_sample(
                [int(stamp) for stamp in stamps], tokens=tokens, due_ns=due, sent_ns=sent,
                end_ns=int(stamps[-1]) + 1_000, input_tokens=rng.randrange(40, 60), first_byte_ns=sent + 3 * MS,
                first_visible_ns=int(stamps[0]), reused=rng.random() < 0.5, connect_ns=number % 7,
                cached_tokens=rng.choice((None, 0, 40)), finish_reason=rng.choice(("stop", "length")),
                model=rng.choice(("a", "b")), keep_alives=number % 3, reads=len(tokens), merged_reads=number % 2,
                timings=Timings(queue_ns=MS, prefill_ns=2 * MS, decode_ns=None), usage=UsageCheck(hidden=number % 2),
                **about,
            )
        )  # fmt: skip
    return made


def recorder_of(samples: Sequence[Sample], parts: int) -> Recorder:
    """One that has recorded these, in the order of time."""
    recorder = Recorder(phases(), OBJECTIVES, template_tokens=5, parts=parts)
    record_in_order(recorder, samples)
    return recorder


def closed(recorder: Recorder) -> LevelRecording:
    """What it has recorded."""
    return recorder.close(window=(OPENS, CLOSES), arrivals_due=0, missed=0, interrupted=False, health=HEALTH)


def together(parts: Sequence[Sequence[Sample]]) -> LevelRecording:
    """What the recorders of all parts have, each from another process."""
    whole = Recorder(phases(), OBJECTIVES, template_tokens=5, parts=len(parts))
    for samples in parts:
        recorder = recorder_of(samples, len(parts))
        recorder.finish()
        whole.absorb(pickle.loads(pickle.dumps(recorder)))
    return closed(whole)


def assert_same(one: object, other: object, where: str = "") -> None:
    """Equal in every part; sums of fractions to nine digits."""
    assert type(one) is type(other), where
    if isinstance(one, Histogram | Outage):
        assert one == other or isinstance(one, Outage), where
    elif isinstance(one, float):
        assert math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-9) or (math.isnan(one) and math.isnan(other)), where
    elif isinstance(one, np.ndarray):
        np.testing.assert_allclose(one, other, rtol=1e-9, err_msg=where)
    elif where == ".details":  # the first words stand for all of a kind, and which are the first parts do not know
        kinds = [{(kind, re.sub(r"\d+", "0", text)): n for (kind, text), n in side.items()} for side in (one, other)]
        assert kinds[0] == kinds[1], where
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key in one:
            assert_same(one[key], other[key], f"{where}[{key}]")
    elif is_dataclass(one):
        for each in fields(one):
            assert_same(getattr(one, each.name), getattr(other, each.name), f"{where}.{each.name}")
    elif isinstance(one, tuple):
        assert len(one) == len(other), where
        for at, (mine, theirs) in enumerate(zip(one, other, strict=True)):
            assert_same(mine, theirs, f"{where}[{at}]")
    else:
        assert one == other, where


@pytest.mark.parametrize("count", [0, 1, 2, 400])
@pytest.mark.parametrize("parts", [2, 4])
def test_parts_are_the_whole(count: int, parts: int) -> None:
    """Every count, histogram, timeline, peak, objective and sum that is known of a level."""
    samples = requests(count)
    assert_same(together([samples[at::parts] for at in range(parts)]), closed(recorder_of(samples, 1)))


@pytest.mark.parametrize("parts", [3, 8])
def test_what_fits_into_one_process_is_whole_of_many_parts(parts: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each part has less room than the level; together they have as much as one process."""
    monkeypatch.setattr(timeline, "_MOST_KEPT", 410)
    monkeypatch.setattr(timeline, "_MOST_CHANGES", 820)
    samples = requests(400)
    assert_same(together([samples[at::parts] for at in range(parts)]), closed(recorder_of(samples, 1)))


def test_parts_may_differ_in_size() -> None:
    """One has all requests but a few, another has none."""
    samples = requests(300)
    assert_same(together([samples[:-3], [], samples[-3:]]), closed(recorder_of(samples, 1)))


def test_what_is_kept_of_a_level_of_very_many_requests_is_of_all_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where not every request and moment is kept: the first to end, stretches that all parts keep with the exact number
    in flight, and batches that add up to all. Histograms and counts are of all requests, as ever."""
    monkeypatch.setattr(timeline, "_MOST_KEPT", 500)
    monkeypatch.setattr(timeline, "_MOST_CHANGES", 900)
    monkeypatch.setattr(attainment, "_MOST_KEPT", 500)
    samples = requests(4_000)
    parts = [samples[at::3] for at in range(3)]
    merged, whole = together(parts), closed(recorder_of(samples, 1))
    assert_same(merged.histograms, whole.histograms)
    assert_same(merged.outcomes, whole.outcomes)
    assert_same(merged.attained.tallies, whole.attained.tallies)
    assert_same(merged.audit_totals, whole.audit_totals)
    assert merged.timeline.in_flight == pytest.approx(whole.timeline.in_flight)
    kept = merged.attained.kept[OBJECTIVES[0]]
    assert 250 < len(kept.rows) <= 500
    tally = merged.attained.tallies[OBJECTIVES[0]]
    of_whole = whole.attained.kept[OBJECTIVES[0]]
    assert kept.batches.sum(axis=1) == pytest.approx([of_whole.batches[0].sum(), kept.batches[1].sum()], rel=0.01)
    assert kept.batches[1].sum() >= tally.m
    if kept.over is not None:
        assert_same(tuple(kept.over), tuple(of_whole.over))
    # What a request met is known exactly of those that are kept.
    sent = sorted(sample.sent_ns for sample in samples)
    ended = sorted(sample.end_ns for sample in samples)
    met = {
        (float(sample.first_token_ns - sample.due_ns)): np.searchsorted(sent, sample.sent_ns)
        - np.searchsorted(ended, sample.sent_ns, "right")
        for sample in samples
        if sample.first_token_ns is not None
    }
    assert 100 < len(merged.timeline.starts) <= 500
    assert all(start.in_flight == met[start.ttft_ns] for start in merged.timeline.starts)
    assert merged.timeline.succeeded == whole.timeline.succeeded
    assert 0.9 * whole.in_flight_peak <= merged.in_flight_peak <= whole.in_flight_peak


def spread(count: int, begin_ns: int = 0, end_ns: int = 10**9) -> list[int]:
    """So many moments between these."""
    return sorted(random.Random(count).sample(range(begin_ns, end_ns), count))


@pytest.mark.parametrize(
    "parts",
    [
        [spread(5_000), spread(700), spread(40)],
        # So many in a few ms that the time was divided until the part kept none of them.
        [spread(90), spread(300, 499_200_000, 503_200_000)],
        [spread(300, 499_200_000, 503_200_000), [], spread(90)],
        [spread(2_000, 0, 500_000_000), spread(2_000, 500_000_000)],
    ],
    ids=["three", "one has kept none", "one has none, one has kept none", "halves"],
)
def test_stretches_of_parts_are_those_that_all_keep(parts: list[list[int]]) -> None:
    """Of parts that divided the time at different moments, or never: ranks of what is kept are those among all."""
    divided = []
    for moments in parts:
        part = stretches.Stretches(0, is_part=True)
        member = stretches.SpreadMoments(part, 100)
        for at in moments:
            member.add(at)
        member.settle()
        divided.append(pickle.loads(pickle.dumps(part)))
    whole = stretches.Stretches(0, is_part=True)
    member = stretches.SpreadMoments(whole, 300)
    whole.absorb(divided)
    ranked, every = member.ranked(), np.array(sorted(at for moments in parts for at in moments))
    assert 5 < len(ranked.moments) <= 300
    assert np.isin(ranked.moments, every).all()
    assert (ranked.rank(ranked.moments, "left") == np.searchsorted(every, ranked.moments, "left")).all()
    assert member.count + member.left_out.sum() == len(every)


def test_an_outage_that_all_parts_see_is_one() -> None:
    """It began with the first failure after the last success of any part."""
    ok = [
        make_sample([at * MS], due_ns=(at - 1) * MS, sent_ns=(at - 1) * MS, end_ns=at * MS) for at in range(10, 400, 10)
    ]
    failed = [a_failure(Outcome.REFUSED, due_ns=at * MS, sent_ns=at * MS, end_ns=at * MS) for at in range(401, 440)]
    early = [a_failure(Outcome.REFUSED, due_ns=at * MS, sent_ns=at * MS, end_ns=at * MS) for at in (395, 396)]
    parts = [ok[:-1:2] + failed[::2], ok[1::2] + failed[1::2], early]
    outages = []
    for part in parts:
        outage = Outage()
        for sample in sorted(part, key=lambda one: one.end_ns):
            outage.add(sample)
        outages.append(outage)
    first, *others = outages
    for other in others:
        first.absorb(other)
    whole = Outage()
    for sample in sorted(ok + failed + early, key=lambda one: one.end_ns):
        whole.add(sample)
    assert first.began_ns == whole.began_ns
    assert first.failures == whole.failures
