"""The context length that a server lists for a model, and requests that are too long for it.

What a server lists of itself as it runs is a limit: a longer request fails, so it is refused before anything is sent.
What it lists of the model, or a gateway of somebody else's server, is advice: the limit may be another.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from loadbench.core.errors import BadInput
from loadbench.plan.request_lengths import request_lengths
from loadbench.targets.http_get import get_json
from loadbench.targets.model_list import entries_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from loadbench.plan.scenario import Scenario
    from loadbench.targets.target import Target


class Context(NamedTuple):
    """A listed context length, and the name under which it is listed.

    With `for_both`, the prompt and the most that may be generated must fit together; else the prompt alone, and a
    response that reaches the end is cut there.
    """

    tokens: int
    name: str
    is_limit: bool = False
    for_both: bool = False


# The most reliable first: vLLM and SGLang; llama.cpp (of one slot); LM Studio for a loaded model. Then advice: LM
# Studio, Mistral; OpenRouter, Together, Fireworks, Ollama; Groq; LiteLLM; Foundry Local; Gemini; TabbyAPI; llama.cpp.
_NAMES = (
    ("max_model_len", True, True),
    ("meta.n_ctx", True, False),
    ("loaded_context_length", True, False),
    ("max_context_length", False, False),
    ("context_length", False, False),
    ("context_window", False, False),
    ("max_input_tokens", False, False),
    ("maxInputTokens", False, False),
    ("inputTokenLimit", False, False),
    ("max_seq_len", False, False),
    ("meta.n_ctx_train", False, False),
)
_LONGER_CONTEXT = "or start the server with a longer context (vLLM: --max-model-len, llama.cpp: --ctx-size)"


def listed_context(entry: Mapping[str, object]) -> Context | None:
    """The context length in a model's entry of a list."""
    for name, is_limit, for_both in _NAMES:
        outer, _, inner = name.rpartition(".")
        table = entry.get(outer) if outer else entry
        tokens = table.get(inner) if isinstance(table, dict) else None
        if isinstance(tokens, str) and re.fullmatch(r"[0-9]{1,12}", tokens):
            tokens = int(tokens)
        if isinstance(tokens, int) and not isinstance(tokens, bool) and 0 < tokens < 2**63:
            return Context(tokens, name, is_limit, for_both)
    return None


async def check_context(
    scenario: Scenario, target: Target, models: Mapping[str, Context | None], say: Callable[[str], None]
) -> None:
    """Refuse requests that are too long for a model of the server; `models` has what a catalogue says of each.

    Raises `BadInput` if more of them must fail than a valid level may have; what is less sure is a warning.
    """
    lengths = request_lengths(scenario)
    if not lengths:
        return
    entries = {str(entry["id"]): entry for entry in target.listing}
    for model, catalogued in models.items():
        entry = entries.get(model, {})
        context = listed_context(entry) or catalogued
        parent = entry.get("parent")
        if context is None and isinstance(parent, str):  # the base of an adapter
            context = listed_context(entries.get(parent, {}))
        if context is None or not context.is_limit:
            context = await _further(scenario, target, model, entry) or context
        if context is None:
            continue
        message, is_sure = _too_long(scenario, lengths, context)
        if not message:
            continue
        message += f": {target.base_url} lists {context.tokens:,} tokens for {model} ({context.name})"
        if is_sure:
            place = scenario.place("work.input_tokens" if scenario.load.trace is None else "load.trace")
            shorter = "use shorter prompts or responses" if scenario.load.trace is None else "leave such requests out"
            raise BadInput(f"{place}: {message}", hint=f"{shorter}, {_LONGER_CONTEXT}")
        say(f"warning: {message}" + ("" if context.is_limit else "; continuing, as the server may take more"))


def _too_long(scenario: Scenario, lengths: list[tuple[int, int]], context: Context) -> tuple[str, bool]:
    """(what does not fit, whether that is sure and makes levels invalid); empty if all fits."""

    def over(*, both: bool) -> list[tuple[int, int]]:
        # A prompt that fills the context leaves no room for a token.
        return [one for one in lengths if one[0] + (one[1] if both else 1) > context.tokens]

    found = over(both=context.for_both)
    what = "are too long for the context"
    is_sure = context.is_limit and len(found) > scenario.limits.failures * len(lengths)
    if not found:
        found, what = over(both=context.is_limit), "do not fit the context, which cuts the responses short"
    if not found:
        return "", False
    prompt, response = max(found, key=sum)
    longest = f"{prompt:,} tokens with responses of up to {response:,}"
    if len(found) == len(lengths):
        return f"prompts of {'up to ' if len({*lengths}) > 1 else ''}{longest} {what}", is_sure
    share = f"{100 * len(found) / len(lengths):.2g} %"
    return f"{share} of the requests (prompts of up to {longest}) {what}", is_sure


async def _further(scenario: Scenario, target: Target, model: str, entry: Mapping[str, object]) -> Context | None:
    """What llama.cpp and LM Studio say elsewhere of the context as it is loaded."""
    root = target.root
    meta = entry.get("meta")
    async with target.http(scenario.limits) as http:
        if isinstance(meta, dict) and "n_ctx_train" in meta:
            props = await get_json(http, f"{root}/props")
            settings = props.get("default_generation_settings") if isinstance(props, dict) else None
            if isinstance(settings, dict) and (found := listed_context({"meta": settings})):
                return found._replace(name="n_ctx")
        if entry.get("owned_by") == "organization_owner":
            document = await get_json(http, f"{root}/api/v0/models")
            for other in entries_of(document) or ():
                if other["id"] == model:
                    return listed_context(other)
    return None
