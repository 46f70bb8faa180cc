"""What a run records of its inputs: its given prompts, and what a file said of its models."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from loadbench.core.text import digest
from loadbench.results.run import ModelFacts, RecordedPrompt

if TYPE_CHECKING:
    from collections.abc import Iterable

    from loadbench.plan.models import KnownModel
    from loadbench.plan.prompts import Prompt

# Eight hex digits: of a hundred prompts, two have the same digest in one of a million sets.
HASH_BYTES = 4


def prompt_hash(text: str) -> str:
    """The short digest that identifies a prompt."""
    return digest(text, size=HASH_BYTES)


def recorded_prompts(prompts: Iterable[Prompt], *, keep_texts: bool) -> list[RecordedPrompt]:
    """The given prompts by index and digest; with their texts if those are kept."""
    return [
        RecordedPrompt(index=index, hash=prompt_hash(prompt.text), text=prompt.text if keep_texts else None)
        for index, prompt in enumerate(prompts)
    ]


def known_facts(models: Iterable[KnownModel]) -> dict[str, ModelFacts]:
    """What a file of models says of each, by the name that requests use."""
    return {model.name: msgspec.convert(model, ModelFacts, from_attributes=True) for model in models}
