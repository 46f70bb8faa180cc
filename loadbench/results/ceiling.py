"""What one load generator keeps up with, and how many a load needs by that.

`loadbench selfcheck` measures it on this machine, and leaves it in the user's state folder for the plans of clusters.
"""

from __future__ import annotations

import contextlib
import math
import os
import platform
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from loadbench.plan.load import Closed, Open
from loadbench.results.space import usual_cycle_s, usual_output_tokens
from loadbench.results.state import read_state, state_file

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from loadbench.plan.load import Load
    from loadbench.plan.scenario import Scenario

_MOST_BYTES = 10_000


class Ceiling(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker on a core of its own keeps up with: chunks of streams, or requests with a chunk each. `measured_at`
    is when, in ISO 8601; nobody has measured it where that is empty. Of a lower bound the end was not seen."""

    chunks_per_s: float
    requests_per_s: float
    is_lower_bound: bool = False
    measured_at: str = ""
    host: str = ""

    def share(self, demand: Demand) -> float:
        """How many such workers a load keeps busy: a part of one is enough for a small load."""
        return demand.chunks_per_s / self.chunks_per_s + demand.requests_per_s / self.requests_per_s


# 128 streams of the pace that plans assume (docs/performance.md); cores differ, and few are slower.
EVERYDAY = Ceiling(chunks_per_s=12_800, requests_per_s=1_000)


class Demand(NamedTuple):
    """What a load asks of those who make it, all together."""

    load: str  # its label
    streams: float  # at one time
    chunks_per_s: float
    requests_per_s: float


def ceiling_file() -> Path:
    """Where it is: `~/.local/state/loadbench/selfcheck.json` on Linux."""
    return state_file("selfcheck.json")


def remember_ceiling(chunks_per_s: float, requests_per_s: float, *, is_lower_bound: bool) -> None:
    """Keep what was measured on this machine now; nothing is kept without a folder that can be written. A lower bound
    that is below what is assumed anyway says nothing: the server of the check was late, or its time was over.
    """
    if is_lower_bound and chunks_per_s < EVERYDAY.chunks_per_s:
        return
    found = Ceiling(
        chunks_per_s=chunks_per_s,
        requests_per_s=requests_per_s,
        is_lower_bound=is_lower_bound,
        measured_at=datetime.now(UTC).isoformat(timespec="seconds"),
        host=platform.node(),
    )
    file = ceiling_file()
    if not file.is_absolute():
        return
    with contextlib.suppress(OSError):
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft = file.with_name(f"selfcheck.{os.getpid()}")
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)
        with os.fdopen(os.open(draft, flags, 0o600), "wb") as new:
            new.write(msgspec.json.encode(found))
        draft.replace(file)


def known_ceiling() -> Ceiling:
    """What was measured on this machine last; else a cautious figure."""
    try:
        found = msgspec.json.decode(read_state(ceiling_file(), most=_MOST_BYTES), type=Ceiling)
        datetime.fromisoformat(found.measured_at)
    except (msgspec.MsgspecError, ValueError):
        return EVERYDAY
    # A home folder may be that of several machines.
    is_ours = found.host == platform.node() and min(found.chunks_per_s, found.requests_per_s) > 0
    return found if is_ours else EVERYDAY


def largest_demand(scenario: Scenario, ceiling: Ceiling) -> Demand:
    """Of all its loads, the one that needs the most workers. How fast users are answered is assumed."""
    return max((demand_of(scenario, load) for load in planned_loads(scenario)), key=ceiling.share)


def demand_of(scenario: Scenario, load: Load) -> Demand:
    """What one load asks for."""
    tokens = usual_output_tokens(scenario)
    if isinstance(load, Closed):
        requests_per_s, streams = load.users / usual_cycle_s(scenario, load.users), float(load.users)
    else:
        requests_per_s = load.peak_per_s
        streams = min(float(scenario.load.max_in_flight), requests_per_s * usual_cycle_s(scenario))
    return Demand(load.label, streams, requests_per_s * tokens, requests_per_s)


def workers_of(demand: Demand, ceiling: Ceiling) -> int:
    """So many keep up with it."""
    return max(1, math.ceil(ceiling.share(demand)))


def connections_of(scenario: Scenario, load: Load) -> int:
    """The most connections that a load may have at one time. Of a rate nobody expects as many as are allowed: each
    arrival of a minute has one if the server is that slow, or closes them, which keeps their ports for as long."""
    if isinstance(load, Closed):
        return load.users
    most = scenario.load.max_in_flight
    return most if scenario.is_set("load.max_in_flight") else min(most, math.ceil(load.peak_per_s * 60))


def most_connections(scenario: Scenario) -> int:
    """Those of the largest load."""
    return max(connections_of(scenario, load) for load in planned_loads(scenario))


def sure_connections(scenario: Scenario) -> int:
    """As many as are planned: users have one each; of a rate it is known only where --max-in-flight says so."""
    is_given = scenario.is_set("load.max_in_flight")
    loads = [load for load in planned_loads(scenario) if is_given or isinstance(load, Closed)]
    return max((connections_of(scenario, load) for load in loads), default=0)


def planned_loads(scenario: Scenario) -> Sequence[Load]:
    """Those of the levels; of a search the largest that it may try."""
    if scenario.command != "capacity":
        return scenario.loads
    most = scenario.capacity.at_most
    if scenario.capacity.by == "users":
        return (Closed(max(1, round(most)), scenario.think),)
    return (Open(most, scenario.load.arrivals),)
