"""What the tables share: measurements in processes of their own, and lines of text."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import psutil

from loadbench.sim.process import TruthProcess
from loadbench.sim.truth import read_record
from tests.bench.measure import Found, Job

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from loadbench.sim.truth import ServedResponse

# The server has the first core, clients have the second, unless they share both.
SERVER_CORES, CLIENT_CORES = {0}, {1}
# How often the CPU time of a client is read, which tells its start from its work.
_SAMPLE_S = 0.2
_LIMIT_S = 240.0


def say(line: str) -> None:
    """Print a line at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def shown(values: Sequence[float], form: str) -> str:
    """Median, and the least and greatest of the rounds."""
    short = form.removeprefix("10")
    return f"{statistics.median(values):{form}} ({min(values):{short}}..{max(values):{short}})"


def held(ratios: Sequence[float], bar: float) -> str:
    """Whether the median reaches the bar."""
    return "held" if statistics.median(ratios) >= bar else "NOT held"


def measure(job: Job, url: str) -> Found:
    """One measurement of our own, in a process of its own."""
    return result(start(msgspec.structs.replace(job, url=url)))


def start(job: Job) -> subprocess.Popen[bytes]:
    """Begin it."""
    command = [sys.executable, "-m", "tests.bench.measure", msgspec.json.encode(job).decode()]
    return subprocess.Popen(command, stdout=subprocess.PIPE)


def result(child: subprocess.Popen[bytes]) -> Found:
    """Await it."""
    said, _ = child.communicate(timeout=120)
    if child.returncode:
        raise RuntimeError(f"a measurement ended with {child.returncode}")
    return msgspec.json.decode(said, type=Found)


def pin(pid: int, cores: set[int] | None) -> None:
    """Keep a process on these cores, where the system can and has them."""
    if cores is not None and hasattr(os, "sched_setaffinity"):
        with suppress(OSError):
            os.sched_setaffinity(pid, cores)


@dataclass(frozen=True, slots=True)
class Truth:
    """What the server itself saw of the last so many requests: seconds, and the most in flight at once."""

    ttft_p50: float
    ttft_p99: float
    gap_p50: float
    gap_p99: float
    peak: int

    @classmethod
    def of(cls, responses: Sequence[ServedResponse]) -> Truth:
        """Of these responses."""
        ttft = [one.written_ns[0] - one.arrived_ns for one in responses]
        gaps = [later - earlier for one in responses for earlier, later in pairwise(one.written_ns)] or [0]
        changes = sorted(
            change for one in responses for change in ((one.arrived_ns, 1), (one.written_ns[-1], -1))
        )  # of two at the same time, the end comes first
        return cls(
            *(float(value) / 1e9 for value in np.percentile(ttft, [50, 99])),
            *(float(value) / 1e9 for value in np.percentile(gaps, [50, 99])),
            int(np.cumsum([change for _, change in changes]).max()),
        )


@dataclass(frozen=True, slots=True)
class Ran:
    """A load tester's process and its children, next to a server of its own, and what this server sent to it."""

    code: int
    output: str
    cpu_s: float
    samples: list[tuple[int, float]]  # (ns, CPU time so far)
    responses: list[ServedResponse]

    def load(self, requests: int) -> list[ServedResponse]:
        """The last so many responses: what came before are checks of the server, and requests to warm it up."""
        return self.responses[-requests:]

    def start_s(self, requests: int) -> float:
        """CPU time before the first of the last so many requests."""
        times, cpu = zip(*self.samples, strict=True)
        return float(np.interp(self.load(requests)[0].arrived_ns, times, cpu))

    def steady_rate(self, requests: int) -> float:
        """Events per CPU-second in the middle of the last so many requests: all users are there, and nothing ends.

        It is from 0.3 to 0.7 of the time between the first of these requests and the last event of them.
        """
        load = self.load(requests)
        begin_ns, end_ns = load[0].arrived_ns, max(one.written_ns[-1] for one in load)
        window = begin_ns + 0.3 * (end_ns - begin_ns), begin_ns + 0.7 * (end_ns - begin_ns)
        times, cpu = zip(*self.samples, strict=True)
        began_s, ended_s = np.interp(window, times, cpu)
        written = sum(one.per_write * sum(window[0] <= at_ns < window[1] for at_ns in one.written_ns) for one in load)
        return written / float(ended_s - began_s)


def events_of(responses: Sequence[ServedResponse]) -> int:
    """Events that the server sent."""
    return sum(one.per_write * len(one.written_ns) for one in responses)


def run_client(
    command: Callable[[str, Path], Sequence[str]],
    *,
    cores: set[int] | None = CLIENT_CORES,
    server_cores: set[int] | None = SERVER_CORES,
    env: dict[str, str] | None = None,
    folder: Path,
) -> Ran:
    """Run a load tester on these cores; `command` makes its command line from the server's URL and a folder."""
    record = folder / "served.json"
    with TruthProcess(record) as server, tempfile.TemporaryFile() as output:
        pin(server.pid, server_cores)
        child = subprocess.Popen(
            command(server.url, folder),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=folder,
            # Without files of bytecode every start would compile everything.
            env={name: text for name, text in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"} | (env or {}),
        )
        pin(child.pid, cores)  # before it can have started a thread or a child
        samples: list[tuple[int, float]] = [(time.perf_counter_ns(), 0.0)]
        ended = threading.Event()
        sampler = threading.Thread(target=_sample, args=(child.pid, samples, ended), daemon=True)
        killer = threading.Timer(_LIMIT_S, child.kill)
        sampler.start()
        killer.start()
        _, status, usage = os.wait4(child.pid, 0)
        code = child.returncode = os.waitstatus_to_exitcode(status)
        killer.cancel()
        ended.set()
        sampler.join()
        output.seek(0)
        text = output.read().decode(errors="replace")
    cpu_s = usage.ru_utime + usage.ru_stime
    return Ran(code, text, cpu_s, samples, [one for one in read_record(record) if one.written_ns])


def _sample(pid: int, samples: list[tuple[int, float]], ended: threading.Event) -> None:
    """CPU time of a process and its children, read now and then: those that ended are in their parents' sums."""
    process = psutil.Process(pid)
    while not ended.wait(_SAMPLE_S):
        at_ns, cpu_s = time.perf_counter_ns(), 0.0
        with suppress(psutil.Error):
            for one in (process, *process.children(recursive=True)):
                with suppress(psutil.Error):
                    cpu_s += sum(one.cpu_times()[:4])
            samples.append((at_ns, max(cpu_s, samples[-1][1])))
