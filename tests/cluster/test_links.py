"""Workers elsewhere, without a cluster: their clocks, their files, and the actor that passes frames on."""

from __future__ import annotations

from array import array
from pathlib import Path
from tempfile import TemporaryDirectory

import anyio
import pytest

from loadbench.cluster.relay import Relay
from loadbench.engine.worker_link import ClockOffset, local_links, unpack
from loadbench.engine.worker_pool import Records, WorkerPool
from loadbench.engine.workers import Ready
from loadbench.plan.cluster import Cluster, is_loopback, parse_cluster
from loadbench.plan.load import Phase
from loadbench.record.figures import FIGURES
from loadbench.record.outcome import Outcome
from loadbench.record.request import Request
from loadbench.record.sample import Sample
from tests.cluster.parts import LOADS, NUMBERED, TARGET, facts, in_one_process, on_workers, spec_of


@pytest.fixture
def numbered(monkeypatch):
    """Workers have a client whose responses are a function of the request's number."""
    monkeypatch.setenv("PYTHONPATH", str(NUMBERED))


async def on_local(spec, workers: int, ahead_ns=(), records: Records | None = None):
    """The level on processes of this machine, some of which are said to have a clock that is ahead; with `records` each
    records its part itself, as on a cluster."""
    with TemporaryDirectory() as name:
        async with local_links(workers, Path(name)) as links:
            for link, ns in zip(links, ahead_ns, strict=False):

                async def offset(ns=ns) -> ClockOffset:
                    return ClockOffset(ns, 0)

                link.clock_offset = offset
            pool = await WorkerPool.over(links, lambda: (TARGET,), Path(name), records=records)
            return await on_workers(pool, spec)


@pytest.mark.parametrize("records", [None, Records()], ids=["the main process records", "the workers record"])
@pytest.mark.parametrize("load", LOADS)
def test_workers_record_what_one_process_records(load, records, numbered):
    """Counts, histograms and timelines are equal, count for count."""
    spec = spec_of(load)
    assert facts(anyio.run(on_local, spec, 2, (), records)) == facts(anyio.run(in_one_process, spec))


@pytest.mark.parametrize("records", [None, Records()], ids=["the main process records", "the workers record"])
@pytest.mark.parametrize("load", ["users", "a rate"])
def test_a_clock_that_is_ahead_changes_no_figure(load, records, numbered):
    """All marks of a worker move by as much: its part begins with the others', and no duration changes."""
    spec = spec_of(load)
    assert facts(anyio.run(on_local, spec, 2, (0, 150_000_000), records)) == facts(anyio.run(in_one_process, spec))


def test_a_sample_in_another_clock_has_the_same_figures():
    """Every mark moves, those that did not happen stay unknown, and no figure changes."""
    request = Request(number=3, phase=Phase.MEASURED, due_ns=5_000, max_tokens=4)
    marks = {"sent_ns": 5_100, "first_byte_ns": 6_000, "first_token_ns": 7_000, "last_token_ns": 9_000, "end_ns": 9_500}
    sample = Sample(request=request, outcome=Outcome.OK, event_ns=array("q", [7_000, 9_000]), output_tokens=2, **marks)
    moved = sample.earlier_by(1_000)
    assert {name: getattr(moved, name) for name in marks} == {name: mark - 1_000 for name, mark in marks.items()}
    assert (moved.due_ns, moved.connected_ns, list(moved.event_ns)) == (4_000, None, [6_000, 8_000])
    assert {name: figure(moved) for name, figure in FIGURES.items()} == {
        name: figure(sample) for name, figure in FIGURES.items()
    }


def test_an_actor_passes_on_what_its_worker_says():
    """Its reports come in order, none after the time that is waited for, and `None` once the worker has ended."""
    relay = Relay()
    try:
        (ready,) = relay.reports(30.0)
        assert isinstance(unpack(ready), Ready)
        assert relay.reports(0.01) == []
        relay.begin(5)
        assert relay.sent() == 0
        relay.kill()
        assert relay.reports(30.0) is None
        relay.send(b"to nobody")
    finally:
        relay.close()
    assert not Path(relay._folder.name).exists()


@pytest.mark.parametrize(
    ("text", "cluster"),
    [
        ("local:2", Cluster(local_nodes=2)),
        ("auto", Cluster("auto")),
        ("ray://head.example:10001", Cluster("ray://head.example:10001")),
        ("10.0.0.7:6379", Cluster("10.0.0.7:6379")),
        ("ray://[::1]:10001", Cluster("ray://[::1]:10001")),
    ],
)
def test_clusters_are_written_as_ray_writes_them(text, cluster):
    """And shown as they were written."""
    assert parse_cluster(text) == cluster
    assert str(cluster) == text


@pytest.mark.parametrize(
    "text", ["", "local", "local:0", "local:99", "local:x", "ray://h", "http://h:1", "h:99999", "h:0"]
)
def test_other_words_are_no_cluster(text):
    """The message says what is wanted."""
    with pytest.raises(ValueError, match="want"):
        parse_cluster(text)


def test_loopback_is_what_no_other_machine_reaches():
    """A name that is none of this machine's may be anywhere."""
    near, far = ("127.0.0.1", "127.9.9.9", "::1", "localhost"), ("10.0.0.7", "head", "")
    assert all(map(is_loopback, near))
    assert not any(map(is_loopback, far))
