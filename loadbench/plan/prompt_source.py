"""The prompts of a level, from the settings of the work and its personas."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from loadbench.core.errors import BadInput
from loadbench.plan.data_sets import read_data_set_once
from loadbench.plan.distribution import Constant
from loadbench.plan.personas import Persona
from loadbench.plan.prompts import Prompt, TextPrompts, WordPrompts
from loadbench.plan.settings import DEFAULT_INPUT_TOKENS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadbench.plan.data_sets import DataSet
    from loadbench.plan.distribution import Distribution
    from loadbench.plan.personas import Cast
    from loadbench.plan.prompts import Calibration, PromptSource
    from loadbench.plan.settings import WorkSettings


def prompt_source(
    work: WorkSettings, *, key: str, calibration: Calibration | None, given: Sequence[Prompt] | None = None
) -> PromptSource:
    """The prompts of a level: the given prompt, those of a file, or generated words. `key` is the level's key.

    Where they have been read already, they are `given`. Raises `BadInput` for a file that cannot be used.
    """

    if given is None:
        given = given_prompts(work)

    def source(persona: Persona) -> TextPrompts | WordPrompts:
        output = persona.output_tokens or work.output_tokens
        if work.prompt is None and work.prompts is None:
            lengths = persona.input_tokens or work.input_tokens or Constant(DEFAULT_INPUT_TOKENS)
            return word_prompts(work, lengths, output, key=key, calibration=calibration)
        return TextPrompts(given, output, seed=work.seed, level=key, unique=work.unique)

    cast = work.cast
    turns = cast is not None and any(persona.turns is not None for persona in cast.personas)
    if turns and any(prompt.turns is not None for prompt in given):
        raise BadInput(f"--turns: the dialogues in {work.prompts} have their own turns", hint="leave it out")
    if cast is None:
        return source(Persona(name=""))
    return CastPrompts(cast, [source(persona) for persona in cast.personas], key=f"{work.seed}/{key}")


def word_prompts(
    work: WorkSettings,
    input_tokens: Distribution,
    output_tokens: Distribution | None = None,
    *,
    key: str,
    calibration: Calibration | None,
) -> WordPrompts:
    """Generated words for a level, with lengths by the calibration."""
    return WordPrompts(input_tokens, output_tokens, calibration, seed=work.seed, level=key, unique=work.unique)


# What makes responses to equal prompts differ, or could.
SAMPLING = {"temperature", "top_p", "top_k", "min_p", "typical_p", "seed"}


def data_set(work: WorkSettings) -> DataSet | None:
    """The data set of `--prompts`; raises `BadInput` for a file that cannot be used."""
    return None if work.prompts is None else read_data_set_once(work.prompts)


def given_prompts(work: WorkSettings, *, sampled: bool = True) -> tuple[Prompt, ...]:
    """The scenario's prompt, or those of its data set; empty if prompts are generated.

    Where responses are not `sampled`, and in a deterministic run, the prompts' own settings of sampling are left out.
    Raises `BadInput` for a file that cannot be used.
    """
    given = data_set(work)
    if given is None:
        return () if work.prompt is None else (Prompt(work.prompt),)
    if (sampled and not work.deterministic) or not any(
        SAMPLING & (prompt.fields or {}).keys() for prompt in given.prompts
    ):
        return given.prompts
    fields = [
        {name: value for name, value in (prompt.fields or {}).items() if name not in SAMPLING}
        for prompt in given.prompts
    ]
    return tuple(prompt._replace(fields=own or None) for prompt, own in zip(given.prompts, fields, strict=True))


class CastPrompts:
    """A prompt source of several personas: each request takes its prompt from the source of its persona.

    All sources have the same seed and level and share the numbers of requests, so that no two prompts are equal.
    """

    def __init__(self, cast: Cast, sources: Sequence[PromptSource], *, key: str) -> None:
        self._cast = cast
        self._sources = tuple(sources)
        self._key = key

    def next(self, number: int, user: int | None) -> Prompt:
        """The prompt of this user's persona, or of the persona drawn for the arrival."""
        index = self._cast.of_arrival(number, self._key) if user is None else self._cast.of_user(user)
        persona = self._cast.personas[index]
        prompt = self._sources[index].next(number, user)._replace(persona=persona.name or None)
        if persona.turns is None:
            return prompt
        turns = persona.turns.sample(random.Random(f"{self._key}/{number}/turns"))
        return prompt._replace(turns=max(1, round(turns)))

    def calibration_prompts(self) -> Sequence[Prompt]:
        """Those of the first persona: all personas have the same words."""
        return self._sources[0].calibration_prompts()

    def calibrate(self, tokens: Sequence[int | None]) -> Calibration | None:
        """As for the first persona."""
        return self._sources[0].calibrate(tokens)
