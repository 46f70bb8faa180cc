"""Finds an OpenAI-compatible endpoint, lists its models and sends a first request, before any load is generated.

Every mistake that shows in advance is refused here, with its cause and remedy: an unknown host, a port that refuses
connections, the wrong protocol or path, a page of HTML, a model that the server does not have.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

import httpx
import orjson

from loadbench.client.client import Endpoint
from loadbench.client.httpx_transport import tls_context
from loadbench.core.errors import BadInput, TargetUnavailable
from loadbench.core.text import hide, secrets_of
from loadbench.record.outcome import Outcome
from loadbench.targets.error_hints import advice_for
from loadbench.targets.http_get import get, http_client
from loadbench.wire.body import NO_CHANGES, BodyChanges
from loadbench.wire.openai import Api, error_text

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping, Sequence

    from loadbench.client.adapter import Adapter
    from loadbench.client.client import Client
    from loadbench.plan.prompts import Prompt
    from loadbench.plan.scenario import Scenario
    from loadbench.record.sample import Sample


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """An endpoint and how requests reach it.

    `models` are the ids of its list, `None` if it has no list; `listing` has the whole entries. A model in this process
    has an `adapter`, and nothing else.
    """

    base_url: str
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    tls: ssl.SSLContext | None = None
    models: tuple[str, ...] | None = None
    server: str | None = None
    listing: tuple[dict[str, object], ...] = field(default=(), repr=False)
    adapter: Adapter | None = field(default=None, repr=False)
    changes: BodyChanges = NO_CHANGES  # of every request's body

    def endpoint(self, model: str, scenario: Scenario) -> Endpoint:
        """The parts that all requests to one model share."""
        return Endpoint(
            base_url=self.base_url,
            model=model,
            api=Api(scenario.target.api),
            headers=self.headers,
            temperature=scenario.work.temperature,
            seed=scenario.work.seed,
            system=scenario.work.system,
            changes=self.changes,
        )


async def find_endpoint(scenario: Scenario, environment: Mapping[str, str], *, url: str) -> Target:
    """The endpoint at `url` and the models that it lists.

    Raises `TargetUnavailable` if it cannot be reached or is not such an endpoint, `BadInput` for a bad CA file.
    """
    headers, tls = credentials(scenario, environment, url=url)
    async with http_client(headers, tls=tls, limits=scenario.limits) as http:
        for base_url in base_urls(url):
            response = await get(http, f"{base_url}/models")
            if response.status_code != httpx.codes.NOT_FOUND:
                break
        else:
            base_url = base_urls(url)[0]
    try:
        listing = _listed(response, url)
    except TargetUnavailable as error:
        raise TargetUnavailable(hide(error.message, secrets_of(headers)), hint=error.hint) from None
    models = None if listing is None else tuple(dict.fromkeys(str(item["id"]) for item in listing))
    server = response.headers.get("server")
    return Target(
        base_url=base_url, headers=headers, tls=tls, models=models, server=server, listing=tuple(listing or ())
    )


def base_urls(url: str) -> list[str]:
    """The base URLs to try: users give the server, the version, or one of the routes."""
    parts = urlsplit(url)
    path = re.sub(r"/(chat/completions|completions|models|(openai/)?status)/?$", "", parts.path).rstrip("/")
    paths = [path] if re.search(r"/v\d+$", path) else [f"{path}/v1", *([path] if path else [])]
    return [urlunsplit((parts.scheme, parts.netloc, path, "", "")) for path in paths]


def credentials(
    scenario: Scenario, environment: Mapping[str, str], *, url: str
) -> tuple[tuple[tuple[str, str], ...], ssl.SSLContext | None]:
    """(headers of every request, TLS context of an https URL).

    Raises `BadInput` for an API key that is not set, not valid in a header or given as one too, and for a bad CA file.
    """
    settings = scenario.target
    variable = settings.api_key_env
    key = environment.get(variable, "")
    place, header = scenario.place("target.api_key_env"), scenario.place("target.header")
    if not key and variable != "LOADBENCH_API_KEY":
        raise BadInput(f"{place} {variable}: the variable is not set", hint=f"export {variable}=…")
    if not key.isascii() or (key and not key.isprintable()) or key != key.strip():
        raise BadInput(f"{place} {variable}: characters that a header cannot have", hint=f"export {variable} again")
    if key and any(name.lower() == "authorization" for name, _ in settings.header):
        raise BadInput(f"{header} Authorization: {variable} has a key too", hint="give one of them")
    headers = (*settings.header, *([("authorization", f"Bearer {key}")] if key else []))
    secure = url.startswith("https:")
    return headers, tls_context(cacert=settings.cacert, insecure=settings.insecure) if secure else None


def _listed(response: httpx.Response, url: str) -> list[dict[str, object]] | None:
    """The entries of a list of models; `None` if the server has no such route, or fails there."""
    status = response.status_code
    if status in {401, 403}:
        raise TargetUnavailable(f"{url}: HTTP {status}: {error_text(response.content)}", hint=_KEY_HINT)
    if response.is_redirect:
        raise TargetUnavailable(
            f"{url}: HTTP {status}, redirects to {response.headers.get('location', '?')[:200]}",
            hint="redirects are not followed: use that address with --url if it is the right one",
        )
    if status != 200:
        return None
    try:
        document = orjson.loads(response.content)
        items = document["data"] if isinstance(document, dict) else document
        if items is None and document is not None:
            return []  # an empty list as Go writes it
        return [{**item, "id": str(item["id"])} for item in items]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        raise TargetUnavailable(
            f"{url}: not an OpenAI-compatible server: its list of models is {error_text(response.content)!r}",
            hint="use the address of the API, as in http://127.0.0.1:8080/v1",
        ) from None


def choose_models(target: Target, wanted: tuple[str, ...] | None) -> tuple[tuple[str, ...], dict[str, str]]:
    """(models to test, the reason for each wanted model that the server does not list).

    Raises `BadInput` if no model is named and there are several, `TargetUnavailable` if none is left to test.
    """
    listed = target.models
    names = f"it lists {', '.join((listed or ())[:20])}"
    if listed and len(listed) > 20:
        names += f" and {len(listed) - 20} more"
    if wanted is None:
        if listed is None:
            raise TargetUnavailable(
                f"{target.base_url}: no list of models",
                hint="check the path of --url, or name the model with --model ID",
            )
        if len(listed) == 1:
            return listed, {}
        if not listed:
            raise BadInput(f"{target.base_url}: the list of models is empty", hint="name the model with --model ID")
        raise BadInput(f"{target.base_url}: serves several models", hint=f"choose with --model; {names}")
    if not listed:
        return wanted, {}
    missing = {model: not_listed(model, listed) for model in wanted if model not in listed}
    if len(missing) == len(wanted):
        raise TargetUnavailable(f"{target.base_url}: {'; '.join(missing.values())}", hint=names)
    return wanted, missing


def not_listed(model: str, names: Sequence[str]) -> str:
    """That a model is not listed, and the name that was probably meant."""
    near = difflib.get_close_matches(model, names, n=1)
    return f"has no model {model!r}" + (f", did you mean {near[0]!r}?" if near else "")


async def first_response(client: Client, *, prompt: str | Prompt, max_tokens: int) -> Sample:
    """Send one request and return its sample; raises `TargetUnavailable` unless it succeeds."""
    sample = await client.send_prompt(prompt, max_tokens=max_tokens)
    if sample.outcome is not Outcome.OK:
        raise first_failure(sample)
    return sample


def first_failure(sample: Sample, *, hint: str = "") -> TargetUnavailable:
    """The error of a first request that failed; where there is no `hint`, with the one of its status or its words."""
    hint = hint or _STATUS_HINTS.get(sample.status or 0) or advice_for(sample.detail)
    return TargetUnavailable(f"the first request failed: {sample.outcome}: {sample.detail}".rstrip(": "), hint=hint)


_KEY_HINT = "put the key into LOADBENCH_API_KEY, or name another variable with --api-key-env"
_STATUS_HINTS = {
    401: _KEY_HINT,
    403: _KEY_HINT,
    404: "check the path of --url and the model's name",
    405: "check the path of --url",
}
