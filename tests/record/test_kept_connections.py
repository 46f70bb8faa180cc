"""Delayed acknowledgements are recognised by what they do to kept connections, and nothing else is taken for them."""

from __future__ import annotations

from array import array

import pytest

from loadbench.plan.load import Phase
from loadbench.record.kept_connections import KeptConnections
from tests.building import MS, S, a_level, a_recording, a_sample, calm


def one(ttft_ms: float, *, reused: bool = True, head_ms: float = 0.5, together: bool = False, number: int = 0, **more):
    """An answer on a new or a kept connection; `together`: its first events came in one read."""
    due_ns = number * S
    first_ns = due_ns + round(ttft_ms * MS)
    stamps = [first_ns] * 3 + [first_ns + 5 * MS] if together else [first_ns + n * 5 * MS for n in range(4)]
    fields = {
        "due_ns": due_ns,
        "sent_ns": due_ns,
        "headers_ns": due_ns + round(min(head_ms, ttft_ms) * MS),
        "first_token_ns": first_ns,
        "last_token_ns": stamps[-1],
        "end_ns": stamps[-1],
        "event_ns": array("q", stamps),
        "event_tokens": array("q", [1] * 4),
        "output_tokens": 4,
        "reads": len(set(stamps)),
        "reused": reused,
    }
    return a_sample(number, **fields | more)


def delay_of(*samples) -> float | None:
    """The delay in ms that these requests show."""
    connections = KeptConnections()
    for sample in samples:
        connections.add(sample)
    return None if connections.delay_ns is None else connections.delay_ns / MS


NEW = one(2, reused=False)
HELD = [one(ttft_ms, together=True) for ttft_ms in (40.6, 43.1, 43.3, 43.9, 42.0, 43.6)]
QUICK = [one(2), one(2.5)]


@pytest.mark.parametrize(
    "samples",
    [
        [NEW, NEW, *HELD],
        [NEW, *HELD[:2]],
        [NEW, *HELD[:4], *QUICK],  # most are held
        [NEW, *(one(43 + n / 10) for n in range(6))],  # tokens further apart than the delay: nothing else was held
        [*HELD, *QUICK],  # no new connection, and two groups
        [*HELD[:2], *QUICK * 5],
        [NEW, NEW, one(90, reused=False), *HELD],  # a machine that is slow now and then
        [NEW, *HELD, one(49, head_ms=5, together=True), one(58, head_ms=14, together=True)],
        [NEW, *(one(202 + n) for n in range(6))],  # Windows
    ],
)
def test_first_tokens_that_wait_on_kept_connections_are_recognised(samples):
    """By new connections that do not wait, or by two groups of which one brings all that was held."""
    delay_ms = delay_of(*samples)
    assert delay_ms is not None
    assert 40 <= delay_ms <= 206


@pytest.mark.parametrize(
    "samples",
    [
        # A server whose first token takes 40 ms, on every connection; with its tokens in one read, too.
        [one(40.5, reused=False), *(one(40 + n / 10) for n in range(9))],
        [one(40.5, reused=False, together=True), *HELD],
        HELD,
        # One that is slow now and then, that queues, that is quick only at the beginning, or only for a few.
        [NEW, *(one(20 + 9 * n) for n in range(9))],
        [NEW, one(38, reused=False), *(one(40 + n / 10) for n in range(9))],
        [one(15, reused=False), *(one(41 + n / 10) for n in range(9))],
        [NEW, *HELD[:4], *QUICK * 5],
        [*(one(41 + n / 10) for n in range(9)), *QUICK],
        # The head comes with the first token; all on new connections; a single one.
        [NEW, *(one(43, head_ms=43) for _ in range(9))],
        [NEW, *(one(43, reused=False) for _ in range(9))],
        [NEW, HELD[0]],
        [NEW, *QUICK],
        [],
    ],
)
def test_nothing_else_is_taken_for_a_delayed_acknowledgement(samples):
    """No false alarm: without a comparison, a tight cluster and an early head there is no proof."""
    assert delay_of(*samples) is None


@pytest.mark.parametrize(
    ("first_ms", "tokens", "cached", "together", "delayed"),
    [
        (2, 50, 0, True, True),
        (2, 200, 0, True, True),
        (2, 38, 0, True, True),  # of three quarters of the length: it would have taken at most 3.5 ms
        (2, 9, 0, True, False),  # a prompt five times as long may take 25 times as long
        (8, 30, 0, True, False),
        (8, 50, 0, True, True),
        (2, 50, 45, True, False),  # it was mostly cached
        (2, None, 0, True, False),
        (2, 9, 0, False, True),  # single tokens come when a prompt is short, several when it is long: they were held
        (30, 9, 0, False, False),
    ],
)
def test_first_request_with_a_shorter_prompt_counts_as_what_a_longer_one_takes(
    first_ms, tokens, cached, together, delayed
):
    """Its time grows at most with the square of the length; what was cached took none."""
    connections = KeptConnections()
    for sample in HELD:
        connections.add(sample)
    first = one(first_ms, reused=False, input_tokens=tokens, cached_tokens=cached, together=together)
    connections.add_first(first, 50.0)
    assert (connections.delay_ns is not None) is delayed


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("service_ms", [4, 5, 7, 11, 14, 20])
@pytest.mark.parametrize("users", [2, 3, 4, 6, 9, 12])
@pytest.mark.parametrize("ramp", [False, True])
def test_no_queue_looks_like_a_delayed_acknowledgement(together, service_ms, users, ramp):
    """A server without batches that sends the head at once: each waits for all others, new ones for those before."""
    steady = [one(users * service_ms + n / 10, together=together) for n in range(20)]
    first = [one(2 + (n + 1) * service_ms, reused=False, together=together) for n in range(users)]
    during = [one(n * service_ms, together=together) for n in range(1, users)] if ramp else []
    assert delay_of(*first, *during, *steady) is None


def test_a_level_says_so_and_what_to_do():
    """New connections of the warm-up count, kept ones only where they were measured."""
    warm_up = [one(2, reused=False, number=-3, phase=Phase.WARM_UP), one(90, number=-2, phase=Phase.WARM_UP)]
    measured = [one(43 + n % 3, number=n, together=True) for n in range(20)]
    (caveat,) = [
        caveat
        for caveat in a_level(recording=a_recording([*warm_up, *measured])).caveats
        if caveat.code == "delayed_acknowledgements"
    ]
    assert "the first token of 20 of 20 responses on kept connections came 44 ms after the head" in caveat.message
    assert "TCP_NODELAY" in caveat.advice
    asleep = a_level(recording=a_recording([*warm_up, *measured], health=calm(lag_ns=40 * MS)))
    assert "delayed_acknowledgements" not in {caveat.code for caveat in asleep.caveats}
    quiet = a_level(recording=a_recording([one(2, number=n) for n in range(20)]))
    assert [caveat.code for caveat in quiet.caveats] == []


def test_a_prompt_of_one_token_is_half_as_long_as_one_of_two():
    """However short: 5 ms may be 20 then, which is too long to prove anything."""
    for tokens, delayed in ((1, False), (2, True)):
        connections = KeptConnections()
        for sample in HELD:
            connections.add(sample)
        connections.add_first(one(5, reused=False, input_tokens=tokens, together=True), 2.0)
        assert (connections.delay_ns is not None) is delayed


@pytest.mark.parametrize(
    ("samples", "delay_ms"),
    [
        ([NEW, *[one(220.5, together=True)] * 6], 220),  # the longest that is one
        ([NEW, *[one(220.6, together=True)] * 6], None),
        ([NEW, *[one(30.5, together=True)] * 6], None),  # new connections are not that much quicker
        ([one(0.5, reused=False), *[one(32, together=True)] * 6], 31.5),
        ([one(0.5, reused=False), *[one(30.4, together=True)] * 6], None),
        ([*HELD[:2], *QUICK * 9], 40.1),  # one of ten is held
        ([*HELD[:2], *QUICK * 9, QUICK[0]], None),
    ],
)
def test_a_delay_has_bounds(samples, delay_ms):
    """In its length, and in how many responses have it."""
    assert delay_of(*samples) == (None if delay_ms is None else pytest.approx(delay_ms, rel=0.01))


def test_one_event_comes_alone_and_two_of_one_read_together():
    """Together with more is what was held, so that only the second proves it."""
    for stamps, proven in (([43], False), ([43, 43], True), ([43, 50], False)):
        ns = array("q", [round(at * MS) for at in stamps])
        held = [one(43, event_ns=ns, event_tokens=array("q", [1] * len(ns))) for _ in range(6)]
        assert (delay_of(*held, *QUICK) is not None) is proven
