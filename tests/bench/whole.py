"""The whole `loadbench sweep` beside its bare client, SGLang's Rust client and httpx: `python -m tests.bench whole`.

Each process runs on one core, next to a server of its own on the other, and everything it does after its first request
counts: recorder, logs, progress, sampling of the machine, analysis, report. The events carry their number, so that each
must be looked at. httpx and the bare client run without all that, and only a window of their work counts, while all
users are there; so the programs have a second rate, of the middle of their load alone (*steady*). Stock httpx reads
lines and parses each, as people do with it; the other httpx is its transport with our parser behind it.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from loadbench.sim.process import TruthProcess
from loadbench.sim.truth import Pace
from tests.bench.measure import Job
from tests.bench.peers import Load, interpreter, last_line, read_report, run_ours, run_tool
from tests.bench.running import CLIENT_CORES, SERVER_CORES, Truth, events_of, measure, pin, say, shown

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.bench.peers import Figures

_PACED = Pace(events=100, numbered=True)
_BULK = Pace(ttft_ns=0, gap_ns=0, events=1600, per_write=16, numbered=True)
# A response of 100 events takes 2 s: the load begins, and five are measured, as long as a level usually lasts.
_PACED_FLAGS = ("--warm-up", "3s", "--ramp", "2s", "--duration", "10s")
_BULK_FLAGS = ("--warm-up", "1s", "--ramp", "0.3s", "--duration", "10s")
# As many requests of each user as ours has in that time, so that ends weigh the same.
_PACED_EACH, _BULK_REQUESTS = 6, 2400


class Cost(NamedTuple):
    """What a run cost and how right it was: events per CPU-second after its start and in the middle of its load, the
    CPU time of the start, and errors at p99."""

    rate: float
    steady_rate: float
    start_s: float
    ttft_off_s: float
    gap_off_s: float
    verdict: str = ""


def _off(figures: tuple[float, float], truth: Truth) -> tuple[float, float]:
    return figures[0] - truth.ttft_p99, figures[1] - truth.gap_p99


def _sweep(load: Load, *flags: str, cores: set[int] | None, server_cores: set[int] | None) -> Cost:
    with tempfile.TemporaryDirectory() as directory:
        ours = run_ours(load, Path(directory), *flags, cores=cores, server_cores=server_cores)
    ttft, gap = ours.level.metrics["ttft_s"], ours.level.metrics["event_gap_s"]
    if ttft is None or gap is None:
        raise RuntimeError("loadbench measured nothing")
    start_s = ours.ran.start_s(len(ours.responses))
    rate = events_of(ours.responses) / (ours.ran.cpu_s - start_s)
    verdict = ours.level.verdict
    said = ", ".join(reason.code for reason in verdict.reasons) or str(verdict.status)
    steady_rate = ours.ran.steady_rate(len(ours.responses))
    return Cost(rate, steady_rate, start_s, *_off((ttft.p99, gap.p99), Truth.of(ours.measured)), said)


def _rust(load: Load, python: tuple[list[str], dict[str, str]]) -> Cost | None:
    """SGLang's Rust client at a load; `None` if it failed, which is said."""
    with tempfile.TemporaryDirectory() as directory:
        ran = run_tool("sglang", python, load, Path(directory))
        try:
            figures: Figures = read_report(Path(directory))
        except (OSError, LookupError, ValueError):
            say(f"  SGLang's Rust client, no figures: {last_line(ran.output)}")
            return None
    served = ran.load(load.requests)
    start_s = ran.start_s(load.requests)
    off = _off((figures.ttft_p99, figures.gap_p99), Truth.of(served))
    return Cost(events_of(served) / (ran.cpu_s - start_s), ran.steady_rate(load.requests), start_s, *off)


def _window(job: Job) -> Cost:
    with TruthProcess() as server:
        pin(server.pid, SERVER_CORES)
        found = measure(job, server.url)
    rate = found.events / found.cpu_s
    return Cost(rate, rate, 0.0, float("nan"), float("nan"))


def whole(*, rounds: int, pythons: Mapping[str, str]) -> None:
    """Rates of whole processes, and errors of what they report."""
    say("\nWhole: the sweep and everything about it; events with numbers, every 20 ms, or in bulk: 16 a write")
    rust = interpreter("sglang", pythons)
    runs: dict[str, list[Cost]] = {}

    def note(name: str, number: int, cost: Cost | None) -> None:
        if cost is None:
            return
        runs.setdefault(name, []).append(cost)
        line = f"  {number} {name:<34}{cost.rate:10,.0f} events per CPU-second"
        if cost.start_s:
            line += f"   steady {cost.steady_rate:7,.0f}   start {cost.start_s:4.2f} s"
            line += f"   p99 off by: TTFT {cost.ttft_off_s * 1000:8.2f} ms"
            line += f", gap {cost.gap_off_s * 1000:7.2f} ms   {cost.verdict}"
        say(line)

    for number in range(1, rounds + 1):
        for streams in (128, 512, 1024):
            load = Load(streams, _PACED_EACH * streams, _PACED)
            one = _sweep(load, *_PACED_FLAGS, cores=CLIENT_CORES, server_cores=SERVER_CORES)
            note(f"sweep, {streams} streams", number, one)
            job = Job(client="recorded", streams=streams, numbered=True)
            note(f"bare client, {streams} streams", number, _window(job))
            note(f"Rust client, {streams} streams", number, _rust(load, rust) if rust else None)
        for client in ("stock httpx", "httpx"):
            note(f"{client}, 32 streams", number, _window(Job(client=client, streams=32, numbered=True)))
        both = _sweep(Load(1024, 0, _PACED), *_PACED_FLAGS, cores=None, server_cores=None)
        note("sweep, 1,024 streams, both cores", number, both)
        bulk = Load(16, _BULK_REQUESTS, _BULK)
        one = _sweep(bulk, *_BULK_FLAGS, cores=CLIENT_CORES, server_cores=SERVER_CORES)
        note("sweep, bulk", number, one)
        in_bulk = {"streams": 16, "events": 1600, "per_write": 16, "ramp_s": 0.3, "window_s": 1.5, "numbered": True}
        for client, name in (("recorded", "bare client"), ("stock httpx",) * 2, ("httpx",) * 2):
            note(f"{name}, bulk", number, _window(Job(client=client, ttft_ns=0, gap_ns=0, **in_bulk)))
        note("Rust client, bulk", number, _rust(bulk, rust) if rust else None)
    say("")
    for name, costs in runs.items():
        line = f"  {name:<34}{shown([one.rate for one in costs], '10,.0f')}  events per CPU-second"
        if costs[0].start_s:
            line += f"   steady {shown([one.steady_rate for one in costs], ',.0f')}"
            line += f"   start {shown([one.start_s for one in costs], '.2f')} s"
        say(line)
    if not rust:
        say("  SGLang's Rust client is not installed: --python sglang=PATH")
    _judge(runs)


def _judge(runs: Mapping[str, list[Cost]]) -> None:
    """The bars, and whether they are held."""

    def ratios(ours: str, theirs: str) -> list[float]:
        return [one.rate / other.rate for one, other in zip(runs[ours], runs.get(theirs, []), strict=False)]

    def steady(ours: str, theirs: str) -> list[float]:
        pairs = zip(runs[ours], runs.get(theirs, []), strict=False)
        return [one.steady_rate / other.steady_rate for one, other in pairs]

    ours = [one.rate for one in runs["sweep, 512 streams"]]
    to_rust = ratios("sweep, 512 streams", "Rust client, 512 streams")
    good = [rate >= 45_000 or ratio >= 0.7 for rate, ratio in zip(ours, to_rust or [0.0] * len(ours), strict=False)]
    beside = f", {shown(to_rust, '.2f')} of the Rust client" if to_rust else ""
    say(
        f"  sweep, 512 streams: {shown(ours, ',.0f')}{beside}; bar 45,000 or 0.7 in most rounds: "
        f"{_says(2 * sum(good) > len(good))}"
    )
    rates = [one.steady_rate for one in runs["sweep, 512 streams"]]
    to_rust = steady("sweep, 512 streams", "Rust client, 512 streams")
    beside = f", {shown(to_rust, '.2f')} of the Rust client" if to_rust else ""
    say(f"  sweep, 512 streams, steady: {shown(rates, ',.0f')}{beside}")
    for name, load, bar in (("512 streams", "32 streams", 7), ("bulk", "bulk", 10)):
        of = ratios(f"sweep, {name}", f"stock httpx, {load}")
        median = sorted(of)[len(of) // 2]
        say(f"  sweep, {name} / stock httpx, {load}: {shown(of, '.2f')}, bar {bar}: {_says(median >= bar)}")
        alike = steady(f"sweep, {name}", f"stock httpx, {load}")
        say(f"  sweep, {name}, steady / stock httpx, {load}, which always is: {shown(alike, '.2f')}")
        with_ours = ratios(f"sweep, {name}", f"httpx, {load}")
        say(f"  sweep, {name} / httpx, {load}, which has our parser: {shown(with_ours, '.2f')}")
    for streams in (128, 512):
        costs = runs[f"sweep, {streams} streams"]
        near = sum(abs(one.ttft_off_s) <= 0.001 for one in costs)
        wrong = sum(one.verdict == "VALID" and abs(one.ttft_off_s) > 0.005 for one in costs)
        say(
            f"  sweep, {streams} streams, TTFT p99 within 1 ms in {near} of {len(costs)} rounds, bar 4 of 5; "
            f"VALID though off by more than 5 ms in {wrong}, bar 0: {_says(5 * near >= 4 * len(costs) and not wrong)}"
        )
    costs = runs["sweep, 1,024 streams, both cores"]
    true = [one.ttft_off_s <= 0.003 and one.gap_off_s <= 0.002 for one in costs]
    valid = [one.verdict == "VALID" for one in costs]
    near = sum(a and b for a, b in zip(true, valid, strict=True))
    wrong = sum(b and not a for a, b in zip(true, valid, strict=True))
    say(
        f"  sweep, 1,024 streams, both cores, VALID with TTFT p99 within 3 ms and gap p99 within 2 ms in {near} of "
        f"{len(costs)} rounds, bar 3 of 5; VALID without in {wrong}, bar 0: "
        f"{_says(5 * near >= 3 * len(costs) and not wrong)}"
    )


def _says(good: bool) -> str:
    return "held" if good else "NOT held"
