"""What tells two sides apart: flags of their commands, names, versions, and how many requests their servers run."""

from __future__ import annotations

import msgspec
import pytest

from loadbench.analyze.compare.told_apart import told_apart, without_turn
from loadbench.results.run import ServerInfo, ServerStart
from loadbench.results.telemetry import Gauge, Telemetry
from tests.analyze.comparing import a_side, figures


def started(command, port):
    """A side whose server this command started."""
    start = ServerStart(command=command, url=f"http://127.0.0.1:{port}/v1")
    return a_side([figures(1)], server_start=start)


@pytest.mark.parametrize(
    ("a", "b", "apart"),
    [
        (
            "srv m.gguf --port 81 --parallel 4",
            "srv m.gguf --port 82 --parallel 8",
            (["--parallel 4"], ["--parallel 8"]),
        ),
        (
            "srv --port=81 --parallel=4 m.gguf",
            "srv --port=82 --parallel=8 m.gguf",
            (["--parallel 4"], ["--parallel 8"]),
        ),
        ("srv --port 81 --fast", "srv --port 82", (["--fast"], ["no --fast"])),
        ("srv --port 81 a.gguf", "srv --port 82 b.gguf", (["a.gguf"], ["b.gguf"])),
        ("./cpu.sh 81", "./gpu.sh 82", (["./cpu.sh"], ["./gpu.sh"])),
        ("srv --port 81", "srv --port 82", ([], [])),
        ("srv 'it --port 81", "srv 'it --port 82", ([], [])),
    ],
)
def test_commands_differ_in_their_flags_and_never_in_the_port(a, b, apart):
    """The port is another at each start."""
    assert told_apart(started(a, 81), started(b, 82)) == apart


def test_sides_have_the_names_and_the_versions_that_they_were_given():
    """A comparison's own runs have a side and a number in their names."""
    old, new = (ServerInfo(url="http://x", name="vllm", version=version) for version in ("0.10", "0.11"))
    a, b = (a_side([figures(1)], name=name, servers=[of]) for name, of in (("before", old), ("after", new)))
    assert told_apart(a, b) == (["before", "vllm 0.10"], ["after", "vllm 0.11"])
    assert told_apart(a_side([figures(1)], name="chat A1"), a_side([figures(1)], name="chat B1")) == ([], [])
    assert without_turn("4-against-8 A12") == "4-against-8"


def serving(*levels):
    """A side at whose levels the server reported so many requests that ran, and that waited."""
    usual = figures(1)
    of = []
    for running, queued in levels:
        gauges = {
            name: Gauge(mean=value, min=value, max=value, last=value, readings=3)
            for name, value in (("server_running", running), ("server_queued", queued))
        }
        of.append(msgspec.structs.replace(usual, telemetry=Telemetry(gauges=gauges)))
    return a_side(of)


@pytest.mark.parametrize(
    ("a", "b", "apart"),
    [
        ([(1, 0), (4, 4)], [(4, 0), (8, 0)], (["4 requests at once"], ["at least 8 requests at once"])),
        ([(8, 2)], [(4, 4)], (["8 requests at once"], ["4 requests at once"])),
        ([(3, 0)], [(8, 0)], ([], [])),
        ([(4, 3)], [(4, 0)], ([], [])),
        ([(8, 3)], [(4, 0)], ([], [])),
    ],
)
def test_how_many_requests_run_at_once_is_known_where_others_wait(a, b, apart):
    """A server with nobody waiting may run more than it was asked to."""
    assert told_apart(serving(*a), serving(*b)) == apart
