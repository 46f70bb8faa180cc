"""The workshop's benchmark as a scenario: its settings, its defaults, and the variables by which its users set them.

One user asks, one request after another, each prompt in turn, so many rounds. A flag wins over `LOADBENCH_…`, that over
`BENCH_…`, that over a scenario file, that over the workshop's own defaults.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from loadbench.core.errors import BadInput
from loadbench.plan import setting_types
from loadbench.plan.prompts import given_prompts
from loadbench.plan.sources import resolve

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from loadbench.plan.scenario import Scenario

# As its script and notebook have them.
DEFAULTS: Mapping[str, object] = {
    "users": (1,),
    "warm_up": 0,
    "prompt": "Explain retrieval augmented generation briefly.",
    "max_tokens": 120,
    "temperature": 0.2,
}
ROUNDS = 3
_VARIABLES = {
    "BENCH_MODELS": "model",
    "BENCH_PROMPT": "prompt",
    "BENCH_MAX_TOKENS": "max_tokens",
    "BENCH_TEMPERATURE": "temperature",
}
# More rounds than this nobody waits for.
_MOST_ROUNDS = 10_000
# What a scenario may not say: it is one user, who asks given prompts as often as the rounds come to.
_FIXED = (
    *("load.users", "load.rate", "load.think", "load.duration", "load.requests"),
    *("work.input_tokens", "work.persona", "work.mix", "work.turns"),
)


def workshop_scenario(
    *, flags: Mapping[str, object], environment: Mapping[str, str], file: Path | None = None, rounds: object = None
) -> Scenario:
    """The benchmark in force. `rounds` is what its flag was given, if it was.

    Raises `BadInput` for anything that cannot be used.
    """
    scenario = resolve(
        flags=flags,
        environment=environment,
        file=file,
        default_name="workshop",
        also=_variables(environment),
        defaults=DEFAULTS,
    )
    _refuse_load(scenario)
    number, origin = _rounds(rounds, environment)
    prompts = len(given_prompts(scenario.work))
    load = dataclasses.replace(scenario.load, duration=None, requests=number * prompts)
    told = f"{origin}: {number} × {prompts} prompt" + ("s" if prompts > 1 else "")
    return dataclasses.replace(scenario, load=load, origins={**scenario.origins, "load.requests": told})


def _variables(environment: Mapping[str, str]) -> dict[str, tuple[str, object]]:
    """(variable, value) by setting, of the workshop's variables that say something."""
    given: dict[str, tuple[str, object]] = {}
    for variable, name in _VARIABLES.items():
        text = environment.get(variable, "")
        if text.strip():
            given[name] = (variable, text)
    models = [model.strip() for model in environment.get("BENCH_MODELS", "").split(",") if model.strip()]
    alias = environment.get("FOUNDRY_LOCAL_ALIAS", "").strip()
    if models:
        given["model"] = ("BENCH_MODELS", models)
    elif alias:
        given["model"] = ("FOUNDRY_LOCAL_ALIAS", [alias])
    else:
        given.pop("model", None)
    return given


def _rounds(flag: object, environment: Mapping[str, str]) -> tuple[int, str]:
    """How many, and who says so."""
    variable = environment.get("BENCH_ROUNDS", "").strip()
    if flag is None and not variable:
        return ROUNDS, "default"
    value, place, origin = (flag, "--rounds", "flag --rounds") if flag is not None else (variable, "BENCH_ROUNDS", "")
    try:
        return setting_types.whole(1, _MOST_ROUNDS).read(value), origin or "environment BENCH_ROUNDS"
    except ValueError as error:
        raise BadInput(f"{place}: {error}") from None


def _refuse_load(scenario: Scenario) -> None:
    for key in _FIXED:
        origin = scenario.origins[key]
        if origin not in {"default", "workshop"}:
            place = origin.partition(" ")[2]
            raise BadInput(
                f"{place}: the workshop's benchmark is one user who asks given prompts, in rounds",
                hint="use `loadbench sweep` for anything else",
            )


def shows_first_token(environment: Mapping[str, str]) -> bool:
    """Whether the exports have the first token: always, unless `BENCH_STREAM` says that it is not wanted.

    It is measured in any case, by the same requests: the workshop's script needs another one for it.
    """
    text = environment.get("BENCH_STREAM", "").strip()
    try:
        return setting_types.FLAG.read(text) if text else True
    except ValueError as error:
        raise BadInput(f"BENCH_STREAM: {error}") from None
