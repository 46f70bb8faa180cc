"""What a plan says of a cluster: how many workers and machines the largest load needs, and where source ports end."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from loadbench.plan.load import Closed
from loadbench.plan.load_generator import MOST_PORTS, MOST_READ_PER_S, PORTS_OF_A_MACHINE, reads_requests
from loadbench.report.values import counted
from loadbench.results.ceiling import (
    known_ceiling,
    largest_demand,
    most_connections,
    planned_loads,
    sure_connections,
    workers_of,
)
from loadbench.results.environment import usable_cores
from loadbench.results.space import speed_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadbench.plan.scenario import Scenario
    from loadbench.results.ceiling import Ceiling


def cluster_facts(scenario: Scenario) -> list[tuple[str, str]]:
    """What of a cluster the largest load needs; nothing without one."""
    cluster = scenario.load.cluster
    if cluster is None:
        return []
    ceiling, connections = known_ceiling(), most_connections(scenario)
    demand = largest_demand(scenario, ceiling)
    workers, cores = workers_of(demand, ceiling), usable_cores()
    load = f"{demand.load}: about {demand.chunks_per_s:,.0f} chunks/s in {_about(demand.streams, 'stream')}"
    load += f", {_about(demand.requests_per_s, 'request')}/s"
    # At a rate too, the server's speed says how many streams there are at one time.
    if any(isinstance(one, Closed) for one in planned_loads(scenario)) or scenario.simulated:
        load += f", {speed_text(scenario)}"
    servers = len(scenario.target.url or ("",))
    ports = f"{_about(connections, 'connection')}; a machine has {PORTS_OF_A_MACHINE:,} for each server"
    ports += f" ({MOST_PORTS:,} at most)"
    by_ports, by_cores = math.ceil(connections / (PORTS_OF_A_MACHINE * servers)), math.ceil(workers / cores)
    machines = f"{max(by_ports, by_cores):,}"
    if by_cores < by_ports:
        machines += ", for their source ports"
    else:
        machines += f" of {counted(cores, 'core')}, as this one has"
        machines += f"; fewer with more cores, at least {by_ports}" if by_cores > 1 else ""
    if cluster.local_nodes and max(by_ports, by_cores) <= 1:
        machines = "1, which this one is"
    elif cluster.local_nodes:
        lacks = "cores" if by_cores >= by_ports else "source ports"
        machines += f". {cluster} is this machine alone, which has not enough {lacks}"
    logs = "are copied into the run folder after each level"
    if scenario.leaves_requests:
        logs = "stay on the nodes; --gather-requests copies them into the run folder"
    return [
        ("cluster", str(cluster)),
        ("largest load", load),
        ("a worker", f"keeps up with {ceiling_text(ceiling)}"),
        ("workers needed", f"{workers:,}, each on a core of its own" if workers > 1 else "1, on a core of its own"),
        ("source ports", f"for {ports}"),
        ("machines needed", machines),
        ("request logs", logs),
    ]


def _about(amount: float, noun: str) -> str:
    """`1,200 streams`, `1 stream`, `less than 1 stream`."""
    whole = round(amount)
    return f"{whole:,} {noun}{'s' * (whole != 1)}" if amount >= 1 else f"less than 1 {noun}"


def hardest(scenarios: Sequence[Scenario]) -> Scenario | None:
    """Of those that a cluster measures, the one whose largest load needs the most workers; `None` without any."""
    ceiling = known_ceiling()

    def share(scenario: Scenario) -> float:
        return ceiling.share(largest_demand(scenario, ceiling))

    return max((one for one in scenarios if one.load.cluster is not None), key=share, default=None)


def ceiling_text(ceiling: Ceiling) -> str:
    """What a worker keeps up with, and who says so."""
    least = "at least " if ceiling.is_lower_bound else "" if ceiling.measured_at else "about "
    both = f"{least}{ceiling.chunks_per_s:,.0f} chunks/s, or {ceiling.requests_per_s:,.0f} short requests/s"
    if not ceiling.measured_at:
        return f"{both}: nobody has measured it here (`loadbench selfcheck`)"
    return f"{both}: measured on this machine by `loadbench selfcheck`, {ceiling.measured_at[:10]}"


def cluster_warnings(scenario: Scenario) -> list[str]:
    """Where a cluster, as far as it is known, is too small for the largest load, or its main process is."""
    cluster, warnings = scenario.load.cluster, []
    if cluster is None:
        return []
    ceiling = known_ceiling()
    demand = largest_demand(scenario, ceiling)
    needed = workers_of(demand, ceiling)
    given = scenario.load.workers or cluster.local_nodes or needed
    if given < needed:
        warnings.append(f"{counted(given, 'worker')} may be too few: {demand.load} needs about {needed:,}")
    # Without a number of workers, how many machines there are is not known.
    machines = 1 if cluster.local_nodes else scenario.load.workers
    connections, servers = sure_connections(scenario), len(scenario.target.url or ("",))
    if machines is not None and connections > machines * PORTS_OF_A_MACHINE * servers:
        who, have = f"--workers {machines}", "as many machines usually have"
        if cluster.local_nodes:
            who, have = str(cluster), "this machine usually has"
        warnings.append(
            f"{who}: {connections:,} connections at one time need more source ports than {have}: "
            f"{PORTS_OF_A_MACHINE:,} for each server on each, up to {MOST_PORTS:,} where the range was widened"
        )
    cores = usable_cores()
    if cluster.local_nodes > cores:
        share = f"{cluster.local_nodes} local nodes share {counted(cores, 'core')}"
        warnings.append(f"{share}: they make no more load than {cores} do, and disturb each other")
    if demand.requests_per_s > MOST_READ_PER_S and reads_requests(scenario):
        reader = "a capacity search" if scenario.command == "capacity" else "the export of metrics"
        warnings.append(
            f"{reader} reads each request, about {MOST_READ_PER_S:,}/s of 128 tokens, and "
            f"{demand.requests_per_s:,.0f}/s are planned: it falls behind, and needs memory for what waits"
        )
    return warnings
