"""What `loadbench doctor` looks at, one check after another; what a failed one makes pointless is skipped.

A check never raises for what it finds: it says ok, warn, fail or skip, with what was seen and what to do.
"""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

import anyio
import msgspec

from loadbench.client.client import Client, Timeouts
from loadbench.client.descriptors import descriptor_limit
from loadbench.client.fast_transport import FastTransport
from loadbench.core.clock import MonotonicClock
from loadbench.core.errors import LoadbenchError
from loadbench.record.outcome import TokenSource
from loadbench.targets.openai import choose_models, find, first_answer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from loadbench.plan.scenario import Scenario
    from loadbench.record.sample import Sample
    from loadbench.targets.openai import Target

SCHEMA = "loadbench.doctor/1"
_PROBE = "Say in one sentence what a load test is."
_PROBE_TOKENS = 16
# Fewer than this are soon gone: each user is a connection.
_FEW_DESCRIPTORS = 1024


class Check(msgspec.Struct, frozen=True):
    """One finding."""

    name: str
    status: Literal["ok", "warn", "fail", "skip"]
    message: str
    advice: str = ""


class Checkup(msgspec.Struct, frozen=True, kw_only=True):
    """All findings, as `doctor --json` prints them."""

    schema: str = SCHEMA
    checks: list[Check]

    @property
    def healthy(self) -> bool:
        """Whether nothing failed."""
        return all(check.status != "fail" for check in self.checks)


async def checkup(scenario: Scenario, environment: Mapping[str, str], *, url: str) -> Checkup:
    """The host's name, endpoint, models, a first answer of each wanted model, and this machine."""
    checks = await _name(url)
    try:
        target = await find(scenario, environment, url=url)
    except LoadbenchError as error:
        checks += [Check("endpoint", "fail", error.message, error.hint), *_skipped("models", "probe")]
    else:
        checks.append(Check("endpoint", "ok", _endpoint_text(target)))
        checks += await _ask(scenario, target)
    return Checkup(checks=[*checks, _descriptors(), _clock()])


async def _name(url: str) -> list[Check]:
    """A word about `localhost` where it is several addresses: the server may listen on one of them alone."""
    if urlsplit(url).hostname != "localhost":
        return []
    try:
        found = await anyio.getaddrinfo("localhost", None, type=socket.SOCK_STREAM)
    except OSError:
        return []  # that it is not known here the endpoint's check will say
    addresses = list(dict.fromkeys(str(address[0]) for *_, address in found))
    if len(addresses) < 2:
        return []
    return [
        Check(
            "name",
            "warn",
            f"localhost is {' and '.join(addresses)}",
            "write 127.0.0.1, or whichever the server listens on: the others are tried in vain",
        )
    ]


def _skipped(*names: str) -> list[Check]:
    return [Check(name, "skip", "not tried, since an earlier check failed") for name in names]


def _endpoint_text(target: Target) -> str:
    return target.base_url + (f", server {target.server}" if target.server else "")


async def _ask(scenario: Scenario, target: Target) -> list[Check]:
    listed = Check("models", "ok", f"{len(target.models or ())} listed: {', '.join((target.models or ())[:20])}")
    if target.models is None:
        listed = Check("models", "warn", "the server has no list of models", "name the model with --model")
    wanted = scenario.target.model or (target.models or ())[:1]
    try:
        models, missing = choose_models(target, wanted or None)
    except LoadbenchError as error:
        return [Check("models", "fail", error.message, error.hint), *_skipped("probe")]
    checks = [listed, *(Check("models", "fail", reason) for reason in missing.values())]
    return checks + [await _probe(scenario, target, model) for model in models if model not in missing]


async def _probe(scenario: Scenario, target: Target, model: str) -> Check:
    """A first question to a model, by the client that measures."""
    clock = MonotonicClock()
    transport = FastTransport(tls=target.tls)
    limits = scenario.limits
    timeouts = Timeouts(connect_ns=limits.connect_timeout, first_token_ns=limits.first_token_timeout)
    client = Client(target.endpoint(model, scenario), transport, clock=clock, timeouts=timeouts)
    name = f"probe {model}"
    try:
        sample = await first_answer(client, clock, prompt=_PROBE, max_tokens=_PROBE_TOKENS)
    except LoadbenchError as error:
        return Check(name, "fail", error.message, error.hint)
    finally:
        await transport.aclose()
    return _judge(name, sample, model)


def _judge(name: str, sample: Sample, model: str) -> Check:
    ttft_ns = sample.since_sent(sample.first_token_ns) or 0
    message = f"{sample.output_tokens} tokens, the first after {ttft_ns / 1e6:.0f} ms"
    if sample.model not in {None, model}:
        return Check(name, "warn", f"{message}; answered as {sample.model!r}", "is that the model you meant?")
    if sample.token_source is not TokenSource.USAGE:
        return Check(
            name,
            "warn",
            f"{message}; the server does not report usage, tokens are counted by {sample.token_source}",
            "let it report usage (stream_options.include_usage), or read tokens as events",
        )
    return Check(name, "ok", message)


def _descriptors() -> Check:
    limit = descriptor_limit()
    if limit is None:
        return Check("open files", "skip", "this system has no such limit")
    soft, hard = limit
    message = f"{soft} now, {hard if hard >= 0 else 'any number'} at most"
    if 0 <= hard < _FEW_DESCRIPTORS:
        return Check("open files", "warn", message, f"raise the limit: ulimit -n {_FEW_DESCRIPTORS}")
    return Check("open files", "ok", message)


def _clock() -> Check:
    """The clock of all marks, in its own words."""
    info = time.get_clock_info("perf_counter")
    message = f"{info.implementation}, resolution {info.resolution * 1e9:.0f} ns"
    if not info.monotonic or info.resolution > 1e-6:
        return Check("clock", "warn", message, "stamps are no finer than this")
    return Check("clock", "ok", message)
