"""Scoring, put together: answers collected for people to rate, ratings read back, a second model as judge.

Answers are asked for one after another, at temperature 0, each prompt once and as it is. What a run kept of its own
answers is taken instead where it was asked in just that way.
"""

from __future__ import annotations

import dataclasses
from contextlib import ExitStack, asynccontextmanager
from typing import TYPE_CHECKING

import anyio
import msgspec

from loadbench.core.clock import MonotonicClock
from loadbench.core.errors import BadInput, TargetUnavailable
from loadbench.core.text import digest
from loadbench.engine.asking import answer_to, failure_text, judgement
from loadbench.plan.judging import judge_prompt
from loadbench.plan.prompts import given_prompts
from loadbench.plan.rubric import facet_names
from loadbench.plan.scenario import settings
from loadbench.plan.sources import resolve
from loadbench.record.outcome import Outcome
from loadbench.report.markdown import markdown
from loadbench.results.asked import prompt_hash
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
from loadbench.results.requests import read_requests
from loadbench.sim.process import SimProcess
from loadbench.targets.clients import make_client, make_transport
from loadbench.targets.discovery import located
from loadbench.targets.openai import choose_models, find

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence
    from pathlib import Path

    from loadbench.client.client import Client
    from loadbench.core.clock import Clock
    from loadbench.plan.prompts import Prompt
    from loadbench.plan.scenario import Scenario
    from loadbench.results.quality import Quality
    from loadbench.results.run import Run

# Of a run's scenario, what decides whom to ask and what.
_TAKEN = {
    "target": ("url", "kind", "api", "transport", "profile", "api_key_env", "cacert", "insecure"),
    "work": ("prompt", "prompts", "system", "max_tokens", "seed"),
    "limits": ("connect_timeout", "first_token_timeout", "idle_timeout", "timeout"),
}


def scoring_scenario(run: Run | None, flags: Mapping[str, object], environment: Mapping[str, str]) -> Scenario:
    """Whom to ask and what: as the run did, but for what the flags say.

    Raises `BadInput` where there are no given prompts.
    """
    kept = {} if run is None else _of_run(run)
    for group in {setting.group for setting in settings() if setting.name in flags} - {""}:
        for setting in settings():
            if setting.group == group:
                kept.pop(setting.name, None)
    scenario = resolve(flags={**kept, **flags}, environment=environment)
    if not given_prompts(scenario.work):
        raise BadInput("there are no given prompts whose answers could be rated", hint="give them with --prompts")
    return dataclasses.replace(scenario, work=dataclasses.replace(scenario.work, temperature=0.0, unique=False))


def judge_scenario(run: Run, flags: Mapping[str, object], environment: Mapping[str, str]) -> Scenario:
    """The judge's server and model: the run's server, but for what the flags say; always at temperature 0."""
    kept = {name: value for name, value in _of_run(run).items() if name not in {"model", *_TAKEN["work"]}}
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


def stub(run_path: Path | None, scenario: Scenario, environment: Mapping[str, str]) -> Annotation:
    """Every model's answer to every prompt, with a null for each score."""
    prompts = given_prompts(scenario.work)
    run = None if run_path is None else read_run(run_path)
    kept = {} if run_path is None or run is None else _kept_answers(run_path, run, prompts)
    wanted = scenario.target.model or ()
    if kept and all((model, index) in kept for model in wanted for index in range(len(prompts))):
        answers = [
            _answered(model, index, prompt, *kept[model, index])
            for model in wanted
            for index, prompt in enumerate(prompts)
        ]
    else:
        answers = anyio.run(_collect, scenario, environment, prompts)
    return Annotation(run="" if run_path is None else str(run_path), answers=answers)


def _kept_answers(path: Path, run: Run, prompts: Sequence[Prompt]) -> dict[tuple[str, int], tuple[str, str | None]]:
    """(answer, finish reason) by model and prompt, if the run kept its texts and asked as a stub would."""
    work = run.scenario.get("work", {})
    if not work.get("deterministic") or [one.hash for one in run.prompts] != [prompt_hash(one.text) for one in prompts]:
        return {}
    found: dict[tuple[str, int], tuple[str, str | None]] = {}
    for one in read_requests(folder_of(path) / "requests.jsonl"):
        if one.outcome == "ok" and one.answer is not None and one.prompt_index is not None:
            found.setdefault((run.levels[one.level].model, one.prompt_index), (one.answer, one.finish_reason))
    return found


async def _collect(scenario: Scenario, environment: Mapping[str, str], prompts: Sequence[Prompt]) -> list[Answered]:
    answers = []
    async with _clients(scenario, environment) as (client_for, models, missing, clock):
        for model in models:
            for index, prompt in enumerate(prompts):
                if model in missing:
                    answers.append(_answered(model, index, prompt, "", None, failure=missing[model]))
                    continue
                limit = prompt.output_tokens or scenario.work.max_tokens
                sample = await answer_to(client_for(model), clock, prompt.text, max_tokens=limit)
                failure = "" if sample.outcome is Outcome.OK else failure_text(sample)
                text = "" if failure else sample.answer or ""
                answers.append(_answered(model, index, prompt, text, sample.finish_reason, failure=failure))
    if all(one.failure for one in answers):
        raise TargetUnavailable(f"no model answered: {answers[0].failure}", hint="see `loadbench doctor`")
    return answers


@asynccontextmanager
async def _clients(
    scenario: Scenario, environment: Mapping[str, str]
) -> AsyncIterator[tuple[Callable[[str], Client], Sequence[str], Mapping[str, str], Clock]]:
    """A client for each model of the scenario, the models, and those that the server lacks with the reason."""
    with ExitStack() as stack:
        scenario, _ = located(scenario, environment)
        url = scenario.target.url
        if url is None:
            names = scenario.target.model or ()
            url = stack.enter_context(SimProcess(scenario.target.profile, seed=scenario.work.seed, models=names)).url
        clock = MonotonicClock()
        target = await find(scenario, environment, url=url)
        models, missing = choose_models(target, scenario.target.model)
        transport = make_transport(scenario, target, clock)
        try:
            yield (
                lambda model: make_client(scenario, target, transport, model=model, clock=clock),
                models,
                missing,
                clock,
            )
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
    say: Callable[[str], None],
) -> list[tuple[Annotation, list[Unrated]]]:
    """Every answer rated by the scenario's model, so many times: the ratings of each judging, and what has none."""
    return anyio.run(_judge, annotation, scenario, environment, judgings, max_tokens, say)


async def _judge(
    annotation: Annotation,
    scenario: Scenario,
    environment: Mapping[str, str],
    judgings: int,
    max_tokens: int,
    say: Callable[[str], None],
) -> list[tuple[Annotation, list[Unrated]]]:
    made = []
    async with _clients(scenario, environment) as (client_for, models, _, clock):
        judge = models[0]
        client = client_for(judge)
        for turn in range(judgings):
            rater = f"judge {judge}" + (f" ({turn + 1})" if turn else "")
            rated: list[Answered] = []
            unrated: list[Unrated] = []
            for number, one in enumerate(annotation.answers, 1):
                say(f"{rater}: answer {number} of {len(annotation.answers)}")
                if one.failure:
                    rated.append(one)
                    continue
                try:
                    rated.append(await _rated(client, clock, one, turn=turn, max_tokens=max_tokens))
                except ValueError as error:
                    rated.append(msgspec.structs.replace(one, scores=dict.fromkeys(one.scores), note=""))
                    unrated.append(Unrated(model=one.model, prompt=one.prompt, rater=rater, reason=str(error)))
            made.append((msgspec.structs.replace(annotation, rater=rater, answers=rated), unrated))
    return made


async def _rated(client: Client, clock: Clock, one: Answered, *, turn: int, max_tokens: int) -> Answered:
    """The answer with the judge's scores. A second judging asks for the facets the other way round."""
    facets = list(one.scores)[:: -1 if turn % 2 else 1]
    prompt = judge_prompt(one.prompt_text, one.answer, facets)
    reply = await judgement(client, clock, prompt, facets=facets, max_tokens=max_tokens)
    return msgspec.structs.replace(one, scores={facet: reply.scores[facet] for facet in one.scores}, note=reply.reason)


def folder_of(path: Path) -> Path:
    """The run folder that a path names, by itself or by its `run.json`."""
    return path if path.is_dir() else path.parent


def answers_of(run_path: Path, flags: Mapping[str, object], environment: Mapping[str, str]) -> Annotation:
    """The answers that were collected for this run, or are now."""
    path = folder_of(run_path) / ANNOTATION_FILE
    if path.exists():
        return read_annotation(path)
    scenario = scoring_scenario(read_run(run_path), flags, environment)
    annotation = stub(run_path, scenario, environment)
    RunFolder(path.parent).write(ANNOTATION_FILE, to_json(annotation))
    return annotation


def keep(run_path: Path, rated: Sequence[tuple[Annotation, list[Unrated]]]) -> Quality:
    """Put ratings into the run folder, beside those of others, and write its report anew."""
    folder = RunFolder(folder_of(run_path))
    run = read_run(run_path)
    quality = read_quality(folder.path)
    for annotation, unrated in rated:
        quality = merged(quality, annotation, unrated)
    folder.write(QUALITY_FILE, to_json(quality))
    folder.write("report.md", markdown(run, quality=quality).encode())
    return quality
