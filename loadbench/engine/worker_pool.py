"""The workers of a session: started, or reached over links, and given each level to prepare together."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, NamedTuple

import anyio

from loadbench.core.errors import ClusterUnavailable, LoadbenchError, WorkersEnded
from loadbench.engine.lease import first_lease
from loadbench.engine.merged_level import MergedLevel, report_every_s
from loadbench.engine.part_recorder import LogOrder, RecordOrder
from loadbench.engine.stored_prompts import StoredPrompts
from loadbench.engine.worker_link import local_links
from loadbench.engine.workers import DistributedLevel, Prepare, WorkerHandle
from loadbench.plan.load import Closed, Shard
from loadbench.plan.prompt_source import given_prompts

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

    from loadbench.core.clock import Clock
    from loadbench.engine.level import LevelSpec
    from loadbench.engine.part_recorder import Progress
    from loadbench.engine.worker_link import WorkerLink
    from loadbench.plan.scenario import Scenario
    from loadbench.record.request import Request
    from loadbench.record.sample import Sample
    from loadbench.targets.target import Target

# From the order to the level's beginning: time for every worker to read it and to prepare its first requests.
_LEAD_NS = 150_000_000
# An order to another machine takes longer where the network is slow: by round trips, of which an error is a half.
_LEAD_ROUND_TRIPS = 5
# Orders go out one after another, each by a call of a fraction of this.
_LEAD_A_WORKER_NS = 1_000_000
# A trace of a million rows takes a worker some seconds, and many workers of few cores that many times. One that ends
# meanwhile is seen at once.
_PREPARES_WITHIN_S = 300.0
# Many times what a start takes on a busy machine.
_STARTS_WITHIN_S = 60.0


class WorkerLog(NamedTuple):
    """The request logs of workers: the run's start in its clock, and who takes their lines after each level; with
    nobody they stay where they are."""

    origin_ns: int
    keep_texts: bool
    take: Callable[[bytes], None] | None


@dataclass(slots=True)
class Records:
    """Workers record their parts themselves. `samples` are reported besides, `whole` or without their events."""

    samples: bool = False
    whole: bool = False
    log: WorkerLog | None = None


class WorkerPool:
    """Workers for the levels of one target, or of several that share the load, which each level asks for: the first
    requests may change them."""

    def __init__(
        self,
        links: Sequence[WorkerLink],
        targets: Callable[[], Sequence[Target]],
        folder: Path,
        addresses: Mapping[str, Sequence[str]],
        records: Records | None = None,
    ) -> None:
        self._workers = [WorkerHandle(link) for link in links]
        self._addresses = addresses
        self._targets = targets
        self._folder = folder
        self._given: StoredPrompts | None = None
        self.records: Records | None = records

    @property
    def links(self) -> Sequence[WorkerLink]:
        """Of all workers, also of those that are lost."""
        return [worker.link for worker in self._workers]

    @staticmethod
    @asynccontextmanager
    async def of(
        workers: int, targets: Callable[[], Sequence[Target]], addresses: Mapping[str, Sequence[str]] | None = None
    ) -> AsyncIterator[WorkerPool]:
        """This many worker processes of this machine while the context lasts; as `over`."""
        with TemporaryDirectory(prefix="loadbench-", ignore_cleanup_errors=True) as name:
            async with local_links(workers, Path(name)) as links:
                yield await WorkerPool.over(links, targets, Path(name), addresses)

    @staticmethod
    async def over(
        links: Sequence[WorkerLink],
        targets: Callable[[], Sequence[Target]],
        folder: Path,
        addresses: Mapping[str, Sequence[str]] | None = None,
        records: Records | None = None,
    ) -> WorkerPool:
        """The workers at the end of these links, which take these `addresses` of hosts and no others, once all have
        started. What they are given is kept in the folder. With `records` each records its part itself.

        Raises `LoadbenchError` where one does not start.
        """
        pool = WorkerPool(links, targets, folder, addresses or {}, records)
        # A worker that is still being imported would make the first requests late.
        for worker in pool._workers:
            if not await worker.is_ready(_STARTS_WITHIN_S):
                if worker.link.shares_count:
                    raise LoadbenchError(f"{worker.link.name} did not start", hint="try --workers 1")
                hint = "see whether its machine has a core and memory for it"
                raise ClusterUnavailable(f"--cluster: {worker.link.name} did not start", hint=hint)
        return pool

    async def level(
        self,
        scenario: Scenario,
        spec: LevelSpec,
        *,
        model: str,
        clock: Clock,
        mix: tuple[str, ...] = (),
        number: int = 0,
        on_progress: Callable[[Progress], None] = lambda _: None,
        on_sample: Callable[[Sample], None] = lambda _: None,
        on_start: Callable[[Request], None] = lambda _: None,
    ) -> DistributedLevel:
        """One level on as many of the workers as there is work for, all of which have prepared their parts of it.

        It is level `number` of the run. Workers that record their parts say how they are
        (`on_progress`), and report single requests (`on_sample`) only as `records` has it. Raises `WorkersEnded` where
        none is left.
        """
        load, duration = spec.load, spec.duration or scenario.extent
        targets = tuple(replace(target, tls=None, listing=()) for target in self._targets())
        if scenario.work.prompts is not None and self._given is None:
            self._given = StoredPrompts.written(given_prompts(scenario.work), self._folder / "prompts")
            async with anyio.create_task_group() as copies:
                for worker in self._workers:
                    copies.start_soon(worker.link.give, self._folder / "prompts")
        orders: list[tuple[WorkerHandle, Prepare]] = []

        async def prepare(worker: WorkerHandle, shard: Shard) -> None:
            worker.clock = await worker.link.clock_offset()
            worker.users = worker.given = worker.lease = worker.asked = 0
            if isinstance(load, Closed):
                worker.users = shard.share(load.users)
                if duration.requests is not None and not worker.link.shares_count:
                    worker.given = worker.lease = first_lease(duration.requests, worker.users, load.users, shard.of)
            order = Prepare(
                scenario=scenario,
                targets=targets,
                model=model,
                mix=mix,
                spec=spec,
                shard=shard,
                clock_ahead_ns=worker.clock.ahead_ns,
                given=self._given,
                addresses=self._addresses,
                record=self._record_order(worker, shard.of, number=number, model=model, url=targets[0].base_url),
            )
            worker.link.begin(duration.requests or 0)
            worker.send(order)
            if await worker.is_ready(_PREPARES_WITHIN_S):
                orders.append((worker, order))

        while True:
            workers = [worker for worker in self._workers if not worker.lost]
            if not workers:
                raise WorkersEnded(
                    "every worker has ended", hint="see what ended them (memory?), or whether their cluster has"
                )
            workers = workers[: load.users if isinstance(load, Closed) else None][: duration.requests]
            orders.clear()
            async with anyio.create_task_group() as group:
                for index, worker in enumerate(workers):
                    group.start_soon(prepare, worker, Shard(index, len(workers)))
            if len(orders) == len(workers):  # else the others share the load
                break
        error_ns = max(worker.clock.error_ns for worker in workers)
        lead_ns = _LEAD_NS + _LEAD_ROUND_TRIPS * 2 * error_ns + len(workers) * _LEAD_A_WORKER_NS
        parts = sorted(orders, key=lambda part: part[1].shard.index)
        level: DistributedLevel
        if self.records is None:
            level = DistributedLevel(
                parts, lead_ns=lead_ns, duration=duration, clock=clock, on_sample=on_sample, on_start=on_start
            )
        else:
            log = self.records.log
            level = MergedLevel(
                parts,
                lead_ns=lead_ns,
                duration=duration,
                clock=clock,
                on_sample=on_sample,
                on_start=on_start,
                on_progress=on_progress,
                take_lines=None if log is None else log.take,
            )
        level.lost_before = tuple(worker.link.name for worker in self._workers if worker.lost)
        return level

    def _record_order(
        self, worker: WorkerHandle, parts: int, *, number: int, model: str, url: str
    ) -> RecordOrder | None:
        records = self.records
        if records is None:
            return None
        log = records.log
        return RecordOrder(
            name=worker.link.name,
            parts=parts,
            every_s=report_every_s(parts),
            samples=records.samples,
            whole=records.whole,
            lease=worker.lease or None,
            log=None
            if log is None
            else LogOrder(
                number=number,
                model=model,
                url=url,
                origin_ns=log.origin_ns,
                keep_texts=log.keep_texts,
                gathered=log.take is not None,
            ),
        )
