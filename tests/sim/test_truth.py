"""The truth server: what it says of itself, held against what can be seen from outside."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadbench.plan.conversation import user_message
from loadbench.record.outcome import Outcome, TokenSource
from loadbench.sim.process import TruthProcess
from loadbench.sim.truth import Pace, _Stream, read_pace, read_record, read_true_times
from loadbench.wire.body import request_body
from loadbench.wire.openai import Api
from loadbench.wire.response_reader import ResponseReader
from loadbench.wire.shortcut import VaryingShortcut

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

COMMAND = [sys.executable, "-m", "loadbench.sim.truth"]
QUICK = Pace(ttft_ns=2_000_000, gap_ns=1_000_000, events=20)


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """Its URL."""
    with TruthProcess() as process:
        yield process.url


def request(prompt: str) -> bytes:
    """As our client writes it."""
    messages = user_message(prompt)
    body = request_body(Api.CHAT, model="truth", messages=messages, max_tokens=4, temperature=None, seed=None)
    return b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


def connect(url: str) -> socket.socket:
    """A plain connection."""
    where = urlsplit(url)
    return socket.create_connection((where.hostname, where.port), timeout=20)


def read(connection: socket.socket, end: bytes = b"\r\n0\r\n\r\n") -> list[tuple[int, bytes]]:
    """(moment after the read, bytes) of each read, up to the answer's end."""
    reads: list[tuple[int, bytes]] = []
    while not reads or not reads[-1][1].endswith(end):
        data = connection.recv(1 << 20)
        reads.append((time.perf_counter_ns(), data))
        assert data, "closed before the end"
    return reads


def ask(url: str, pace: Pace) -> tuple[int, bytes, list[tuple[int, bytes]]]:
    """(moment before the request was sent, the whole answer, its reads)."""
    with connect(url) as connection:
        before_ns = time.perf_counter_ns()
        connection.sendall(request(pace.prompt))
        reads = read(connection)
    return before_ns, b"".join(data for _, data in reads), reads


def body_of(answer: bytes) -> bytes:
    """The chunks of an answer, put together."""
    rest, parts = answer.partition(b"\r\n\r\n")[2], []
    while (size := int(rest[: rest.index(b"\r\n")], 16)) > 0:
        start = rest.index(b"\r\n") + 2
        parts.append(rest[start : start + size])
        rest = rest[start + size + 2 :]
    return b"".join(parts)


def status_of(url: str, raw: bytes) -> bytes:
    """The status line of an answer in one piece."""
    with connect(url) as connection:
        connection.sendall(raw)
        return connection.recv(65536).partition(b"\r\n")[0]


# Its stamps.


def test_it_says_nothing_that_has_not_happened(server: str) -> None:
    """Request sent, request arrived, events sent, events read: in this order on one clock, in two processes."""
    before_ns, answer, reads = ask(server, QUICK)
    arrived_ns, told_ns = read_true_times(answer)
    assert before_ns <= arrived_ns <= told_ns[0]
    assert told_ns == sorted(told_ns)
    for read_ns, data in reads:
        assert all(int(stamp) <= read_ns for stamp in re.findall(rb"\bt_ns=(\d+)", data))


def test_no_event_is_sent_before_it_is_due(server: str) -> None:
    """Each is sent at its place in the schedule that begins with the arrival, or after it."""
    _, answer, _ = ask(server, QUICK)
    arrived_ns, told_ns = read_true_times(answer)
    assert all(told_ns - arrived_ns >= QUICK.due_ns(number) for number, told_ns in enumerate(told_ns))


def test_the_schedule_is_absolute() -> None:
    """However late an event is sent, the next is due when it always was."""

    class Wire:
        closed = False

        def write(self, data: bytes) -> None:
            """The stamp is now, long after the schedule."""

    pace = Pace(ttft_ns=5, gap_ns=10, events=4)
    stream = _Stream(Wire(), pace, arrived_ns=1000)
    assert [stream.due_ns, *(stream.send() for _ in range(4))] == [1005, 1015, 1025, 1035, None]
    assert [pace.due_ns(number) + 1000 for number in range(4)] == [1005, 1015, 1025, 1035]


def test_a_request_has_arrived_with_its_last_byte(server: str) -> None:
    """One that comes in two parts is stamped after the second was sent."""
    raw = request(QUICK.prompt)
    with connect(server) as connection:
        connection.sendall(raw[:-1])
        time.sleep(0.02)
        before_ns = time.perf_counter_ns()
        connection.sendall(raw[-1:])
        arrived_ns, _ = read_true_times(b"".join(data for _, data in read(connection)))
    assert arrived_ns >= before_ns


def test_streams_do_not_wait_for_each_other(server: str) -> None:
    """Two that are asked for at once run at once: each has begun before the other ends."""
    pace = Pace(ttft_ns=1_000_000, gap_ns=10_000_000, events=50)
    with connect(server) as one, connect(server) as other:
        for connection in (one, other):
            connection.sendall(request(pace.prompt))
        stamps = [read_true_times(b"".join(data for _, data in read(each)))[1] for each in (one, other)]
    assert stamps[0][0] < stamps[1][-1]
    assert stamps[1][0] < stamps[0][-1]


# Its answers.


@pytest.mark.parametrize(
    "pace",
    [
        Pace(ttft_ns=0, gap_ns=1_000_000, events=1),
        Pace(ttft_ns=1_000_000, gap_ns=1_000_000, events=2),
        Pace(ttft_ns=0, gap_ns=1_000_000, events=10, per_write=4),
        Pace(ttft_ns=0, gap_ns=1_000_000, events=10, per_write=2, padded=True),
        Pace(ttft_ns=0, gap_ns=1_000_000, events=10, per_write=4, numbered=True),
        Pace(ttft_ns=1_000_000, gap_ns=1_000_000, events=3, padded=True, numbered=True),
        Pace(ttft_ns=1_000_000, gap_ns=0, events=5, per_write=9),
    ],
    ids=lambda pace: pace.prompt,
)
def test_it_sends_what_was_asked_for(server: str, pace: Pace) -> None:
    """So many events with text, so many of them in a write with one stamp, and a usage that says the same."""
    _, raw, _ = ask(server, pace)
    _, told_ns = read_true_times(raw)
    assert len(told_ns) == pace.events
    writes = -(-pace.events // pace.per_write)
    assert len(set(told_ns)) == writes
    assert len({told_ns[number // pace.per_write * pace.per_write] for number in range(pace.events)}) == writes
    answer = ResponseReader(Api.CHAT)
    answer.feed(1, body_of(raw))
    answer.close(1)
    assert answer.outcome() == (Outcome.OK, "")
    assert answer.output_tokens() == (pace.events, TokenSource.USAGE)
    assert len(answer.event_ns) == pace.events
    assert answer.done_ns == 1


def test_its_events_differ_in_nothing_but_their_text(server: str) -> None:
    """So the client reads them as it reads those of real servers: two are read, the rest are counted."""
    _, raw, _ = ask(server, QUICK)
    first, second, third, *_ = re.findall(rb"data: .*?\n\n", body_of(raw))
    answer = ResponseReader(Api.CHAT)
    answer.feed(1, first)
    answer.feed(2, second)
    assert answer._shortcut is not None
    assert answer._shortcut.count(third)[0] == 1


def test_padded_events_differ_in_their_padding_too(server: str) -> None:
    """So the client must read them."""
    _, raw, _ = ask(server, replace(QUICK, padded=True))
    events = re.findall(rb"data: .*?\n\n", body_of(raw))[: QUICK.events]
    frames = [orjson.loads(event.removeprefix(b"data: ")) for event in events]
    assert len({frame["obfuscation"] for frame in frames}) == QUICK.events
    answer = ResponseReader(Api.CHAT)
    for number, event in enumerate(events):
        answer.feed(number, event)
    assert isinstance(answer._shortcut, VaryingShortcut)  # each is looked at
    assert len(answer.event_ns) == QUICK.events


def test_numbered_events_have_their_number(server: str) -> None:
    """Each its own, also where several are in one write."""
    _, raw, _ = ask(server, replace(QUICK, per_write=3, numbered=True))
    events = re.findall(rb"data: .*?\n\n", body_of(raw))[: QUICK.events]
    numbers = [orjson.loads(event.removeprefix(b"data: "))["seq"] for event in events]
    assert numbers == list(range(numbers[0], numbers[0] + QUICK.events))


def test_the_record_has_what_the_responses_say(tmp_path: Path) -> None:
    """Arrival and writes of every response that was begun, in the order of arrival."""
    paces = [QUICK, replace(QUICK, events=10, per_write=4)]
    with TruthProcess(tmp_path / "record.json") as process:
        said = [read_true_times(body_of(ask(process.url, pace)[1])) for pace in paces]
    record = read_record(tmp_path / "record.json")
    assert [(one.arrived_ns, one.per_write) for one in record] == [(said[0][0], 1), (said[1][0], 4)]
    assert [one.written_ns for one in record] == [said[0][1], said[1][1][::4]]


def test_a_connection_is_kept(server: str) -> None:
    """The next request on it is answered too, by its own pace."""
    with connect(server) as connection:
        for events in (3, 5):
            connection.sendall(request(f"ttft=0 gap=1ms events={events}"))
            assert len(read_true_times(b"".join(data for _, data in read(connection)))[1]) == events


def test_who_reads_late_gets_everything(server: str) -> None:
    """More than the sockets hold waits at the server, and comes whole and in order, with the answer's end."""
    pace = Pace(ttft_ns=0, gap_ns=1_000, events=60_000, per_write=2_000)
    with connect(server) as connection:
        connection.sendall(request(pace.prompt))
        time.sleep(0.2)
        raw = b"".join(data for _, data in read(connection))
    _, told_ns = read_true_times(raw)
    assert len(raw) > 8_000_000
    assert len(told_ns) == pace.events
    assert told_ns == sorted(told_ns)


def test_who_goes_away_disturbs_nobody(server: str) -> None:
    """A stream whose client has closed is dropped; another is served to its end."""
    with connect(server) as leaver:
        leaver.sendall(request("ttft=0 gap=1ms events=100000"))
        leaver.recv(100)
    assert len(read_true_times(ask(server, QUICK)[1])[1]) == QUICK.events


def test_it_refuses_what_it_does_not_speak(server: str) -> None:
    """A pace that cannot be is a bad request, another path is not found, the model is listed."""
    assert status_of(server, request("gap=3")) == b"HTTP/1.1 400 Bad Request"
    assert status_of(server, request("events=0")) == b"HTTP/1.1 400 Bad Request"
    assert status_of(server, b"POST /v1/other HTTP/1.1\r\ncontent-length: 0\r\n\r\n") == b"HTTP/1.1 404 Not Found"
    assert status_of(server, b"GET /v1/models HTTP/1.1\r\n\r\n") == b"HTTP/1.1 200 OK"


# What is asked for.


@given(
    st.builds(
        Pace,
        ttft_ns=st.integers(0, 10**12),
        gap_ns=st.integers(0, 10**12),
        events=st.integers(1, 10**6),
        per_write=st.integers(1, 100),
    )
)
def test_a_pace_survives_the_request(pace: Pace) -> None:
    """Written as a prompt and read out of the request's body it is the same."""
    assert read_pace(request(pace.prompt)) == pace


def test_what_is_left_out_is_as_usual() -> None:
    """A prompt that says nothing of it gets the pace of the module's own example."""
    assert read_pace(b"Say something, budget=7!") == Pace()
    assert Pace().prompt == "ttft=50ms gap=20ms events=64 per_write=1"
    assert read_pace(b"events=3 please") == Pace(events=3)


@given(st.lists(st.integers(0, 50), min_size=1, max_size=20), st.integers(1, 5))
def test_due_times_are_ttft_and_gaps(gaps: list[int], per_write: int) -> None:
    """Events of one write are due together, writes at one gap from each other."""
    pace = Pace(ttft_ns=7, gap_ns=3, events=len(gaps), per_write=per_write)
    due = [pace.due_ns(number) for number in range(pace.events)]
    assert due[0] == 7
    steps = [later - earlier for earlier, later in pairwise(due)]
    assert steps == [3 if number % per_write == 0 else 0 for number in range(1, pace.events)]


def test_what_it_did_not_say_is_not_told() -> None:
    """The bytes of another server are a ValueError."""
    with pytest.raises(ValueError, match="not a response of the truth server"):
        read_true_times(b'data: {"choices":[]}\n\n')


# The process.


def test_it_ends_with_its_standard_input() -> None:
    """A parent that is gone has closed the pipe: it ends by itself, though a stream is on its way, and says nothing."""
    pipe = subprocess.PIPE
    with subprocess.Popen(COMMAND, stdin=pipe, stdout=pipe, stderr=pipe) as child:
        url = child.stdout.readline().decode().removeprefix("READY ").strip()
        with connect(url) as connection:
            connection.sendall(request("ttft=0 gap=1ms events=100000"))
            connection.recv(100)
            child.stdin.close()
            assert child.wait(20) == 0
        assert (child.stdout.read(), child.stderr.read()) == (b"", b"")


@pytest.mark.skipif(sys.platform == "win32", reason="sends POSIX signals")
def test_a_signal_ends_it_quietly() -> None:
    """SIGTERM while it waits for nothing: it ends with 0."""
    with subprocess.Popen(COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout.readline().startswith(b"READY http://127.0.0.1:")
        child.send_signal(signal.SIGTERM)
        assert child.wait(20) == 0


def test_a_port_in_use_is_one_line(server: str) -> None:
    """The command ends with the code for bad input and one line that names the port."""
    port = server.rsplit(":", 1)[1]
    done = subprocess.run([*COMMAND, "--port", port], check=False, input="", capture_output=True, text=True, timeout=20)
    assert done.returncode == 2
    assert port in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("host", ["ñ" * 64, "a..b", "x" * 64])
def test_a_name_that_cannot_exist_is_one_line(host: str) -> None:
    """The host is named, without a traceback."""
    done = subprocess.run([*COMMAND, "--host", host], check=False, input="", capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stderr.startswith(f"cannot listen on {host}:0: no host has this name")
    assert done.stderr.count("\n") == 1
