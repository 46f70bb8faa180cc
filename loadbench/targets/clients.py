"""Transport and client of a target, as the scenario sets them: the same for a measurement and for a check."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

from loadbench.client.adapter import AdapterTransport
from loadbench.client.client import Client, Timeouts
from loadbench.client.fast_transport import FastTransport
from loadbench.plan.load import WHOLE, Shard

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadbench.client.httpx_transport import HttpxTransport
    from loadbench.client.transport import Transport
    from loadbench.core.clock import Clock
    from loadbench.plan.scenario import Scenario
    from loadbench.targets.target import Target

    MeasuringTransport = FastTransport | HttpxTransport | AdapterTransport


def make_transport(
    scenario: Scenario, target: Target, clock: Clock, *others: Target, part: Shard = WHOLE
) -> MeasuringTransport:
    """The transport of all requests, also to `others`, of this part of the load; it must be closed in the event loop
    that uses it."""
    if target.adapter is not None:
        return AdapterTransport(target.adapter)
    tls = next((one.tls for one in (target, *others) if one.tls is not None), None)
    if scenario.target.transport == "httpx":
        from loadbench.client.httpx_transport import HttpxTransport  # noqa: PLC0415 - httpx is needed for nothing else

        return HttpxTransport(clock, tls=tls, sources=target.sources, part=part)
    return FastTransport(tls=tls, sources=target.sources, part=part)


def make_client(
    scenario: Scenario,
    target: Target,
    transport: Transport,
    *,
    model: str,
    clock: Clock,
    mix: Sequence[str] = (),
    others: Sequence[Target] = (),
) -> Client:
    """The client of one model, or of the models of a mix, at the target and `others`, with the scenario's time
    limits. Its endpoints are in the order of `loadbench.plan.shares.Rotation`."""
    limits = scenario.limits
    timeouts = Timeouts(
        connect_ns=limits.connect_timeout,
        first_token_ns=limits.first_token_timeout,
        idle_ns=limits.idle_timeout,
        total_ns=limits.timeout,
    )
    endpoint, *further = (one.endpoint(name, scenario) for name, one in product(mix or (model,), (target, *others)))
    return Client(endpoint, transport, clock=clock, timeouts=timeouts, others=further)
