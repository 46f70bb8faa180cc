"""How often a slow-down to half the speed inside a level is found, and how often a steady server is called unsteady.

    python -m tests.coverage.steadiness [LEVELS [SYSTEMS]]

A server slows down gradually from the beginning of the window to its end, or at once in the middle: in prefill, in
decoding, or in both. A level is *flagged* with the reason `not_steady`, *unknown* with the caveat `steadiness_unknown`,
which also counts as not flagged. Closed loops last 10 s or three rounds of their users and 20 answers, whichever is
later, and 45 s; open loops a number of requests.
"""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from loadbench.analyze.level.steady import Steadiness
from loadbench.plan.arrivals import parse_arrivals
from loadbench.plan.distribution import Exponential
from loadbench.plan.load import Closed, Open
from loadbench.record.outcome import Outcome
from loadbench.record.timeline import TimelineBuilder
from tests.building import S, a_recording, a_sample
from tests.coverage.systems import SimulatedLevel, batching, exponential, lognormal, queue, sharing, slots

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from loadbench.plan.load import Load
    from loadbench.record.recorder import LevelRecording
    from tests.coverage.systems import Slower

EMPTY = a_recording([])
PARTS = ("both", "prefill", "decode")
SHAPES: dict[str, Callable[[float], float]] = {
    "gradual": lambda place: 1 + min(1.0, max(0.0, place)),
    "at once": lambda place: 1.0 if place < 0.5 else 2.0,
}


class System(NamedTuple):
    """A server, its load, and how long its levels last, in seconds; `level` takes a seed and a slow-down."""

    name: str
    load: Load
    window_s: float
    level: Callable[..., SimulatedLevel]
    parts: tuple[str, ...] = PARTS


def systems() -> Iterator[System]:
    """Closed loops of 1 to 32 users with batching and with slots, and open loops at 30 to 90 % of capacity."""
    plain: list[tuple[str, dict[str, Any]]] = [("", {}), (", lognormal", {"tokens": lognormal(64, 0.6)})]
    for users in (1, 2, 3, 4, 6, 8, 12, 16, 24, 32):
        for places in (8, 32) if users > 8 else (8,):
            step = 64 * (0.005 + 0.0005 * min(users, places)) + 0.011 * min(users, places)
            usual = max(10.0, 3.3 * step * max(1, users / places), 30 * step / users)
            for name, how in plain:
                for window_s in (usual, 45.0):
                    level = partial(batching, users, slots=places, duration_s=window_s, warm_up_s=window_s / 5, **how)
                    yield System(f"{users} users, {places} slots{name}", Closed(users), window_s, level)
    for users in (3, 7, 13, 26):
        level = partial(slots, users, service=lognormal(0.6, 0.3), count=6, duration_s=10.0)
        yield System(f"{users} users, unequal services", Closed(users), 10.0, level)
    for users, think_s in ((4, 1.0), (8, 2.0), (20, 2.0), (32, 10.0)):
        for name, how in plain:
            for window_s in (max(10.0, 3.5 * (think_s + 0.6)), 45.0):
                level = partial(batching, users, think=exponential(think_s), duration_s=window_s, **how)
                load = Closed(users, think=Exponential(think_s))
                yield System(f"{users} users, think {think_s:g} s{name}", load, window_s, level)
    for rho in (0.3, 0.5, 0.7, 0.9):
        for n in (40, 120, 400):
            rate = rho * 8 / 0.66
            window_s = n / rate
            level = partial(batching, 0, rate=rate, duration_s=window_s, warm_up_s=10.0)
            yield System(f"batching at {rho:g}", _open(rate), window_s, level)
            for servers in (1, 4):
                for kind, how in (("M", {"per_token": 1 / 64}), ("D", {"constant_service": True})):
                    level = partial(queue, n, load=rho, servers=servers, prefill=0.05, **how)
                    yield System(f"M/{kind}/{servers} at {rho:g}", _open(rho * servers), n / (rho * servers), level)
            yield System(f"sharing at {rho:g}", _open(rho), n / rho, partial(sharing, n, load=rho), ("both",))


def _open(rate: float) -> Open:
    return Open(rate, parse_arrivals("poisson"))


def recorded(level: SimulatedLevel) -> LevelRecording:
    """The recording of a simulated level, as far as steadiness is judged by it."""
    timeline, window_ns = TimelineBuilder(0), round(level.window_s * S)
    moments = [(round(due * S), 1, 1) for due, _, _ in level.around]
    moments += [(round(last * S), 0, -1) for _, _, last in level.around]
    for at_ns, _, change in sorted(moments):
        timeline.change(at_ns, change)
    for due_ns, first_ns, last_ns in np.rint(level.around * S).astype(int).tolist():
        sample = a_sample(due_ns=due_ns, first_token_ns=first_ns, last_token_ns=last_ns)
        timeline.decode(sample)
        if 0 <= due_ns < window_ns:
            timeline.keep(sample)
    return replace(
        EMPTY,
        window=(0, window_ns),
        timeline=timeline.close(window_ns),
        tokens_by_slice=tuple(level.tokens_per_slice().tolist()),
        arrivals_sent=len(level.due),
        outcomes={Outcome.OK: len(level.due)},
    )


class Shares(NamedTuple):
    """Of levels: flagged; else with the caveat; else with TTFT unknown. `requests` and `ttft_s` are medians."""

    flagged: float
    unknown: float
    ttft_unknown: float
    requests: float
    ttft_s: float

    def __str__(self) -> str:
        others = ((self.unknown, "unknown"), (self.ttft_unknown, "TTFT unknown"))
        rest = ", ".join(f"{100 * share:.0f} % {name}" for share, name in others if share)
        return f"{100 * self.flagged:.0f} %" + (f" ({rest})" if rest else "")


def shares(system: System, levels: int, slower: Slower | None) -> Shares:
    """What is said of so many levels."""
    counts, requests, ttft_s = np.zeros(3), [], []
    for seed in range(levels):
        level = system.level(seed=seed, slower=slower)
        recording = recorded(level)
        requests.append(recording.arrivals_sent)
        ttft_s.append(float(level.ttft.mean()))
        if list(Steadiness(recording, system.load).reasons()):
            counts[0] += 1
        else:
            unknown = Steadiness(recording, system.load).unjudged()
            counts += 0, unknown.level is not None, unknown.level is None and unknown.ttft is not None
    return Shares(*(counts / levels).tolist(), float(np.median(requests)), float(np.median(ttft_s)))


def slow_down(system: System, part: str, shape: str) -> Slower:
    """The factors of prefill and decoding over the window."""

    def slower(moment: float) -> tuple[float, float]:
        factor = SHAPES[shape](moment / system.window_s)
        return (factor if part != "decode" else 1.0), (factor if part != "prefill" else 1.0)

    return slower


def main(levels: int, pattern: str = "") -> None:
    """Print a row for each system as soon as it is known, then the cells below 95 %."""
    columns = [(part, shape) for part in PARTS for shape in SHAPES]
    heads = " | ".join(f"{part}, {shape}" for part, shape in columns)
    _print(f"| system | window | requests | false alarms | {heads} |")
    _print("|---" * (4 + len(columns)) + "|")
    below, silent, steady = [], [], []
    for system in systems():
        if not re.search(pattern, system.name):
            continue
        healthy = shares(system, levels, None)
        steady.append(healthy)
        cells = []
        for part, shape in columns:
            if part not in system.parts:
                cells.append("-")
                continue
            found = shares(system, levels, slow_down(system, part, shape))
            cells.append(str(found))
            place = f"- {system.name}, {healthy.requests:.0f} requests, {part} {shape}: {found}"
            if found.flagged < 0.95:
                below.append(place)
            if part != "decode" and found.flagged + found.unknown + found.ttft_unknown < 0.95:
                twice = shares(system, levels, lambda _: (2.0, 2.0 if part == "both" else 1.0))  # noqa: B023
                silent.append(f"{place}; TTFT changes {twice.ttft_s / healthy.ttft_s - 1:+.0%}")
        row = (system.name, f"{system.window_s:.0f} s", f"{healthy.requests:.0f}", str(healthy), *cells)
        _print(f"| {' | '.join(row)} |")
    _print(f"\nfalse alarms: {100 * np.mean([row.flagged for row in steady]):.2f} % of all")
    _print(f"steady levels with the caveat: {100 * np.mean([row.unknown for row in steady]):.0f} %")
    _print(f"flagged in fewer than 95 %: {len(below)} cells\n" + "\n".join(below))
    _print(f"neither flagged nor unknown in more than 5 %: {len(silent)} cells\n" + "\n".join(silent))


def _print(line: str) -> None:
    print(line, flush=True)  # noqa: T201 - what it is for


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100, *sys.argv[2:])
