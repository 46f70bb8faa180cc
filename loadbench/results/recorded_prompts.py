"""What a run records of its inputs: its given prompts, and what a file said of its models."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import orjson

from loadbench.core.text import digest
from loadbench.results.run import DataSetResult, ModelFacts, RecordedPrompt

if TYPE_CHECKING:
    from collections.abc import Iterable

    from loadbench.plan.data_sets import DataSet
    from loadbench.plan.models import KnownModel
    from loadbench.plan.prompts import Prompt

# Eight hex digits: of a hundred prompts, two have the same digest in one of a million sets.
HASH_BYTES = 4


def prompt_hash(prompt: Prompt) -> str:
    """The short digest that identifies a prompt: its text, or all that a data set gave it."""
    if not (prompt.messages or prompt.fields or prompt.extra or prompt.then):
        return digest(prompt.text, size=HASH_BYTES)
    given = [[turn.sent for turn in (prompt, *prompt.then)], prompt.fields, prompt.extra]
    return digest(orjson.dumps(given, option=orjson.OPT_SORT_KEYS).decode(), size=HASH_BYTES)


def recorded_prompts(prompts: Iterable[Prompt], *, keep_texts: bool) -> list[RecordedPrompt]:
    """The given prompts by index and digest; with their texts if those are kept."""
    return [
        RecordedPrompt(index=index, hash=prompt_hash(prompt), text=prompt.shown if keep_texts else None)
        for index, prompt in enumerate(prompts)
    ]


def data_set_result(given: DataSet) -> DataSetResult:
    """What was read of a file of prompts."""
    return DataSetResult(
        format=given.format,
        rows=given.rows,
        skipped=dict(given.skipped),
        prompts=len(given.prompts),
        conversations=given.conversations,
        not_sent=list(given.not_sent),
    )


def known_facts(models: Iterable[KnownModel]) -> dict[str, ModelFacts]:
    """What a file of models says of each, by the name that requests use."""
    return {model.name: msgspec.convert(model, ModelFacts, from_attributes=True) for model in models}
