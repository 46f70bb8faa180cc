"""How long the requests of a scenario will be, as far as that is known before they are sent."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from loadbench.plan.distribution import Constant
from loadbench.plan.personas import Cast, Persona
from loadbench.plan.settings import DEFAULT_INPUT_TOKENS
from loadbench.plan.trace_files import read_trace

if TYPE_CHECKING:
    from loadbench.plan.scenario import Scenario

# Enough to find a share of 1 %, above which failures make a level invalid.
_DRAWN = 1000


def request_lengths(scenario: Scenario) -> list[tuple[int, int]]:
    """(tokens of the prompt, most tokens of the response) of each request of the trace, or of requests as they will be
    drawn. Empty for given prompts: only the server can count them.

    The later turns of a conversation contain earlier responses, whose lengths are not known and not counted.
    """
    work, load = scenario.work, scenario.load
    if load.trace is not None:
        trace = read_trace(load.trace, limit=load.limit, form=load.trace_format)
        return list(zip(trace.input_tokens, trace.output_tokens, strict=True))
    if work.prompt is not None or work.prompts is not None:
        return []
    cast = work.cast or Cast((Persona(name=""),), (1.0,))
    lengths = []
    rng = random.Random(f"{work.seed}/lengths")
    for number in range(_DRAWN):
        persona = cast.personas[cast.of_arrival(number, "lengths")]
        inputs = persona.input_tokens or work.input_tokens or Constant(DEFAULT_INPUT_TOKENS)
        outputs = persona.output_tokens or work.output_tokens or Constant(work.max_tokens)
        plays = persona.turns is not None and scenario.plays_turns
        prompt = 0
        for _ in range(max(1, round(persona.turns.sample(rng))) if plays and persona.turns is not None else 1):
            prompt += max(1, round(inputs.sample(rng)))
            lengths.append((prompt, max(1, round(outputs.sample(rng)))))
    return lengths
