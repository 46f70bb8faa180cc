"""Workers elsewhere, without a cluster: their clocks, their files, and the actor that passes frames on."""

from __future__ import annotations

from array import array
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import anyio
import orjson
import pytest

from loadbench.analyze.level.audit import audit
from loadbench.cluster.relay import Relay
from loadbench.core.clock import MonotonicClock
from loadbench.engine.abort import AbortWatch
from loadbench.engine.level import LevelSpec
from loadbench.engine.worker_link import ClockOffset, local_links, unpack
from loadbench.engine.worker_pool import Records, WorkerLog, WorkerPool
from loadbench.engine.workers import Ready
from loadbench.plan.cluster import Cluster, is_loopback, parse_cluster
from loadbench.plan.load import Closed, LevelDuration, Phase
from loadbench.plan.sources import resolve
from loadbench.record.figures import FIGURES
from loadbench.record.histogram import Histogram
from loadbench.record.outcome import Outcome
from loadbench.record.request import Request
from loadbench.record.sample import Sample
from tests.cluster.parts import LOADS, NUMBERED, PLAN, TARGET, S, assert_as_one_process, on_workers, spec_of


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
    anyio.run(assert_as_one_process, load, partial(on_local, spec_of(load), 2, (), records))


@pytest.mark.parametrize("workers", [1, 3])
def test_any_number_of_workers_records_what_one_process_records(workers, numbered):
    """One has no other with whom it would be added up."""
    anyio.run(assert_as_one_process, "a mix", partial(on_local, spec_of("a mix"), workers, (), Records()))


@pytest.mark.parametrize("records", [None, Records()], ids=["the main process records", "the workers record"])
@pytest.mark.parametrize("load", ["users", "a rate"])
def test_a_clock_that_is_ahead_changes_no_figure(load, records, numbered):
    """All marks of a worker move by as much: its part begins with the others', and no duration changes."""
    anyio.run(assert_as_one_process, load, partial(on_local, spec_of(load), 2, (0, 150_000_000), records))


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


def run_level(spec, records: Records | None, *, plan=PLAN, during=None, **more):
    """(recording, level) of a level on two processes of this machine that record their parts; `during` it something
    else is done, with the level and the links."""

    async def main():
        with TemporaryDirectory() as name:
            async with local_links(2, Path(name)) as links, anyio.create_task_group() as group:
                pool = await WorkerPool.over(links, lambda: (TARGET,), Path(name), records=records)
                level = await pool.level(plan, spec, model="m", clock=MonotonicClock(), number=3, **more)
                if during is not None:
                    group.start_soon(during, level, links)
                return await level.run(), level

    return anyio.run(main)


def test_requests_that_workers_logged_are_gathered(numbered):
    """Each request has its line, once; without anybody who takes them, the worker says where its log is."""
    texts: list[bytes] = []
    log = WorkerLog(origin_ns=0, keep_texts=False, take=texts.append)
    recording, _ = run_level(spec_of("a rate"), Records(log=log))
    lines = [orjson.loads(line) for line in b"".join(texts).splitlines()]
    assert len({line["number"] for line in lines}) == len(lines) == sum(recording.phases.values())
    assert {line["level"] for line in lines} == {3}
    assert {line["url"] for line in lines} == {TARGET.base_url}
    assert not any(worker.log for worker in recording.workers)
    recording, _ = run_level(spec_of("a rate"), Records(log=log._replace(take=None)))
    logs = [Path(worker.log) for worker in recording.workers]
    assert sum(len(path.read_bytes().splitlines()) for path in logs) == sum(recording.phases.values()) > 0
    for path in logs:
        path.unlink()
        path.parent.rmdir()


@pytest.mark.parametrize("whole", [False, True])
def test_requests_that_decide_are_reported_too(whole, numbered):
    """As a capacity search needs them: with all figures of a request, and with its events where these decide."""
    seen, begun = [], []
    records = Records(samples=True, whole=whole)
    recording, level = run_level(spec_of("users"), records, on_sample=seen.append, on_start=begun.append)
    assert len({sample.number for sample in seen}) == len(seen) == len(begun) == level.done
    ok = [one for one in seen if one.outcome is Outcome.OK and one.phase is Phase.MEASURED]
    for name, figure in FIGURES.items():
        histogram = Histogram()
        for sample in ok:
            value = figure(sample)
            if value is not None:
                histogram.record(round(value))
        assert histogram == recording.histograms[name], name
    assert {len(sample.event_ns) > 0 for sample in seen} == {whole}


def test_progress_is_what_the_level_comes_to(numbered):
    """What is shown of a level that has ended is what it recorded; nothing is in flight."""
    recording, level = run_level(spec_of("users"), Records())
    assert level.done == sum(recording.phases.values())
    assert level.failed == sum(level.failures.values()) > 0
    assert level.in_flight == 0
    shown, ttft = level.so_far(), recording.histograms["ttft"]
    assert (shown.requests, shown.ttft_p50, shown.ttft_p95) == (ttft.count, ttft.percentile(50), ttft.percentile(95))


def test_a_worker_that_is_lost_takes_its_part_with_it(numbered):
    """The rest is kept; which worker is missing is said, and how many requests are in no figure."""

    async def kill(level, links):
        while await links[1].sent() < 10:
            await anyio.sleep(0.02)
        links[1].kill()
        enough = level.done + 60
        while level.done < enough:
            await anyio.sleep(0.02)
        level.finish(cut=False)

    spec = replace(spec_of("a rate"), duration=LevelDuration(duration_ns=600 * S, warm_up_ns=3 * S // 10))
    recording, _ = run_level(spec, Records(), during=kill)
    lost = [worker.name for worker in recording.workers if worker.health is None]
    assert (lost, recording.lost_workers) == (["worker 2"], 1)
    assert recording.unreported >= 10
    assert recording.missed > 0
    assert 0 < sum(recording.outcomes.values()) < recording.arrivals_due


def test_a_level_of_unknown_length_ends_for_all_workers_at_once(numbered):
    """The window that the main process decides on is that of every part."""
    duration = LevelDuration(duration_ns=S // 2, warm_up_ns=S // 10, most_warm_up_ns=2 * S, answers=100, most_ns=20 * S)
    spec = LevelSpec(load=Closed(7), key="k", duration=duration)
    recording, level = run_level(spec, Records())
    assert sum(recording.outcomes.values()) >= 100
    assert recording.window == (level.phases.opens_ns, level.phases.closes_ns)
    assert recording.window[1] - recording.window[0] < 15 * S
    checks = audit(recording, spec.load)
    assert {check.name for check in checks} >= {"tokens", "slices", "gaps", "peak", "little"}
    assert [check for check in checks if not check.ok] == []


def test_a_broken_rule_ends_a_level_on_workers(numbered):
    """Each worker counts for the rules that abort a level, and the main process adds that up."""
    plan = resolve(
        flags={"users": "6", "max_tokens": "8", "url": "http://127.0.0.1:9", "abort_on": ("failures>3%",)},
        environment={},
    )
    load = Closed(6)
    watch = AbortWatch.of(plan, load)
    assert watch.rules
    duration = LevelDuration(duration_ns=60 * S, warm_up_ns=S // 10)

    async def watching(level, _links):
        await watch.watch(level, MonotonicClock())

    recording, _ = run_level(
        LevelSpec(load=load, key="k", duration=duration),
        Records(),
        plan=plan,
        during=watching,
        on_progress=lambda progress: watch.absorb(progress.abort),
    )
    assert "had ended failed" in watch.broken
    assert recording.interrupted
