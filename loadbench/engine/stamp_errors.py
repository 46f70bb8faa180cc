"""What a load against the truth server shows: the client's stamps compared with the server's, event by event.

    stamp error   client's stamp - server's stamp just before the write
    TTFT error    (first token - sent) by the client, minus (first write - request read) by the server
    gap error     |the client's gap - the server's|, between two events of one response
    server late   server's stamp - when the event was due

All stamps are of one clock, in ns; all values are kept, and quantiles are those of the sorted values. Users start
spread over a ramp, so only the plateau counts, while all of them are streaming.

The server must be on time for this. If it is late by half a gap, events run together that the client cannot tell
apart, and nothing is known about the client.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from dataclasses import dataclass, replace
from itertools import groupby, pairwise
from typing import TYPE_CHECKING, Literal

import msgspec

from loadbench.core.units import NS_PER_S

if TYPE_CHECKING:
    from array import array
    from collections.abc import Iterable, Sequence

    from loadbench.record.histogram import Histogram
    from loadbench.sim.truth import Pace

# What a client may add to a stamp, at p99: 5 % of the usual gap of 20 ms.
MOST_ERROR_NS = 1_000_000
# Runs with a smaller share of merged reads had a p99 far below that; every run above it had a larger one.
MOST_MERGED = 0.01
# A busier core has nothing left for bursts.
MOST_CPU = 0.9
# Multiples of the golden ratio, modulo 1, fill an interval evenly however many there are.
_GOLDEN = (math.sqrt(5) - 1) / 2

Limit = Literal["client", "server"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckLoad:
    """A number of users, each reading one response after another at this pace."""

    users: int
    pace: Pace
    responses: int = 1

    @property
    def events_per_s(self) -> float:
        """The rate of events while all users are streaming."""
        return self.users * NS_PER_S / self.pace.gap_ns

    @property
    def response_ns(self) -> int:
        """How long one response takes."""
        return self.pace.due_ns(self.pace.events - 1)

    @property
    def ramp_ns(self) -> int:
        """From the first user's start to the last one's: half of the time that a response streams."""
        return (self.response_ns - self.pace.ttft_ns) // 2

    def begins_ns(self, user: int) -> int:
        """When a user starts: spread over the ramp, and over a gap, so that events do not come in bursts."""
        return self.ramp_ns * user // self.users + round(self.pace.gap_ns * (user * _GOLDEN % 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class AnsweredStream:
    """One response as both sides saw it, or the part of it from event `first_event` on.

    `event_ns` are the client's stamps, `server_ns` the server's; `sent_ns` is the client's, `arrived_ns` the server's.
    """

    user: int
    sent_ns: int
    arrived_ns: int
    event_ns: array[int]
    server_ns: array[int]
    first_event: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """What a load left behind: complete responses, the number of others, (moment, CPU time used so far) in ns."""

    load: CheckLoad
    streams: Sequence[AnsweredStream]
    failed: int = 0
    cpu: Sequence[tuple[int, int]] = ()
    read_delay: Histogram | None = None


class ErrorQuantiles(msgspec.Struct, frozen=True, kw_only=True):
    """Exact quantiles of differences, in seconds."""

    p50: float
    p99: float
    max: float
    count: int


class LoadCheck(msgspec.Struct, frozen=True, kw_only=True):
    """What a load showed; `None` where nothing could be seen. Shares are between 0 and 1."""

    users: int
    events_per_s: float
    stamp_error_s: ErrorQuantiles | None
    ttft_error_s: ErrorQuantiles | None
    gap_error_s: ErrorQuantiles | None
    server_late_s: ErrorQuantiles | None
    gap_s: float
    merged_reads: float | None
    cpu_share: float | None
    failed: int
    read_delay_p99_s: float | None = None

    @property
    def server_was_late(self) -> bool:
        """Whether it was late by so much that its events ran together."""
        return self.server_late_s is None or self.server_late_s.p99 > self.gap_s / 2

    @property
    def stamps_hold(self) -> bool:
        """Whether the client added less than a millisecond to nearly every stamp."""
        return self.stamp_error_s is not None and self.stamp_error_s.p99 <= MOST_ERROR_NS / NS_PER_S

    @property
    def limit(self) -> Limit | None:
        """Who could not keep up; `None` if both did."""
        if (self.cpu_share or 0) > MOST_CPU:
            return "client"
        if self.server_was_late:
            return "server"
        holds = self.stamps_hold and (self.merged_reads or 0) <= MOST_MERGED and not self.failed
        return None if holds else "client"


def spread(differences_ns: Iterable[int]) -> ErrorQuantiles | None:
    """Quantiles by nearest rank, nothing rounded; `None` without values."""
    ordered = sorted(differences_ns)
    if not ordered:
        return None
    p50, p99 = (ordered[-(-percent * len(ordered) // 100) - 1] / NS_PER_S for percent in (50, 99))
    return ErrorQuantiles(p50=p50, p99=p99, max=ordered[-1] / NS_PER_S, count=len(ordered))


def plateau(streams: Sequence[AnsweredStream]) -> tuple[int, int]:
    """From the moment at which the last user has a first event to that at which the first user has its last one, in
    ns; may be empty."""
    first: dict[int, int] = {}
    last: dict[int, int] = {}
    for stream in streams:
        first[stream.user] = min(stream.server_ns[0], first.get(stream.user, stream.server_ns[0]))
        last[stream.user] = max(stream.server_ns[-1], last.get(stream.user, stream.server_ns[-1]))
    return max(first.values(), default=0), min(last.values(), default=0)


def within(streams: Iterable[AnsweredStream], window: tuple[int, int]) -> list[AnsweredStream]:
    """The parts of the responses whose events were sent in the window, its ends included."""
    parts = []
    for stream in streams:
        begin = bisect_left(stream.server_ns, window[0])
        end = bisect_right(stream.server_ns, window[1])
        if begin < end:
            event_ns, server_ns = stream.event_ns[begin:end], stream.server_ns[begin:end]
            parts.append(
                replace(stream, event_ns=event_ns, server_ns=server_ns, first_event=stream.first_event + begin)
            )
    return parts


def stamp_errors(streams: Iterable[AnsweredStream]) -> list[int]:
    """Client's stamp minus server's of each event, in ns."""
    return [
        stamp_ns - server_ns
        for stream in streams
        for stamp_ns, server_ns in zip(stream.event_ns, stream.server_ns, strict=True)
    ]


def ttft_errors(streams: Iterable[AnsweredStream]) -> list[int]:
    """The client's time to the first token minus the server's, in ns, where the first token is among the events."""
    return [
        (stream.event_ns[0] - stream.sent_ns) - (stream.server_ns[0] - stream.arrived_ns)
        for stream in streams
        if stream.first_event == 0
    ]


def gap_errors(streams: Iterable[AnsweredStream]) -> list[int]:
    """How much the client's gap differs from the server's, for each gap, in ns."""
    return [
        abs((later_ns - earlier_ns) - (server_later_ns - server_earlier_ns))
        for stream in streams
        for (earlier_ns, later_ns), (server_earlier_ns, server_later_ns) in zip(
            pairwise(stream.event_ns), pairwise(stream.server_ns), strict=True
        )
    ]


def server_lateness(streams: Iterable[AnsweredStream], pace: Pace) -> list[int]:
    """How long after its due time the server sent each event, in ns."""
    return [
        server_ns - stream.arrived_ns - pace.due_ns(number)
        for stream in streams
        for number, server_ns in enumerate(stream.server_ns, start=stream.first_event)
    ]


def merged_share(streams: Iterable[AnsweredStream]) -> float | None:
    """The share of reads with several events, which share one stamp, among those with any."""
    sizes = [sum(1 for _ in same) for stream in streams for _, same in groupby(stream.event_ns)]
    return sum(size > 1 for size in sizes) / len(sizes) if sizes else None


def cpu_share(readings: Sequence[tuple[int, int]], window: tuple[int, int]) -> float | None:
    """CPU time over wall time in the window; over all of it where that holds too few readings."""
    inside = [reading for reading in readings if window[0] <= reading[0] <= window[1]]
    if len(inside) < 2:
        inside = list(readings)
    if len(inside) < 2:
        return None
    (begin_ns, used_ns), (end_ns, used_by_end_ns) = inside[0], inside[-1]
    return (used_by_end_ns - used_ns) / (end_ns - begin_ns)


def check(recording: Recording) -> LoadCheck:
    """What a recording shows on its plateau, or over its whole length where it has none."""
    load, streams = recording.load, recording.streams
    window = plateau(streams)
    steady = within(streams, window) or list(streams)
    events = sum(len(stream.server_ns) for stream in steady)
    lasted_ns = max((stream.server_ns[-1] for stream in steady), default=0) - min(
        (stream.server_ns[0] for stream in steady), default=0
    )
    delay_ns = None if recording.read_delay is None else recording.read_delay.percentile(99)
    return LoadCheck(
        users=load.users,
        # Both ends of the plateau have an event: slightly more were counted than came in that time.
        events_per_s=min(load.events_per_s, events * NS_PER_S / lasted_ns) if lasted_ns else 0.0,
        stamp_error_s=spread(stamp_errors(steady)),
        ttft_error_s=spread(ttft_errors(streams)),
        gap_error_s=spread(gap_errors(steady)),
        server_late_s=spread(server_lateness(steady, load.pace)),
        gap_s=load.pace.gap_ns / NS_PER_S,
        merged_reads=merged_share(steady),
        cpu_share=cpu_share(recording.cpu, window),
        failed=recording.failed,
        read_delay_p99_s=None if delay_ns is None else delay_ns / NS_PER_S,
    )
