"""One capacity search, put together: the target, the search under way, and what becomes of each probe.

results/<UTC time>-<name>/
    capacity.json     the search, replaced as a whole after each probe: what it is taken up again from
    capacity.md       its report, for people
    run.json, …       the probes as the levels of a run, as `loadbench sweep` keeps them
"""

from __future__ import annotations

import sys
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import click
import msgspec

from loadbench.analyze.capacity.answer import client_limited, conclude
from loadbench.analyze.capacity.curve import fit_of_all_objectives, mostly_missed, predict_from_curve
from loadbench.analyze.capacity.search_evidence import SearchEvidence
from loadbench.analyze.capacity.sequential import SequentialMonitor
from loadbench.client.descriptors import ensure_descriptors
from loadbench.core.alongside import run_alongside
from loadbench.core.clock import MonotonicClock
from loadbench.core.errors import BadInput, ExitCode
from loadbench.engine.capacity import Before, CapacitySearch
from loadbench.engine.health import LoopHealth
from loadbench.live.progress import Progress
from loadbench.plan.conditions import conditions, content_hash
from loadbench.plan.ladder import CurveStep
from loadbench.plan.prompts import prompt_source
from loadbench.plan.search import Finding, Probe
from loadbench.report.capacity import capacity_markdown, capacity_text, probe_line, rung_line, time_line
from loadbench.results.capacity import FILE, Capacity, Rung, read_capacity, to_json
from loadbench.results.environment import environment as describe_environment
from loadbench.results.folder import RunFolder, read_run
from loadbench.results.requests import RequestLog
from loadbench.session.setup import RunWriter, stopping
from loadbench.sim.process import SimProcess
from loadbench.targets.clients import make_client, make_transport
from loadbench.targets.discovery import located
from loadbench.targets.prepare import prepare
from loadbench.targets.scrape import counters

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from loadbench.client.transport import Transport
    from loadbench.engine.level import Level
    from loadbench.engine.observers import ProbeMonitor
    from loadbench.plan.load import Closed, Load
    from loadbench.plan.scenario import Scenario
    from loadbench.plan.search import Search
    from loadbench.record.recorder import LevelRecording
    from loadbench.record.sample import Sample
    from loadbench.results.run import Run

_EXIT_CODES = {
    "found": ExitCode.OK,
    "at_least": ExitCode.OK,
    "none": ExitCode.GATE_FAILED,
    "client": ExitCode.INVALID,
    "inconclusive": ExitCode.INCONCLUSIVE,
    "interrupted": ExitCode.INTERRUPTED,
}


@dataclass(frozen=True, slots=True)
class Resumed:
    """A search that is taken up again, and its run."""

    folder: RunFolder
    capacity: Capacity
    run: Run

    @classmethod
    def read(cls, path: Path, scenario: Scenario) -> Resumed:
        """Raises `BadInput` where there is none, or its conditions were others."""
        capacity = read_capacity(path)
        now, then = conditions(scenario), capacity.conditions
        differing = sorted(key for key in now.keys() | then.keys() if now.get(key) != then.get(key))
        if differing:
            shown = "; ".join(f"{key} was {then.get(key)!r} and is {now.get(key)!r}" for key in differing[:5])
            raise BadInput(
                f"--resume {path}: measured under other conditions: {shown}",
                hint="give the same again (the budget may be another), or begin a new search without --resume",
            )
        return cls(RunFolder(path), capacity, read_run(path))

    @property
    def before(self) -> Before:
        """What was told to the search before."""
        probes = self.capacity.probes
        first_s = self.capacity.first_answer_s
        return Before(
            told=tuple(
                (Probe(one.at, one.purpose, visit=one.visit), Finding(one.decision, one.leaning)) for one in probes
            ),
            seen={one.amount: round(one.answer_s * 1e9) for one in probes if one.answer_s is not None},
            spent_ns=round(self.capacity.spent_s * 1e9),
            answer_ns=0 if first_s is None else round(first_s * 1e9),
            levels=len(self.run.levels),
            rungs={one.users: CurveStep(one.requests_per_s, one.missed) for one in self.capacity.curve},
            rung_answers={one.users: round(one.answer_s * 1e9) for one in self.capacity.curve if one.answer_s},
            rungs_ns=round(sum(one.took_s for one in self.capacity.curve) * 1e9),
        )


def run_capacity(
    scenario: Scenario, *, environment: Mapping[str, str], resume: Path | None, as_json: bool, quiet: bool, live: bool
) -> ExitCode:
    """Search, keep and show; returns the exit code. Everything for people goes to stderr, but for the report."""
    prompt_source(scenario.work, key="check", calibration=None)  # a prompt file is read before anything is started
    resumed = None if resume is None else Resumed.read(resume, scenario)
    by_users = scenario.capacity.by == "users"
    ensure_descriptors(round(scenario.capacity.at_most) if by_users else 1000, required=by_users)
    scenario, found = located(scenario, environment)
    if found:
        click.echo(f"measuring {found}", err=True)
    progress = Progress(sys.stderr, levels=1, quiet=quiet, live=live)
    progress.say(time_line(scenario))
    with ExitStack() as stack:
        url = str(scenario.target.url)
        if scenario.simulated:
            url = stack.enter_context(SimProcess(scenario.target.profile, seed=scenario.work.seed)).url
        session = anyio.run(_search, scenario, environment, url, progress, resumed)
    click.echo(to_json(session.capacity) if as_json else capacity_text(session.capacity), nl=False)
    progress.say(f"kept in {session.keeper.folder.path}")
    return exit_code_of(session.capacity)


async def _search(
    scenario: Scenario, environment: Mapping[str, str], url: str, progress: Progress, resumed: Resumed | None
) -> CapacityWriter:
    prepared = await prepare(scenario, environment, url=url, say=progress.say)
    if len(prepared.models) != 1 or prepared.missing:
        named = "; ".join(prepared.missing.values()) or f"{len(prepared.models)} models"
        raise BadInput(f"--model: one model is searched at a time, not {named}", hint="name one with --model")
    (model,) = prepared.models
    await prepared.ready(model)
    clock = MonotonicClock()
    started_at = _started(resumed)
    folder = _folder(scenario, started_at) if resumed is None else resumed.folder
    transport = make_transport(scenario, prepared.target, clock)
    about = describe_environment(event_loop="asyncio", stamp_source=transport.stamp_source)
    async with AsyncExitStack() as stack:
        gone_ns = round((datetime.now(UTC) - started_at) / timedelta(microseconds=1)) * 1000
        log = stack.enter_context(
            RequestLog(folder.path / "requests.jsonl", origin_ns=clock.now_ns() - (gone_ns if resumed else 0))
        )
        keeper = RunWriter(
            scenario,
            prepared.target,
            folder=folder,
            log=log,
            progress=progress,
            started_at=started_at,
            environment={**about, "workers": 1},
            prepared=prepared,
        )
        session = CapacityWriter(
            scenario, keeper, model=model, progress=progress, started_at=started_at, resumed=resumed
        )
        search = CapacitySearch(
            scenario,
            model=model,
            client=make_client(scenario, prepared.target, transport, model=model, clock=clock),
            clock=clock,
            health=lambda: LoopHealth(transport),
            panel=session,
            observer=session,
            counters=partial(counters, prepared.target),
            before=None if resumed is None else resumed.before,
        )
        session.searching = search
        with stopping(search.stop):
            await _run_watched(search, transport, progress)
        session.close()
    return session


def _started(resumed: Resumed | None) -> datetime:
    return datetime.now(UTC) if resumed is None else datetime.fromisoformat(resumed.run.started_at)


def _folder(scenario: Scenario, started_at: datetime) -> RunFolder:
    return RunFolder.create(scenario.report.out or Path("results"), name=scenario.report.name, started_at=started_at)


async def _run_watched(search: CapacitySearch, transport: Transport, progress: Progress) -> None:
    try:
        await run_alongside(search.run, progress.run)
    finally:
        with anyio.CancelScope(shield=True):
            await transport.aclose()


class CapacityWriter:
    """`loadbench.engine.capacity.Panel` and `Observer`: judges each probe, keeps it as a level and in the search."""

    searching: CapacitySearch

    def __init__(
        self,
        scenario: Scenario,
        keeper: RunWriter,
        *,
        model: str,
        progress: Progress,
        started_at: datetime,
        resumed: Resumed | None,
    ) -> None:
        self.keeper = keeper
        self._scenario = scenario
        self._model = model
        self._progress = progress
        settings = scenario.capacity
        self._account = SearchEvidence(
            scenario.objectives, confidence=settings.confidence, closed=settings.by == "users"
        )
        self.capacity = Capacity(
            status="inconclusive",
            objectives=[one.rule for one in scenario.objectives],
            model=model,
            simulated=scenario.simulated,
            budget_s=settings.budget / 1e9,
            conditions=conditions(scenario),
            content_hash=content_hash(conditions(scenario)),
            started_at=started_at.isoformat(timespec="seconds").replace("+00:00", "Z"),
            run=str(keeper.folder.path),
        )
        if resumed is not None:
            self._account.probes = list(resumed.capacity.probes)
            told = resumed.capacity
            self.capacity = msgspec.structs.replace(
                self.capacity, curve=told.curve, probes=told.probes, first_answer_s=told.first_answer_s
            )
            keeper.run = msgspec.structs.replace(keeper.run, levels=resumed.run.levels, models=resumed.run.models)

    # The panel.

    def opened(self, *, most_loads: int) -> None:
        """The search begins, or goes on."""
        self._account.start(most_loads=most_loads)

    def begins(self, load: Load, *, opens_ns: int) -> SequentialMonitor:
        """Who watches the probe that is about to begin."""
        return self._account.monitor(load, opens_ns=opens_ns)

    def ended(
        self, probe: Probe, load: Load, recording: LevelRecording, watching: ProbeMonitor, *, spent_ns: int
    ) -> Finding | None:
        """Judge the probe and save the search as far as it has come; one that the client spoilt is a level alone."""
        assert isinstance(watching, SequentialMonitor)  # noqa: S101 - `begins` made it
        self.keeper.level_ended(recording, self._model, load)
        level = self.keeper.run.levels[-1]
        why = client_limited(level, self._scenario.objectives)
        if why:
            self._progress.say(f"{load.label}: {why}: this probe does not count")
            return None
        found = self._account.add_probe(probe, load, recording, watching, level=len(self.keeper.run.levels) - 1)
        self._progress.say(probe_line(self._account.probes[-1]))
        self._keep(spent_ns, probes=list(self._account.probes))
        return found

    def _keep(self, spent_ns: int, **changed: object) -> None:
        """The search as far as it has come, in its files."""
        first_s = self.searching.answer_ns / 1e9
        self.capacity = msgspec.structs.replace(
            self.capacity, spent_s=spent_ns / 1e9, first_answer_s=first_s, **changed
        )
        self._write()

    def climbed(self, load: Closed, recording: LevelRecording, *, spent_ns: int, took_ns: int) -> CurveStep | None:
        """Keep a rung of the ladder as a level; one that was cut short, or that the client spoilt, is no more."""
        self.keeper.level_ended(recording, self._model, load)
        if recording.interrupted:
            return None
        level, objectives = self.keeper.run.levels[-1], self._scenario.objectives
        why = client_limited(level, objectives)
        if why:
            self._progress.say(f"{load.label}: {why}: the curve ends below")
            return None
        usual_ns = recording.histograms["e2e_response"].percentile(50)
        rung = Rung(
            users=load.users,
            level=len(self.keeper.run.levels) - 1,
            requests_per_s=level.throughput.requests_per_s,
            answer_s=None if usual_ns is None else usual_ns / 1e9,
            missed=mostly_missed(level, objectives),
            took_s=took_ns / 1e9,
        )
        self._progress.say(rung_line(rung))
        self._keep(spent_ns, curve=[*self.capacity.curve, rung])
        return CurveStep(rung.requests_per_s, rung.missed)

    def guess(self) -> float | None:
        """As many as the model predicts."""
        think, settings = self._scenario.think, self._scenario.capacity
        if not self.capacity.curve or think is None:
            return None
        think_s = think.mean / 1e9
        levels, objectives = self.keeper.run.levels, self._scenario.objectives
        seed = self._scenario.work.seed
        found = predict_from_curve(levels, objectives, think_s=[think_s], confidence=settings.confidence, seed=seed)
        fit = fit_of_all_objectives(found, think_s)
        return None if fit is None else fit.users

    def aim(self, search: Search, requests: Callable[[float], float], *, passes: bool) -> int | None:
        """Where a proof is worth its time."""
        return self._account.aim(search, requests, passes=passes)

    def best(self, search: Search) -> int | None:
        """The best estimate."""
        return self._account.best_estimate(search)

    # The observer.

    def level_begins(self, level: Level, model: str, number: int) -> None:
        """Tell the progress line; how many are still to come nobody knows."""
        self._progress.expect(number + 1)
        self.keeper.level_begins(level, model, number)

    def sample_ended(self, sample: Sample, number: int) -> None:
        """Write the request's line."""
        self.keeper.sample_ended(sample, number)

    # The end.

    def close(self) -> None:
        """The search is over: conclude, and keep the conclusion."""
        search = self.searching
        self.capacity = conclude(
            self._account,
            getattr(search, "search", None),
            self._scenario,
            self.keeper.run.levels,
            so_far=msgspec.structs.replace(self.capacity, complete=not search.stopped, spent_s=search.spent_ns / 1e9),
            client_limited=search.client_limited,
            stopped=search.stopped,
        )
        self.keeper.close(stopped=search.stopped)
        self._write()

    def _write(self) -> None:
        """A full disk does not end a search; the keeper of the run has told of it."""
        try:
            self.keeper.folder.write(FILE, to_json(self.capacity))
            self.keeper.folder.write("capacity.md", capacity_markdown(self.capacity).encode())
        except BadInput as error:
            self._progress.say(f"cannot write: {error}; the search goes on")


def exit_code_of(capacity: Capacity) -> ExitCode:
    """How the process ends."""
    answer = capacity.answer
    if capacity.status == "client" and answer is not None and answer.low is not None:
        return ExitCode.OK  # at least so many
    return _EXIT_CODES[capacity.status]
