"""Which workers made the load of a run, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadbench.analyze.level.knee import named_loads
from loadbench.core.text import some

if TYPE_CHECKING:
    from loadbench.results.run import Run


def load_makers(run: Run) -> str:
    """`3 workers on 2 nodes of the Ray cluster auto at 10.0.0.1:6379 (a, b)`; empty where one process made it alone.

    A small load has fewer workers, and so has a run that lost some, or was resumed elsewhere: then those of each load
    are named, and those with which it was last started.
    """
    given = run.environment.get("workers")
    if not isinstance(given, int):
        return ""
    where = _on_cluster(run)
    levels: dict[int, list[str]] = {}
    for load, counts in workers_by_load(run).items():
        for count in counts:
            levels.setdefault(count, []).append(load)
    if len(levels) > 1:
        each = [f"{_workers(count)} ({named_loads(loads)})" for count, loads in levels.items()]
        return ", ".join(each) + (f"; when last started {_workers(given)}{where}" if where else "")
    count = next(iter(levels), given)
    if where:
        return f"{_workers(count)}{where}"
    return f"{count} worker processes" if count > 1 else ""


def workers_by_load(run: Run) -> dict[str, list[int]]:
    """How many workers made each load, each number once: of several where it was measured more than once."""
    given = run.environment.get("workers")
    # Older runs have no health of their workers.
    unsaid = given if isinstance(given, int) and not any(level.client.workers for level in run.levels) else 1
    found: dict[str, list[int]] = {}
    for level in run.levels:
        counts = found.setdefault(level.load.label, [])
        count = len(level.client.workers) or unsaid
        counts += [count] if count not in counts else []
    return found


def which_cluster(run: Run) -> str:
    """The cluster by the address of its head, if that is known, else as the user named it; empty without one. How many
    nodes of it have workers depends on the load."""
    cluster = run.environment.get("cluster")
    if not isinstance(cluster, dict):
        return ""
    address = str(cluster.get("address"))
    # Local nodes are started for each run.
    return "local" if address.startswith("local:") else str(cluster.get("head") or address)


def _on_cluster(run: Run) -> str:
    """` on 2 nodes of the Ray cluster auto (a, b)`, with which the run was last started; empty without one."""
    about, cluster = run.environment, run.environment.get("cluster")
    if not isinstance(cluster, dict):
        return ""
    nodes, known, head = cluster.get("nodes"), cluster.get("workers"), cluster.get("head")
    found = [one for one in known if isinstance(one, dict)] if isinstance(known, list) else []
    hosts = sorted({str(one.get("host")) for one in found})
    where = f" on {nodes} node{'s' * (nodes != 1)}" if isinstance(nodes, int) else ""
    where += f" of the Ray cluster {cluster.get('address')}"
    where += f" at {head}" if head and cluster.get("address") == "auto" else ""
    return where + (f" ({some(hosts, most=3)})" if hosts != [str(about.get("host"))] else "")


def _workers(count: int) -> str:
    return f"{count} worker{'s' * (count != 1)}"
