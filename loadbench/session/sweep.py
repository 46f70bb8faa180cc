"""A sweep from beginning to end: open the session, measure every level, keep the run."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from loadbench.analyze.level.next_users import next_users
from loadbench.core import event_loop
from loadbench.core.alongside import run_alongside
from loadbench.core.errors import WorkersEnded
from loadbench.engine.sweep import EarlierLevels, Sweep
from loadbench.live.time_left import PlannedLevel, RunTime
from loadbench.plan.conditions import conditions
from loadbench.report.plan import length_text
from loadbench.report.values import counted
from loadbench.results.folder import RunFolder
from loadbench.session.resume import earlier_levels
from loadbench.session.run_writer import RunWriter
from loadbench.session.setup import open_session, run_observed, stopping
from loadbench.targets.adapt import adapt

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from loadbench.live.progress import Progress
    from loadbench.plan.scenario import Scenario
    from loadbench.results.run import Run
    from loadbench.targets.server_command import StartedServer


def run_sweep(
    scenario: Scenario,
    environment: Mapping[str, str],
    progress: Progress,
    *,
    resume: Path | None = None,
    before: Run | None = None,
) -> RunWriter:
    """Measure every model at every load; returns the writer of the run, which is complete unless it was stopped.

    `before` is the run in the folder `resume`: its levels are not measured again. Raises `LoadbenchError` if nothing at
    all could be measured.
    """

    folder = None if resume is None else RunFolder(resume)

    async def run() -> RunWriter:
        work = partial(sweep, scenario, environment, progress, folder=folder, before=before)
        return await run_alongside(work, progress.run)

    return event_loop.run(run)


async def sweep(
    scenario: Scenario,
    environment: Mapping[str, str],
    progress: Progress,
    *,
    folder: RunFolder | None,
    before: Run | None,
    then_ns: Callable[[int], int] = lambda _: 0,
    server: StartedServer | None = None,
    addresses: Mapping[str, Sequence[str]] | None = None,
) -> RunWriter:
    """The same, while the progress is shown; without a `folder` in a new one.

    `then_ns` says, by how long this run takes, how long the command goes on after it. A `server` that runs is measured,
    and not ended. `addresses` of hosts are those that the user has let be loaded already.
    """
    # The session's scenario may have an address that changes from start to start: no condition of the run.
    terms = conditions(scenario)
    opened = open_session(
        scenario, environment, say=progress.say, doing=progress.doing, server=server, addresses=addresses
    )
    async with opened as session:
        scenario, earlier = session.scenario, None
        most = scenario.most_in_flight if scenario.finds_levels else 0
        levels = (len(session.models) - len(session.prepared.missing)) * len(scenario.loads)
        for line in length_text(scenario):
            progress.say(line)
        if before is not None:
            earlier = earlier_levels(before, scenario, session.models)
            # What was left out of the requests until now still is, whatever the server accepts now.
            adapt(session.prepared, before.adapted)
            progress.say(f"resumed after {counted(len(before.levels), 'whole level')}")
        done = EarlierLevels() if earlier is None else earlier
        models = [one for one in session.models if one not in session.prepared.missing and one not in done.complete]
        loads = scenario.loads[:1] if most else scenario.loads
        time_left = RunTime(
            scenario,
            [
                PlannedLevel(model, load)
                for model in models
                for load in loads[0 if most else done.counts.get(model, 0) :]
            ],
            now_ns=session.clock.now_ns,
            most_ns=scenario.load.max_total - done.spent_ns if scenario.waits_for_answers else None,
            most_users=most,
        )
        time_left.then_ns = then_ns
        progress.expect(None if most else levels, time_left=time_left)
        with RunWriter(session, progress, folder=folder, terms=terms, before=before) as writer:
            levels_of_run = Sweep(
                scenario,
                session,
                models=session.models,
                observer=writer,
                missing=session.prepared.missing,
                next_users=(lambda model: next_users(writer.levels_of(model), most=most)) if most else None,
                earlier=earlier,
            )
            with stopping(levels_of_run.stop, progress.interrupted):
                try:
                    await run_observed(levels_of_run.run, session)
                except WorkersEnded as error:
                    writer.cannot_go_on(error)
                writer.close(stopped=levels_of_run.stopped or writer.ended is not None)
    return writer
