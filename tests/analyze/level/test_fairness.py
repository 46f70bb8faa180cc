"""Whether users were served alike, where it is known who got what."""

from __future__ import annotations

import random

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadbench.analyze.level.fairness import fairness, jain
from loadbench.results.requests import RequestRecord

S = 1_000_000_000


def asked(user: int | None, *, end_s: float, ttft_s: float = 0.1, level: int = 0, outcome: str = "ok") -> RequestRecord:
    """One request that was answered in a second."""
    due_ns = round((end_s - 1) * S)
    first_ns = due_ns + round(ttft_s * S) if outcome == "ok" else None
    return RequestRecord(
        level=level,
        user=user,
        phase="measured",
        outcome=outcome,
        due_ns=due_ns,
        sent_ns=due_ns,
        connect_ns=0,
        first_byte_ns=first_ns,
        first_token_ns=first_ns,
        first_visible_ns=first_ns,
        last_token_ns=first_ns,
        end_ns=round(end_s * S),
        event_gaps_ns=[],
        event_tokens=None,
        output_tokens=1,
        token_source="usage",
        input_tokens=1,
        asked_output_tokens=None,
    )


def served(each_s: dict[int, float], *, seconds: float = 400, ttft_s: dict[int, float] | None = None, seed: int = 0):
    """Answers of users at random moments, each so many seconds apart on average."""
    rng, rows = random.Random(seed), []
    for user, apart_s in each_s.items():
        at_s = rng.expovariate(1 / apart_s)
        while at_s < seconds:
            wait_s = (ttft_s or {}).get(user, 0.1) * rng.uniform(0.5, 1.5)
            rows.append(asked(user, end_s=1 + at_s, ttft_s=wait_s))
            at_s += rng.expovariate(1 / apart_s)
    return sorted(rows, key=lambda row: row.end_ns)


@pytest.mark.parametrize(
    ("shares", "index"),
    [
        ([1.0, 1.0, 1.0, 1.0], 1.0),
        ([1.0, 0.0, 0.0, 0.0], 0.25),  # one has everything
        ([3.0, 3.0, 0.0, 0.0], 0.5),  # two of four share it
        ([1.0, 3.0], 0.8),  # 16 / (2 · 10)
        ([0.0, 0.0], 1.0),  # nobody has anything
    ],
)
def test_jains_index(shares, index):
    """Its definition, in cases that can be worked out by hand."""
    assert float(jain(np.array(shares))) == pytest.approx(index)


@given(st.lists(st.floats(0.001, 1000), min_size=1, max_size=20), st.floats(0.01, 100))
def test_jains_index_knows_no_unit(shares, factor):
    """It lies between 1/n and 1, and is the same in any unit."""
    values = np.array(shares)
    index = float(jain(values))
    assert 1 / len(shares) - 1e-9 <= index <= 1 + 1e-9
    assert float(jain(values * factor)) == pytest.approx(index)


def test_users_served_alike_are_seen_so():
    """Of users who differ by chance alone the interval reaches up to 1, nearly always, and none is starved."""
    held = 0
    for seed in range(40):
        (found,) = fairness(served(dict.fromkeys(range(8), 8.0), seed=seed))
        held += found.throughput_interval[1] >= 0.995
        assert found.starved == []
    assert held >= 34


def test_an_uneven_server_is_seen():
    """Where one of four gets twice what the others do, the interval holds the index of that: 25 / 28."""
    held = 0
    for seed in range(40):
        (found,) = fairness(served({0: 2.0, 1: 4.0, 2: 4.0, 3: 4.0}, seed=seed))
        low, high = found.throughput_interval
        held += low <= 25 / 28 <= high
    # Of 40 intervals of 95 % fewer than 34 hold it once in three hundred times.
    assert held >= 34


def test_the_starved_are_named_with_their_rule():
    """One who got a tenth of the answers, and one who waits five times as long."""
    rows = served({0: 4.0, 1: 4.0, 2: 4.0, 3: 40.0, 4: 4.0}, ttft_s={4: 0.5})
    (found,) = fairness(rows)
    assert [(one.user, one.rule) for one in found.starved] == [
        (3, "fewer than half the completed requests of the median user"),
        (4, "mean TTFT above twice the median user's"),
    ]
    assert found.ttft < 0.7


def test_a_user_without_an_answer_counts():
    """Who asked and got nothing is one of the users, with nothing."""
    rows = [*served(dict.fromkeys(range(3), 4.0)), asked(3, end_s=300, outcome="timeout_total")]
    (found,) = fairness(rows)
    assert found.users == 4
    assert found.throughput == pytest.approx(0.75, abs=0.02)
    assert [(one.user, one.answers, one.mean_ttft_s) for one in found.starved] == [(3, 0, None)]


@pytest.mark.parametrize(("answers", "starved"), [(6, [2]), (7, [])])
def test_a_user_is_starved_where_chance_would_hardly_give_so_few(answers, starved):
    """Of 40 answers of the others half are due: a Poisson count of mean 20 is 6 or less in 0.26 of 1000, and 7 or
    less in 0.78; of three users each may be it."""
    rows = [asked(user, end_s=2 + n) for user in (0, 1) for n in range(40)]
    (level,) = fairness([*rows, *(asked(2, end_s=2 + n) for n in range(answers))])
    assert [one.user for one in level.starved] == starved


@pytest.mark.parametrize(
    ("ttft_s", "count", "starved"), [(0.21, 25, [2]), (0.19, 25, []), (0.21, 5, [2]), (0.9, 4, [])]
)
def test_a_user_is_starved_who_waits_twice_as_long(ttft_s, count, starved):
    """As the median user, by five answers at least; a single long wait is an error of the mean."""
    few = 40 if count == 25 else 6  # so that nobody has half as many answers
    rows = [asked(user, end_s=2 + n) for user in (0, 1) for n in range(few)]
    (level,) = fairness([*rows, *(asked(2, end_s=2 + n, ttft_s=ttft_s) for n in range(count))])
    assert [one.user for one in level.starved] == starved
    once = [asked(2, end_s=2 + n, ttft_s=3.0 if n == 0 else 0.1) for n in range(count)]
    assert fairness([*rows, *once])[0].starved == []


@pytest.mark.parametrize(("counts", "note"), [((5, 5), ""), ((5, 4), "too few completed requests (9 of 2 users)")])
def test_two_users_with_five_answers_each_are_enough(counts, note):
    """For both indices and their intervals."""
    rows = [asked(user, end_s=2 + n) for user, count in enumerate(counts) for n in range(count)]
    (level,) = fairness(rows)
    assert level.note.startswith(note)
    assert bool(level.note) is bool(note)
    assert (level.throughput_interval is None, level.ttft_interval is None) == (bool(note), bool(note))


def test_responses_without_a_first_token_are_counted():
    """As a file of somebody else's may have them."""
    rows = [msgspec.structs.replace(asked(n % 2, end_s=2 + n), first_token_ns=None) for n in range(40)]
    (level,) = fairness(rows)
    assert (level.throughput, level.ttft, level.ttft_interval, level.starved) == (1.0, None, None, [])


def test_too_few_have_no_interval():
    """Fewer than five answers each say more of chance; the index stands, and that it is by too few."""
    (found,) = fairness([asked(user, end_s=2.0 + n) for user in range(4) for n in range(3)])
    assert found.throughput == 1.0
    assert found.throughput_interval is None
    assert found.note == "too few completed requests (12 of 4 users): at least 5 per user are needed"


def test_one_user_and_none():
    """A single user has nobody to be compared with; open levels have no users."""
    (found,) = fairness(served({0: 4.0}))
    assert found.note == "fairness needs at least two users"
    assert fairness([asked(None, end_s=2.0)]) == []


def test_levels_are_kept_apart():
    """Each closed level has its own figures, in the order of the run."""
    rows = [asked(user, end_s=2.0 + n, level=level) for level in (1, 0) for user in range(2) for n in range(9)]
    assert [(one.level, one.answers) for one in fairness(rows)] == [(0, 18), (1, 18)]
