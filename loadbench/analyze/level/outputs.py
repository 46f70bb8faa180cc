"""Whether a model says the same each time it is asked the same: between rounds, and under load.

At temperature 0 a server ought to. Where it does not, batching changed the order of its sums, a cache its numbers, or
it is broken; either way its speed is that of another answer. All answers of a model to a prompt are compared with the
first of them, in the order of levels and of requests: with the fewest users first, that is the quiet one.

Only answers that ended ok count, and only digests are compared: equal texts have equal ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadbench.results.run import OutputEquality

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from loadbench.results.requests import RequestRecord


def outputs(requests: Iterable[RequestRecord], models: Sequence[str]) -> list[OutputEquality]:
    """The comparison for each model and prompt; `models` are those of the run's levels, in order.

    Warm-up and cool-down count too: an answer is an answer. Empty where no digests were kept.
    """
    told: dict[tuple[str, int], list[tuple[int, int, str]]] = {}
    for one in requests:
        # A run that was killed has requests of a level that it did not come to sum up.
        summed_up = one.level < len(models)
        if summed_up and one.answer_hash is not None and one.prompt_index is not None and one.outcome == "ok":
            key = models[one.level], one.prompt_index
            told.setdefault(key, []).append((one.level, one.number, one.answer_hash))
    ordered = {model: place for place, model in reversed(list(enumerate(models)))}
    return [
        _compared(model, prompt, sorted(told[model, prompt]))
        for model, prompt in sorted(told, key=lambda key: (ordered[key[0]], key[1]))
    ]


def _compared(model: str, prompt: int, answers: Sequence[tuple[int, int, str]]) -> OutputEquality:
    first = answers[0][2]
    other = next(((level, number) for level, number, digest in answers if digest != first), None)
    return OutputEquality(
        model=model,
        prompt=prompt,
        answers=len(answers),
        distinct=len({digest for _, _, digest in answers}),
        first_difference=other,
        first_hash=first,
    )
