"""The relay as Ray runs it: calls of each group are done one after another, and the groups side by side."""

from __future__ import annotations

import ray

from loadbench.cluster.relay import Relay

GROUPS = {"reports": 1, "clock": 1}  # so many calls at one time; all others are of a group of their own


class RelayActor(Relay):
    """A call that waits for reports holds up neither commands nor a reading of the clock; a command that waits for a
    worker which is stopped does not keep it alive."""

    reports = ray.method(concurrency_group="reports")(Relay.reports)
    now_ns = ray.method(concurrency_group="clock")(Relay.now_ns)
    sent = ray.method(concurrency_group="clock")(Relay.sent)
    kill = ray.method(concurrency_group="clock")(Relay.kill)
