"""When bytes arrived: the kernel's receive stamp where the system has one, the moment of the read elsewhere.

A stamp taken in Python is late by whatever the event loop had to do first. On Linux the kernel notes when a segment
came in (`SO_TIMESTAMPNS`, socket(7)) and returns that with the bytes. So the loop's delay is not in the stamp but known
separately: `now - stamp` of each read is this client's own delay, measured on the real traffic.

One read has one stamp, that of the last segment in it. So a stamp is exact as long as the client reads before the next
segment of that connection comes; a read with several events shows that it did not.

The kernel stamps in wall-clock time. The offset to the run's monotonic clock is measured every second, and at once
when a stamp looks impossible or late: a step of the wall clock moves the offset, never a stamp.
"""

from __future__ import annotations

import socket
import struct
import sys
import time
from array import array
from typing import NamedTuple

from loadbench.record.histogram import Histogram

# From <asm-generic/socket.h>; Python's socket module does not name it. The kernel hands over a `struct timespec`.
_SO_TIMESTAMPNS = 35
_SOL_SOCKET = int(socket.SOL_SOCKET)
_TIMESPEC = struct.Struct("@ll")
_unpack = _TIMESPEC.unpack_from
_CONTROL_BYTES = 64
# `struct tcp_info` of <linux/tcp.h>: `tcpi_data_segs_in`, the segments with data that have come, since Linux 4.6.
_SEGMENTS_IN, _SEGMENTS_AT = struct.Struct("@I"), 152
_TCP_INFO, _TCP_INFO_BYTES = 11, _SEGMENTS_AT + _SEGMENTS_IN.size
# What one segment carries over Ethernet: so much that is sent at once comes in several.
_SEGMENT_BYTES = 1400
_OFFSET_AGE_NS = 1_000_000_000
# A delay above this may be a step of the wall clock; measuring the offset again decides.
_LATE_NS = 2_000_000
# How long such a measurement holds. Repeated for every read of a late batch it would make them all later.
_DOUBT_AGE_NS = 1_000_000
# Two measurements of the offset, one second apart, differ by less than this unless the wall clock stepped.
_STEP_NS = 500_000
# Delays are gathered to this number before they are added to the histogram all at once.
_GATHERED = 4096

KERNEL, USER = "kernel", "user"


def stamp_source() -> str:
    """`kernel` where the system has receive stamps, else `user`."""
    return KERNEL if sys.platform == "linux" else USER


def keep_stamping() -> StampedSocket | None:
    """A socket that keeps the kernel stamping while it is open; `None` where the system has no stamps.

    Linux turns receive stamps on a moment after the first socket of the machine requests them, and off with the last
    one. Without this socket the first responses would come unstamped.
    """
    if stamp_source() != KERNEL:
        return None
    sock = StampedSocket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.enable()
    return sock


class StampedSocket(socket.socket):
    """A TCP socket that keeps the kernel's stamp of its last read: `stamped_ns` of the wall clock, 0 for none.

    `send_began_ns` is when its last send began: the kernel may stamp the response to it before that call returns.
    asyncio reads and writes through these methods, under TLS too, so its transports work on this unchanged.
    """

    __slots__ = ("fewest_segments", "send_began_ns", "stamped_ns")

    def enable(self) -> None:
        """Request stamps from the kernel from now on."""
        self.stamped_ns = self.send_began_ns = self.fewest_segments = 0
        self.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)

    def merged_segments(self) -> int | None:
        """How many more segments have come than its reads needed at least, so that they were read with a later one.

        `None` where the kernel does not count them.
        """
        try:
            info = self.getsockopt(socket.IPPROTO_TCP, _TCP_INFO, _TCP_INFO_BYTES)
        except OSError:
            return None
        if len(info) < _TCP_INFO_BYTES:
            return None
        return int(_SEGMENTS_IN.unpack_from(info, _SEGMENTS_AT)[0]) - self.fewest_segments

    def send(self, data, flags=0) -> int:  # type: ignore[no-untyped-def]
        """Send as usual, and keep when it began."""
        self.send_began_ns = time.perf_counter_ns()
        return super().send(data, flags)

    if sys.platform == "linux":  # no other system is asked for stamps, and Windows has neither of these

        def recv_into(self, buffer, nbytes=0, flags=0) -> int:  # type: ignore[no-untyped-def]
            """Read as usual, and keep the stamp."""
            into = memoryview(buffer)[:nbytes] if nbytes else buffer
            count, control, _, _ = self.recvmsg_into((into,), _CONTROL_BYTES, flags)
            self.stamped_ns = 0
            self.fewest_segments += 1 + count // _SEGMENT_BYTES
            for level, kind, data in control:
                if level == _SOL_SOCKET and kind == _SO_TIMESTAMPNS:
                    seconds, ns = _unpack(data)
                    self.stamped_ns = seconds * 1_000_000_000 + ns
            return count

        def sendmsg(self, buffers, *rest) -> int:  # type: ignore[no-untyped-def]
            """Send as usual, and keep when it began; asyncio sends what is left this way from Python 3.12 on."""
            self.send_began_ns = time.perf_counter_ns()
            return super().sendmsg(buffers, *rest)


class StampStats(NamedTuple):
    """What a transport knows about its stamps since this was last taken; empty for one without kernel stamps."""

    delays: Histogram  # from arrival to read, in ns, of every stamped read
    unstamped: int = 0  # reads that the kernel gave no stamp for; they are stamped at the read
    clock_steps: int = 0  # of the wall clock, as far as they were noticed


class Stamper:
    """Converts kernel stamps to the run's clock, and keeps the client's own delay of each read."""

    def __init__(self) -> None:
        self._unstamped = self._clock_steps = 0
        self._offset_ns = 0
        self._measured_ns = 0
        self._doubted_ns = -_DOUBT_AGE_NS
        self._delays = Histogram()
        self._gathered = array("q")
        self._measure(time.perf_counter_ns())

    now_ns = staticmethod(time.perf_counter_ns)

    def arrived(self, sock: StampedSocket | None) -> int:
        """When the bytes of the last read arrived, in ns of `time.perf_counter_ns`; now, without a kernel stamp."""
        now_ns = time.perf_counter_ns()
        if sock is None:
            return now_ns
        if not sock.stamped_ns:
            self._unstamped += 1
            return now_ns
        if now_ns - self._measured_ns > _OFFSET_AGE_NS:
            self._measure(now_ns)
        delay_ns = now_ns - sock.stamped_ns - self._offset_ns
        # An impossible delay, or a late one unless the offset was just measured for another.
        if delay_ns < 0 or (delay_ns > _LATE_NS and now_ns - self._doubted_ns >= _DOUBT_AGE_NS):
            self._measure(now_ns)
            self._doubted_ns = now_ns
            # Still negative where the wall clock stepped between the arrival and now.
            delay_ns = max(0, now_ns - sock.stamped_ns - self._offset_ns)
        self._gathered.append(delay_ns)
        if len(self._gathered) >= _GATHERED:
            self._add_gathered()
        return now_ns - delay_ns

    def _measure(self, now_ns: int) -> None:
        """Read the wall clock between two readings of the monotonic one; the tightest of some tries counts."""
        before_ns, tightest_ns = self._offset_ns, 1 << 62
        for _ in range(9):
            early_ns = time.perf_counter_ns()
            wall_ns = time.time_ns()
            late_ns = time.perf_counter_ns()
            if late_ns - early_ns < tightest_ns:
                tightest_ns = late_ns - early_ns
                self._offset_ns = (early_ns + late_ns) // 2 - wall_ns
        if self._measured_ns and abs(self._offset_ns - before_ns) > _STEP_NS:
            self._clock_steps += 1
        self._measured_ns = now_ns

    def _add_gathered(self) -> None:
        self._delays.record_many(self._gathered)
        self._gathered = array("q")

    def take_stats(self) -> StampStats:
        """The stats since the last call."""
        self._add_gathered()
        stats = StampStats(self._delays, self._unstamped, self._clock_steps)
        self._delays = Histogram()
        self._unstamped = self._clock_steps = 0
        return stats
