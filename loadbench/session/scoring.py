"""Scoring, put together: answers collected for people to rate, ratings read back, a second model as judge.

Answers are asked for one after another, at temperature 0, each prompt once and as it is. What a run kept of its own
answers is taken instead where it was asked in just that way.
"""

from __future__ import annotations

import dataclasses
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import anyio
import msgspec

from loadbench.analyze.quality.ratings import JUDGE
from loadbench.core.clock import MonotonicClock
from loadbench.core.errors import BadInput, Interrupted, TargetUnavailable
from loadbench.core.text import digest
from loadbench.engine.judge_client import answer_to, failure_text, judgement
from loadbench.plan.judging import judge_prompt
from loadbench.plan.prompts import given_prompts
from loadbench.plan.rubric import facet_names
from loadbench.plan.scenario import settings
from loadbench.plan.sources import resolve
from loadbench.record.outcome import Outcome
from loadbench.report.formats import render
from loadbench.report.quality import own_judge
from loadbench.results.folder import RunFolder, read_run
from loadbench.results.quality import (
    ANNOTATION_FILE,
    QUALITY_FILE,
    Annotation,
    Answered,
    Unrated,
    merged,
    read_annotation,
    read_quality,
    to_json,
)
from loadbench.results.recorded_prompts import prompt_hash
from loadbench.results.requests import read_requests
from loadbench.session.setup import stopping
from loadbench.sim.command import profile_named
from loadbench.sim.process import SimProcess
from loadbench.targets.clients import make_client, make_transport
from loadbench.targets.discovery import located
from loadbench.targets.prepare import prepare

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
    from pathlib import Path

    from loadbench.client.client import Client
    from loadbench.client.transport import Transport
    from loadbench.core.clock import Clock
    from loadbench.plan.prompts import Prompt
    from loadbench.plan.scenario import Scenario
    from loadbench.results.quality import Quality
    from loadbench.results.run import Run
    from loadbench.targets.prepare import Prepared

    Say = Callable[[str], None]

# Of a run's scenario, what decides whom to ask and what.
_TAKEN = {
    "target": ("url", "adapter", "kind", "api", "transport", "profile", "api_key_env", "cacert", "insecure"),
    "work": ("prompt", "prompts", "system", "max_tokens", "seed"),
    "limits": ("connect_timeout", "first_token_timeout", "idle_timeout", "timeout"),
}
# Another server is shown no key that was meant for the run's, and is trusted no more than any.
_OF_ITS_SERVER = ("api_key_env", "cacert", "insecure")
# Whoever is asked otherwise in one of these may answer otherwise.
_DECISIVE = (("target", "url"), ("target", "adapter"), ("target", "api"), ("work", "system"), ("work", "seed"))


def scoring_scenario(run: Run | None, flags: Mapping[str, object], environment: Mapping[str, str]) -> Scenario:
    """Whom to ask and what: as the run did, but for what the flags say.

    Raises `BadInput` where there are no given prompts.
    """
    kept = {} if run is None else _of_run(run)
    if {"url", "adapter"} & set(flags):
        kept = {name: value for name, value in kept.items() if name not in _OF_ITS_SERVER}
    for group in {setting.group for setting in settings() if setting.name in flags} - {""}:
        for setting in settings():
            if setting.group == group:
                kept.pop(setting.name, None)
    scenario = resolve(flags={**kept, **flags}, environment=environment)
    if not given_prompts(scenario.work):
        raise BadInput("there are no given prompts whose answers could be rated", hint="give them with --prompts")
    return dataclasses.replace(scenario, work=dataclasses.replace(scenario.work, temperature=0.0, unique=False))


def judge_scenario(run: Run, flags: Mapping[str, object], environment: Mapping[str, str]) -> Scenario:
    """The judge's server and model, at temperature 0: the run's server, or another of which nothing else is known.

    Raises `BadInput` for what cannot be used.
    """
    left_out = {"model", *_TAKEN["work"], *(_TAKEN["target"] if "url" in flags else ())}
    kept = {name: value for name, value in _of_run(run).items() if name not in left_out}
    scenario = resolve(flags={**kept, **flags}, environment=environment)
    return dataclasses.replace(scenario, work=dataclasses.replace(scenario.work, temperature=0.0))


def _of_run(run: Run) -> dict[str, object]:
    shown = {
        name: value
        for section, names in _TAKEN.items()
        for name in names
        if (value := run.scenario.get(section, {}).get(name)) is not None
    }
    models = [status.model for status in run.models if status.status == "ok"]
    return {**shown, **({"model": models} if models else {})}


def stub(run_path: Path | None, scenario: Scenario, environment: Mapping[str, str], *, say: Say) -> Annotation:
    """Every model's answer to every prompt, with a null for each score; of Ctrl-C, those that had come by then.

    Raises `TargetUnavailable` where no model answered, `Interrupted` where none had yet.
    """
    prompts = given_prompts(scenario.work)
    run = None if run_path is None else read_run(run_path)
    kept = {} if run_path is None or run is None else _kept_answers(run_path, run, scenario, prompts)
    told = "" if run_path is None else str(run_path)
    wanted = [(model, index) for model in scenario.target.model or () for index in range(len(prompts))]
    if wanted and all(one in kept for one in wanted):
        answers = [_answered(model, index, prompts[index], *kept[model, index]) for model, index in wanted]
        return Annotation(run=told, answers=answers)
    answers = []
    complete = anyio.run(_until_stopped, partial(_collect, scenario, environment, prompts, answers, say))
    if not answers:
        raise Interrupted("no answer had come yet", hint="nothing is kept")
    if complete and all(one.failure for one in answers):
        raise TargetUnavailable(f"no model answered: {answers[0].failure}", hint="see `loadbench doctor`")
    return Annotation(run=told, answers=answers, complete=complete)


def _kept_answers(
    path: Path, run: Run, scenario: Scenario, prompts: Sequence[Prompt]
) -> dict[tuple[str, int], tuple[str, str | None]]:
    """(answer, finish reason) by model and prompt, if the run kept its texts and asked as a stub would."""
    now = scenario.effective()
    if (
        not run.scenario.get("work", {}).get("deterministic")
        or [one.hash for one in run.prompts] != [prompt_hash(one.text) for one in prompts]
        or any(now[section].get(name) != run.scenario.get(section, {}).get(name) for section, name in _DECISIVE)
    ):
        return {}
    limits = [prompt.output_tokens or scenario.work.max_tokens for prompt in prompts]
    found: dict[tuple[str, int], tuple[str, str | None]] = {}
    for one in read_requests(folder_of(path) / "requests.jsonl"):
        # A run that was killed has requests of a level that it did not come to sum up.
        known = one.level < len(run.levels) and one.prompt_index is not None and one.outcome == "ok"
        if known and one.answer is not None and one.asked_output_tokens == limits[one.prompt_index or 0]:
            key = run.levels[one.level].model, one.prompt_index or 0
            found.setdefault(key, (one.answer, one.finish_reason))
    return found


async def _until_stopped(work: Callable[[], Awaitable[None]]) -> bool:
    """Whether the work came to its end; Ctrl-C ends it before, and what it has done by then stands."""
    with anyio.CancelScope() as scope, stopping(scope.cancel):
        await work()
    return not scope.cancelled_caught


async def _collect(
    scenario: Scenario,
    environment: Mapping[str, str],
    prompts: Sequence[Prompt],
    answers: list[Answered],
    say: Say,
) -> None:
    async with _asked(scenario, environment, say) as asked:
        for model in asked.models:
            failure = await asked.failure(model)
            for index, prompt in enumerate(prompts):
                if failure:
                    answers.append(_answered(model, index, prompt, "", None, failure=failure))
                    continue
                say(f"{model}: answer {index + 1} of {len(prompts)}")
                limit = prompt.output_tokens or scenario.work.max_tokens
                sample = await answer_to(asked.client(model), prompt.text, max_tokens=limit)
                failed = "" if sample.outcome is Outcome.OK else failure_text(sample)
                text = "" if failed else sample.answer or ""
                answers.append(_answered(model, index, prompt, text, sample.finish_reason, failure=failed))


@dataclass(frozen=True, slots=True)
class _Asked:
    """Whoever is asked: found, loaded where that is for us to do, and asked by the client that measures."""

    prepared: Prepared
    transport: Transport
    clock: Clock

    @property
    def models(self) -> tuple[str, ...]:
        """As requests name them."""
        return self.prepared.models

    async def failure(self, model: str) -> str:
        """Why a model cannot be asked; empty where it can, and then it is loaded."""
        if model in self.prepared.missing:
            return self.prepared.missing[model]
        try:
            await self.prepared.ready(model)
        except TargetUnavailable as error:
            return str(error)
        return ""

    def client(self, model: str) -> Client:
        """The client of one model."""
        found = self.prepared
        return make_client(found.scenario, found.target, self.transport, model=model, clock=self.clock)


@asynccontextmanager
async def _asked(scenario: Scenario, environment: Mapping[str, str], say: Say) -> AsyncIterator[_Asked]:
    """Whom the scenario names, while the context lasts; raises as `prepare` does."""
    with ExitStack() as stack:
        scenario, found = located(scenario, environment)
        if found:
            say(f"asking {found}")
        url = str(scenario.target.url)
        if scenario.simulated:
            names = scenario.target.model or ()
            profile = profile_named(scenario.target.profile).name
            url = stack.enter_context(SimProcess(profile, seed=scenario.work.seed, models=names)).url
        prepared = await prepare(scenario, environment, url=url, say=say)
        clock = MonotonicClock()
        transport = make_transport(scenario, prepared.target, clock)
        try:
            yield _Asked(prepared, transport, clock)
        finally:
            with anyio.CancelScope(shield=True):
                await transport.aclose()


def _answered(
    model: str, index: int, prompt: Prompt, answer: str, finish_reason: str | None, *, failure: str = ""
) -> Answered:
    return Answered(
        model=model,
        prompt=index,
        prompt_hash=prompt_hash(prompt.text),
        prompt_text=prompt.text,
        answer=answer,
        answer_hash=digest(answer),
        finish_reason=finish_reason,
        failure=failure,
        scores={} if failure else dict.fromkeys(facet_names(prompt.facets)),
        checks={facet.name: facet.found_in(answer) for facet in prompt.facets if facet.checked and not failure},
    )


# Ratings.


def judged(
    annotation: Annotation,
    scenario: Scenario,
    environment: Mapping[str, str],
    *,
    judgings: int,
    max_tokens: int,
    say: Say,
) -> list[tuple[Annotation, list[Unrated]]]:
    """Every answer rated by the scenario's model, so many times: the ratings of each judging, and what has none.

    Stopped by Ctrl-C, the last of them is not complete. Raises `TargetUnavailable` where the judge cannot be asked.
    """
    made: list[_Judging] = []
    work = partial(_judge, annotation, scenario, environment, judgings=judgings, max_tokens=max_tokens, made=made)
    anyio.run(_until_stopped, partial(work, say=say))
    return [(one.of(annotation), one.unrated) for one in made if one.rated]


@dataclass(slots=True)
class _Judging:
    """One judging, as far as it has come."""

    rater: str
    rated: list[Answered] = field(default_factory=list)
    unrated: list[Unrated] = field(default_factory=list)

    def of(self, annotation: Annotation) -> Annotation:
        """The annotation with these ratings; complete if it was, and every answer was come to."""
        complete = annotation.complete and len(self.rated) == len(annotation.answers)
        return msgspec.structs.replace(annotation, rater=self.rater, answers=self.rated, complete=complete)


async def _judge(
    annotation: Annotation,
    scenario: Scenario,
    environment: Mapping[str, str],
    *,
    judgings: int,
    max_tokens: int,
    made: list[_Judging],
    say: Say,
) -> None:
    async with _asked(scenario, environment, say) as asked:
        judge = asked.models[0]
        failure = await asked.failure(judge)
        if failure:
            raise TargetUnavailable(f"{judge} cannot judge: {failure}", hint="see `loadbench doctor`")
        if judge in {one.model for one in annotation.answers}:
            say(f"warning: {own_judge(judge)}; take another judge")
        for turn in range(judgings):
            judging = _Judging(f"{JUDGE}{judge}" + (f" ({turn + 1})" if turn else ""))
            made.append(judging)
            for number, one in enumerate(annotation.answers, 1):
                say(f"{judging.rater}: answer {number} of {len(annotation.answers)}")
                await _rate(asked, judging, one, turn=turn, max_tokens=max_tokens)


async def _rate(asked: _Asked, judging: _Judging, one: Answered, *, turn: int, max_tokens: int) -> None:
    """One answer more that is rated, or not. A second judging asks for the facets the other way round."""
    if one.failure:
        judging.rated.append(one)
        return
    facets = list(one.scores)[:: -1 if turn % 2 else 1]
    prompt = judge_prompt(one.prompt_text, one.answer, facets)
    scores: dict[str, int | None] = dict.fromkeys(one.scores)
    note = ""
    try:
        client = asked.client(asked.models[0])
        reply = await judgement(client, prompt, facets=facets, max_tokens=max_tokens)
        scores, note = {facet: reply.scores[facet] for facet in one.scores}, reply.reason
    except ValueError as error:
        judging.unrated.append(Unrated(model=one.model, prompt=one.prompt, rater=judging.rater, reason=str(error)))
    judging.rated.append(msgspec.structs.replace(one, scores=scores, note=note))


def folder_of(path: Path) -> Path:
    """The run folder that a path names, by itself or by its `run.json`."""
    return path if path.is_dir() else path.parent


def answers_of(run_path: Path, environment: Mapping[str, str], *, say: Say) -> Annotation:
    """The answers that were collected for this run, or are now; raises `Interrupted` where that was stopped."""
    path = folder_of(run_path) / ANNOTATION_FILE
    if path.exists():
        return read_annotation(path)
    annotation = stub(run_path, scoring_scenario(read_run(run_path), {}, environment), environment, say=say)
    RunFolder(path.parent).write(ANNOTATION_FILE, to_json(annotation))
    if not annotation.complete:
        raise Interrupted(f"{len(annotation.answers)} answers are kept in {path}, and none is rated")
    return annotation


def keep(run_path: Path, rated: Sequence[tuple[Annotation, list[Unrated]]]) -> Quality:
    """Put ratings into the run folder, beside those of others, and write its report anew."""
    folder = RunFolder(folder_of(run_path))
    run = read_run(run_path)
    quality = read_quality(folder.path)
    for annotation, unrated in rated:
        quality = merged(quality, annotation, unrated)
    folder.write(QUALITY_FILE, to_json(quality))
    folder.write("report.md", render(run, "markdown", quality=quality).encode())
    return quality
