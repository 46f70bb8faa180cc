"""The benchmarks: `python -m tests.bench`, or some of them: `python -m tests.bench paced memory`.

Ours and others by turns (A B C A B C ...), each time in a fresh process on core 1, against a truth server on core 0;
elsewhere than on Linux nobody is pinned. A ratio is that of two measurements of the same round, so that what the
machine does to one it mostly does to the other; shown is the median of the rounds, with their least and greatest.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
import time
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from loadbench.client.stamping import stamp_source
from loadbench.sim.process import TruthProcess
from tests.bench.forms import table
from tests.bench.measure import Found, Job
from tests.bench.peers import TOOLS, peers
from tests.bench.running import SERVER_CORES, held, measure, pin, result, say, shown, start
from tests.bench.streams import streams
from tests.bench.whole import whole

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_BULK = partial(Job, streams=16, ttft_ns=0, gap_ns=0, events=1600, per_write=16, ramp_s=0.3, window_s=1.5)
_SHORT = partial(Job, streams=16, ttft_ns=0, gap_ns=0, events=1, ramp_s=0.3, window_s=1.5)
_HOLD = partial(Job, kind="memory", streams=1000, gap_ns=1_000_000_000, events=1000)
_STAMPS = partial(Job, kind="stamps", streams=128, events=64, answers=2)


@dataclass(frozen=True, slots=True)
class Versus:
    """A ratio that matters: of ours to theirs, and the least that it must be."""

    ours: str
    theirs: str
    bar: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """Candidates whose rates are compared."""

    title: str
    unit: str
    jobs: dict[str, Job]
    rate: Callable[[Found], float]
    versus: Sequence[Versus] = field(default=())


def _events(found: Found) -> float:
    return found.events / found.cpu_s


def _answers(found: Found) -> float:
    return found.answers / found.cpu_s


PACED = Rates(
    title="Paced: an event every 20 ms in each stream, one per read, answers of 100 events",
    unit="events per CPU-second",
    jobs={
        "loadbench, 512 streams": Job(client="loadbench", streams=512),
        "with recorder, 512 streams": Job(client="recorded", streams=512),
        "padded events, 512 streams": Job(client="recorded", streams=512, padded=True),
        "httpx, 32 streams": Job(client="httpx", streams=32),
        "aiohttp, 128 streams": Job(client="aiohttp", streams=128),
        "epoll, 512 streams": Job(client="epoll", streams=512),
    },
    rate=_events,
    versus=[
        Versus("loadbench, 512 streams", "httpx, 32 streams", 7),
        Versus("with recorder, 512 streams", "httpx, 32 streams", 7),
        Versus("padded events, 512 streams", "httpx, 32 streams", 7),
        Versus("loadbench, 512 streams", "aiohttp, 128 streams", 1),
        Versus("loadbench, 512 streams", "epoll, 512 streams", 0.5),
    ],
)
BULK = Rates(
    title="Bulk: 16 events a write as fast as the server can, each an HTTP chunk, 16 streams, answers of 1,600 events",
    unit="events per CPU-second",
    jobs={
        **{name: _BULK(client=name) for name in ("loadbench", "httpx", "aiohttp", "epoll")},
        "padded events": _BULK(client="loadbench", padded=True),
        "httpx, padded events": _BULK(client="httpx", padded=True),
    },
    rate=_events,
    versus=[
        Versus("loadbench", "httpx", 10),
        Versus("padded events", "httpx, padded events", 10),
        Versus("loadbench", "aiohttp", 1),
        Versus("loadbench", "epoll", 0.5),
    ],
)
SHORT = Rates(
    title="Short: answers of one event at once, 16 connections",
    unit="requests per CPU-second",
    jobs={name: _SHORT(client=name) for name in ("loadbench", "recorded", "prepared", "httpx", "aiohttp", "epoll")},
    rate=_answers,
    versus=[
        Versus("loadbench", "httpx", 5),
        Versus("recorded", "httpx", 5),
        Versus("prepared", "httpx", 20),
        Versus("loadbench", "aiohttp", 1),
    ],
)


def rates(figure: Rates, *, url: str, rounds: int) -> None:
    """Measure by turns, then show rates, the share of the core that was used, and ratios."""
    jobs = {name: job for name, job in figure.jobs.items() if name.split(",")[0] != "epoll" or sys.platform == "linux"}
    runs: dict[str, list[Found]] = {name: [] for name in jobs}
    for _ in range(rounds):
        for name, job in jobs.items():
            runs[name].append(measure(job, url))
    say(f"\n{figure.title}\n")
    for name, found in runs.items():
        values = [figure.rate(one) for one in found]
        busy = statistics.median(one.cpu_s / one.wall_s for one in found)
        say(f"  {name:<27}{shown(values, '10,.0f')}  {figure.unit}, {busy:4.0%} of the core")
    for pair in figure.versus:
        if pair.theirs in runs:
            ratios = [
                figure.rate(ours) / figure.rate(theirs)
                for ours, theirs in zip(runs[pair.ours], runs[pair.theirs], strict=True)
            ]
            say(f"  {pair.ours} / {pair.theirs}: {shown(ratios, '.2f')}, bar {pair.bar:g}: {held(ratios, pair.bar)}")


def memory(*, url: str, rounds: int) -> None:
    """Resident memory of one open stream."""
    runs: dict[str, list[float]] = {"loadbench": [], "aiohttp": []}
    for _ in range(rounds):
        for name, found in runs.items():
            found.append(measure(_HOLD(client=name), url).kib_per_stream)
    say("\nMemory: 1,000 streams open, each with its first event\n")
    for name, found in runs.items():
        say(f"  {name:<27}{shown(found, '10.1f')}  KiB per stream")
    say(f"  loadbench, bar 14 KiB: {'held' if statistics.median(runs['loadbench']) <= 14 else 'NOT held'}")


def stamps(*, url: str, rounds: int) -> None:
    """Errors of stamps and of times to the first token, against the server's own."""
    rounds = max(5, rounds)
    say("\nStamps: 128 streams, TTFT 50 ms, an event every 20 ms; errors in ms, p50 / p99 of each round\n")
    good = 0
    for number in range(rounds):
        for name in ("loadbench", "httpx"):
            check = measure(_STAMPS(client=name), url).stamps
            if check is None or check.stamp_error_s is None or check.ttft_error_s is None:
                raise RuntimeError(f"{name} has no stamps")
            stamp, ttft = check.stamp_error_s, check.ttft_error_s
            if name == "loadbench":
                good += stamp.p99 <= 0.0001 and ttft.p99 <= 0.001
            say(
                f"  {number + 1} {name:<11} stamp {stamp.p50 * 1000:8.3f} / {stamp.p99 * 1000:8.3f}"
                f"   TTFT {ttft.p50 * 1000:8.3f} / {ttft.p99 * 1000:8.3f}   merged {check.merged_reads or 0:.1%}"
                f"   server late p99 {check.server_late_s.p99 * 1000 if check.server_late_s else 0:.1f}"
            )
    verdict = "held" if good >= 0.8 * rounds else "NOT held"
    say(f"  loadbench, stamp p99 <= 0.1 and TTFT p99 <= 1 in {good} of {rounds} rounds, bar 4 of 5: {verdict}")


def crowd(*, url: str, rounds: int) -> None:
    """More streams than one process reads in time: two of them, and what is said about the figures."""
    rounds = min(rounds, 3)
    say("\nCrowd: 1,024 streams, TTFT 50 ms, an event every 20 ms, two workers; cores shared with the server\n")
    for number in range(rounds):
        found = measure(Job(kind="crew", client="crew", streams=1024, core=None, window_s=4), url)
        say(
            f"  {number + 1} a sweep's level: {found.events_per_s:,.0f} of 51,200 events/s"
            f"   TTFT p50 / p99 {found.ttft_p50_s * 1000:.1f} / {found.ttft_p99_s * 1000:.1f} ms"
            f"   gap {found.gap_p50_s * 1000:.1f} / {found.gap_p99_s * 1000:.1f} ms"
            f"   verdict: {', '.join(found.reasons) or 'VALID'}"
        )
        _say_halves(number + 1, url)


def _say_halves(number: int, url: str) -> None:
    """The same load from two processes that know the server's stamps."""
    job = Job(kind="stamps", client="loadbench", url=url, core=None, streams=512, events=64, answers=2)
    for found in [result(child) for child in [start(job), start(job)]]:
        check = found.stamps
        if check is None or check.stamp_error_s is None or check.ttft_error_s is None or check.server_late_s is None:
            raise RuntimeError("no stamps")
        say(
            f"  {number} half of it: stamp error p50 / p99"
            f" {check.stamp_error_s.p50 * 1000:.3f} / {check.stamp_error_s.p99 * 1000:.3f} ms"
            f"   TTFT error p99 {check.ttft_error_s.p99 * 1000:.3f} ms   merged {check.merged_reads or 0:.1%}"
            f"   server late p99 {check.server_late_s.p99 * 1000:.1f} ms"
            f"   {'flagged: ' + check.limit if check.limit else 'held'}"
        )


def events(*, url: str, rounds: int) -> None:
    """What reading an event costs, by its form."""
    say("\nEvents: what reading one costs, by what it carries beside its text; responses of 256 events\n")
    for line in table(rounds):
        say(line)


PARTS: dict[str, Callable[..., None]] = {
    "events": events,
    "paced": partial(rates, PACED),
    "bulk": partial(rates, BULK),
    "short": partial(rates, SHORT),
    "memory": memory,
    "stamps": stamps,
    "crowd": crowd,
}
# Parts that start a server for each run.
ALONE: dict[str, Callable[..., None]] = {"whole": whole, "peers": peers, "streams": streams}
# Takes four minutes a round: it runs where it is named.
LONG = {"streams"}


def _machine() -> str:
    cores = os.cpu_count()
    load = f", load average {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    return (
        f"{platform.system()} {platform.release()} {platform.machine()}, {cores} cores, "
        f"{platform.python_implementation()} {platform.python_version()}, {stamp_source()} stamps{load}"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is asked for; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="The benchmarks.")
    parser.add_argument(
        "parts", nargs="*", choices=[[], *PARTS, *ALONE], metavar="PART", help=f"of {', '.join(PARTS | ALONE)}"
    )
    parser.add_argument("--rounds", type=int, default=3, help="of each comparison")
    parser.add_argument(
        "--python",
        action="append",
        default=[],
        metavar="NAME=PATH",
        help=f"where a tool of whole and peers is installed ({', '.join(TOOLS)}): a Python interpreter, or a folder "
        "with the package, such as an unpacked wheel; default: this interpreter",
    )
    options = parser.parse_args(arguments)
    pythons = dict(pair.split("=", 1) for pair in options.python)
    if unknown := pythons.keys() - TOOLS.keys():
        parser.error(f"--python: no tool {', '.join(sorted(unknown))}; there are {', '.join(TOOLS)}")
    began_s = time.monotonic()
    say(_machine())
    for name in options.parts or [name for name in (*PARTS, *ALONE) if name not in LONG]:
        if name in ALONE:  # each run has a server of its own
            ALONE[name](rounds=options.rounds, pythons=pythons)
            continue
        with TruthProcess() as server:
            pin(server.pid, None if name == "crowd" else SERVER_CORES)
            PARTS[name](url=server.url, rounds=options.rounds)
    say(f"\n{options.rounds} rounds in {time.monotonic() - began_s:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
