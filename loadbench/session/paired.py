"""A comparison from beginning to end: open a session with each side, measure both in turn, keep every run, compare.

    results/<UTC time>-<name>/
        a/01/  b/01/   the first repeat: a run folder each, as `loadbench sweep` keeps it
        a/02/  b/02/   the second …
        compare.json, compare.md, compare.svg

Only repeats that are complete on both sides are compared.
"""

from __future__ import annotations

import shlex
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from itertools import count
from typing import TYPE_CHECKING

from msgspec import structs

from loadbench.analyze.compare.compare import compare, widest
from loadbench.analyze.compare.drift import drift
from loadbench.analyze.compare.first_responses import length_caveats
from loadbench.core import event_loop
from loadbench.core.alongside import run_alongside
from loadbench.core.errors import BadInput, ExitCode, LoadbenchError
from loadbench.core.units import NS_PER_S
from loadbench.engine.paired import Paired, PairedSide
from loadbench.live.time_left import PlannedLevel, RunTime
from loadbench.plan.conditions import conditions
from loadbench.plan.pairs import SIDES, at_repeat, blocks, check_budget, one_address, one_up
from loadbench.plan.server_url import PORT, shown_url
from loadbench.plan.settings import USUAL_REPEATS
from loadbench.report.compare_chart import compare_chart
from loadbench.report.formats import render_comparison
from loadbench.report.junit import undecided_of
from loadbench.report.values import counted
from loadbench.results.folder import RunFolder
from loadbench.results.run import Reason, to_json
from loadbench.session.consent import confirm_command
from loadbench.session.resume import earlier_repeats, set_aside
from loadbench.session.run_writer import RunWriter, new_folder
from loadbench.session.setup import Session, check, open_session, run_observed, stopping
from loadbench.targets.adapt import adapt, leave_out_too
from loadbench.targets.loading import load_alone, model_loader

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from loadbench.engine.observers import RunningLevel, RunObserver
    from loadbench.engine.paired import SideSwitch
    from loadbench.engine.target import ModelUnderTest
    from loadbench.live.progress import Progress
    from loadbench.plan.gate import GateRule
    from loadbench.plan.load import Load
    from loadbench.plan.pairs import Pairing
    from loadbench.plan.scenario import Scenario
    from loadbench.record.recorder import LevelRecording
    from loadbench.results.compare import Comparison
    from loadbench.results.run import Run
    from loadbench.targets.loading import ModelLoader


@dataclass(slots=True)
class PairedRuns:
    """The runs of each side that are compared, and what is known about how they were measured.

    `exit_code` is not 0 if the measurement ended early, and `ended_early` says why, or something could not be written.
    """

    a: list[Run]
    b: list[Run]
    paired: bool = False
    caveats: list[Reason] = field(default_factory=list)
    folder: RunFolder | None = None
    exit_code: ExitCode = ExitCode.OK
    ended: str = ""
    ended_early: str = ""

    def compare(self, gates: Sequence[GateRule], *, confidence: float) -> Comparison:
        """Compare them, and keep the comparison in the folder, if there is one."""
        caveats = [*self.caveats, *(drift(self.a, self.b) if self.paired else ())]
        comparison = compare(
            self.a,
            self.b,
            paired=self.paired,
            gates=gates,
            confidence=confidence,
            caveats=caveats,
            ended=self.ended,
            ended_early=self.ended_early,
        )
        if self.folder is not None:
            self.folder.save("compare.json", to_json(comparison))
            text = render_comparison(comparison, "markdown", undecided=undecided_of(self.a[0]))
            self.folder.save("compare.md", text.encode())
            self.folder.save("compare.svg", compare_chart(comparison).encode())
        return comparison


def check_paired(sides: tuple[Scenario, Scenario], pairing: Pairing, environment: Mapping[str, str]) -> None:
    """Refuse what cannot be measured in turn, before anything starts; raises `BadInput`."""
    a, b = sides
    for unused in a.unused:
        if unused.key == "target.adapter" and (a.simulated or b.simulated):
            raise BadInput(f"{unused.origin.place}: {unused.reason}", hint="leave it out")
    check_budget(a, pairing)
    started = [side for side in sides if side.target.server_cmd is not None]
    if a.compare.keep_up and not started and a.target.url != b.target.url:
        raise BadInput(
            f"{a.place('compare.keep_up')}: has no effect: each side has a server of its own, which is up already",
            hint="leave it out",
        )
    if a.compare.keep_up and len(started) == 2 and a.url is not None and PORT not in a.url and a.url == b.url:
        raise BadInput(
            f"{a.place('compare.keep_up')}: both servers would listen at {shown_url(a.url)}",
            hint=f"leave it out, or write {PORT} in the URL and in both commands",
        )
    if a.telemetry.server_pid is not None and a.target.url != b.target.url:
        raise BadInput(
            f"{a.place('telemetry.server_pid')}: names one process, and there are two servers",
            hint="leave it out: each server's process is found by its port",
        )
    for side in sides:
        check(side, environment)


def measure_paired(
    sides: tuple[Scenario, Scenario],
    pairing: Pairing,
    environment: Mapping[str, str],
    progress: Progress,
    *,
    resume: Path | None = None,
    earlier: tuple[list[Run], list[Run]] = ([], []),
) -> PairedRuns:
    """Measure both sides in turn and keep every run; `earlier` are the repeats in the folder `resume`.

    Raises `LoadbenchError` if no repeat is complete and the reason is not Ctrl-C.
    """

    async def measure() -> PairedRuns:
        work = partial(_measure, sides, pairing, environment, progress, resume, earlier)
        return await run_alongside(work, progress.run)

    return event_loop.run(measure)


async def _measure(
    sides: tuple[Scenario, Scenario],
    pairing: Pairing,
    environment: Mapping[str, str],
    progress: Progress,
    resume: Path | None,
    earlier: tuple[list[Run], list[Run]],
) -> PairedRuns:
    repeats = len(earlier[0])
    async with AsyncExitStack() as stack:
        # Where only one side is up at a time, the one that is measured first is opened first, and goes down again: the
        # other one is then up, and is prepared first.
        takes_turns = one_up(*sides) is True
        first = next(blocks(repeats, 1, seed=sides[0].work.seed)).side if takes_turns else 0
        opened: dict[int, Session] = {}
        confirm_command(*sides, say=progress.say)
        for which in (first, 1 - first):
            name = SIDES[which]

            def say(text: str, side: str = name.upper()) -> None:
                progress.say(f"{side}: {text}")

            def doing(text: str, side: str = name.upper()) -> None:
                progress.doing(f"{side}: {text}")

            try:
                opening = open_session(sides[which], environment, say=say, doing=doing, confirmed=True)
                opened[which] = await stack.enter_async_context(opening)
            except LoadbenchError as error:
                error.message = f"{name.upper()}: {error.message}"
                error.hint = error.hint.replace("--model", f"--{name}-model")
                raise
            server = opened[which].server
            if takes_turns and which == first and server is not None:
                await server.stop()
        a, b = opened[0], opened[1]
        folder = None if resume is None else RunFolder(resume)
        if resume is not None:
            set_aside(resume, repeats)
            for session, of_side in zip((a, b), earlier, strict=True):
                # What was left out of the requests until now still is, whatever the server accepts now.
                adapt(session.prepared, of_side[-1].adapted if of_side else ())
            progress.say(f"resumed after {counted(repeats, 'whole repeat')}")
        switch: SideSwitch | None = None
        if a.server is not None or b.server is not None:
            switch = ServerSwitch((a, b), up=1 - first) if takes_turns else None
        elif one_up(a.scenario, b.scenario) is not False:
            loader = await model_loader(a.prepared)
            switch = None if loader is None else ModelSwitch(loader, (a, b))
        pairing = replace(pairing, one_up=switch is not None)
        loads, seed = sides[0].loads, sides[0].work.seed
        planned = [
            PlannedLevel(SIDES[block.side].upper(), loads[block.level], after_start=pairing.one_up and not block.level)
            for repeat in range(repeats, pairing.most)
            for block in blocks(repeat, len(loads), seed=seed, one_up=pairing.one_up)
        ]
        time_left = RunTime(
            a.scenario,
            planned,
            now_ns=a.clock.now_ns,
            settle_ns=pairing.settle_ns,
            # It needs no more repeats when it knows enough, and has none when the budget has no room for another.
            may_end_early=pairing.until is not None or pairing.budget_ns is not None,
            budget_ns=pairing.budget_ns,
            in_order=False,
        )
        progress.expect(len(planned), time_left=time_left)
        writer = PairedRunWriter(
            (a, b), sides=sides, pairing=pairing, folder=folder, progress=progress, earlier=earlier, time_left=time_left
        )
        stack.callback(writer.close)  # a repeat that is not complete is kept as far as it has come
        side_a, side_b = (
            PairedSide(scenario=session.scenario, model=session.models[0], session=session) for session in (a, b)
        )
        paired = Paired(
            (side_a, side_b),
            pairing=pairing,
            clock=a.clock,
            observer=writer,
            same=_identity(a) == _identity(b),
            earlier=earlier_repeats(earlier, sides),
            switch=switch,
        )
        failure: LoadbenchError | None = None
        with stopping(paired.stop, progress.interrupted):
            try:
                await run_observed(paired.run, a, b)
            except LoadbenchError as error:
                failure = error
            writer.close()
            if writer.runs.folder is not None:
                writer.runs.folder.place.release()

    # How it ended.
    runs = writer.runs
    runs.ended = paired.ended
    if failure is not None:
        if not runs.a:
            if runs.folder is not None:
                runs.folder.place.wait()
                progress.say(runs.folder.place.saved)
            raise failure
        goes_on = "" if runs.folder is None else f", and --resume {shlex.quote(str(runs.folder.place.path))} goes on"
        progress.say(f"{failure.message}; only the repeats before this are compared{goes_on}")
        runs.exit_code, runs.ended_early = failure.exit_code, failure.message
    elif paired.stopped:
        runs.exit_code, runs.ended_early = ExitCode.INTERRUPTED, "it was stopped"
    if runs.exit_code is not ExitCode.OK or not runs.a:
        progress.say(f"{len(runs.a)} repeat{'s' if len(runs.a) != 1 else ''} complete")
    if not runs.a and runs.folder is not None:
        runs.folder.place.wait()
        progress.say(runs.folder.place.saved)
    return runs


class ServerSwitch:
    """`loadbench.engine.paired.SideSwitch`: loadbench starts the server of a side, or of both. One that it does not
    start is up all the time. The side `up` was started and has not been used."""

    def __init__(self, sessions: tuple[Session, Session], *, up: int) -> None:
        self._sessions = sessions
        self._fresh: int | None = up

    async def bring_up(self, side: int) -> int:
        """Stop the other side's server, and start this side's again."""
        session, other = self._sessions[side], self._sessions[1 - side]
        began_ns, server = session.clock.now_ns(), session.server
        fresh, self._fresh = self._fresh == side, None
        if fresh:
            return 0 if server is None else round((server.record.ready_s or 0.0) * NS_PER_S)
        if other.server is not None:
            await other.server.stop()
        if server is not None:
            await server.stop()
            ready_s = (await server.start()).ready_s or 0.0
            session.prepared.say(f"the server was ready after {ready_s:.2f} s")
            # Its readings are those of the new process from here on.
            await session.telemetry.caught_up(session.clock.now_ns())
        return session.clock.now_ns() - began_ns


class ModelSwitch:
    """`loadbench.engine.paired.SideSwitch`: both sides are models of one service, of which one at a time is loaded."""

    def __init__(self, loader: ModelLoader, sessions: tuple[Session, Session]) -> None:
        self._loader = loader
        self._sessions = sessions

    async def bring_up(self, side: int) -> int:
        """Unload both models and load this side's, as the service's list confirms."""
        session, other = self._sessions[side], self._sessions[1 - side]
        model, clock = session.models[0], session.clock
        session.doing(f"loading {model}")
        began_ns = clock.now_ns()
        await load_alone(self._loader, session.prepared, model, other.models[0], clock=clock)
        session.prepared.say(f"{model} was loaded in {session.prepared.load_s[model]:.2f} s")
        return clock.now_ns() - began_ns


def _identity(session: Session) -> tuple[object, ...]:
    target = session.target
    return one_address(target.base_url), target.route, target.query, target.changes, session.models[0]


class PairedRunWriter:
    """`loadbench.engine.paired.PairObserver`: keeps a run of each side in each repeat; `runs` are the complete ones."""

    def __init__(
        self,
        sessions: tuple[Session, Session],
        *,
        sides: tuple[Scenario, Scenario],
        pairing: Pairing,
        folder: RunFolder | None,
        progress: Progress,
        earlier: tuple[list[Run], list[Run]] = ([], []),
        time_left: RunTime | None = None,
    ) -> None:
        self.runs = PairedRuns([*earlier[0]], [*earlier[1]], paired=True, folder=folder)
        self._sides = sides
        self._pairing = pairing
        self._sessions = sessions
        self._progress = progress
        self._time_left = time_left
        self._writers: list[RunWriter] = []
        self._open = ExitStack()
        self._blocks = count()

    def sides_prepared(self, subjects: Sequence[ModelUnderTest]) -> None:
        """See that both sides send the same fields, and report what the first responses show about either side."""
        a, b = (session.prepared for session in self._sessions)
        for name, fields in zip(SIDES, (leave_out_too(a, b), leave_out_too(b, a)), strict=True):
            if fields:
                also = "is not sent to this side either" if len(fields) == 1 else "are not sent to this side either"
                self._progress.say(
                    f"{name.upper()}: {' and '.join(map(repr, fields))} {also}, so that both do the same"
                )
        for session, subject in zip(self._sessions, subjects, strict=True):
            subject.client = session.client(subject.model)
        for name, session, subject in zip(SIDES, self._sessions, subjects, strict=True):
            max_tokens = session.scenario.work.max_tokens
            self.runs.caveats += length_caveats(name.upper(), subject.samples[-1], most=max_tokens)
        for caveat in self.runs.caveats:
            self._progress.say(f"note: {caveat.message}; {caveat.advice}")

    def brought_up(self, side: int, took_ns: int) -> None:  # noqa: ARG002 - both sides share the time that is left
        """Know how long it takes until the other side can be measured."""
        if self._time_left is not None:
            self._time_left.started(took_ns)

    def repeat_begins(self, repeat: int) -> tuple[RunObserver, RunObserver]:
        """Make a run folder for each side; with the first one, the comparison's."""
        folder = self.runs.folder
        if folder is None:
            folder = self.runs.folder = new_folder(self._sessions[0].scenario, datetime.now(UTC), self._progress.say)
        for name, session, side in zip(SIDES, self._sessions, self._sides, strict=True):
            scenario = at_repeat(session.scenario, repeat)
            title = f"{scenario.report.name} {name.upper()}{repeat + 1}"
            writer = _SideWriter(
                session,
                self._progress,
                folder=folder.inside(name, f"{repeat + 1:02}"),
                scenario=replace(scenario, report=replace(scenario.report, name=title)),
                # The session's scenario may have an address that changes from start to start.
                terms=conditions(at_repeat(side, repeat)),
            )
            writer.where, writer.blocks = f"{name.upper()}, repeat {repeat + 1}", self._blocks
            writer.caveats = self.runs.caveats
            writer.run = structs.replace(writer.run, one_up=self._pairing.one_up)
            self._writers.append(self._open.enter_context(writer))
        a, b = self._writers
        return a, b

    def repeat_ended(self, repeat: int) -> bool:
        """Both runs of the repeat are complete; returns whether the ratio is known as closely as was asked for."""
        writers = self._writers
        self.close(stopped=False)
        for runs, writer in zip((self.runs.a, self.runs.b), writers, strict=True):
            runs.append(writer.run)
        until = self._pairing.until
        if until is None or repeat + 1 < min(USUAL_REPEATS, self._pairing.most):
            return False
        settings = self._sessions[0].scenario.compare
        found = widest(self.runs.a, self.runs.b, settings.fail_on or (), confidence=settings.confidence)
        if found is None:
            return False
        width, figure = found
        self._progress.say(
            f"after {repeat + 1} repeats the ratio of {figure} is known to ±{100 * width:.2g} %; "
            f"to be reached: ±{100 * until:.3g} %"
        )
        return width <= until

    def close(self, *, stopped: bool = True) -> None:
        """Save the runs under way, as far as they have come."""
        for writer in self._writers:
            writer.close(stopped=stopped)
        self._writers = []
        self._open.close()


class _SideWriter(RunWriter):
    """The run of one side in one repeat: the progress line names both, and counts the levels of all runs."""

    where: str
    blocks: Iterator[int]
    caveats: list[Reason]

    def level_ended(self, recording: LevelRecording, model: str, load: Load) -> None:
        """Keep the level; one that an abort rule ended is the last of its repeat, on both sides."""
        super().level_ended(recording, model, load)
        if recording.aborted:
            message = f"{self.where}: {load.label} was aborted ({recording.aborted})"
            advice = "this load and those after it are not compared; change --abort-on or the loads"
            self.caveats.append(Reason("aborted", message, advice))

    def model_prepared(self, subject: ModelUnderTest) -> None:
        """Keep what the first responses showed, and which process the telemetry is of by now."""
        super().model_prepared(subject)
        server, about = self._session.server, self.run.environment.get("telemetry")
        if server is not None and isinstance(about, dict) and isinstance(process := about.get("process"), dict):
            of_start = {**about, "process": {**process, "pid": server.pid}}
            self.run = structs.replace(self.run, environment={**self.run.environment, "telemetry": of_start})

    def level_begins(self, level: RunningLevel, model: str, number: int) -> None:  # noqa: ARG002 - in its own run
        """Show the level in the progress line."""
        self._model = model
        self._session.telemetry.level_begins()
        self._progress.level_begins(level, model, next(self.blocks), self.where)
