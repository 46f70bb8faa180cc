"""The self-check: its arithmetic on scripted recordings, its climb, and a short check of this very machine."""

from __future__ import annotations

import socket
from array import array
from dataclasses import replace
from typing import TYPE_CHECKING

import anyio
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadbench.client.fast_transport import FastTransport
from loadbench.client.transport import HttpRequest
from loadbench.engine.selfcheck import _Check, _KeepingTransport, advise, measure, next_users, selfcheck
from loadbench.engine.stamp_errors import (
    AnsweredStream,
    CheckLoad,
    ErrorQuantiles,
    LoadCheck,
    Recording,
    check,
    cpu_share,
    gap_errors,
    merged_share,
    plateau,
    server_lateness,
    spread,
    stamp_errors,
    ttft_errors,
    within,
)
from loadbench.sim.truth import Pace
from tests.building import MS, S

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadbench.client.transport import Sink

PACE = Pace(ttft_ns=50 * MS, gap_ns=20 * MS, events=4)


def answered(
    *errors_ns: int, user: int = 0, began_ns: int = 0, sent_ns: int = 0, late_ns: Sequence[int] = ()
) -> AnsweredStream:
    """An answer at `PACE` to a request that arrived at `began_ns`; the client's stamps are off by `errors_ns`."""
    late_ns = late_ns or [0] * len(errors_ns)
    server_ns = [began_ns + PACE.due_ns(number) + late for number, late in enumerate(late_ns)]
    stamps = [told + error for told, error in zip(server_ns, errors_ns, strict=True)]
    return AnsweredStream(
        user=user,
        sent_ns=began_ns + sent_ns,
        arrived_ns=began_ns,
        event_ns=array("q", stamps),
        server_ns=array("q", server_ns),
    )


def load_check(**over: object) -> LoadCheck:
    """A load that was held."""
    calm = ErrorQuantiles(p50=1e-5, p99=1e-4, max=1e-3, count=1000)
    fields: dict[str, object] = {
        "users": 10,
        "events_per_s": 500.0,
        "stamp_error_s": calm,
        "ttft_error_s": calm,
        "gap_error_s": calm,
        "server_late_s": calm,
        "gap_s": 0.02,
        "merged_reads": 0.0,
        "cpu_share": 0.2,
        "failed": 0,
        **over,
    }
    return LoadCheck(**fields)  # type: ignore[arg-type]


SLOW = ErrorQuantiles(p50=0.001, p99=0.015, max=0.02, count=1000)


# The errors.


def test_a_stamp_error_is_the_clients_stamp_minus_the_servers() -> None:
    """One for each event of each answer, with its sign."""
    assert stamp_errors([answered(7, 8, 9, -1), answered(3)]) == [7, 8, 9, -1, 3]


def test_a_ttft_error_counts_from_each_sides_own_beginning() -> None:
    """The client's from when it had sent, the server's from when it had read: a late `sent` shortens the former."""
    assert ttft_errors([answered(7, 8), answered(7, sent_ns=2)]) == [7, 5]


def test_a_part_without_the_first_token_has_no_ttft() -> None:
    """What was cut off at the front of a window is not taken for a first token."""
    parts = within([answered(7, 8, 9)], (60 * MS, 80 * MS))
    assert (parts[0].first_event, ttft_errors(parts)) == (1, [])


def test_a_gap_error_is_without_sign() -> None:
    """A constant delay is in no gap; one late stamp makes one gap too long and the next too short."""
    assert gap_errors([answered(5, 5, 5)]) == [0, 0]
    assert gap_errors([answered(0, 4, 0)]) == [4, 4]


def test_lateness_counts_from_the_schedule() -> None:
    """The server's own, in a part of an answer too."""
    answer = answered(0, 0, 0, late_ns=[1, 2, 3])
    assert server_lateness([answer], PACE) == [1, 2, 3]
    assert server_lateness(within([answer], (60 * MS, S)), PACE) == [2, 3]


def test_merged_reads_share_a_stamp() -> None:
    """Events of one answer with one stamp came in one read; equal stamps of two answers did not."""
    gap = 20 * MS
    merged = answered(gap, 0, 0)
    assert merged_share([merged]) == 1 / 2
    assert merged_share([answered(1), answered(1)]) == 0
    assert merged_share([]) is None


@given(st.lists(st.integers(-(10**9), 10**12), min_size=1))
def test_a_spread_is_exact(values: list[int]) -> None:
    """p50 and p99 are values that occur: at least so many are no larger, and fewer are smaller."""
    found = spread(values)
    assert found is not None
    assert found.count == len(values)
    assert found.max == max(values) / 1e9
    for share, quantile in ((0.5, found.p50), (0.99, found.p99)):
        assert sum(value / 1e9 <= quantile for value in values) >= share * len(values)
        assert sum(value / 1e9 < quantile for value in values) < share * len(values)
    assert found.p50 <= found.p99 <= found.max


def test_of_nothing_there_is_no_spread() -> None:
    """Not zero: nothing."""
    assert spread([]) is None


# The plateau.


def test_the_plateau_is_while_all_are_streaming() -> None:
    """From the last user's first event to the first user's last one, over all answers of each."""
    answers = [
        answered(0, 0, 0, 0, user=0),
        answered(0, 0, 0, 0, user=1, began_ns=30 * MS),
        answered(0, 0, 0, 0, user=0, began_ns=200 * MS),
    ]
    assert plateau(answers) == (80 * MS, 140 * MS)
    assert plateau([]) == (0, 0)


@given(st.integers(0, 200), st.integers(0, 200))
def test_a_part_is_what_was_sent_in_the_window(opens: int, closes: int) -> None:
    """Both ends included, in both sides' stamps, and nothing of an answer outside."""
    answer = answered(1, 2, 3, 4)
    window = (opens * MS, closes * MS)
    parts = within([answer], window)
    expected = [server_ns for server_ns in answer.server_ns if window[0] <= server_ns <= window[1]]
    assert [server_ns for part in parts for server_ns in part.server_ns] == expected
    assert stamp_errors(parts) == [server_ns // (20 * MS) - 1 for server_ns in expected]


def test_cpu_is_read_inside_the_window() -> None:
    """Of the readings there the first and the last; of all of them where there are too few; nothing of one."""
    readings = [(0, 0), (10, 1), (20, 9), (30, 10)]
    assert cpu_share(readings, (10, 20)) == 0.8
    assert cpu_share(readings, (11, 12)) == 1 / 3
    assert cpu_share(readings[:1], (0, 100)) is None


def test_a_check_looks_at_the_plateau() -> None:
    """Errors outside it are not counted, unless it never came to one; then all are."""
    load = CheckLoad(users=2, pace=PACE)
    late = answered(MS, 5, 6, 7, user=0)
    other = answered(1, 2, 3, 9 * MS, user=1, began_ns=10 * MS)
    checked = check(Recording(load=load, streams=[late, other], failed=3, cpu=[(0, 0), (10, 5)]))
    assert checked.stamp_error_s == ErrorQuantiles(p50=3e-9, p99=7e-9, max=7e-9, count=6)
    assert (checked.users, checked.failed, checked.gap_s, checked.merged_reads) == (2, 3, 0.02, 0)
    assert checked.events_per_s == 2 / 0.02
    far = replace(other, server_ns=array("q", [at + S for at in other.server_ns]))
    assert check(Recording(load=load, streams=[late, far])).stamp_error_s.count == 8


def test_of_no_answers_a_check_says_nothing() -> None:
    """Every figure is absent, and the load was not held."""
    checked = check(Recording(load=CheckLoad(users=1, pace=PACE), streams=[], failed=1))
    assert (checked.stamp_error_s, checked.server_late_s, checked.merged_reads) == (None, None, None)
    assert not checked.stamps_hold
    assert checked.limit is not None


# Who could not keep up.


@pytest.mark.parametrize(
    ("over", "limit"),
    [
        ({}, None),
        ({"stamp_error_s": SLOW}, "client"),
        ({"merged_reads": 0.02}, "client"),
        ({"failed": 1}, "client"),
        ({"server_late_s": SLOW}, "server"),
        ({"server_late_s": None}, "server"),
        # Events that the server sent too late run together, and no client could tell them apart.
        ({"server_late_s": SLOW, "stamp_error_s": SLOW, "merged_reads": 0.5}, "server"),
        ({"cpu_share": 0.95}, "client"),
        ({"cpu_share": 0.95, "server_late_s": SLOW}, "client"),
        ({"cpu_share": None}, None),
    ],
)
def test_who_is_the_limit(over: dict[str, object], limit: str | None) -> None:
    """The client where it used up its core; else the server where it was late; else whoever shows in the stamps."""
    assert load_check(**over).limit == limit


# The climb.


@given(st.integers(1, 5000), st.integers(1, 4096), st.integers(1, 4096))
def test_the_climb_finds_the_ceiling(truth: int, start: int, most: int) -> None:
    """It ends within a tenth of the highest number that holds, having tried none twice and none above the most."""
    most = max(most, start)
    held, lost = (start, None) if start <= truth else (None, start)
    tried = {start}
    while (users := next_users(held, lost, most=most)) is not None:
        assert users not in tried
        assert 1 <= users <= most
        tried.add(users)
        held, lost = (users, lost) if users <= truth else (held, users)
    assert len(tried) <= 20
    assert held is not None
    assert held <= truth
    if lost is None:
        assert held == most
    else:
        assert lost <= max(held * 1.1, held + 1)


def test_where_nobody_is_held_the_climb_ends() -> None:
    """Down to one user, and no further."""
    assert next_users(None, 3, most=100) == 1
    assert next_users(None, 1, most=100) is None


def climbed(verdicts: dict[int, list[LoadCheck]], *, budget_ns: int = 3600 * S) -> tuple[float | None, str]:
    """What the climb from 10 users finds where each load shows this, time after time."""

    class Scripted(_Check):
        async def _check(self, load: CheckLoad) -> LoadCheck:
            return verdicts[load.users].pop(0)

    async def climb() -> tuple[float | None, str]:
        scripted = Scripted([], budget_ns=budget_ns, say=lambda _: None)
        (begins,) = verdicts[10]
        return await scripted._climb(begins, CheckLoad(users=10, pace=PACE))

    return anyio.run(climb)


def test_a_load_has_failed_when_it_has_failed_twice() -> None:
    """One disturbance is forgiven; the last load that held is the ceiling, and who failed above it is named."""
    held = load_check(stamp_error_s=spread([1]))
    failed = load_check(stamp_error_s=SLOW)
    verdicts = {
        10: [held],
        20: [failed, msgspec.structs.replace(held, events_per_s=1000.0)],
        40: [failed, failed],
        28: [failed, failed],
        24: [failed, failed],
        22: [msgspec.structs.replace(held, events_per_s=1100.0)],
    }
    assert climbed(verdicts) == (1100.0, "client")
    assert not any(verdicts[users] for users in (20, 40, 28, 24, 22))


def test_without_time_the_given_load_is_what_was_found() -> None:
    """It held and nothing else was tried: a longer budget would tell more."""
    assert climbed({10: [load_check()]}, budget_ns=0) == (500.0, "budget")


def test_a_given_load_that_was_not_held_is_no_ceiling() -> None:
    """There is none, and the one who failed is named."""
    assert climbed({10: [load_check(server_late_s=SLOW)]}, budget_ns=0) == (None, "server")


# The words.


def words(given: LoadCheck, **over: object) -> str:
    """The advice in one text."""
    fields = {"ceiling": 5000.0, "limit": "client", "requests_per_s": 900.0, "stamp_source": "kernel", **over}
    return "\n".join(advise(given, **fields))


def test_a_good_client_can_be_trusted() -> None:
    """The words name the load, the ceilings, and whose limit it is."""
    text = words(load_check())
    assert "users=10 with a chunk every 20 ms" in text
    assert "can be trusted" in text
    assert "5,000 chunks/s, which is 100 streams" in text
    assert "900 short requests/s" in text
    assert "user" in words(load_check(), stamp_source="user").splitlines()[-1]


def test_a_late_server_makes_it_inconclusive() -> None:
    """Nothing is said about the client at that load; the server's lateness is told."""
    text = words(load_check(server_late_s=SLOW, stamp_error_s=SLOW))
    assert text.startswith("inconclusive: the test server itself was late (p99 15.0 ms late)")
    assert "trusted" not in text
    assert "too slow" not in text


def test_a_slow_client_is_told_what_is_wrong() -> None:
    """Each finding in its own line: stamps, merged reads, failures."""
    text = words(load_check(stamp_error_s=SLOW, merged_reads=0.25, failed=3), ceiling=None)
    for part in ("too slow", "wrong by over 1 ms", "25.0% of the reads", "3 requests failed", "kept up with no load"):
        assert part in text


# The load.


@given(st.integers(1, 300))
def test_users_begin_over_the_ramp(users: int) -> None:
    """Within it and one gap, no two at once; the first at once."""
    load = CheckLoad(users=users, pace=Pace())
    begins = [load.begins_ns(user) for user in range(users)]
    assert begins[0] == 0
    assert len(set(begins)) == users
    assert max(begins) <= load.ramp_ns + load.pace.gap_ns


def test_a_load_is_so_many_events_a_second() -> None:
    """Users times the rate of each; an answer lasts to its last event."""
    load = CheckLoad(users=32, pace=Pace(ttft_ns=50 * MS, gap_ns=20 * MS, events=64))
    assert load.events_per_s == 1600
    assert load.response_ns == 50 * MS + 63 * 20 * MS


class _Told:
    """A sink that keeps what it is told."""

    def __init__(self) -> None:
        self.calls: list[tuple[object, ...]] = []

    def reconnecting(self) -> None:
        self.calls.append(("reconnecting",))

    def connected(self, at_ns: int, *, reused: bool, connect_ns: int | None, **_: object) -> None:
        self.calls.append(("connected", at_ns, reused, connect_ns))

    def sent(self, at_ns: int) -> None:
        self.calls.append(("sent", at_ns))

    def headers(self, at_ns: int, status: int, headers: Sequence[tuple[bytes, bytes]]) -> None:
        self.calls.append(("headers", at_ns, status, headers))

    def data(self, at_ns: int, chunk: bytes) -> None:
        self.calls.append(("data", at_ns, chunk))


def play(sink: Sink) -> None:
    """One exchange, with everything that a transport can tell."""
    sink.reconnecting()
    sink.connected(1, reused=False, connect_ns=7)
    sink.sent(2)
    sink.headers(3, 200, [(b"a", b"b")])
    sink.data(4, b"one")
    sink.data(5, b"two")


def test_the_tee_changes_nothing() -> None:
    """The client is told what it would be told without it; the bytes are kept until they are taken."""

    class Script:
        async def exchange(self, exchange: HttpRequest, sink: Sink) -> None:
            play(sink)

        async def aclose(self) -> None:
            """Nothing is open."""

    plain, heard = _Told(), _Told()
    play(plain)
    tee = _KeepingTransport(Script())
    anyio.run(tee.exchange, HttpRequest("GET", "http://x/"), heard)
    assert heard.calls == plain.calls
    assert tee.take() == b"onetwo"
    assert tee.take() == b""


def test_a_server_that_never_answers_is_given_up() -> None:
    """The load ends though no answer does, and all its answers count as failed."""

    async def run() -> Recording:
        load = CheckLoad(users=2, pace=Pace(ttft_ns=0, gap_ns=MS, events=2), responses=3)
        transport = FastTransport()
        try:
            return await measure(load, transport, urls=[f"http://127.0.0.1:{deaf.getsockname()[1]}"])
        finally:
            await transport.aclose()

    with socket.create_server(("127.0.0.1", 0)) as deaf:
        recording = anyio.run(run)
    assert (recording.streams, recording.failed) == ([], 6)


# This machine.


@pytest.mark.slow
def test_a_short_check_of_this_machine() -> None:
    """It ends, has figures for each error in their order, and no stamp is before its event by more than the clocks."""
    said: list[str] = []
    found = selfcheck(users=3, gap_ns=5 * MS, ttft_ns=5 * MS, budget_ns=2 * S, say=said.append)
    assert found.stamp_source in {"kernel", "user"}
    for errors in (found.stamp_error_s, found.ttft_error_s, found.gap_error_s):
        assert errors is not None
        assert errors.p50 <= errors.p99 <= errors.max
    # Two clocks are compared for a kernel stamp; half a millisecond is what the stamper itself calls a step.
    assert found.stamp_error_s.p50 > -0.0005
    assert found.gap_error_s.p50 < found.given.gap_s
    assert found.gap_error_s.count < found.stamp_error_s.count
    assert found.given.users == 3
    assert found.given.failed == 0
    assert 0 < found.given.events_per_s <= 600
    assert found.stamp_error_s.count > found.ttft_error_s.count
    assert found.given.merged_reads < 0.5
    assert found.requests_per_s_ceiling > 0
    assert found.steps[0].users == 3
    assert len(said) == len(found.steps) + 1
    assert found.advice
    held = [step.events_per_s for step in found.steps if step.limit is None]
    assert found.events_per_s_ceiling in ([*held] or [None])
