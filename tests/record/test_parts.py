"""A load in parts, each with a recorder of its own: together they are what one recorder for all would be."""

from __future__ import annotations

import math
import pickle
import random
from collections import Counter
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pytest

from loadbench.record import attainment, stretches, timeline
from loadbench.record.first_numbers import room_of
from tests.record.levels import CLOSES, ENDS, OPENS, closed, differences, recorder_of, requests, together

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadbench.record.first_numbers import FirstRows
    from loadbench.record.recorder import LevelRecording, Recorder
    from loadbench.record.sample import Sample


# How the requests of a level are divided among parts.
RULES = {
    "in turn": lambda sample, parts: sample.number % parts,
    "one has nine of ten": lambda sample, parts: 0 if sample.number % 10 else sample.number // 10 % parts,
    "one has none": lambda sample, parts: sample.number % max(1, parts - 1),
    "one after another": lambda sample, parts: min(sample.due_ns * parts // ENDS, parts - 1),
    "by server": lambda sample, parts: sample.request.destination.endpoint % parts,
}


def divided(samples: Sequence[Sample], parts: int, rule: str) -> list[list[Sample]]:
    """The requests of each part."""
    shares: list[list[Sample]] = [[] for _ in range(parts)]
    for sample in samples:
        shares[RULES[rule](sample, parts)].append(sample)
    return shares


@pytest.mark.parametrize("count", [0, 1, 2, 400])
@pytest.mark.parametrize("parts", [1, 2, 4])
def test_parts_are_the_whole(count: int, parts: int) -> None:
    """Every count, histogram, timeline, peak, objective and sum that is known of a level."""
    samples = requests(count)
    whole = closed(recorder_of(samples, 1))
    assert list(differences(together(divided(samples, parts, "in turn")), whole)) == []
    if count == 400:
        assert [outage.began_ns is None for _, outage in sorted(whole.outages.items())] == [True, False]


@pytest.mark.parametrize("parts", [3, 8])
def test_what_fits_into_one_process_is_whole_of_many_parts(parts: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each part has less room than the level; together they have as much as one process."""
    monkeypatch.setattr(timeline, "_MOST_KEPT", 410)
    monkeypatch.setattr(timeline, "_MOST_CHANGES", 820)
    samples = requests(400)
    parts_of_all = divided(samples, parts, "in turn")
    assert list(differences(together(parts_of_all), closed(recorder_of(samples, 1)))) == []


@pytest.mark.parametrize("rule", sorted(RULES))
@pytest.mark.parametrize("slower", [1, 60])
def test_parts_may_differ(rule: str, slower: int) -> None:
    """One has most requests or none, or each has its own time; in a long level slices are as long as they must be."""
    samples = requests(300, slower=slower)
    parts = [[sample for sample in samples if sample in share] for share in divided(samples, 3, rule)]
    whole = closed(recorder_of(samples, 1, slower=slower), slower=slower)
    assert list(differences(together(parts, slower=slower), whole)) == []
    assert whole.slice_ns == (100_000_000 if slower == 1 else 200_000_000)


@pytest.mark.parametrize("lost", [1, 2, 3])
def test_what_is_left_of_lost_parts_is_the_whole_of_the_others(lost: int) -> None:
    """As if the requests of those that were lost had never been."""
    samples = requests(400)
    parts = divided(samples, 3, "in turn")
    rest = [sample for part in parts[: 3 - lost] for sample in part]
    assert list(differences(together(parts, lost=lost), closed(recorder_of(rest, 1)))) == []


class Truth(NamedTuple):
    """A level of more requests than are kept: by one recorder as it is, and by one that keeps all."""

    samples: list[Sample]
    one: LevelRecording
    everything: LevelRecording
    keeps_all: Recorder


def keep(most: int, changes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Recorders keep so many requests from now on, and moments at which one begins or ends."""
    monkeypatch.setattr(timeline, "_MOST_KEPT", most)
    monkeypatch.setattr(timeline, "_MOST_CHANGES", changes)
    monkeypatch.setattr(attainment, "_MOST_KEPT", most)


@cache
def truth(count: int, most: int, changes: int) -> Truth:
    """Of so many requests."""
    samples = requests(count)
    with pytest.MonkeyPatch.context() as patch:
        keep(10 * count, 10 * count, patch)
        keeps_all = recorder_of(samples, 1)
        everything = closed(keeps_all)
        keep(most, changes, patch)
        return Truth(samples, closed(recorder_of(samples, 1)), everything, keeps_all)


# What is of fewer requests, or in other pieces, where not every one is kept.
KEPT = (".timeline.starts", ".timeline.kept", ".attained.kept", ".attained.kept_good", ".in_flight_peak")


# Of the starts that may be kept, the share that parts of one size keep at least, and others.
EVEN, UNEVEN = 0.5, 0.12


def assert_joined(level: Truth, parts: int, rule: str, *, most: int, moves: bool = False) -> None:
    """What several recorders have together is what one has, but for what each keeps of single requests; and that is
    what the documents say."""
    shares = divided(level.samples, parts, rule)
    merged = together(shares, moves=moves)
    assert list(differences(merged, level.one, without=KEPT)) == []
    assert list(differences(merged, level.everything, without=KEPT)) == []

    # The peak is the true one, or less where it was not kept, and no less than any slice's mean.
    assert max(merged.timeline.in_flight) - 1e-6 <= merged.in_flight_peak <= level.everything.in_flight_peak

    # The first requests are those that ended before a part had no more room, and so are all among the first of all.
    part_of = {sample.end_ns: at for at, share in enumerate(shares) for sample in share}
    room = room_of(most, parts)

    def first_of(rows: FirstRows) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Of the requests that one recorder keeps, those that parts keep, in the order in which they were due."""
        ends, *columns = (column[: rows._count] for column in rows._columns)
        order = np.argsort(ends)
        by_part = [[end for end in ends[order] if part_of[end] == at] for at in range(parts)]
        complete = min((one[room - 1] for one in by_part if len(one) > room), default=max(ends))
        first = order[:most][ends[order[:most]] <= complete]
        assert len(first) >= min(room, len(ends))
        table = np.stack([column[first] for column in columns])
        return table[1:, np.argsort(table[0])]

    rows = first_of(level.keeps_all._window.timeline._first)
    for row, values in zip(rows, merged.timeline.kept.values(), strict=True):
        assert list(values) == list(row[~np.isnan(row)])
    all_kept = level.keeps_all._attainment
    pairs = [(merged.attained.kept_good, all_kept._kept_good)]
    pairs += [(hits, all_kept._kept[objective]) for objective, hits in merged.attained.kept.items()]
    for hits, of_all in pairs:
        np.testing.assert_array_equal(hits.rows, first_of(of_all._kept).T)
        every = of_all.hits().rows
        if len(hits.rows) == len(every):
            assert (hits.batches.size, hits.over) == (0, None)
            continue
        if parts > 1:  # by time, and so of all requests
            np.testing.assert_allclose(hits.batches.sum(axis=1), every[:, :2].sum(axis=0))
        over = every[:, 2]
        if np.isfinite(over).all():
            away = over - over.mean()
            moments = len(over), over.mean(), over.std(), (away**4).mean(), over.max()
            assert hits.over == pytest.approx(moments, rel=1e-6)
        else:
            assert hits.over is None

    # What a request met is exact of each that is kept, and they are of the whole window.
    starts, true = (
        Counter(tuple(-1.0 if math.isnan(number) else number for number in start[:4]) for start in recorded)
        for recorded in (merged.timeline.starts, level.everything.timeline.starts)
    )
    assert starts - true == Counter()
    least = EVEN if rule in {"in turn", "one has none"} or parts == 1 else UNEVEN
    assert least * most < len(merged.timeline.starts) <= most
    ttfts = Counter(sample.since_due(sample.first_token_ns) for sample in level.samples)
    due = {
        ttft: sample.due_ns for sample in level.samples if ttfts[ttft := sample.since_due(sample.first_token_ns)] == 1
    }
    times = [due[round(start.ttft_ns)] for start in merged.timeline.starts if round(start.ttft_ns) in due]
    assert times == sorted(times)
    assert len({10 * (due_ns - OPENS) // (CLOSES - OPENS) for due_ns in times}) >= 8


@pytest.mark.parametrize("rule", sorted(RULES))
@pytest.mark.parametrize(
    ("parts", "moves"), [(1, False), (1, True), (2, True), (3, False), (4, True), (7, False), (7, True)]
)
def test_of_a_level_of_very_many_requests_only_what_is_kept_differs(
    parts: int, moves: bool, rule: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With room for few, and with a window that is not known at first."""
    level = truth(2_000, 500, 900)
    keep(500, 900, monkeypatch)
    assert_joined(level, parts, rule, most=500, moves=moves)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("parts", "rule"),
    [
        *((1, "in turn"), (2, "one has nine of ten"), (3, "one after another"), (4, "by server")),
        *((7, "in turn"), (7, "one has nine of ten"), (7, "one has none")),
    ],
)
def test_of_more_requests_than_are_kept_only_what_is_kept_differs(parts: int, rule: str) -> None:
    """24,000, of which 16,384 are kept."""
    level = truth(24_000, timeline._MOST_KEPT, timeline._MOST_CHANGES)
    assert_joined(level, parts, rule, most=timeline._MOST_KEPT)


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
