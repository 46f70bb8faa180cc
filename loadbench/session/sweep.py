"""A sweep from beginning to end: open the session, measure every level, keep the run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio

from loadbench.analyze.level.next_users import next_users
from loadbench.engine.sweep import Sweep
from loadbench.report.plan import length_text
from loadbench.session.run_writer import RunWriter
from loadbench.session.setup import open_session, run_observed, stopping

if TYPE_CHECKING:
    from collections.abc import Mapping

    from loadbench.live.progress import Progress
    from loadbench.plan.scenario import Scenario


def run_sweep(scenario: Scenario, environment: Mapping[str, str], progress: Progress) -> RunWriter:
    """Measure every model at every load; returns the writer of the run, which is complete unless it was stopped.

    Raises `LoadbenchError` if nothing at all could be measured.
    """
    return anyio.run(_sweep, scenario, environment, progress)


async def _sweep(scenario: Scenario, environment: Mapping[str, str], progress: Progress) -> RunWriter:
    async with open_session(scenario, environment, say=progress.say) as session:
        scenario = session.scenario
        most = scenario.most_in_flight if scenario.finds_levels else 0
        levels = (len(session.models) - len(session.prepared.missing)) * len(scenario.loads)
        progress.expect(None if most else levels)
        for line in length_text(scenario):
            progress.say(line)
        with RunWriter(session, progress) as writer:
            sweep = Sweep(
                scenario,
                session,
                models=session.models,
                observer=writer,
                missing=session.prepared.missing,
                next_users=(lambda model: next_users(writer.levels_of(model), most=most)) if most else None,
            )
            with stopping(sweep.stop):
                await run_observed(sweep.run, session, progress=progress)
            writer.close(stopped=sweep.stopped)
    return writer
