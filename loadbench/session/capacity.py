"""A capacity search from beginning to end: open the session, probe, keep every probe, conclude.

results/<UTC time>-<name>/
    capacity.json     the search, replaced after each probe; `--resume` continues from it
    capacity.md       its report
    run.json, …       the probes as the levels of a run, as `loadbench sweep` keeps them

Several models are searched in turn, each with an equal part of the budget and in a folder of its own inside this one,
which then has capacities.json, and a capacity.md with a table of all models.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Self

import msgspec

from loadbench.analyze.capacity.answer import conclude
from loadbench.analyze.capacity.client_delay import ClientDelays
from loadbench.analyze.capacity.curve import any_per_token, fit_of_all_objectives, mostly_missed, predict_from_curve
from loadbench.analyze.capacity.exit_code import exit_code_of
from loadbench.analyze.capacity.search_evidence import SearchEvidence, refuse_objectives
from loadbench.analyze.capacity.sequential import SequentialMonitor, required_share
from loadbench.analyze.level.verdict import client_reasons
from loadbench.core import event_loop
from loadbench.core.alongside import run_alongside
from loadbench.core.errors import BadInput, ExitCode, TargetEnded, TargetUnavailable, WorkersEnded, worst_of
from loadbench.engine.capacity import CapacitySearch, EarlierSearch, grid_of
from loadbench.engine.target import first_contact
from loadbench.plan.conditions import conditions, content_hash
from loadbench.plan.curve import CurveStep
from loadbench.plan.prompt_source import prompt_source
from loadbench.plan.scenario import with_entries
from loadbench.plan.search import Finding, Probe, Standing
from loadbench.plan.settings import DEFAULT, Entry, setting_of
from loadbench.record.attainment import reaches, values_of
from loadbench.record.outcome import Outcome
from loadbench.report.capacities import capacities_document
from loadbench.report.capacity import capacity_document, probe_line, range_text, step_line
from loadbench.report.capacity_plan import time_line
from loadbench.report.junit import run_junit, searches_junit, undecided_of
from loadbench.report.render_markdown import render_markdown
from loadbench.report.run import load_from
from loadbench.report.shown import Shown
from loadbench.report.values import counted, duration
from loadbench.results.capacity import (
    FILE,
    SEVERAL_FILE,
    Capacities,
    Capacity,
    CurveLevel,
    read_capacities,
    read_capacity,
)
from loadbench.results.folder import RunFolder, read_run, slug
from loadbench.results.run import to_json
from loadbench.session.resume import refuse_other_conditions, refuse_other_kind
from loadbench.session.run_writer import RunWriter, new_folder
from loadbench.session.setup import check, check_connections, open_session, run_observed, stopping
from loadbench.targets.adapt import adapt

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from loadbench.engine.observers import ProbeMonitor
    from loadbench.engine.target import ModelUnderTest
    from loadbench.live.progress import Progress
    from loadbench.plan.load import Closed, Load
    from loadbench.plan.objective import Objective
    from loadbench.plan.scenario import Scenario
    from loadbench.record.recorder import LevelRecording
    from loadbench.record.sample import Sample
    from loadbench.report.document import Document
    from loadbench.results.run import Run
    from loadbench.session.setup import Session

# What else used the machine during a probe, or disturbed it.
_DISTURBED = frozenset({"busy_machine", "throttled_heat", "throttled_power", "throttled_cpu", "process_restarted"})
# An objective is missed for sure if as many misses in a row would be this improbable; a few requests must show it.
_SURELY_MISSED, _MOST_ALONE = 0.01, 8
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
    check(scenario, environment)
    # The search chooses its loads later: these are the most requests that it may have in flight.
    by_users = settings.by == "users"
    check_connections(scenario, round(settings.at_most) if by_users else _IN_FLIGHT_BY_RATE, required=by_users)


def of_one_model(scenario: Scenario, model: str, *, models: int) -> Scenario:
    """The scenario of one of several models, with its part of the budget."""
    if models == 1:
        return scenario
    named = Entry(setting_of("target.model"), (model,), scenario.origins.get("target.model", DEFAULT))
    part = dataclasses.replace(scenario.capacity, budget=scenario.capacity.budget // models)
    return dataclasses.replace(with_entries(scenario, {"target.model": named}), capacity=part)


@dataclass(frozen=True, slots=True)
class Resumed:
    """A search that continues, and its run."""

    folder: RunFolder
    capacity: Capacity
    run: Run

    @classmethod
    def read_all(cls, path: Path, scenario: Scenario) -> dict[str, Resumed]:
        """The searches to continue by model, as far as they were begun; a single one has the name "".

        Raises `BadInput` if there is no search, or its conditions differ from the scenario's.
        """
        refuse_other_kind(path, "capacity")
        if not (path / SEVERAL_FILE).exists():
            return {"": cls._read(path, scenario)}
        folders = read_capacities(path).folders
        return {
            model: cls._read(path / name, of_one_model(scenario, model, models=len(folders)))
            for model, name in folders.items()
            if (path / name / FILE).exists()
        }

    @classmethod
    def _read(cls, path: Path, scenario: Scenario) -> Resumed:
        capacity = read_capacity(path)
        refuse_other_conditions(path, conditions(scenario), capacity.conditions, free="the budget")
        grid = grid_of(scenario)
        if any(abs(grid.amount(probe.at) - probe.amount) > 1e-3 * probe.amount for probe in capacity.probes):
            hint = "start a new search without --resume"
            raise BadInput(f"--resume {path}: an older version of loadbench measured other loads", hint=hint)
        return cls(RunFolder(path), capacity, read_run(path))

    def earlier(self, standing: Standing) -> EarlierSearch:
        """What the search knows already; `standing` is what its probes show together."""
        probes, curve = self.capacity.probes, self.capacity.curve
        first_s = self.capacity.first_answer_s
        return EarlierSearch(
            findings=tuple(
                (
                    Probe(probe.at, probe.purpose, visit=probe.visit),
                    Finding(probe.decision, probe.leaning, standing, informed=probe.informed),
                )
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


@dataclass(slots=True)
class Searches:
    """The searches of one command, each of one model. With several models, `group` is the folder that has them all."""

    group: RunFolder | None = None
    folders: dict[str, str] = field(default_factory=dict)
    writers: list[CapacityWriter] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    stopped: bool = False
    is_gone: bool = False  # the server, which loadbench had started

    @property
    def folder(self) -> RunFolder:
        """The folder to report again."""
        return self.writers[0].folder if self.group is None else self.group

    @property
    def result(self) -> Capacity | Capacities:
        """What `--json` prints."""
        searches = [writer.capacity for writer in self.writers]
        if self.group is None:
            return searches[0]
        return Capacities(folders=self.folders, searches=searches, failed=self.failed)

    def document(self) -> Document:
        """The report."""
        result = self.result
        if isinstance(result, Capacity):
            run = self.writers[0].run
            return capacity_document(result, run.levels, made_by=load_from(run))
        return capacities_document(result, {writer.capacity.model: writer.run for writer in self.writers})

    def shown(self) -> list[Shown]:
        """The probes, as the levels of a run for each model."""
        facts = [{"search": writer.folder.path.name} if self.group is not None else {} for writer in self.writers]
        return [
            Shown(writer.run, writer.folder.path, of_one) for writer, of_one in zip(self.writers, facts, strict=True)
        ]

    def junit(self) -> str:
        """The answers for build servers; that of one model with its probes."""
        result, run = self.result, self.writers[0].run
        if isinstance(result, Capacity):
            return run_junit(run, result)
        return searches_junit(result, undecided=undecided_of(run))

    def stop(self) -> None:
        """End the search that is running, and begin no other."""
        self.stopped = True
        if self.writers:
            self.writers[-1].search.stop()

    def exit_code(self) -> ExitCode:
        """How the process ends: the worst of the searches' codes."""
        codes = set() if self.is_gone else {writer.exit_code() for writer in self.writers}
        codes |= {ExitCode.TARGET_UNAVAILABLE} if self.failed else set()
        return worst_of(codes) or self.folder.place.exit_code


def run_capacity(
    scenario: Scenario,
    environment: Mapping[str, str],
    progress: Progress,
    *,
    resumed: Mapping[str, Resumed] | None = None,
    resume: Path | None = None,
) -> Searches:
    """Search each model, or continue its search in the folder `resume`; returns what was found.

    Raises `LoadbenchError` if nothing could be measured.
    """

    async def search() -> Searches:
        work = partial(search_models, scenario, environment, progress, resumed or {}, resume)
        return await run_alongside(work, progress.run)

    return event_loop.run(search)


async def search_models(
    scenario: Scenario,
    environment: Mapping[str, str],
    progress: Progress,
    resumed: Mapping[str, Resumed],
    resume: Path | None,
    folder: RunFolder | None = None,
    *,
    confirmed: bool = False,
) -> Searches:
    """As `run_capacity`, inside an event loop; a new search of one model may have a `folder` that is there. With
    `confirmed` the user has let the server's command run."""
    opening = open_session(scenario, environment, say=progress.say, doing=progress.doing, confirmed=confirmed)
    async with opening as session:
        models, missing, searches = session.models, session.prepared.missing, Searches()
        if len(models) > 1:
            searches.folders = {model: slug(f"{number}-{model}") for number, model in enumerate(models, 1)}
            if resume is None:
                searches.group = new_folder(session.scenario, datetime.now(UTC), progress.say)
            else:
                searches.group = RunFolder(resume)
        if resume is not None:
            several = (resume / SEVERAL_FILE).exists()
            before = read_capacities(resume).folders if several else {}
            if before != searches.folders:
                hint = f"name the same models, in the same order: {', '.join(before)}" if several else "name one model"
                raise BadInput(f"--resume {resume}: is a search of other models", hint=hint)
        if searches.group is not None:
            searches.group.save(SEVERAL_FILE, to_json(searches.result))
        progress.say(time_line(scenario, models=len(models)))

        async def search_model(model: str) -> None:
            if model in missing:
                raise TargetUnavailable(missing[model])
            # The session's scenario may have an address that changes from start to start: no condition of the search.
            terms = conditions(of_one_model(scenario, model, models=len(models)))
            before, own_folder = resumed.get(model if searches.group else ""), folder
            if before is not None:
                # What was left out of the requests until now still is, whatever the server accepts now.
                adapt(session.prepared, before.run.adapted)
            elif searches.group is not None:
                own_folder = searches.group.inside(searches.folders[model])
            own = of_one_model(session.scenario, model, models=len(models))
            with CapacityWriter(
                session,
                progress,
                model=model,
                scenario=own,
                terms=terms,
                folder=own_folder,
                resumed=before,
                others_after=len(models) - 1 - models.index(model),
            ) as writer:
                searches.writers.append(writer)
                try:
                    await writer.probe(is_kept=len(searches.writers) > 1)
                except TargetUnavailable as error:
                    writer.model_failed(model, str(error))
                    # What was measured is kept, and nothing else can be.
                    searches.stopped = writer.search.stopped = isinstance(error, TargetEnded)
                    if not (searches.stopped and writer.run.levels):
                        searches.writers.remove(writer)
                        raise
                    searches.failed[model], searches.is_gone = str(error), True
                writer.conclude()
                searches.stopped |= writer.ended is not None

        async def search_all() -> None:
            # What one model refuses, no search of another may have sent.
            for model in models if searches.group and not session.swaps_models else ():
                with contextlib.suppress(TargetUnavailable):
                    await first_contact(session, model, session.scenario)
            for model in models:
                if searches.stopped:
                    return
                try:
                    await search_model(model)
                except TargetUnavailable as error:
                    searches.failed[model] = str(error)
                    if len(searches.failed) == len(models):
                        raise
                if searches.group is not None:
                    searches.group.save(SEVERAL_FILE, to_json(searches.result))
                    searches.group.save("capacity.md", render_markdown(searches.document()).encode())

        try:
            with stopping(searches.stop, progress.interrupted):
                await run_observed(search_all, session)
        finally:
            if searches.group is not None:
                searches.group.place.release()
    return searches


class CapacityWriter(RunWriter):
    """A run of which each probe is a level, and the search itself: judges each probe, and keeps it in capacity.json.

    `loadbench.engine.observers.ProbeJudge` and `RunObserver` of its `search`.
    """

    def __init__(
        self,
        session: Session,
        progress: Progress,
        *,
        model: str,
        scenario: Scenario,
        terms: dict[str, object],
        folder: RunFolder | None = None,
        resumed: Resumed | None = None,
        others_after: int = 0,
    ) -> None:
        self._others_after = others_after
        before = None if resumed is None else resumed.run
        folder = folder if resumed is None else resumed.folder
        super().__init__(session, progress, folder=folder, scenario=scenario, terms=terms, before=before)
        progress.expect(None, standing=self._standing, think=scenario.measures_curve)
        settings = scenario.capacity
        self._delays = ClientDelays(scenario.objectives)
        self._missed_alone = ""
        self._evidence = SearchEvidence(
            scenario.objectives,
            grid_of(scenario),
            confidence=settings.confidence,
            closed=settings.by == "users",
            think_s=None if scenario.think is None or settings.by == "rate" else scenario.think.mean / 1e9,
        )
        if resumed is not None:
            self._evidence.resume(resumed.capacity)
        begun = Capacity(
            status="inconclusive",
            objectives=[objective.rule for objective in scenario.objectives],
            model=model,
            simulated=scenario.simulated,
            insecure=scenario.target.insecure,
            budget_s=settings.budget / 1e9,
            started_at=self._started_at.isoformat(timespec="seconds").replace("+00:00", "Z"),
        )
        # What an earlier search has found stands until there is more.
        self.capacity = msgspec.structs.replace(
            begun if resumed is None else resumed.capacity,
            complete=False,
            require=settings.require,
            budget_s=settings.budget / 1e9,
            conditions=terms,
            content_hash=content_hash(terms),
            run="",
        )
        self.search = CapacitySearch(
            scenario,
            session,
            model=model,
            judge=self,
            observer=self,
            earlier=None if resumed is None else resumed.earlier(self._evidence.standing()),
        )

    def __enter__(self) -> Self:
        self._write()
        return super().__enter__()

    def _standing(self) -> list[str]:
        """The most that is left of the budget, and the range so far, for the progress line."""
        search, settings = getattr(self.search, "search", None), self._scenario.capacity
        parts = []
        if search is not None:
            known, grid = search.standing, search.grid
            ends = (known.low, known.high) if known.high is not None else (known.passed, known.failed)
            low, high = (None if at is None or at < grid.lowest else grid.amount(at) for at in ends)
            parts = [f"{range_text(low, high)} so far"] if low is not None or high is not None else []
        left_s, unit_s = max(0.0, (settings.budget - self.search.spent_ns) / 1e9), 60 if settings.budget >= 120e9 else 1
        left, unit = math.ceil(left_s / unit_s), "min" if unit_s > 1 else "s"
        whole = f"at most {left} of {settings.budget / 1e9 / unit_s:.3g} {unit} left"
        others = self._others_after * settings.budget / 1e9 / unit_s
        return [whole + (f", and {others:.3g} {unit} for other models" if others else ""), *parts]

    # The judge's side.

    async def misses_alone(self, subject: ModelUnderTest) -> bool:
        """Whether one request alone, with no other load, misses an objective: then every load does.

        Of requests of which at least the required share would meet the bound, all miss it with a probability below 1 %.
        """
        work, objectives = self._scenario.work, [one for one in self._scenario.objectives if one.is_latency]
        self._session.doing("sending requests one at a time, with no other load")
        prompts = prompt_source(work, key="alone", calibration=subject.calibration)
        seen: dict[Objective, list[float]] = {objective: [] for objective in objectives}
        for number in range(_MOST_ALONE):
            prompt = prompts.next(number, None)
            sample = await subject.client.send_prompt(prompt, max_tokens=prompt.output_tokens or work.max_tokens)
            if sample.outcome is not Outcome.OK:
                return False
            for objective in objectives:
                seen[objective] += [value for value, _ in values_of(objective, sample)]
            objectives = [one for one in objectives if seen[one] and min(seen[one]) >= one.bound]
            if not objectives:
                return False
            for one in objectives:
                if (1 - required_share(one)) ** (number + 1) < _SURELY_MISSED:
                    times = counted(number + 1, "request") + " in turn" * (number > 0)
                    self._missed_alone = (
                        f"{one.rule}: of {times}, none was faster than {duration(min(seen[one]) / 1e9)}"
                    )
                    self._progress.say(f"with no other load, even one request misses {self._missed_alone}")
                    return True
        return False

    def monitor(self, probe: Probe, load: Load, *, opens_ns: int) -> SequentialMonitor:
        """The monitor of the probe that is about to begin."""
        self._delays = ClientDelays(self._scenario.objectives)
        return self._evidence.monitor(probe, load, opens_ns=opens_ns)

    def probe_ended(
        self, probe: Probe, load: Load, recording: LevelRecording, monitor: ProbeMonitor, *, spent_ns: int
    ) -> Finding | None:
        """Judge the probe and save the search so far. `None`: the load generator was the bottleneck, and the probe
        is kept as a level alone."""
        assert isinstance(monitor, SequentialMonitor)  # noqa: S101 - `monitor` made it
        level = self.run.levels[-1]
        reason = self._delays.limited(level, load, recording)
        if reason:
            self._progress.say(f"{load.label}: this probe does not count: {reason}")
            self._evidence.refused.append(probe.at)
            return None
        finding = self._evidence.add_probe(probe, load, recording, monitor, level=len(self.run.levels) - 1)
        disturbed = [one.message for one in (*level.verdict.reasons, *level.caveats) if one.code in _DISTURBED]
        if disturbed:
            self._evidence.probes[-1] = msgspec.structs.replace(self._evidence.probes[-1], caveats=disturbed)
        self._progress.say(probe_line(self._evidence.probes[-1]))
        self._keep(spent_ns, probes=list(self._evidence.probes), in_flight=self._evidence.in_flight)
        return finding

    def step_ended(self, load: Closed, recording: LevelRecording, *, spent_ns: int, took_ns: int) -> CurveStep | None:
        """Keep a step of the throughput curve as a level. `None` ends the curve: the step was cut short, or the load
        generator was the bottleneck."""
        if recording.interrupted:
            return None
        level, objectives = self.run.levels[-1], self._scenario.objectives
        reasons = client_reasons(level.verdict, per_token=any_per_token(objectives))
        if reasons:
            self._progress.say(f"{load.label}: the throughput curve ends below this load: {reasons[0].message}")
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

    def next_load(self, standing: Standing) -> int:
        """The load whose requests tell most."""
        return self._evidence.next_load(standing)

    def sample_ended(self, sample: Sample, number: int) -> None:
        """Keep how late a request was, too."""
        super().sample_ended(sample, number)
        self._delays.add(sample)

    # The files.

    async def probe(self, *, is_kept: bool) -> None:
        """Search, as far as there is somebody to send the requests; where searches before it are kept, also none."""
        try:
            await self.search.run()
        except WorkersEnded as error:
            self.search.stopped = True
            self.cannot_go_on(error, is_kept=is_kept)

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
            stopped="Every worker ended" if self.ended is not None else "Stopped" if search.stopped else "",
        )
        if self._missed_alone:
            sentence = f"No load meets the objectives: even one request with no other load misses {self._missed_alone}."
            self.capacity = msgspec.structs.replace(self.capacity, status="none", conclusion=sentence)
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
        start = self.run.server_start
        self.capacity = msgspec.structs.replace(self.capacity, run=str(self.folder.path), server_start=start)
        self.folder.save(FILE, to_json(self.capacity))
        document = capacity_document(self.capacity, self.run.levels, made_by=load_from(self.run))
        self.folder.save("capacity.md", render_markdown(document).encode())

    def exit_code(self) -> ExitCode:
        """How the process ends."""
        if self.ended is not None:
            return self.ended.exit_code
        return exit_code_of(self.capacity, undecided=self._scenario.slo.undecided)
