"""Each fault of the fault server ends as its entry in the table says, over both transports."""

from __future__ import annotations

import subprocess
import sys
from array import array

import httpx
import pytest

from loadbench.record.outcome import Outcome
from tests.faults.connection_faults import DISRUPTIVE
from tests.faults.server import FAULTS, FaultProcess
from tests.pitfalls.playing import KINDS, SOON, S, Timeouts, faulty

# Where the end is silence, there is no reason to wait long for it. What comes before it has time.
_HASTY = {
    Outcome.TIMEOUT_FIRST_TOKEN: Timeouts(connect_ns=5 * S, first_token_ns=S // 10),
    Outcome.TIMEOUT_IDLE: Timeouts(connect_ns=5 * S, first_token_ns=10 * S, idle_ns=S // 4),
}


def limits(name: str) -> Timeouts:
    """Short where the fault is to be given up."""
    return next((_HASTY[outcome] for outcome in FAULTS[name].outcomes if outcome in _HASTY), SOON)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", FAULTS)
def test_fault_ends_as_the_table_says(name, kind):
    """The outcome is the table's, the count of tokens comes from where it says, and a failure has words."""
    (sample,) = faulty(name, kind=kind, timeouts=limits(name))
    fault = FAULTS[name]
    assert sample.outcome in fault.outcomes, sample.detail
    if sample.outcome is Outcome.OK:
        assert sample.token_source is fault.source
    else:
        assert sample.detail


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", sorted(set(FAULTS) - DISRUPTIVE))
def test_fault_leaves_the_next_request_alone(name, kind):
    """A plain request right after any fault has its plain answer, on whatever connection."""
    _, after = faulty(name, "plain", kind=kind, tokens=2, timeouts=limits(name))
    assert (after.outcome, after.output_tokens) == (Outcome.OK, 2)
    assert after.reconnects <= 1


@pytest.mark.parametrize("kind", KINDS)
def test_compression_that_nobody_asked_for_is_named(kind):
    """A gzipped event stream fails as `protocol`, with the reason in words and no token made of its bytes.

    Seen to fail when compressed bytes were read as events: "not an event stream".
    """
    (sample,) = faulty("compressed", kind=kind)
    assert (sample.outcome, sample.event_ns) == (Outcome.PROTOCOL, array("q"))
    assert sample.detail == "a body in gzip, though identity was requested"


def test_process_serves_the_table():
    """The server as a process answers like the one in a test, names the faults it has, and ends."""
    with FaultProcess(speed=20) as server:
        body = {"messages": [{"role": "user", "content": "please fault:no_such"}]}
        answer = httpx.post(server.url + "/v1/chat/completions", json=body, trust_env=False)
        assert answer.status_code == 400
        assert all(name in answer.text for name in FAULTS)
        assert "faulty" in httpx.get(server.url + "/v1/models", trust_env=False).text
    listed = subprocess.run(
        [sys.executable, "-m", "tests.faults", "--list"], capture_output=True, text=True, check=True
    )
    assert [line.split()[0] for line in listed.stdout.splitlines()] == list(FAULTS)
