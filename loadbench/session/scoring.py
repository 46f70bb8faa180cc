"""Scoring from beginning to end: collect answers for people to rate, or have a second model judge them.

Requests are sent one after another, at temperature 0, each prompt once and unchanged. Answers that a run has kept are
used instead if the run sent the same requests.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from loadbench.analyze.quality.ratings import JUDGE
from loadbench.core import event_loop
from loadbench.core.errors import BadInput, Interrupted, TargetUnavailable
from loadbench.core.text import digest
from loadbench.engine.judge_client import failure_text, judgement
from loadbench.plan.judging import judge_prompt
from loadbench.plan.prompt_source import given_prompts
from loadbench.plan.rubric import facet_names
from loadbench.plan.settings import setting_of, settings
from loadbench.plan.sources import resolve, reusable
from loadbench.record.outcome import Outcome
from loadbench.report.formats import render
from loadbench.report.quality import own_judge
from loadbench.results.folder import RunFolder, folder_of, read_run, write_or_keep
from loadbench.results.history import foreign_name
from loadbench.results.quality import (
    ANNOTATION_FILE,
    QUALITY_FILE,
    Annotation,
    RatedResponse,
    Unrated,
    merged,
    read_annotation,
    read_quality,
)
from loadbench.results.recorded_prompts import prompt_hash
from loadbench.results.requests import read_requests
from loadbench.results.run import to_json
from loadbench.session.setup import open_session, until_stopped

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from loadbench.plan.prompts import Prompt
    from loadbench.plan.scenario import Scenario
    from loadbench.results.quality import Quality
    from loadbench.results.run import Run
    from loadbench.session.setup import Say, Session


def scoring_scenario(run: Run | None, flags: Mapping[str, object], environment: Mapping[str, str]) -> Scenario:
    """The server, models and prompts of a stub: the run's, except where the flags say otherwise.

    Raises `BadInput` if there are no given prompts, and for a run of somebody else's that chooses what only the user
    may.
    """
    reused = {} if run is None else _of_run(run, same_server=not {"url", "adapter"} & set(flags))
    scenario = resolve(flags=flags, environment=environment, command="score", reused=reused, foreign=foreign_name(run))
    if not given_prompts(scenario.work, sampled=False):
        raise BadInput("there are no given prompts whose responses could be rated", hint="give some with --prompts")
    return _unmeasured(scenario)


def judge_scenario(run: Run, flags: Mapping[str, object], environment: Mapping[str, str]) -> Scenario:
    """The judge's server and model: the run's server with its settings, or the judge's own with none of them.

    Raises `BadInput` for what cannot be used, and for a run of somebody else's without a server of the judge's own.
    """
    own_server = "url" in flags or environment.get(setting_of("judge.url").variable)
    # What a judge is sent has fields of its own.
    left_out = ("work.", "target.") if own_server else ("work.", "target.extra_body")
    reused = {key: value for key, value in _of_run(run, same_server=True).items() if not key.startswith(left_out)}
    scenario = resolve(flags=flags, environment=environment, command="judge", reused=reused, foreign=foreign_name(run))
    judge = scenario.judge
    if judge.model is None:
        raise BadInput("no model is named that judges", hint="name it with --judge-model")
    target = dataclasses.replace(
        scenario.target, model=(judge.model,), url=(judge.url,) if judge.url else scenario.target.url
    )
    origins = dict(scenario.origins)
    if judge.api_key_env is not None:
        target = dataclasses.replace(target, api_key_env=judge.api_key_env)
        origins["target.api_key_env"] = origins["judge.api_key_env"]
    return _unmeasured(dataclasses.replace(scenario, target=target, origins=origins))


def _unmeasured(scenario: Scenario) -> Scenario:
    """The scenario without what only a measurement needs."""
    return dataclasses.replace(
        scenario,
        load=dataclasses.replace(scenario.load, workers=1),
        telemetry=dataclasses.replace(scenario.telemetry, sampling="off"),
    )


def _of_run(run: Run, *, same_server: bool) -> dict[str, object]:
    """The settings of the run that say which server and models to use and what to send, by key."""
    tested = [status for status in run.models if status.status == "ok"]
    models = [name for status in tested for name in [part.model for part in status.mix] or [status.model]]
    return {**reusable(run.scenario, same_server=same_server), **({"target.model": models} if models else {})}


def stub(run_path: Path | None, scenario: Scenario, environment: Mapping[str, str], *, say: Say) -> Annotation:
    """Every model's answer to every prompt, with a null for each score; after Ctrl-C, the answers received until then.

    Raises `TargetUnavailable` if no model answered, `Interrupted` if Ctrl-C came before the first answer.
    """
    prompts = given_prompts(scenario.work, sampled=False)
    run_name = "" if run_path is None else str(run_path)
    kept = {} if run_path is None else _kept_answers(run_path, scenario, prompts)
    keys = [(model, index) for model in scenario.target.model or () for index in range(len(prompts))]
    if keys and all(key in kept for key in keys):
        answers = [_answered(model, index, prompts[index], *kept[model, index]) for model, index in keys]
        return Annotation(run=run_name, answers=answers)

    answers = []

    async def collect() -> None:
        models = scenario.target.model or ()
        async with open_session(scenario, environment, say=say, models=models) as session:
            for model in session.models:
                failure = await _unavailable(session, model)
                for index, prompt in enumerate(prompts):
                    if failure:
                        answers.append(_answered(model, index, prompt, "", None, failure=failure))
                        continue
                    say(f"{model}: response {index + 1} of {len(prompts)}")
                    limit = prompt.output_tokens or scenario.work.max_tokens
                    sample = await session.answer(model, prompt, max_tokens=limit)
                    failed = "" if sample.outcome is Outcome.OK else failure_text(sample)
                    text = "" if failed else sample.text or ""
                    answers.append(_answered(model, index, prompt, text, sample.finish_reason, failure=failed))

    complete = event_loop.run(until_stopped, collect)
    if not answers:
        raise Interrupted("stopped before the first response", hint="nothing is kept")
    if complete and all(answer.failure for answer in answers):
        raise TargetUnavailable(f"no model responded: {answers[0].failure}", hint="see `loadbench doctor`")
    return Annotation(run=run_name, answers=answers, complete=complete)


def _kept_answers(
    path: Path, scenario: Scenario, prompts: Sequence[Prompt]
) -> dict[tuple[str, int], tuple[str, str | None]]:
    """(answer, finish reason) by model and prompt, if the run kept its texts and sent the same requests as a stub."""
    run, now = read_run(path), scenario.effective()
    if (
        not run.scenario.get("work", {}).get("deterministic")
        or run.scenario.get("work", {}).get("exact_output")  # answers that were made to go on
        or [prompt.hash for prompt in run.prompts] != [prompt_hash(prompt) for prompt in prompts]
        or any(
            now[setting.section].get(setting.name) != run.scenario.get(setting.section, {}).get(setting.name)
            for setting in settings()
            if setting.decides_answers and setting.reused
        )
    ):
        return {}
    limits = [prompt.output_tokens or scenario.work.max_tokens for prompt in prompts]
    answers: dict[tuple[str, int], tuple[str, str | None]] = {}
    for request in read_requests(folder_of(path) / "requests.jsonl"):
        # A killed run has requests of a level that is not in run.json.
        index = request.prompt_index
        if request.level >= len(run.levels) or index is None or request.answer is None or request.outcome != "ok":
            continue
        if request.asked_output_tokens == limits[index]:
            key = run.levels[request.level].model, index
            answers.setdefault(key, (request.answer, request.finish_reason))
    return answers


async def _unavailable(session: Session, model: str) -> str:
    """Why a model cannot be used; empty if it can, and then it is loaded."""
    if model in session.prepared.missing:
        return session.prepared.missing[model]
    try:
        await session.prepared.ready(model)
    except TargetUnavailable as error:
        return str(error)
    return ""


def _answered(
    model: str, index: int, prompt: Prompt, answer: str, finish_reason: str | None, *, failure: str = ""
) -> RatedResponse:
    return RatedResponse(
        model=model,
        prompt=index,
        prompt_hash=prompt_hash(prompt),
        prompt_text=prompt.shown,
        answer=answer,
        answer_hash=digest(answer),
        finish_reason=finish_reason,
        failure=failure,
        scores={} if failure else dict.fromkeys(facet_names(prompt.facets)),
        checks={facet.name: facet.matches(answer) for facet in prompt.facets if facet.checked and not failure},
    )


# Ratings.


def judged(
    annotation: Annotation, scenario: Scenario, environment: Mapping[str, str], *, say: Say
) -> list[tuple[Annotation, list[Unrated]]]:
    """Every answer rated by the scenario's model, as often as it says: (ratings, answers without one) of each time.

    After Ctrl-C the last of them is not complete. Raises `TargetUnavailable` if the judge cannot be used.
    """
    turns: list[tuple[str, list[RatedResponse], list[Unrated]]] = []

    async def judge_all() -> None:
        models = scenario.target.model or ()
        async with open_session(scenario, environment, say=say, models=models) as session:
            judge = session.models[0]
            failure = await _unavailable(session, judge)
            if failure:
                raise TargetUnavailable(f"{judge} cannot judge: {failure}", hint="see `loadbench doctor`")
            if judge in {answer.model for answer in annotation.answers}:
                say(f"warning: {own_judge(judge)}; take another judge")
            max_tokens = scenario.judge.max_tokens
            answer_to = partial(session.answer, judge, max_tokens=max_tokens)
            for turn in range(scenario.judge.judgings):
                rater = f"{JUDGE}{judge}" + (f" ({turn + 1})" if turn else "")
                rated: list[RatedResponse] = []
                unrated: list[Unrated] = []
                turns.append((rater, rated, unrated))
                for number, answer in enumerate(annotation.answers, 1):
                    say(f"{rater}: response {number} of {len(annotation.answers)}")
                    if answer.failure:
                        rated.append(answer)
                        continue
                    # Every second turn names the facets in reverse order, since their order may matter to a judge.
                    facets = list(answer.scores)[:: -1 if turn % 2 else 1]
                    prompt = judge_prompt(answer.prompt_text, answer.answer, facets)
                    scores: dict[str, int | None] = dict.fromkeys(answer.scores)
                    note = ""
                    try:
                        reply = await judgement(answer_to, prompt, facets=facets, max_tokens=max_tokens)
                        scores, note = {facet: reply.scores[facet] for facet in answer.scores}, reply.reason
                    except ValueError as error:
                        unrated.append(
                            Unrated(model=answer.model, prompt=answer.prompt, rater=rater, reason=str(error))
                        )
                    rated.append(msgspec.structs.replace(answer, scores=scores, note=note))

    event_loop.run(until_stopped, judge_all)
    ratings = []
    for rater, rated, unrated in turns:
        complete = annotation.complete and len(rated) == len(annotation.answers)
        if rated:
            answers = msgspec.structs.replace(annotation, rater=rater, answers=rated, complete=complete)
            ratings.append((answers, unrated))
    return ratings


def answers_of(
    run_path: Path, environment: Mapping[str, str], *, say: Say, yes_load: tuple[str, ...] | None = None
) -> Annotation:
    """The answers that a stub collected for this run, or that are collected now, also from the hosts in `yes_load`.

    Raises `Interrupted` if collecting them was stopped.
    """
    path = folder_of(run_path) / ANNOTATION_FILE
    if path.exists():
        return read_annotation(path)
    scenario = scoring_scenario(read_run(run_path), {}, environment)
    scenario = dataclasses.replace(scenario, target=dataclasses.replace(scenario.target, yes_load=yes_load))
    annotation = stub(run_path, scenario, environment, say=say)
    write_or_keep(path, to_json(annotation))
    if not annotation.complete:
        raise Interrupted(f"{len(annotation.answers)} responses are saved in {path}, and none is rated")
    return annotation


def keep(run_path: Path, rated: Sequence[tuple[Annotation, list[Unrated]]]) -> Quality:
    """Add ratings to those in the run folder, and write its report again."""
    folder = RunFolder(folder_of(run_path))
    run = read_run(run_path)
    quality = read_quality(folder.path)
    for annotation, unrated in rated:
        quality = merged(quality, annotation, unrated)
    write_or_keep(folder.path / QUALITY_FILE, to_json(quality))
    folder.write("report.md", render(run, "markdown", quality=quality).encode())
    return quality
