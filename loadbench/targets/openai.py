"""Finds an OpenAI-compatible endpoint, lists its models and sends a first request, before any load is generated.

Every mistake that shows in advance is refused here, with its cause and remedy: an unknown host, a port that refuses
connections, the wrong protocol or path, a page of HTML, a model that the server does not have.
"""

from __future__ import annotations

import re
from base64 import b64encode
from dataclasses import replace
from http import HTTPStatus
from typing import TYPE_CHECKING

from loadbench.client.local_ports import check_sources
from loadbench.client.tls import tls_context
from loadbench.core.errors import BadInput, TargetUnavailable
from loadbench.plan.extra_body import LIMIT_FIELDS
from loadbench.plan.server_url import ServerUrl, origin_of, redirect_target, shown_url
from loadbench.plan.settings import DEFAULT, Source
from loadbench.plan.sources import gets_default_key
from loadbench.record.outcome import Outcome
from loadbench.record.request import ONLY_DESTINATION
from loadbench.targets import error_hints
from loadbench.targets.error_hints import advice_for
from loadbench.targets.http_get import NoConnection, Response, get, parse_json
from loadbench.targets.model_list import entries_of, generates_text, has_more
from loadbench.targets.target import Target
from loadbench.wire.body import BodyChanges
from loadbench.wire.openai import Api, clean, error_text

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping

    from loadbench.client.client import Client
    from loadbench.plan.prompts import Prompt
    from loadbench.plan.scenario import Scenario
    from loadbench.record.request import Destination
    from loadbench.record.sample import Sample

# No server lists more models; of a longer list the beginning is used, as of a list that has further pages.
_MOST_LISTED = 100_000
# A run has at most so many levels, too.
_MOST_TESTED = 1_000
# What `--model all` gives.
ALL_MODELS = ("all",)


def target_at(scenario: Scenario, environment: Mapping[str, str], *, url: str) -> Target:
    """The endpoint at `url`, before anything was sent to it."""
    given, (headers, tls), settings = ServerUrl.parse(url), credentials(scenario, environment, url=url), scenario.target
    check_sources(settings.source_address, hosts=[origin_of(url)[1]])
    field_name = settings.max_tokens_field
    renamed = () if field_name is None else ((LIMIT_FIELDS[settings.api], field_name),)
    return Target(
        base_url=given.default_base,
        route=given.route,
        query=given.query,
        secrets=given.secrets,
        headers=headers,
        tls=tls,
        sources=settings.source_address,
        changes=BodyChanges(extra=settings.extra_body, renamed=renamed),
    )


async def find_endpoint(scenario: Scenario, environment: Mapping[str, str], *, url: str) -> Target:
    """The endpoint at `url` and the models that it lists.

    The list is advice where the scenario names the model: whatever is wrong with it is the target's `list_problem`.
    Raises `TargetUnavailable` if the server cannot be reached, or shows neither a model nor what it is.
    """
    target, given, settings = target_at(scenario, environment, url=url), ServerUrl.parse(url), scenario.target
    shown = shown_url(url)
    lists = [(f"{base}/models", base) for base in given.bases]
    if settings.api == Api.OLLAMA:
        lists.append((re.sub(r"/v\d+$", "", given.base) + "/api/tags", given.default_base))
    problems: list[TargetUnavailable] = []
    async with target.http(scenario.limits) as http:
        for list_url, base_url in lists:
            try:
                response = await get(http, list_url)
            except NoConnection:
                raise
            except TargetUnavailable as error:
                problems.append(error)
                continue
            target = replace(target, server=response.headers.get("server"))
            document = parse_json(response) if response.status_code == HTTPStatus.OK else None
            entries = entries_of(document)
            if entries is not None:
                has_others, entries = has_more(document) or len(entries) > _MOST_LISTED, entries[:_MOST_LISTED]
                ids = tuple(dict.fromkeys(entry["id"] for entry in entries))
                target = replace(target, models=ids, more_models=has_others, listing=tuple(entries))
                return replace(target, base_url=base_url)
            message, hint = _list_problem(response, list_url)
            problems.append(TargetUnavailable(f"{shown}: {message}", hint=hint))
    # What is no 404 says more than that a list is not there.
    problem = next((problem for problem in problems if problem.hint), problems[0])
    if problem.hint and settings.model is None and settings.mix_models is None:
        raise problem
    return replace(target, list_problem=problem.message)


def _list_problem(response: Response, list_url: str) -> tuple[str, str]:
    """(what is wrong with a response that has no list of models, what to do about it if that is clear)."""
    status = response.status_code
    if 300 <= status < 400:
        to = redirect_target(list_url, clean(response.headers.get("location", "")))
        return f"HTTP {status}, redirects to {to}", error_hints.REDIRECT
    if status in {401, 403}:
        return f"HTTP {status}: {error_text(response.content)}", error_hints.KEY
    if status != HTTPStatus.OK:
        return f"HTTP {status}: {error_text(response.content)}", ""
    return (
        f"not an OpenAI-compatible server: its list of models is {error_text(response.content)!r}",
        "use the address of the API, as in http://127.0.0.1:8080/v1, or name the model with --model ID",
    )


def credentials(
    scenario: Scenario, environment: Mapping[str, str], *, url: str
) -> tuple[tuple[tuple[str, str], ...], ssl.SSLContext | None]:
    """(headers of every request, TLS context of an https URL).

    Of two headers of one name, that of the stronger source is sent; a key that merely lies in LOADBENCH_API_KEY is
    weaker than any. Raises `BadInput` for two of one source, for a value that is missing or not valid in a header, and
    for a bad CA file.
    """
    settings, variable = scenario.target, scenario.target.api_key_env
    # Each with the setting that gives it.
    given = [(name, value, "target.header") for name, value in settings.header]
    for name, scheme, source in settings.header_env:
        value = _secret_of(environment, source, f"{scenario.place('target.header_env')} {name}:")
        given.append((name, f"{scheme} {value}".strip(), "target.header_env"))
    user = ServerUrl.parse(url).user if url else ""
    if user:
        given.append(("authorization", f"Basic {b64encode(user.encode()).decode()}", "target.url"))
    in_use = environment.get(variable) or variable != "LOADBENCH_API_KEY"
    if in_use and gets_default_key(scenario, environment, [url] if url else ()):
        key = _secret_of(environment, variable, scenario.place("target.api_key_env"))
        given.append(("authorization", f"Bearer {key}", "target.api_key_env"))
    strength = {key: scenario.origins.get(key, DEFAULT).source for _, _, key in given}
    sent: dict[str, tuple[str, str, str]] = {}
    for one in sorted(given, key=lambda one: (strength[one[2]], one[2] == "target.api_key_env")):
        earlier = sent.setdefault(one[0].lower(), one)
        if earlier is not one and strength[earlier[2]] == strength[one[2]] < Source.DEFAULT:
            places = " and ".join(scenario.place(key) for key in dict.fromkeys((earlier[2], one[2])))
            raise BadInput(f"{places}: {one[0]} is given twice", hint="give it once: only one can be sent")
    headers = tuple((name, value) for name, value, key in given if sent[name.lower()] == (name, value, key))
    secure = url.startswith("https:")
    return headers, tls_context(cacert=settings.cacert, insecure=settings.insecure) if secure else None


def _secret_of(environment: Mapping[str, str], variable: str, place: str) -> str:
    """The value of a variable for a header; raises `BadInput` if it is not set or not valid there."""
    value = environment.get(variable, "")
    if not value:
        raise BadInput(f"{place} {variable}: this environment variable is not set", hint=f"export {variable}=…")
    if not value.isascii() or not value.isprintable() or value != value.strip():
        raise BadInput(f"{place} {variable}: characters that a header cannot have", hint=f"export {variable} again")
    return value


def choose_models(target: Target, wanted: tuple[str, ...] | None) -> tuple[tuple[str, ...], dict[str, str]]:
    """(models to test, a note on each of them that is not listed). `ALL_MODELS` are those that generate text.

    A server's list is advice: it may be incomplete, and a server may know a model by further names. Raises `BadInput`
    if no model is named and there are several, `TargetUnavailable` if there is none to test.
    """
    listed = target.models
    if wanted is not None and wanted != ALL_MODELS:
        notes = {model: note for model in wanted if (note := target.note_on(model))}
        if target.adapter is not None and len(notes) == len(wanted):
            raise TargetUnavailable(f"{target.base_url}: {'; '.join(notes.values())}")
        return wanted, notes
    if listed is None:
        problem = f" ({target.list_problem.partition(': ')[2]})" if target.list_problem else ""
        remedy = "check the path of --url"
        if re.search(r"HTTP (?:429|5\d\d)\b", problem):  # it was the right path
            remedy = error_hints.advice_for(problem) or "see the server's log, and try again later"
        raise TargetUnavailable(
            f"{target.base_url}: no list of models{problem}", hint=f"{remedy}, or name the model with --model ID"
        )
    others = {entry["id"] for entry in target.listing if not generates_text(entry)}
    usable = tuple(model for model in listed if model not in others)
    if usable and (wanted == ALL_MODELS or (len(usable) == 1 and not target.more_models)):
        return few_enough(target, usable), {}
    if not usable:
        what = "no model that generates text is listed" if listed else "the list of models is empty"
        hint = "name the model with --model ID" + (f"; {target.models_text}" if listed else "")
        raise BadInput(f"{target.base_url}: {what}", hint=hint)
    raise BadInput(
        f"{target.base_url}: serves several models",
        hint=f"choose with --model ID, or --model all; {target.models_text}",
    )


def few_enough(target: Target, models: tuple[str, ...]) -> tuple[str, ...]:
    """The models; raises `BadInput` for more than one run can test."""
    if len(models) > _MOST_TESTED:
        message = f"{target.base_url}: lists {len(models):,} models, and a run tests at most {_MOST_TESTED:,}"
        raise BadInput(message, hint="name some of them with --model ID,ID")
    return models


async def first_response(
    client: Client, *, prompt: str | Prompt, max_tokens: int, destination: Destination = ONLY_DESTINATION
) -> Sample:
    """Send one request and return its sample; raises `TargetUnavailable` unless it succeeds."""
    sample = await client.send_prompt(prompt, max_tokens=max_tokens, destination=destination)
    if sample.outcome is not Outcome.OK:
        raise first_failure(sample, note=client.endpoint.model_note, api=client.endpoint.api)
    return sample


def first_failure(sample: Sample, *, hint: str = "", note: str = "", api: Api = Api.CHAT) -> TargetUnavailable:
    """The error of a first request that failed; where there is no `hint`, with the one of its words.

    `note` is what the list of models says against the model. The server may not have the route of an `api`.
    """
    hint = hint or (f"the server {note}" if note and sample.status in {400, 404, 422} else "")
    if not hint and api is not Api.CHAT and sample.status in {404, 405, 501}:
        hint = f"the server may have no route for --api {api}: use another --api, or check the path of --url"
    hint = hint or advice_for(sample.detail)
    return TargetUnavailable(f"the first request failed: {sample.outcome}: {sample.detail}".rstrip(": "), hint=hint)
