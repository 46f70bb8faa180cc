"""Two sides measured in turn, put together: both targets, what measures them, and how it ended.

    results/<UTC time>-<name>/
        a/01/  b/01/   the first repeat: a run folder each, as a sweep has it
        a/02/  b/02/   the second …

What is compared is the repeats that are complete on both sides. `loadbench.cli.comparing` makes the comparison of them.
"""

from __future__ import annotations

import sys
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import anyio

from loadbench.client.descriptors import ensure_descriptors
from loadbench.core.alongside import run_alongside
from loadbench.core.clock import MonotonicClock
from loadbench.core.errors import BadInput, ExitCode, LoadbenchError
from loadbench.engine.health import LoopHealth
from loadbench.engine.paired import Paired, PairedSide
from loadbench.engine.sweep import Sweep
from loadbench.engine.workers import WorkerPool, workers_for
from loadbench.live.progress import Progress
from loadbench.plan.pairs import SIDES, check_budget, one_address
from loadbench.plan.prompts import prompt_source
from loadbench.results.environment import environment as describe_environment
from loadbench.results.environment import usable_cores
from loadbench.results.folder import RunFolder
from loadbench.session.paired_writer import PairedRunWriter, RecordedSide
from loadbench.session.setup import stopping
from loadbench.session.telemetry import RunTelemetry
from loadbench.sim.command import profile_named
from loadbench.sim.process import SimProcess
from loadbench.targets.clients import make_client, make_transport
from loadbench.targets.discovery import located
from loadbench.targets.prepare import prepare
from loadbench.targets.scrape import counters
from loadbench.telemetry.watch import check_pid

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from loadbench.client.transport import Transport
    from loadbench.core.clock import Clock
    from loadbench.engine.sweep import RunObserver
    from loadbench.plan.pairs import Pairing
    from loadbench.plan.scenario import Scenario
    from loadbench.results.run import Reason, Run
    from loadbench.targets.prepare import Prepared


@dataclass(slots=True)
class PairedResult:
    """What came of it: the runs of the complete repeats by side, and what travels with their comparison.

    `exit_code` is not 0 where it ended before its time, or something could not be written.
    """

    folder: RunFolder
    a: list[Run] = field(default_factory=list)
    b: list[Run] = field(default_factory=list)
    caveats: list[Reason] = field(default_factory=list)
    exit_code: ExitCode = ExitCode.OK


def measure_paired(
    sides: tuple[Scenario, Scenario],
    pairing: Pairing,
    *,
    environment: Mapping[str, str],
    quiet: bool = False,
    live: bool = True,
) -> PairedResult:
    """Measure both sides in turn and keep every run. Everything for people goes to stderr.

    Raises `LoadbenchError` where no repeat is complete and there is another cause than Ctrl-C.
    """
    shared = sides[0]
    prompt_source(shared.work, key="check", calibration=None)  # a prompt file is read before anything is started
    for side in sides:
        if side.target.adapter is not None:
            raise BadInput(
                f"{side.origins['target.adapter'].partition(' ')[2]}: two servers are measured in turn, and no adapter",
                hint="measure it with `loadbench sweep`, and compare the saved runs",
            )
    check_budget(shared, pairing)
    if shared.telemetry.server_pid is not None and sides[0].target.url != sides[1].target.url:
        raise BadInput(
            "--server-pid: is one process, and there are two servers", hint="leave it out: both are looked for"
        )
    check_pid(shared.telemetry.server_pid)
    ensure_descriptors(shared.most_in_flight, required=shared.load.users is not None)
    progress = Progress(sys.stderr, levels=2 * len(shared.loads) * pairing.most, quiet=quiet, live=live)
    with ExitStack() as stack:
        there = [
            _located(side, environment, name=name, progress=progress) for name, side in zip(SIDES, sides, strict=True)
        ]
        urls = [_url(side, stack) for side in there]
        measured = anyio.run(_measure, there, pairing, urls, environment, progress)
    progress.say(f"kept in {measured.folder.path}")
    return measured


def _located(side: Scenario, environment: Mapping[str, str], name: str, progress: Progress) -> Scenario:
    """The side with its address, where that is for us to find."""
    found, note = located(side, environment)
    if note:
        progress.say(f"{name.upper()} is {note}")
    return found


def _url(side: Scenario, stack: ExitStack) -> str:
    if side.simulated:
        return stack.enter_context(SimProcess(profile_named(side.target.profile).name, seed=side.work.seed)).url
    return str(side.target.url)


async def _measure(
    sides: Sequence[Scenario],
    pairing: Pairing,
    urls: Sequence[str],
    environment: Mapping[str, str],
    progress: Progress,
) -> PairedResult:
    clock = MonotonicClock()
    both = [
        await _prepared(side, environment, url=url, name=name, progress=progress)
        for name, side, url in zip(SIDES, sides, urls, strict=True)
    ]
    shared = sides[0]
    folder = RunFolder.create(
        shared.report.out or Path("results"), name=shared.report.name, started_at=datetime.now(UTC)
    )
    async with AsyncExitStack() as stack:
        a, b = [await _side(prepared, clock=clock, stack=stack, progress=progress) for prepared in both]
        keeper = PairedRunWriter((a.kept, b.kept), folder=folder, progress=progress, clock=clock)
        stack.callback(keeper.close)
        same = _identity(both[0]) == _identity(both[1])
        paired = Paired((a.paired, b.paired), pairing=pairing, clock=clock, observer=keeper, same=same)
        with stopping(paired.stop):
            failed = await _run_watched(paired, [a.kept.watch, b.kept.watch], progress)
    return _told(keeper, failed, stopped=paired.stopped)


def _identity(prepared: Prepared) -> tuple[str, str]:
    return one_address(prepared.target.base_url), prepared.models[0]


async def _prepared(
    scenario: Scenario, environment: Mapping[str, str], *, url: str, name: str, progress: Progress
) -> Prepared:
    """The endpoint of a side and its one model, loaded where that is for us to do."""
    try:
        prepared = await prepare(scenario, environment, url=url, say=progress.say)
        await prepared.ready(prepared.models[0])
    except LoadbenchError as error:
        error.message = f"{name.upper()}: {error.message}"
        error.hint = error.hint.replace("--model", f"--{name}-model")
        raise
    return prepared


@dataclass(frozen=True, slots=True)
class _Side:
    """A side as the engine measures it, and as its runs are kept."""

    paired: PairedSide
    kept: RecordedSide


async def _side(prepared: Prepared, *, clock: Clock, stack: AsyncExitStack, progress: Progress) -> _Side:
    """What measures a side; its connections, workers and watch end with `stack`."""
    scenario, target, model = prepared.scenario, prepared.target, prepared.models[0]
    transport = make_transport(scenario, target, clock)
    stack.push_async_callback(_close, transport)
    client = make_client(scenario, target, transport, model=model, clock=clock)
    workers = workers_for(scenario, usable_cores())
    crew = await stack.enter_async_context(WorkerPool.of(workers, target)) if workers > 1 else None
    watch = RunTelemetry(scenario, target, clock=clock)
    await stack.enter_async_context(watch.sampling(progress.say))

    def sweep(at: Scenario, observer: RunObserver) -> Sweep:
        return Sweep(
            at,
            models=(model,),
            client_for=lambda _: client,
            clock=clock,
            health=lambda: LoopHealth(transport),
            observer=observer,
            crew=crew,
            counters=partial(counters, target),
            settled=watch.caught_up,
        )

    about = describe_environment(event_loop="asyncio", stamp_source=transport.stamp_source)
    return _Side(
        PairedSide(scenario=scenario, model=model, client=client, sweep=sweep),
        RecordedSide(
            scenario=scenario,
            prepared=prepared,
            watch=watch,
            environment={**about, "workers": workers, "telemetry": watch.about},
        ),
    )


async def _close(transport: Transport) -> None:
    with anyio.CancelScope(shield=True):
        await transport.aclose()


async def _run_watched(paired: Paired, watches: Sequence[RunTelemetry], progress: Progress) -> LoadbenchError | None:
    """Run it to its end, and return what ended it before that."""

    async def work() -> None:
        for watch in watches:
            await watch.measure_idle(progress.say)
        await run_alongside(paired.run, *(watch.look_at_page for watch in watches))

    try:
        await run_alongside(work, progress.run, *(partial(watch.listen, progress.say) for watch in watches))
    except LoadbenchError as error:
        return error
    return None


def _told(keeper: PairedRunWriter, failed: LoadbenchError | None, *, stopped: bool) -> PairedResult:
    """What is complete, and how it ended; raises what ended it before anything was."""
    a, b = keeper.runs
    code = ExitCode.BAD_INPUT if keeper.unwritten else ExitCode.OK
    if failed is not None:
        if not a:
            _leave(keeper)
            raise failed
        keeper.say(f"{failed.message}; what is compared was complete before")
        code = failed.exit_code
    elif stopped:
        code = ExitCode.INTERRUPTED
    if code is not ExitCode.OK or len(a) == 0:
        keeper.say(f"{_repeats(len(a))} complete")
    return PairedResult(keeper.folder, a, b, caveats=keeper.caveats, exit_code=code)


def _leave(keeper: PairedRunWriter) -> None:
    """Say where what there is lies; a folder that nothing came into goes again."""
    try:
        keeper.folder.path.rmdir()
    except OSError:
        keeper.say(f"kept in {keeper.folder.path}")


def _repeats(number: int) -> str:
    return "1 repeat" if number == 1 else f"{number} repeats"
