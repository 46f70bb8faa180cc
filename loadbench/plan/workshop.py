"""The workshop's benchmark: one user sends every prompt in turn, in rounds.

Its settings are declared with all others. A flag wins over `LOADBENCH_…`, which wins over the workshop's own `BENCH_…`,
then come a scenario file and the workshop's defaults.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from loadbench.core.errors import BadInput
from loadbench.plan import setting_types
from loadbench.plan.prompt_source import given_prompts
from loadbench.plan.sources import resolve

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from loadbench.plan.scenario import Scenario


def workshop_scenario(
    *, flags: Mapping[str, object], environment: Mapping[str, str], file: Path | None = None
) -> Scenario:
    """The scenario of the benchmark; each level has `rounds × prompts` requests.

    Raises `BadInput` for a setting that cannot be used.
    """
    scenario = resolve(flags=flags, environment=environment, file=file, command="workshop")
    rounds, prompts = scenario.workshop.rounds, len(given_prompts(scenario.work))
    load = dataclasses.replace(scenario.load, duration=None, requests=rounds * prompts)
    product = f"{rounds} × {prompts} prompt" + ("s" if prompts > 1 else "")
    origin = scenario.origins["workshop.rounds"]._replace(key=product)
    return dataclasses.replace(
        scenario,
        load=load,
        origins={**scenario.origins, "load.requests": origin},
        not_used=scenario.not_used - {"load.requests"} | {"load.duration"},
    )


def shows_first_token(environment: Mapping[str, str]) -> bool:
    """Whether the exports contain the time to first token: yes, unless `BENCH_STREAM` is false.

    It is always measured, and needs no extra request, unlike in the workshop's script.
    """
    text = environment.get("BENCH_STREAM", "").strip()
    try:
        return setting_types.FLAG.read(text) if text else True
    except ValueError as error:
        raise BadInput(f"BENCH_STREAM: {error}") from None
