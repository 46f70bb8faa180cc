"""The checkup: each finding with what was seen and what to do; a failed check spares what it makes pointless."""

from __future__ import annotations

import asyncio
import socket
import sys
import time
from types import SimpleNamespace

import msgspec
import pytest

from loadbench.client import httpx_transport
from loadbench.client.httpx_transport import HttpxTransport
from loadbench.plan.scenario import Scenario
from loadbench.plan.settings import LimitSettings, TargetSettings
from loadbench.targets import checks, machine
from loadbench.targets.check_result import SCHEMA, CheckReport
from loadbench.targets.checks import run_checks
from loadbench.telemetry.devices import Device
from tests.building import MS
from tests.client.server import ANSWER, ASK, CLOSE, DONE, END, FINISH, GONE, chunk, head, serving, token, usage, whole

LIST = whole("200 OK", b'{"data":[{"id":"m"}]}', more=b"server: tiny\r\n")
TWO = whole("200 OK", b'{"data":[{"id":"m"},{"id":"n"}]}')


def checked(*scripts: list, environment=None, limits: LimitSettings | None = None, **target) -> CheckReport:
    """The checkup of a server of these scripts: it is asked for its list first, for answers on further connections."""

    async def main() -> CheckReport:
        async with serving(*scripts) as server:
            settings = TargetSettings(**{"url": (server.url(),), **target})
            scenario = Scenario(target=settings, limits=limits or LimitSettings())
            return await run_checks(scenario, environment or {}, url=server.url())

    return asyncio.run(main())


def found(up: CheckReport) -> dict[str, str]:
    """Status by check, of those that are about the server."""
    ours = {"open files", "local ports", "clock", "disk", "memory", "gpu", "cpu", "governor", "power"}
    return {check.name: check.status for check in up.checks if check.name not in ours}


def message(up: CheckReport, name: str) -> str:
    """What the check says, with its advice."""
    return next(f"{check.message} → {check.advice}" for check in up.checks if check.name == name)


def test_healthy_server_passes_all_checks():
    """Found, listed, answered, counted: every check is ok, and says what it saw."""
    up = checked([ASK, LIST, GONE], [ASK, ANSWER, ASK, ANSWER, GONE])
    assert found(up) == {"endpoint": "ok", "models": "ok", "response m": "ok"}
    assert "server tiny" in message(up, "endpoint")
    assert "1 listed: m" in message(up, "models")
    assert "3 tokens, the first after" in message(up, "response m")
    assert up.healthy


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ([ASK, CLOSE], "no valid HTTP response"),
        ([ASK, whole("401 No", b"{}"), GONE], "LOADBENCH_API_KEY"),
        ([ASK, whole("200 OK", b"<html></html>"), GONE], "HTML"),
    ],
)
def test_endpoint_that_is_none_spares_the_rest(script, words):
    """What cannot be reached is not asked for models and answers; this machine is looked at all the same."""
    up = checked(script)
    assert found(up) == {"endpoint": "fail", "models": "skip", "response": "skip"}
    assert words in message(up, "endpoint")
    assert {"open files", "clock"} <= {check.name for check in up.checks}
    assert not up.healthy


def test_board_that_the_server_does_not_use_is_warned_of(monkeypatch):
    """Ollama is asked where its models are; of another server the loaded libraries are looked at: this process's."""
    monkeypatch.setattr(machine, "present_devices", lambda _: [Device("GPU", "Nobody", "a board of nobody")])
    ollama = whole("200 OK", b'{"data":[{"id":"m","owned_by":"library"}]}')
    running = whole("200 OK", b'{"models":[{"name":"m","size":100,"size_vram":0}]}')
    tags = whole("200 OK", b'{"models":[{"name":"m","size":90}]}')
    answers = [ASK, ANSWER, ASK, ANSWER, GONE]
    up = checked([ASK, ollama, GONE], answers, [ASK, running, ASK, tags, GONE])
    assert found(up)["acceleration"] == "warn"
    assert "a GPU is here (a board of nobody), but Ollama has m on the CPU" in message(up, "acceleration")
    up = checked([ASK, LIST, GONE], answers)
    if sys.platform == "linux":
        assert "but tiny has loaded no library for it: it computes on the CPU" in message(up, "acceleration")


def test_bad_setting_is_a_finding_too():
    """A check does not raise for what the user got wrong."""
    up = checked([ASK, LIST], api_key_env="NO_SUCH_KEY")
    assert found(up)["endpoint"] == "fail"
    assert "NO_SUCH_KEY" in message(up, "endpoint")


def test_first_listed_model_is_probed_where_none_is_named():
    """With several, one proves that the server works."""
    up = checked([ASK, TWO, GONE], [ASK, ANSWER, ASK, ANSWER, GONE])
    assert found(up) == {"endpoint": "ok", "models": "ok", "response m": "ok"}


def test_each_named_model_is_probed():
    """Also one that is not listed, which is a warning: the list is advice, and the server decides."""
    answer = ANSWER.replace(b'"model":"m"', b'"model":"n"')
    up = checked(
        *([ASK, TWO, GONE], [ASK, ANSWER, ASK, ANSWER, GONE], [ASK, whole("404 No", b"no such model"), GONE]),
        [ASK, answer, ASK, answer, GONE],
        model=("m", "absent", "n"),
    )
    assert [(check.name, check.status) for check in up.checks[1:6]] == [
        ("models", "ok"),
        ("models", "warn"),
        ("response m", "ok"),
        ("response absent", "fail"),
        ("response n", "ok"),
    ]
    assert "absent" in up.checks[2].message
    assert "no such model" in up.checks[4].message
    assert not up.healthy


@pytest.mark.parametrize(
    ("answer", "words"),
    [(whole("404 No", b"{}"), "no list of models"), (whole("200 OK", b'{"data":[]}'), "the list of models is empty")],
)
def test_without_a_list_the_model_has_to_be_named(answer, words):
    """There is nothing to probe then."""
    up = checked([ASK, answer, GONE])
    assert found(up) == {"endpoint": "ok", "models": "fail", "response": "skip"}
    assert words in message(up, "models")


def test_named_model_is_probed_without_a_list():
    """No list is a warning where the model is named."""
    up = checked([ASK, whole("404 No", b"{}"), GONE], [ASK, ANSWER, ASK, ANSWER, GONE], model=("m",))
    assert found(up) == {"endpoint": "ok", "models": "warn", "response m": "ok"}
    assert up.healthy


def test_only_model_that_is_not_listed_is_probed():
    """A server may know more names than it lists."""
    answer = ANSWER.replace(b'"model":"m"', b'"model":"k"')
    up = checked([ASK, TWO, GONE], [ASK, answer, ASK, answer, GONE], model=("k",))
    assert found(up) == {"endpoint": "ok", "models": "warn", "response k": "ok"}


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (whole("500 Oh", b'{"error":"out of memory"}'), "out of memory"),
        (head() + chunk(FINISH + DONE) + END, "empty"),
        (head() + chunk(token()) + END, "truncated"),
    ],
)
def test_probe_that_fails_is_a_failed_check(answer, words):
    """With the server's words."""
    up = checked([ASK, LIST, GONE], [ASK, answer, GONE])
    assert found(up)["response m"] == "fail"
    assert words in message(up, "response m")


def test_probe_that_hangs_is_a_failed_check():
    """Within the scenario's limits."""
    up = checked([ASK, LIST, GONE], [ASK, GONE], limits=LimitSettings(first_token_timeout=50_000_000))
    assert found(up)["response m"] == "fail"


def test_server_without_usage_is_warned_of():
    """Tokens would be counted by event: that works, and is to be known."""
    up = checked([ASK, LIST, GONE], [ASK, head() + chunk(token() * 3 + FINISH + DONE) + END, CLOSE])
    assert found(up)["response m"] == "warn"
    assert "does not report usage" in message(up, "response m")
    assert "include_usage" in message(up, "response m")
    assert up.healthy


def test_answer_of_another_model_is_warned_of():
    """A server that answers whatever it has loaded would be measured under the wrong name."""
    other = head() + chunk(token().replace(b'"model":"m"', b'"model":"other"') + FINISH + usage(1) + DONE) + END
    up = checked([ASK, LIST, GONE], [ASK, other, ASK, other, GONE])
    assert found(up)["response m"] == "warn"
    assert "the response is from 'other'" in message(up, "response m")


@pytest.mark.parametrize(
    ("limit", "status", "words"),
    [
        (None, "skip", "no limit"),
        ((256, 512), "warn", "ulimit -n"),
        ((256, 4096), "ok", "256 now, 4,096 at most"),
        ((1024, -1), "ok", "unlimited"),
    ],
)
def test_open_files_are_looked_at(monkeypatch, limit, status, words):
    """Each connection is one; few are worth a warning, and how many may be raised is worth knowing."""
    monkeypatch.setattr(machine, "descriptor_limit", lambda: limit)
    check = machine.descriptors()
    assert check.status == status
    assert words in f"{check.message} {check.advice}"


@pytest.mark.parametrize(
    ("resolution", "monotonic", "status"), [(1e-9, True, "ok"), (15.6e-3, True, "warn"), (1e-9, False, "warn")]
)
def test_coarse_clock_is_warned_of(monkeypatch, resolution, monotonic, status):
    """Stamps are no finer than the clock, which is the one that they are taken from."""
    assert time.get_clock_info("perf_counter").implementation in machine.clock().message
    info = SimpleNamespace(implementation="some_clock()", resolution=resolution, monotonic=monotonic)
    monkeypatch.setattr(machine, "time", SimpleNamespace(get_clock_info=lambda name: info))
    check = machine.clock()
    assert check.status == status
    assert "some_clock()" in check.message


@pytest.mark.parametrize(
    ("host", "addresses", "expected"),
    [
        ("localhost", ("::1", "127.0.0.1"), "localhost is ::1 and 127.0.0.1 → use 127.0.0.1"),
        ("localhost", ("127.0.0.1", "127.0.0.1"), None),
        ("twofold", ("::1", "127.0.0.1"), None),
        ("127.0.0.1", ("::1", "127.0.0.1"), None),
    ],
)
def test_c7_localhost_of_several_addresses_is_warned_of(monkeypatch, host, addresses, expected):
    """Who writes localhost where it is two addresses may wait for a dead one: the checkup says what to write instead.

    Seen to fail when nothing looked at the name.
    """

    async def look_up(name, *_, **__):
        kinds = [socket.AF_INET6 if ":" in address else socket.AF_INET for address in addresses]
        return [(kind, socket.SOCK_STREAM, 6, "", (address, 0)) for kind, address in zip(kinds, addresses, strict=True)]

    monkeypatch.setattr(checks.anyio, "getaddrinfo", look_up)
    found = asyncio.run(checks._name_checks(f"http://{host}:8080/v1"))
    assert [check.status for check in found] == ([] if expected is None else ["warn"])
    assert all(f"{check.message} → {check.advice}".startswith(str(expected)) for check in found)


def test_localhost_that_is_not_known_is_the_endpoints_finding(monkeypatch):
    """A name without an address is no warning but a failed endpoint, in the checkup's own words."""

    async def look_up(name, *_, **__):
        raise socket.gaierror(socket.EAI_NONAME, "not known")

    monkeypatch.setattr(checks.anyio, "getaddrinfo", look_up)
    up = asyncio.run(run_checks(Scenario(), {}, url="http://localhost:8080/v1"))
    assert found(up) == {"endpoint": "fail", "models": "skip", "response": "skip"}


def test_findings_are_written_as_json():
    """What `doctor --json` prints says which form it has, and reads back."""
    up = checked([ASK, LIST, GONE], [ASK, ANSWER, ASK, ANSWER, GONE])
    document = msgspec.json.decode(msgspec.json.encode(up))
    assert document["schema"] == SCHEMA
    assert msgspec.json.decode(msgspec.json.encode(up), type=CheckReport) == up


@pytest.mark.parametrize(("transport", "made"), [("httpx", 1), ("fast", 0)])
def test_the_probe_travels_by_the_transport_that_is_set(monkeypatch, transport, made):
    """`--transport` decides how the doctor's requests are sent, as it does for a measurement."""
    seen = []

    class Noted(HttpxTransport):
        def __init__(self, *args, **options):
            seen.append(self)
            super().__init__(*args, **options)

    monkeypatch.setattr(httpx_transport, "HttpxTransport", Noted)
    up = checked([ASK, LIST, GONE], [ASK, ANSWER, ASK, ANSWER, GONE], transport=transport)
    assert found(up)["response m"] == "ok"
    assert len(seen) == made


@pytest.mark.parametrize("limit", ["idle_timeout", "timeout", "first_token_timeout"])
@pytest.mark.parametrize("transport", ["fast", "httpx"])
def test_the_probe_keeps_the_time_limits(limit, transport):
    """A response that stops before or after its first token fails the check once the limit is over."""
    started = [] if limit == "first_token_timeout" else [head(), chunk(token())]
    began_s = time.monotonic()
    limits = LimitSettings(**{limit: 300 * MS})
    up = checked([ASK, LIST, GONE], [ASK, *started, 20.0], limits=limits, transport=transport)
    assert time.monotonic() - began_s < 10
    assert found(up)["response m"] == "fail"
    assert "timeout" in message(up, "response m")


def test_the_list_of_models_keeps_the_time_limit():
    """`--timeout` is the time limit of a whole request: that for the list of models is one."""
    began_s = time.monotonic()
    up = checked([ASK, 20.0], limits=LimitSettings(timeout=300 * MS))
    assert time.monotonic() - began_s < 10
    assert found(up)["endpoint"] == "fail"
