"""Keeps one run: its folder, the request log, run.json, the histograms and the report, and the status of each model."""

from __future__ import annotations

import os
import shlex
import weakref
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Literal, Self

import msgspec

from loadbench import __version__
from loadbench.analyze.level.exit_code import exit_code_of
from loadbench.analyze.level.output_equality import output_equality
from loadbench.analyze.level.overload import judge_overload
from loadbench.analyze.level.summary import load_result, summarize
from loadbench.core.errors import BadInput, ExitCode
from loadbench.core.units import NS_PER_S
from loadbench.engine.worker_pool import WorkerLog
from loadbench.plan.conditions import content_hash
from loadbench.plan.models import read_models
from loadbench.plan.prompt_source import data_set, given_prompts
from loadbench.report.formats import render
from loadbench.report.plan import space_text
from loadbench.report.run import level_line
from loadbench.report.values import counted
from loadbench.results.append_log import lock
from loadbench.results.folder import RESULTS, RunFolder, RunPlace
from loadbench.results.history import remember
from loadbench.results.hlog import hlog
from loadbench.results.recorded_prompts import data_set_result, known_facts, recorded_prompts
from loadbench.results.requests import RequestLog, read_requests
from loadbench.results.run import MixPart, ModelStatus, Run, UnderWay, to_json
from loadbench.targets.error_hints import advice_for

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from loadbench.core.errors import WorkersEnded
    from loadbench.engine.observers import RunningLevel
    from loadbench.engine.target import ModelUnderTest
    from loadbench.live.progress import Progress
    from loadbench.plan.load import Load
    from loadbench.plan.scenario import Scenario
    from loadbench.record.recorder import LevelRecording
    from loadbench.record.sample import Sample
    from loadbench.results.run import LevelResult, OutputEquality
    from loadbench.session.setup import Session


class RunWriter:
    """`loadbench.engine.observers.RunObserver` of one run. Enter it for the length of the run.

    `run.json` is there from the beginning, and says before each level which one is under way. Every level is summarized
    and saved before the next begins. A full disk does not end a measurement: the run goes on in another place
    (`RunFolder.save`). Without a `folder` a new one is made; `before` is the run in it that this one continues.
    `scenario` is the session's unless it is given; `terms` are the conditions that a resumed run must share. Raises
    `BadInput` if the folder cannot be made.
    """

    def __init__(
        self,
        session: Session,
        progress: Progress,
        *,
        folder: RunFolder | None = None,
        scenario: Scenario | None = None,
        terms: dict[str, object] | None = None,
        before: Run | None = None,
    ) -> None:
        self._session = session
        self._scenario = scenario = scenario or session.scenario
        self._progress = progress
        self._model = ""  # of the level that is running
        self.ended: WorkersEnded | None = None  # why the run could not go on
        self._is_resumed = before is not None
        self._again_from: int | None = None  # the byte from which on lines are of levels to be measured again
        self._tested: dict[str, ModelUnderTest] = {}
        # By now the models are warm.
        self._cold = {} if before is None else {status.model: status.cold_ttft_s for status in before.models}
        models = scenario.target.model_set
        self._known = {} if models is None else known_facts(read_models(models))
        prompts = recorded_prompts(given_prompts(scenario.work), keep_texts=scenario.report.keep_texts)
        given = data_set(scenario.work)
        terms = terms or {}
        # A kill from here to the first save leaves a folder with nothing in it.
        self._started_at = datetime.now(UTC) if before is None else _moment(before.started_at)
        self.folder = folder = folder or new_folder(scenario, self._started_at, progress.say)
        folder.place.say = progress.say
        origin_ns = session.clock.now_ns()
        self._log = RequestLog(
            folder,
            origin_ns=origin_ns,
            prompts=[prompt.hash for prompt in prompts],
            keep_texts=scenario.report.keep_texts,
        )
        if before is not None:
            self._again_from, latest_ns, damaged = self._log.look_through(len(before.levels))
            if damaged:
                progress.say(f"{self._log.path}: {counted(damaged, 'damaged line')}, left out of all reports")
            # Times go on after those of the run so far, also if somebody has set the wall clock back.
            latest_ns = max([latest_ns, *(level.window_ns[1] for level in before.levels if level.window_ns)])
            passed_ns = (datetime.now(UTC) - self._started_at) // timedelta(microseconds=1) * 1000
            origin_ns = self._log.origin_ns = origin_ns - max(passed_ns, latest_ns)
        # The workers of a cluster write the lines of their requests themselves.
        self._records = None if session.workers is None else session.workers.records
        if self._records is not None:
            take = None if scenario.leaves_requests else self._log.add_lines
            self._records.log = WorkerLog(origin_ns, scenario.report.keep_texts, take)
        session.telemetry.keep_in(folder, origin_ns=origin_ns)
        if session.server is not None:
            session.server.keep_in(folder)
        effective, origins = scenario.effective(), scenario.recorded_origins()
        if before is not None:  # the run stays where it is
            effective["report"] |= {key: before.scenario.get("report", {}).get(key) for key in ("name", "out")}
            origins |= {key: before.origins.get(key, "") for key in ("report.name", "report.out")}
        self.run = Run(
            name=scenario.report.name if before is None else before.name,
            started_at=self._started_at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            loadbench_version=__version__,
            simulated=scenario.simulated,
            complete=False,
            command=scenario.command,
            question=scenario.question or ("" if before is None else before.question),
            scenario=effective,
            origins=origins,
            conditions=terms,
            content_hash=content_hash(terms) if terms else "",
            environment=dict(session.environment),
            prompts=prompts,
            data_set=None if given is None else data_set_result(given),
            levels=[] if before is None else before.levels,
            servers=list(dict.fromkeys([*(() if before is None else before.servers), *session.servers])),
            models=[] if before is None else before.models,
            adapted=[] if before is None else before.adapted,
        )
        remember(self.run.scenario)

    def __enter__(self) -> Self:
        self._save(reports=False)
        if self._again_from is not None:  # not before run.json has these levels no more
            self._log.set_aside(self._again_from)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._log.__exit__(kind, error, trace)
        try:
            self.folder.place.wait()
        finally:
            if self.folder.path == self.folder.place.path:  # else there are others in it
                self.folder.place.release()
            self._session.telemetry.leave_folder()

    def model_prepared(self, subject: ModelUnderTest) -> None:
        """Keep what the first responses of a model showed."""
        self._tested[subject.model] = subject
        if self._session.server is not None:
            self._session.server.first_tokens(_ttft_s(subject.cold), _ttft_s(subject.warm))
        self._progress.responded(subject.model, subject.response_ns)
        known, level = {(decision.field, decision.to) for decision in self.run.adapted}, len(self.run.levels)
        adapted = self.run.adapted + [
            msgspec.structs.replace(decision, from_level=level)
            for decision in self._session.prepared.adapted
            if (decision.field, decision.to) not in known
        ]
        self.run = msgspec.structs.replace(self.run, adapted=adapted, exact_output=self._session.prepared.exact)

    def level_planned(self, load: Load, model: str, number: int) -> None:  # noqa: ARG002 - it is the next in run.json
        """Record which level the requests from now on belong to."""
        self.run = msgspec.structs.replace(self.run, under_way=UnderWay(model=model, load=load_result(load)))
        self._save(reports=False)

    def level_begins(self, level: RunningLevel, model: str, number: int) -> None:
        """Show the level in the progress line."""
        self._model = model
        self._session.telemetry.level_begins()
        if (feed := self._session.feed) is not None:
            feed.level_begins(level, model, number, self._session.target.base_url)
        self._progress.level_begins(level, model, number)

    def sample_ended(self, sample: Sample, number: int) -> None:
        """Write the request's line, and pass it on to those who want metrics."""
        url = self._session.target.base_url
        if self._records is None:
            self._log.add_sample(sample, level=number, model=self._model, url=url)
        if (feed := self._session.feed) is not None:
            feed.sample_ended(sample, self._model, url, self._scenario.target.api)

    def level_ended(self, recording: LevelRecording, model: str, load: Load) -> None:
        """Summarize the level and save the run so far."""
        target, others = self._session.target, self._session.prepared.others
        level = summarize(
            recording,
            target=target.base_url,
            targets=[one.base_url for one in (target, *others)] if others else [],
            model=model,
            load=load,
            failure_limit=self._scenario.limits.failures,
            listed=target.models,
            exact_output=self._scenario.work.exact_output,
            origin_ns=self._log.origin_ns,
        )
        level = self._session.telemetry.completed(level, recording.window)
        if self._session.server is not None:
            gauges = {} if level.telemetry is None else level.telemetry.gauges
            resident = gauges.get("process_rss_bytes")
            self._session.server.look_at_memory(seen_bytes=0.0 if resident is None else resident.max)
        # The words of a request that was cancelled are not the server's.
        failures = [
            one if one.outcome == "cancelled" else msgspec.structs.replace(one, advice=advice_for(one.detail))
            for one in level.failures
        ]
        level = msgspec.structs.replace(level, failures=failures)
        models = [status for status in self.run.models if status.model != model]
        earlier, levels = self.run.levels, judge_overload([*self.run.levels, level])
        models.append(self._status(model, "ok"))
        self.run = msgspec.structs.replace(self.run, levels=levels, models=models, under_way=None)
        self._save()
        for before, now in zip(earlier, levels, strict=False):
            if before.verdict.status != now.verdict.status:
                self._progress.say(f"{now.load.label} is {now.verdict.status}, as {level.load.label} shows")
        is_probe = self._scenario.command == "capacity"
        self._progress.level_ended(level_line(levels[-1], is_probe=is_probe), recording, levels[-1])

    def levels_of(self, model: str) -> list[LevelResult]:
        """The levels of a model so far, in their order."""
        return [level for level in self.run.levels if level.model == model]

    def model_failed(self, model: str, reason: str) -> None:
        """Record that a model cannot be tested. If it is the only one, the error of the run says so,
        unless it has levels, whose report comes then."""
        if len(self._session.prepared.models) > 1:
            self._progress.say(f"{model}: cannot be tested: {reason}")
        elif self.run.levels:
            self._progress.say(reason)
        self._progress.model_failed(model)
        # A run that was resumed may know it already.
        models = [status for status in self.run.models if status.model != model]
        self.run = msgspec.structs.replace(self.run, models=[*models, self._status(model, "failed", reason)])
        self._save()

    def _status(self, model: str, status: Literal["ok", "failed"], reason: str = "") -> ModelStatus:
        """The outcome of a model's test, with all that is known about the model."""
        prepared, subject = self._session.prepared, self._tested.get(model)
        shares = self._scenario.target.mix_models or ()
        requested = prepared.requested_names.get(model)
        keep_warm = None if subject is None else subject.keep_warm
        return ModelStatus(
            model,
            status,
            reason,
            self._known.get(model) or self._known.get(requested or model),
            asked=requested,
            catalogue=prepared.entry(model),
            load_s=prepared.load_s.get(model),
            load_warm_s=prepared.load_warm_s.get(model),
            cold_ttft_s=self._cold.get(model) or (None if subject is None else _ttft_s(subject.cold)),
            warm_ttft_s=None if subject is None else _ttft_s(subject.warm),
            kept_warm=None if keep_warm is None else keep_warm.sent,
            kept_warm_failed=None if keep_warm is None else keep_warm.failed,
            mix=[
                MixPart(
                    model=part,
                    share=share.weight / sum(one.weight for one in shares),
                    asked=prepared.requested_names.get(part),
                    load_s=prepared.load_s.get(part),
                    load_warm_s=prepared.load_warm_s.get(part),
                )
                for part, share in zip(prepared.mix, shares if prepared.mix else (), strict=True)
            ],
        )

    def close(self, *, stopped: bool) -> None:
        """Record the end of the run; one that was stopped is not complete."""
        # A model that responded is recorded even if none of its levels was measured.
        recorded = {status.model for status in self.run.models}
        models = [*self.run.models, *(self._status(model, "ok") for model in self._tested if model not in recorded)]
        self.run = msgspec.structs.replace(
            self.run, complete=not stopped, models=models, outputs=self._outputs(), under_way=None
        )
        self._save()

    def cannot_go_on(self, error: WorkersEnded, *, is_kept: bool = False) -> None:
        """Say why the run ends before its end, and how it goes on; raises the error again where nothing is kept: no
        level, and without `is_kept` nothing before this run."""
        if not (self.run.levels or is_kept):
            raise error
        self.ended = error
        # A part of a search that was resumed does not know the whole.
        path = "with the same folder" if self._is_resumed else shlex.quote(str(self.folder.place.path))
        self._progress.say(f"error: {error}; what was measured is kept, and --resume {path} goes on")

    def _outputs(self) -> list[OutputEquality] | None:
        """Whether equal requests got equal responses; `None` unless the run is deterministic and can be read back."""
        if not self._scenario.work.deterministic:
            return None
        self._log.flush()
        try:
            requests = read_requests(self.folder.path / "requests.jsonl")
            return output_equality(requests, [level.model for level in self.run.levels])
        except (BadInput, OSError):
            return None  # the message about the file has been printed

    def _save(self, *, reports: bool = True) -> None:
        """Replace the files of the run, each for itself, or run.json alone."""
        self._log.flush()
        self._session.telemetry.flush()
        server = self._session.server
        self.run = msgspec.structs.replace(
            self.run,
            unwritten_requests=self._log.waiting,
            server_start=self.run.server_start if server is None else server.record,
        )
        self.folder.save("run.json", to_json(self.run))
        if not reports:
            return
        self.folder.save("histograms.hlog", hlog(self.run, self._started_at).encode())
        self.folder.save("report.md", render(self.run, "markdown").encode())

    def exit_code(self) -> ExitCode:
        """What the measurement says."""
        if self.ended is not None:
            return self.ended.exit_code
        return exit_code_of(self.run, undecided=self._scenario.slo.undecided)


def new_folder(scenario: Scenario, started_at: datetime, say: Callable[[str], None]) -> RunFolder:
    """The folder of a run that begins now; raises `BadInput` if it cannot be made. It reports what it cannot write."""
    folder = RunFolder.create(scenario.report.out or RESULTS, name=scenario.report.name, started_at=started_at)
    folder.place.say = say
    folder.place.hold = _hold
    _hold(folder.place)
    text, is_too_little = space_text(scenario)
    if is_too_little:
        say(f"warning: there may be too little room: {text}")
    return folder


def _hold(place: RunPlace) -> None:
    """Nobody else continues a run that is under way: between two models, or repeats, no log of it is open."""
    with suppress(OSError):  # some systems open no folders
        held = os.open(place.path, os.O_RDONLY)
        place.release = weakref.finalize(place, os.close, held)
        lock(held)


def _moment(text: str) -> datetime:
    """When a run began; raises `BadInput` for what is no time."""
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        hint = "the file was changed: restore it"
        raise BadInput(f"run.json: started_at: {text!r:.80} is no time", hint=hint) from None


def _ttft_s(sample: Sample | None) -> float | None:
    ttft_ns = None if sample is None else sample.since_sent(sample.first_token_ns)
    return None if ttft_ns is None else ttft_ns / NS_PER_S
