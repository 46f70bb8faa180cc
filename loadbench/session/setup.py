"""One run of a sweep, put together: the target, the measuring arm, and what becomes of each level.

Here the two arms meet: the engine hands over a recording, the reading arm makes figures of it, the run folder keeps
them before the next level begins.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from contextlib import AsyncExitStack, ExitStack, contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

import anyio
import click
import msgspec

from loadbench import __version__
from loadbench.analyze.level.output_equality import output_equality
from loadbench.analyze.level.summary import summarize
from loadbench.client.descriptors import ensure_descriptors
from loadbench.core.alongside import run_alongside
from loadbench.core.clock import MonotonicClock
from loadbench.core.errors import BadInput, ExitCode
from loadbench.core.units import NS_PER_S
from loadbench.engine.health import LoopHealth
from loadbench.engine.sweep import Sweep
from loadbench.engine.workers import WorkerPool, workers_for
from loadbench.live.progress import Progress
from loadbench.plan.models import read_models
from loadbench.plan.prompts import given_prompts, prompt_source
from loadbench.report.formats import render
from loadbench.report.run import level_line
from loadbench.results.environment import environment as describe_environment
from loadbench.results.environment import usable_cores
from loadbench.results.folder import RunFolder
from loadbench.results.hlog import hlog
from loadbench.results.recorded_prompts import known_facts, recorded_prompts
from loadbench.results.requests import RequestLog, read_requests
from loadbench.results.run import ModelStatus, Run, to_json
from loadbench.session.telemetry import RunTelemetry
from loadbench.sim.process import SimProcess
from loadbench.targets.clients import make_client, make_transport
from loadbench.targets.discovery import located
from loadbench.targets.prepare import prepare
from loadbench.targets.scrape import counters
from loadbench.telemetry.watch import check_pid

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from loadbench.client.transport import Transport
    from loadbench.engine.level import Level
    from loadbench.engine.sweep import ModelUnderTest
    from loadbench.engine.workers import DistributedLevel
    from loadbench.plan.load import Load
    from loadbench.plan.scenario import Scenario
    from loadbench.record.recorder import LevelRecording
    from loadbench.record.sample import Sample
    from loadbench.results.run import OutputEquality, RecordedPrompt
    from loadbench.targets.openai import Target
    from loadbench.targets.prepare import Prepared


def run_sweep(
    scenario: Scenario, *, environment: Mapping[str, str], as_json: bool, quiet: bool, live: bool
) -> ExitCode:
    """Measure, keep and show; returns the exit code. Everything for people goes to stderr, but for the report."""
    keeper = measured(scenario, environment=environment, quiet=quiet, live=live)
    if as_json:
        click.echo(to_json(keeper.run), nl=False)
    else:
        click.echo(render(keeper.run, "text"), nl=False)
    keeper.say(f"kept in {keeper.folder.path}")
    return keeper.exit_code()


def measured(scenario: Scenario, *, environment: Mapping[str, str], quiet: bool, live: bool) -> RunWriter:
    """Measure and keep; returns the keeper of the run, which knows its folder."""
    prompt_source(scenario.work, key="check", calibration=None)  # a prompt file is read before anything is started
    check_pid(scenario.telemetry.server_pid)
    ensure_descriptors(scenario.most_in_flight, required=scenario.load.users is not None)
    scenario, found = located(scenario, environment)
    if found:
        click.echo(f"measuring {found}", err=True)
    with ExitStack() as stack:
        if scenario.simulated:
            # A set of models is written down for a server to come: the simulated one answers to all of its names.
            names = () if scenario.target.model_set is None else scenario.target.model or ()
            simulated = stack.enter_context(SimProcess(scenario.target.profile, seed=scenario.work.seed, models=names))
            url = simulated.url
        else:
            url = str(scenario.target.url)
        progress = Progress(sys.stderr, levels=len(scenario.loads), quiet=quiet, live=live)
        return anyio.run(_measure, scenario, environment, url, progress)


async def _measure(scenario: Scenario, environment: Mapping[str, str], url: str, progress: Progress) -> RunWriter:
    workers = workers_for(scenario, usable_cores())
    prepared = await prepare(scenario, environment, url=url, say=progress.say)
    target, models, missing = prepared.target, prepared.models, prepared.missing
    progress.expect((len(models) - len(missing)) * len(scenario.loads))
    clock = MonotonicClock()
    started_at = datetime.now(UTC)
    folder = RunFolder.create(scenario.report.out or Path("results"), name=scenario.report.name, started_at=started_at)
    transport = make_transport(scenario, target, clock)
    about = describe_environment(event_loop="asyncio", stamp_source=transport.stamp_source)
    async with AsyncExitStack() as stack:
        crew = await stack.enter_async_context(WorkerPool.of(workers, target)) if workers > 1 else None
        prompts = recorded_prompts(given_prompts(scenario.work), keep_texts=scenario.report.keep_texts)
        log = stack.enter_context(
            RequestLog(
                folder.path / "requests.jsonl",
                origin_ns=clock.now_ns(),
                prompts=[prompt.hash for prompt in prompts],
                keep_texts=scenario.report.keep_texts,
            )
        )
        watch = RunTelemetry(scenario, target, folder=folder, clock=clock, origin_ns=log.origin_ns)
        await stack.enter_async_context(watch.sampling(progress.say))
        keeper = RunWriter(
            scenario,
            target,
            folder=folder,
            log=log,
            progress=progress,
            started_at=started_at,
            environment={**about, "workers": workers, "telemetry": watch.about},
            prompts=prompts,
            prepared=prepared,
            watch=watch,
        )
        sweep = Sweep(
            scenario,
            models=models,
            missing=missing,
            client_for=lambda model: make_client(scenario, target, transport, model=model, clock=clock),
            clock=clock,
            health=lambda: LoopHealth(transport),
            observer=keeper,
            crew=crew,
            counters=partial(counters, target),
            ready=prepared.ready,
            settled=watch.caught_up,
            answered=keeper.answered,
        )
        with stopping(sweep.stop):
            await _run_watched(sweep, transport, progress, keeper)
        keeper.close(stopped=sweep.stopped)
    return keeper


async def _run_watched(sweep: Sweep, transport: Transport, progress: Progress, keeper: RunWriter) -> None:
    async def work() -> None:
        try:
            await keeper.watch.measure_idle(progress.say)
            await run_alongside(sweep.run, keeper.watch.look_at_page)
        finally:
            with anyio.CancelScope(shield=True):
                await transport.aclose()

    await run_alongside(work, progress.run, partial(keeper.watch.listen, progress.say))


@contextmanager
def stopping(stop: Callable[[], None]) -> Iterator[None]:
    """Ctrl-C and SIGTERM end the run in order while the context lasts; `stop` is called in the event loop."""
    loop = asyncio.get_running_loop()

    def on_signal(_number: int, _frame: object) -> None:
        loop.call_soon_threadsafe(stop)

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class ProgressSink(Protocol):
    """Who is told how it goes: the progress line, or what stands before it."""

    def level_begins(self, level: Level | DistributedLevel, model: str, number: int) -> None:
        """A level begins."""
        ...

    def level_ended(self, text: str) -> None:
        """It is over; `text` says how it went."""
        ...

    def say(self, text: str) -> None:
        """One lasting line."""
        ...


class RunWriter:
    """Makes figures of each recording, keeps them in the run folder, and tells the progress line."""

    def __init__(  # noqa: PLR0913 - the parts of a run, each by its name
        self,
        scenario: Scenario,
        target: Target,
        *,
        folder: RunFolder,
        log: RequestLog,
        progress: ProgressSink,
        started_at: datetime,
        environment: dict[str, object],
        prompts: Sequence[RecordedPrompt] = (),
        prepared: Prepared | None = None,
        watch: RunTelemetry | None = None,
    ) -> None:
        self.folder = folder
        self.watch = watch or RunTelemetry(scenario, target)
        self._scenario = scenario
        self._target = target
        self._prepared = prepared
        self._log = log
        self._progress = progress
        self._started_at = started_at
        self._unwritten: BadInput | None = None
        self.run = Run(
            name=scenario.report.name,
            started_at=started_at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            loadbench_version=__version__,
            simulated=scenario.simulated,
            complete=False,
            question=scenario.question,
            scenario=scenario.effective(),
            origins=scenario.origins,
            environment=environment,
            prompts=list(prompts),
        )
        models = scenario.target.model_set
        self._known = {} if models is None else known_facts(read_models(models))
        self._subjects: dict[str, ModelUnderTest] = {}

    def answered(self, subject: ModelUnderTest) -> None:
        """Keep what a model's first answers were like."""
        self._subjects[subject.model] = subject

    def level_begins(self, level: Level | DistributedLevel, model: str, number: int) -> None:
        """Tell the progress line."""
        self._progress.level_begins(level, model, number)

    def sample_ended(self, sample: Sample, number: int) -> None:
        """Write the request's line."""
        try:
            self._log.add(sample, level=number)
        except OSError as error:
            self._cannot_write(BadInput(f"{self.folder.path}/requests.jsonl: {error.strerror or error}"))

    def level_ended(self, recording: LevelRecording, model: str, load: Load) -> None:
        """Summarize the level and save the run as far as it has come."""
        level = summarize(
            recording,
            target=self._target.base_url,
            model=model,
            load=load,
            failure_limit=self._scenario.limits.failures,
            origin_ns=self._log.origin_ns,
        )
        level = self.watch.completed(level, recording.window)
        models = [status for status in self.run.models if status.model != model]
        self.run = msgspec.structs.replace(
            self.run,
            levels=[*self.run.levels, level],
            models=[*models, self._status(model, "ok")],
        )
        self._progress.level_ended(level_line(level))
        self._save()

    def model_failed(self, model: str, reason: str) -> None:
        """Mark the model; the rest goes on."""
        self._progress.say(f"{model}: cannot be tested: {reason}")
        status = self._status(model, "failed", reason)
        self.run = msgspec.structs.replace(self.run, models=[*self.run.models, status])
        self._save()

    def _status(self, model: str, status: Literal["ok", "failed"], reason: str = "") -> ModelStatus:
        """What became of a model, with what is known of it."""
        found, subject = self._prepared, self._subjects.get(model)
        asked = None if found is None else found.asked.get(model)
        keeper = None if subject is None else subject.keeper
        return ModelStatus(
            model,
            status,
            reason,
            self._known.get(model) or self._known.get(asked or model),
            asked=asked,
            catalogue=None if found is None else found.entry(model),
            load_s=None if found is None else found.load_s.get(model),
            load_warm_s=None if found is None else found.load_warm_s.get(model),
            cold_ttft_s=None if subject is None else _ttft_s(subject.samples[0]),
            warm_ttft_s=None if subject is None else _ttft_s(subject.again),
            kept_warm=None if keeper is None else keeper.asked,
            kept_warm_failed=None if keeper is None else keeper.failed,
        )

    def close(self, *, stopped: bool) -> None:
        """The sweep is over."""
        self.run = msgspec.structs.replace(self.run, complete=not stopped, outputs=self._outputs())
        self._save()

    def _outputs(self) -> list[OutputEquality] | None:
        """Whether the same was answered to the same, where that was asked for and can be read back."""
        if not self._scenario.work.deterministic:
            return None
        try:
            self._log.flush()
            requests = read_requests(self.folder.path / "requests.jsonl")
            return output_equality(requests, [level.model for level in self.run.levels])
        except (BadInput, OSError):
            return None  # what could not be written has been told

    def say(self, message: str) -> None:
        """Tell people, and not the report."""
        self._progress.say(message)

    def _save(self) -> None:
        """Replace what the folder holds. A full disk does not end a measurement: it is told, and tried again."""
        try:
            self._log.flush()
            self.watch.flush()
            self.folder.write_run(self.run)
            self.folder.write("histograms.hlog", hlog(self.run, self._started_at).encode())
            self.folder.write("report.md", render(self.run, "markdown").encode())
            self._unwritten = None
        except BadInput as error:
            self._cannot_write(error)
        except OSError as error:
            self._cannot_write(BadInput(f"{self.folder.path}: {error.strerror or error}", hint="make room"))

    def _cannot_write(self, error: BadInput) -> None:
        if self._unwritten is None:
            self._progress.say(f"cannot write: {error}; the measurement goes on")
        self._unwritten = error

    def exit_code(self) -> ExitCode:
        """How the process ends; the first that holds."""
        if self._unwritten is not None:
            return ExitCode.BAD_INPUT
        if not self.run.complete:
            return ExitCode.INTERRUPTED
        if any(status.status == "failed" for status in self.run.models):
            return ExitCode.TARGET_UNAVAILABLE
        if any(level.verdict.status == "INVALID" for level in self.run.levels):
            return ExitCode.INVALID
        return self._gates()

    def _gates(self) -> ExitCode:
        decisions = {one.decision for level in self.run.levels for one in level.objectives if one.gate}
        if "FAIL" in decisions:
            return ExitCode.GATE_FAILED
        return ExitCode.INCONCLUSIVE if "UNDECIDED" in decisions else ExitCode.OK


def _ttft_s(sample: Sample | None) -> float | None:
    ttft_ns = None if sample is None else sample.since_sent(sample.first_token_ns)
    return None if ttft_ns is None else ttft_ns / NS_PER_S
