"""Transport and client of a target, as the scenario sets them: the same for a measurement and for a check."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadbench.client.adapter import AdapterTransport
from loadbench.client.client import Client, Timeouts
from loadbench.client.fast_transport import FastTransport
from loadbench.client.httpx_transport import HttpxTransport

if TYPE_CHECKING:
    from loadbench.client.transport import Transport
    from loadbench.core.clock import Clock
    from loadbench.plan.scenario import Scenario
    from loadbench.targets.openai import Target


MeasuringTransport = FastTransport | HttpxTransport | AdapterTransport


def make_transport(scenario: Scenario, target: Target, clock: Clock) -> MeasuringTransport:
    """The transport of all requests; it must be closed in the event loop that uses it."""
    if target.adapter is not None:
        return AdapterTransport(target.adapter)
    if scenario.target.transport == "httpx":
        return HttpxTransport(clock, tls=target.tls)
    return FastTransport(tls=target.tls)


def make_client(scenario: Scenario, target: Target, transport: Transport, *, model: str, clock: Clock) -> Client:
    """The client of one model, with the scenario's time limits."""
    limits = scenario.limits
    timeouts = Timeouts(
        connect_ns=limits.connect_timeout,
        first_token_ns=limits.first_token_timeout,
        idle_ns=limits.idle_timeout,
        total_ns=limits.timeout,
    )
    return Client(target.endpoint(model, scenario), transport, clock=clock, timeouts=timeouts)
