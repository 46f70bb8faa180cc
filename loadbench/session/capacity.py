"""A capacity search from beginning to end: open the session, probe, keep every probe, conclude.

results/<UTC time>-<name>/
    capacity.json     the search, replaced after each probe; `--resume` continues from it
    capacity.md       its report
    run.json, …       the probes as the levels of a run, as `loadbench sweep` keeps them
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import anyio
import msgspec

from loadbench.analyze.capacity.answer import client_limited, conclude
from loadbench.analyze.capacity.curve import fit_of_all_objectives, mostly_missed, predict_from_curve
from loadbench.analyze.capacity.search_evidence import SearchEvidence, refuse_objectives
from loadbench.analyze.capacity.sequential import SequentialMonitor
from loadbench.client.descriptors import ensure_descriptors
from loadbench.core.errors import BadInput, ExitCode, TargetUnavailable
from loadbench.engine.capacity import CapacitySearch, EarlierSearch
from loadbench.plan.conditions import conditions, content_hash, differing
from loadbench.plan.curve import CurveStep
from loadbench.plan.search import Finding, Probe
from loadbench.record.attainment import reaches
from loadbench.report.capacity import capacity_document, probe_line, step_line
from loadbench.report.capacity_plan import time_line
from loadbench.report.render_markdown import render_markdown
from loadbench.results.capacity import FILE, Capacity, CurveLevel, read_capacity
from loadbench.results.folder import RunFolder, read_run
from loadbench.results.run import to_json
from loadbench.session.run_writer import RunWriter
from loadbench.session.setup import check, open_session, run_observed, stopping
from loadbench.targets.adapt import adapt

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from loadbench.engine.observers import ProbeMonitor
    from loadbench.live.progress import Progress
    from loadbench.plan.load import Closed, Load
    from loadbench.plan.scenario import Scenario
    from loadbench.plan.search import Search
    from loadbench.record.recorder import LevelRecording
    from loadbench.results.run import Run
    from loadbench.session.setup import Session

_EXIT_CODES = {
    "found": ExitCode.OK,
    "at_least": ExitCode.OK,
    "none": ExitCode.GATE_FAILED,
    "client": ExitCode.INVALID,
    "inconclusive": ExitCode.INCONCLUSIVE,
    "interrupted": ExitCode.INTERRUPTED,
}
# A search by rate opens a connection for each request in flight. It needs far fewer of them unless the server is
# overloaded, and then the probe ends early.
_IN_FLIGHT_BY_RATE = 1000


def check_search(scenario: Scenario, environment: Mapping[str, str]) -> None:
    """Refuse what cannot be searched, before anything starts; raises `BadInput`."""
    settings = scenario.capacity
    refuse_objectives(scenario.objectives)
    abandon = scenario.load.abandon
    if abandon is not None and abandon.share == 1:
        for objective in scenario.objectives:
            if objective.is_latency and not reaches(objective, abandon.wait.mean):
                raise BadInput(
                    f"{scenario.place('load.abandon')}: all users would give up before {objective.rule} can be decided",
                    hint="give a share below 100%, or more patience than the bound",
                )
    if settings.by == "users" and (settings.at_most < 1 or settings.at_most % 1):
        place = scenario.place("capacity.at_most")
        raise BadInput(f"{place}: {settings.at_most:g} is no number of users", hint="give a whole number, or --by rate")
    if len(scenario.target.model or ()) > 1:
        models = ", ".join(scenario.target.model or ())
        place = scenario.place("target.model")
        raise BadInput(f"{place}: one model is searched at a time, not {models}", hint="name one with --model")
    check(scenario, environment)
    # The search chooses its loads later: these are the most requests that it may have in flight.
    by_users = settings.by == "users"
    ensure_descriptors(round(settings.at_most) if by_users else _IN_FLIGHT_BY_RATE, required=by_users)


@dataclass(frozen=True, slots=True)
class Resumed:
    """A search that continues, and its run."""

    folder: RunFolder
    capacity: Capacity
    run: Run

    @classmethod
    def read(cls, path: Path, scenario: Scenario) -> Resumed:
        """Raises `BadInput` if there is no search, or its conditions differ from the scenario's."""
        capacity = read_capacity(path)
        now, then = conditions(scenario), capacity.conditions
        changed = differing(now, then)
        if changed:
            changes = "; ".join(f"{key} was {then.get(key)!r} and is {now.get(key)!r}" for key in changed[:5])
            raise BadInput(
                f"--resume {path}: measured under other conditions: {changes}",
                hint="give the same settings (only the budget may differ), or start a new search without --resume",
            )
        return cls(RunFolder(path), capacity, read_run(path))

    @property
    def earlier(self) -> EarlierSearch:
        """What the search knows already."""
        probes, curve = self.capacity.probes, self.capacity.curve
        first_s = self.capacity.first_answer_s
        return EarlierSearch(
            findings=tuple(
                (Probe(probe.at, probe.purpose, visit=probe.visit), Finding(probe.decision, probe.leaning))
                for probe in probes
            ),
            responses={probe.amount: round(probe.answer_s * 1e9) for probe in probes if probe.answer_s is not None},
            spent_ns=round(self.capacity.spent_s * 1e9),
            response_ns=0 if first_s is None else round(first_s * 1e9),
            levels=len(self.run.levels),
            steps={step.users: CurveStep(step.requests_per_s, step.missed) for step in curve},
            step_responses={step.users: round(step.answer_s * 1e9) for step in curve if step.answer_s},
            steps_ns=round(sum(step.took_s for step in curve) * 1e9),
        )


def run_capacity(
    scenario: Scenario, environment: Mapping[str, str], progress: Progress, *, resumed: Resumed | None = None
) -> CapacityWriter:
    """Search, or continue a search; returns the writer, which holds the conclusion.

    Raises `LoadbenchError` if nothing could be measured.
    """
    progress.say(time_line(scenario))
    return anyio.run(_search, scenario, environment, progress, resumed)


async def _search(
    scenario: Scenario, environment: Mapping[str, str], progress: Progress, resumed: Resumed | None
) -> CapacityWriter:
    async with open_session(scenario, environment, say=progress.say) as session:
        if len(session.models) != 1 or session.prepared.missing:
            models = "; ".join(session.prepared.missing.values()) or ", ".join(session.models)
            place = scenario.place("target.model")
            raise BadInput(f"{place}: one model is searched at a time, not {models}", hint="name one with --model")
        if resumed is not None:
            # What was left out of the requests until now still is, whatever the server accepts now.
            adapt(session.prepared, resumed.run.adapted)
        # The session's scenario may have an address that changes from start to start: it is no condition of the search.
        with CapacityWriter(session, progress, terms=conditions(scenario), resumed=resumed) as writer:
            with stopping(writer.search.stop):
                try:
                    await run_observed(writer.search.run, session, progress=progress)
                except TargetUnavailable as error:
                    writer.model_failed(session.models[0], str(error))
                    raise
            writer.conclude()
    return writer


class CapacityWriter(RunWriter):
    """A run of which each probe is a level, and the search itself: judges each probe, and keeps it in capacity.json.

    `loadbench.engine.observers.ProbeJudge` and `RunObserver` of its `search`.
    """

    def __init__(
        self, session: Session, progress: Progress, *, terms: dict[str, object], resumed: Resumed | None = None
    ) -> None:
        folder, before = (None, None) if resumed is None else (resumed.folder, resumed.run)
        super().__init__(session, progress, folder=folder, before=before)
        progress.expect(None)
        scenario, model, settings = session.scenario, session.models[0], session.scenario.capacity
        self._evidence = SearchEvidence(
            scenario.objectives, confidence=settings.confidence, closed=settings.by == "users"
        )
        self._evidence.probes = [] if resumed is None else list(resumed.capacity.probes)
        self.capacity = Capacity(
            status="inconclusive",
            objectives=[objective.rule for objective in scenario.objectives],
            model=model,
            simulated=scenario.simulated,
            require=settings.require,
            budget_s=settings.budget / 1e9,
            conditions=terms,
            content_hash=content_hash(terms),
            started_at=self._started_at.isoformat(timespec="seconds").replace("+00:00", "Z"),
            run=str(self.folder.path),
            curve=[] if resumed is None else resumed.capacity.curve,
            probes=list(self._evidence.probes),
            first_answer_s=None if resumed is None else resumed.capacity.first_answer_s,
        )
        self.search = CapacitySearch(
            scenario,
            session,
            model=model,
            judge=self,
            observer=self,
            earlier=None if resumed is None else resumed.earlier,
        )

    # The judge's side.

    def search_begins(self, *, most_loads: int) -> None:
        """The search begins, or continues."""
        self._evidence.start(most_loads=most_loads)

    def monitor(self, load: Load, *, opens_ns: int) -> SequentialMonitor:
        """The monitor of the probe that is about to begin."""
        return self._evidence.monitor(load, opens_ns=opens_ns)

    def probe_ended(
        self, probe: Probe, load: Load, recording: LevelRecording, monitor: ProbeMonitor, *, spent_ns: int
    ) -> Finding | None:
        """Judge the probe and save the search so far. `None`: the load generator was the bottleneck, and the probe
        is kept as a level alone."""
        assert isinstance(monitor, SequentialMonitor)  # noqa: S101 - `monitor` made it
        reason = client_limited(self.run.levels[-1], self._scenario.objectives)
        if reason:
            self._progress.say(f"{load.label}: this probe does not count: {reason}")
            return None
        finding = self._evidence.add_probe(probe, load, recording, monitor, level=len(self.run.levels) - 1)
        self._progress.say(probe_line(self._evidence.probes[-1]))
        self._keep(spent_ns, probes=list(self._evidence.probes))
        return finding

    def step_ended(self, load: Closed, recording: LevelRecording, *, spent_ns: int, took_ns: int) -> CurveStep | None:
        """Keep a step of the throughput curve as a level. `None` ends the curve: the step was cut short, or the load
        generator was the bottleneck."""
        if recording.interrupted:
            return None
        level, objectives = self.run.levels[-1], self._scenario.objectives
        reason = client_limited(level, objectives)
        if reason:
            self._progress.say(f"{load.label}: the throughput curve ends below this load: {reason}")
            return None
        usual_ns = recording.histograms["e2e_response"].percentile(50)
        step = CurveLevel(
            users=load.users,
            level=len(self.run.levels) - 1,
            requests_per_s=level.throughput.requests_per_s,
            answer_s=None if usual_ns is None else usual_ns / 1e9,
            missed=mostly_missed(level, objectives),
            took_s=took_ns / 1e9,
        )
        self._progress.say(step_line(step))
        self._keep(spent_ns, curve=[*self.capacity.curve, step])
        return CurveStep(step.requests_per_s, step.missed)

    def predicted_users(self) -> float | None:
        """The number of users that the model predicts from the throughput curve."""
        think, settings = self._scenario.think, self._scenario.capacity
        if not self.capacity.curve or think is None:
            return None
        think_s = think.mean / 1e9
        prediction = predict_from_curve(
            self.run.levels,
            self._scenario.objectives,
            think_s=[think_s],
            confidence=settings.confidence,
            seed=self._scenario.work.seed,
        )
        fit = fit_of_all_objectives(prediction, think_s)
        return None if fit is None else fit.users

    def aim(self, search: Search, requests: Callable[[float], float], *, passes: bool) -> int | None:
        """The load at which a test is worth its time."""
        return self._evidence.aim(search, requests, passes=passes)

    def best_estimate(self, search: Search) -> int | None:
        """The best estimate so far."""
        return self._evidence.best_estimate(search)

    # The files.

    def conclude(self) -> None:
        """Conclude the search, and keep the conclusion."""
        search = self.search
        self.capacity = conclude(
            self._evidence,
            getattr(search, "search", None),
            self._scenario,
            self.run.levels,
            so_far=msgspec.structs.replace(self.capacity, complete=not search.stopped, spent_s=search.spent_ns / 1e9),
            client_limited=search.client_limited,
            stopped=search.stopped,
        )
        self.close(stopped=search.stopped)
        self._write()

    def _keep(self, spent_ns: int, **changes: object) -> None:
        """Save the search so far."""
        first_s = self.search.response_ns / 1e9
        self.capacity = msgspec.structs.replace(
            self.capacity, spent_s=spent_ns / 1e9, first_answer_s=first_s, **changes
        )
        self._write()

    def _write(self) -> None:
        self.write(FILE, to_json(self.capacity))
        self.write("capacity.md", render_markdown(capacity_document(self.capacity)).encode())

    def exit_code(self) -> ExitCode:
        """How the process ends."""
        return ExitCode.BAD_INPUT if self.unwritten else exit_code_of(self.capacity)


def exit_code_of(capacity: Capacity) -> ExitCode:
    """The exit code of a search's conclusion."""
    answer = capacity.answer
    if capacity.status == "client" and answer is not None and answer.low is not None:
        return ExitCode.OK  # the answer holds as a lower bound
    return _EXIT_CODES[capacity.status]
