"""When bytes arrived: the kernel's receive stamp where the system gives one, the moment of the read elsewhere.

A stamp taken in Python is late by whatever else the event loop had to do first. On Linux the kernel notes when a
segment came in (`SO_TIMESTAMPNS`, socket(7)) and hands that over with the bytes, so that the loop's delay is not in the
datum but beside it: `now - stamp` of each read is this client's own delay, measured on the real traffic.

One read has one stamp, that of the last segment in it. So a stamp is exact as long as the client reads before the next
segment of that connection comes; reads that bring several events say that it did not.

The kernel stamps in wall-clock time. The offset to the run's monotonic clock is measured anew every second, and at once
when a stamp looks impossible or late: a step of the wall clock moves the offset, never a stamp.
"""

from __future__ import annotations

import socket
import struct
import sys
import time
from array import array

from loadbench.record.histogram import Histogram

# From <asm-generic/socket.h>; Python's socket module does not name it. The kernel hands over a `struct timespec`.
_SO_TIMESTAMPNS = 35
_SOL_SOCKET = int(socket.SOL_SOCKET)
_TIMESPEC = struct.Struct("@ll")
_unpack = _TIMESPEC.unpack_from
_CONTROL_BYTES = 64
_OFFSET_AGE_NS = 1_000_000_000
# A delay above this may be a step of the wall clock; measuring the offset again tells.
_LATE_NS = 2_000_000
# Not for every read of a late batch: they would all be later by what that takes. Nothing steps twice in this time.
_DOUBT_AGE_NS = 1_000_000
# The same instant read from two clocks differs by less than this between two measurements, drift of a second included.
_STEP_NS = 500_000
# Delays are gathered to this number before they are folded into the histogram, all at once.
_GATHERED = 4096

KERNEL, USER = "kernel", "user"


def keep_stamping() -> StampedSocket | None:
    """A socket that keeps the kernel stamping while it is open; `None` where it cannot.

    Linux turns receive stamps on when the first socket of the machine asks for them, a moment after that, and off again
    with the last: the first answers would come unstamped.
    """
    if stamp_source() != KERNEL:
        return None
    sock = StampedSocket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.enable()
    return sock


def stamp_source() -> str:
    """`kernel` where receive stamps can be had, else `user`."""
    return KERNEL if sys.platform == "linux" else USER


class StampedSocket(socket.socket):
    """A TCP socket whose reads remember the kernel's stamp of the bytes: `stamped_ns` of the wall clock, 0 for none.

    asyncio reads through `recv_into`, under TLS too, so that its transports work on this unchanged.
    """

    __slots__ = ("stamped_ns",)

    def enable(self) -> None:
        """Ask the kernel for stamps from now on."""
        self.stamped_ns = 0
        self.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)

    def recv_into(self, buffer, nbytes=0, flags=0) -> int:  # type: ignore[no-untyped-def]
        """Read as usual, and keep the stamp."""
        into = memoryview(buffer)[:nbytes] if nbytes else buffer
        count, control, _, _ = self.recvmsg_into((into,), _CONTROL_BYTES, flags)
        self.stamped_ns = 0
        for level, kind, data in control:
            if level == _SOL_SOCKET and kind == _SO_TIMESTAMPNS:
                seconds, ns = _unpack(data)
                self.stamped_ns = seconds * 1_000_000_000 + ns
        return count


class Stamper:
    """Turns kernel stamps into those of the run's clock, and keeps the client's own delay of each read."""

    def __init__(self) -> None:
        self.steps = 0  # of the wall clock, seen
        self.unstamped = 0  # reads that the kernel gave no stamp for, though asked
        self._offset_ns = 0
        self._measured_ns = 0
        self._doubted_ns = -_DOUBT_AGE_NS
        self._delays = Histogram()
        self._gathered = array("q")
        self._measure(time.perf_counter_ns())

    now_ns = staticmethod(time.perf_counter_ns)

    def arrived(self, sock: StampedSocket | None) -> int:
        """When what was just read arrived, in ns of `time.perf_counter_ns`; this moment where nobody knows better."""
        now_ns = time.perf_counter_ns()
        if sock is None:
            return now_ns
        if not sock.stamped_ns:
            self.unstamped += 1
            return now_ns
        if now_ns - self._measured_ns > _OFFSET_AGE_NS:
            self._measure(now_ns)
        delay_ns = now_ns - sock.stamped_ns - self._offset_ns
        if not 0 <= delay_ns <= _LATE_NS:
            delay_ns = self._doubted(now_ns, sock.stamped_ns)
        self._gathered.append(delay_ns)
        if len(self._gathered) >= _GATHERED:
            self._fold()
        return now_ns - delay_ns

    def _doubted(self, now_ns: int, stamped_ns: int) -> int:
        """The delay by a fresh offset; none where the wall clock stepped between the arrival and now."""
        delay_ns = now_ns - stamped_ns - self._offset_ns
        if delay_ns >= 0 and now_ns - self._doubted_ns < _DOUBT_AGE_NS:
            return delay_ns
        self._measure(now_ns)
        self._doubted_ns = now_ns
        return max(0, now_ns - stamped_ns - self._offset_ns)

    def _measure(self, now_ns: int) -> None:
        """Read the wall clock between two readings of the monotonic one; of some tries the tightest counts."""
        before_ns, tightest_ns = self._offset_ns, 1 << 62
        for _ in range(9):
            early_ns = time.perf_counter_ns()
            wall_ns = time.time_ns()
            late_ns = time.perf_counter_ns()
            if late_ns - early_ns < tightest_ns:
                tightest_ns = late_ns - early_ns
                self._offset_ns = (early_ns + late_ns) // 2 - wall_ns
        if self._measured_ns and abs(self._offset_ns - before_ns) > _STEP_NS:
            self.steps += 1
        self._measured_ns = now_ns

    def _fold(self) -> None:
        self._delays.record_many(self._gathered)
        self._gathered = array("q")

    def take_delays(self) -> Histogram:
        """The delays of all reads since this was last asked, in ns."""
        self._fold()
        taken, self._delays = self._delays, Histogram()
        return taken

    def take_steps(self) -> int:
        """How often the wall clock has stepped since this was last asked."""
        taken, self.steps = self.steps, 0
        return taken

    def take_unstamped(self) -> int:
        """How many reads have had no stamp since this was last asked."""
        taken, self.unstamped = self.unstamped, 0
        return taken
