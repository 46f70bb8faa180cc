"""How many processes and machines a load needs, by what one of them keeps up with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadbench.plan.load import Open

if TYPE_CHECKING:
    from loadbench.plan.scenario import Scenario

# One process keeps up with about this many streams of an everyday pace, or requests a second, each with its stream of
# tokens; beyond, more processes are worth their start, as far as cores are free.
STREAMS_PER_WORKER, ARRIVALS_PER_WORKER = 128, 100
# So many requests a second the main process reads one by one, of 128 tokens, on one core (docs/cluster.md).
MOST_READ_PER_S = 7_000
# What Linux gives to connections from one address to one server, unless that was changed, and the most there can be.
PORTS_OF_A_MACHINE, MOST_PORTS = 28_232, 64_511


def workers_needed(scenario: Scenario) -> float:
    """As many workers as keep up with the largest of the loads; a part of one is enough for a small load."""
    load = scenario.load
    if load.users is not None:
        return max(load.users) / STREAMS_PER_WORKER
    # Each worker has its part of the room for requests in flight; there must be some to spare.
    most = max(1, load.max_in_flight // STREAMS_PER_WORKER)
    return min(most, busiest_per_s(scenario) / ARRIVALS_PER_WORKER)


def reads_requests(scenario: Scenario) -> bool:
    """Whether the main process needs each request that a cluster sends: a search decides by them what is done next, and
    metrics are made of each. Else it has what workers have recorded."""
    return scenario.command == "capacity" or has_metrics(scenario)


def has_metrics(scenario: Scenario) -> bool:
    """Whether metrics go out while the run goes on."""
    return scenario.report.otlp is not None or scenario.report.prometheus is not None


def busiest_per_s(scenario: Scenario) -> float:
    """The highest planned rate; 0 for users, who send as fast as they are answered."""
    return max((one.peak_per_s for one in scenario.loads if isinstance(one, Open)), default=0.0)
