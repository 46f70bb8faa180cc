"""The first request of a run as it will be sent, for `--dry-run`: where it goes, its headers and its whole body."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import orjson

from loadbench.core.secrets import MASK, masked
from loadbench.core.text import shortened
from loadbench.plan.prompt_source import prompt_source
from loadbench.plan.server_command import DEFAULT_URL
from loadbench.plan.server_url import PORT, shown_url
from loadbench.targets.openai import target_at

if TYPE_CHECKING:
    from collections.abc import Mapping

    from loadbench.plan.scenario import Scenario

# The simulated server gets a port when it starts.
_SIMULATED = "http://127.0.0.1"


def sample_request(scenario: Scenario, environment: Mapping[str, str]) -> list[str]:
    """Notes on the request and its lines, secrets masked and long texts cut; none if its address is found out later."""
    url = _SIMULATED if scenario.simulated else scenario.url
    if scenario.target.server_cmd is not None:
        url = (url or DEFAULT_URL).replace(f":{PORT}", "")
    if url is None:
        return []
    target, work = target_at(scenario, environment, url=url), scenario.work
    names = scenario.target.model or [share.name for share in scenario.target.mix_models or ()]
    model = next(iter(names), "the simulated model" if scenario.simulated else "the model that the server lists")
    endpoint = target.endpoint(model, scenario)
    prompt = prompt_source(work, key="first", calibration=None).calibration_prompts()[0]
    limit = prompt.output_tokens or work.max_tokens
    body = endpoint.body(prompt.sent, limit, fields=prompt.fields, extra=prompt.extra)
    request = endpoint.http_request(body)
    shown = json.dumps(shortened(masked(orjson.loads(body))), indent=2, ensure_ascii=False)
    own = {name.lower() for name, _ in target.headers}
    headers = [f"{name}: {MASK if name.lower() in own else value}" for name, value in request.headers]
    notes = []
    if work.prompt is None and work.prompts is None:
        notes.append("the first request shows how many tokens words have; measured requests have the planned lengths")
    if work.exact_output:
        notes.append("a trial shows which fields of --exact-output the server has; they are added to each request")
    lines = ["first request:", f"{request.method} {shown_url(request.url)}", *headers, *shown.splitlines()]
    return [*notes, *lines]
