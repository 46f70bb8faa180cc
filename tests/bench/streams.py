"""Very many streams: a whole sweep of 10,000 users, each with an event a second, next to the server on the same cores:
`python -m tests.bench streams`. A round takes four minutes.

The verdict is the sweep's own; its figures are shown beside those that the server took itself. Memory is that of the
sweep's processes: with every stream open, each with its first event, minus that before the first one was opened.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING, NamedTuple

import psutil

from loadbench.results.folder import read_run
from loadbench.results.requests import read_requests
from loadbench.sim.process import TruthProcess
from loadbench.sim.truth import Pace, read_record
from tests.bench.running import Truth, say

if TYPE_CHECKING:
    from collections.abc import Mapping

    from loadbench.results.run import LevelResult

_STREAMS, _PACE = 10_000, Pace(ttft_ns=200_000_000, gap_ns=1_000_000_000, events=30)
# All streams are open from the end of the ramp until the first one ends, after 29 s. Steadiness takes three rounds.
_TIMES = {"ramp": "25s", "warm-up": "32s", "duration": "95s"}
_MOST_KIB = 14
_LOOK_S, _FIRST_EVENT_S, _BEGINS_WITHIN_S = 0.25, 1.5, 240


class _Ran(NamedTuple):
    level: LevelResult
    truth: Truth
    kib: float  # per stream with all streams open
    most_kib: float  # at any time until the end of the run


def streams(*, rounds: int, pythons: Mapping[str, str]) -> None:  # no other tool runs here
    """What the sweep says, what the server says, and what a stream costs."""
    say(
        f"\nStreams: {_STREAMS:,} users, TTFT 200 ms, an event a second, {_PACE.events} events; server on these cores\n"
    )
    valid, kib = 0, []
    for number in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            ran = _sweep(Path(folder))
        level, truth = ran.level, ran.truth
        ttft, gap = level.metrics["ttft_s"], level.metrics["event_gap_s"]
        valid += level.verdict.status == "VALID"
        kib.append(ran.kib)
        reasons = ", ".join(reason.code for reason in level.verdict.reasons)
        say(
            f"  {number + 1} {level.verdict.status} {reasons}".rstrip()
            + f"   TTFT p50 / p99 {ttft.p50 * 1000:.1f} / {ttft.p99 * 1000:.1f} ms"
            + f" (server {truth.ttft_p50 * 1000:.1f} / {truth.ttft_p99 * 1000:.1f})"
            + f"   gap {gap.p50 * 1000:.1f} / {gap.p99 * 1000:.1f} ms"
            + f" (server {truth.gap_p50 * 1000:.1f} / {truth.gap_p99 * 1000:.1f})"
            + f"   peak {truth.peak:,}   CPU {(level.client.cpu_per_event_s or 0) * 1e6:.0f} µs an event"
            + f"   {ran.kib:.1f} KiB per stream, {ran.most_kib:.1f} at most until the end"
            if ttft is not None and gap is not None
            else f"  {number + 1} nothing was measured: {reasons}"
        )
        for reason in level.verdict.reasons:
            say(f"    {reason.message}")
    for figure, is_held in (
        (f"VALID in {valid} of {rounds} rounds, bar 2 of 3", 3 * valid >= 2 * rounds),
        (f"at most {max(kib):.1f} KiB per stream, bar {_MOST_KIB} KiB", max(kib) <= _MOST_KIB),
    ):
        say(f"  {figure}: {'held' if is_held else 'NOT held'}")


def _sweep(folder: Path) -> _Ran:
    """One sweep, in a process of its own."""
    options = {"users": _STREAMS, "max-tokens": _PACE.events, "prompt": _PACE.prompt, "out": folder, **_TIMES}
    flags = [f"--{name}={value}" for name, value in options.items()]
    with TruthProcess(folder / "served.json") as server:
        command = [sys.executable, "-m", "loadbench", "sweep", f"--url={server.url}", *flags]
        child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        begun = threading.Event()
        threading.Thread(target=_read, args=(child.stderr, begun), daemon=True).start()
        begun.wait(_BEGINS_WITHIN_S)
        before = most = _use(child.pid)[0]
        full = 0
        while child.poll() is None:
            resident, files = _use(child.pid)
            most = max(most, resident)
            if files > _STREAMS and not full:
                time.sleep(_FIRST_EVENT_S)
                full = _use(child.pid)[0]
            time.sleep(_LOOK_S)
    (run_folder,) = (path.parent for path in folder.rglob("run.json"))
    (level,) = read_run(run_folder).levels
    # Which of the server's responses were measured is known by their order: as requests were sent, so they arrived.
    requests = sorted(
        (one for one in read_requests(run_folder / "requests.jsonl") if one.sent_ns), key=lambda one: one.sent_ns or 0
    )
    served = [one for one in read_record(folder / "served.json") if one.written_ns][-len(requests) :]
    load = [one for request, one in zip(requests, served, strict=False) if request.phase == "measured"]
    kib = ((amount - before) / 1024 / _STREAMS for amount in (full, most))
    return _Ran(level, Truth.of(load), *kib)


def _read(stream: IO[bytes], begun: threading.Event) -> None:
    """Show what the sweep says, and note that its level begins."""
    for line in stream:
        sys.stderr.buffer.write(line)
        sys.stderr.flush()
        if b" begins" in line:
            begun.set()


def _use(pid: int) -> tuple[int, int]:
    """(resident bytes, open files) of a process and those that it has started."""
    resident = files = 0
    try:
        for one in (psutil.Process(pid), *psutil.Process(pid).children(recursive=True)):
            resident, files = resident + one.memory_info().rss, files + one.num_fds()
    except psutil.Error:  # one has just ended
        return 0, 0
    return resident, files
