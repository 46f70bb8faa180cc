"""Whether the same prompt got the same response text: within a run, and on both sides of a comparison.

Only digests are compared: equal texts have equal digests. Only responses that ended ok count.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadbench.results.compare import OutputComparison
from loadbench.results.run import OutputEquality

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from loadbench.results.requests import RequestRecord
    from loadbench.results.run import Run


def output_equality(requests: Iterable[RequestRecord], models: Sequence[str]) -> list[OutputEquality]:
    """Compare all responses of each model to each prompt; `models` names the model of each level of the run, in order.
    A mix has several, which its requests name.

    At temperature 0 a server should always return the same text. Where it does not, batching changed the order of its
    sums, a cache changed its numbers, or it is broken; its speed is then the speed of a different response. The
    reference is the first response in the order of levels and requests, which is the quietest when levels ascend.
    Requests of warm-up and cool-down count too. The list is empty where no digests were kept.
    """
    digests: dict[tuple[str, int], list[tuple[int, int, str]]] = {}
    for request in requests:
        # A run that was killed has requests of a level that is not in its results.
        counts = request.outcome == "ok" and request.level < len(models)
        if counts and request.answer_hash is not None and request.prompt_index is not None:
            key = request.model or models[request.level], request.prompt_index
            digests.setdefault(key, []).append((request.level, request.number, request.answer_hash))
    result, order = [], [*models, *(model for model, _ in digests)]
    for model, prompt in sorted(digests, key=lambda key: (order.index(key[0]), key[1])):
        responses = sorted(digests[model, prompt])
        first = responses[0][2]
        result.append(
            OutputEquality(
                model=model,
                prompt=prompt,
                answers=len(responses),
                distinct=len({digest for _, _, digest in responses}),
                first_difference=next(
                    ((level, number) for level, number, digest in responses if digest != first), None
                ),
                first_hash=first,
            )
        )
    return result


def compare_outputs(a: Sequence[Run], b: Sequence[Run]) -> OutputComparison | None:
    """Compare the response texts of two sides, whose runs were deterministic; `None` where they share no prompt.

    Prompts are matched by digest, so the runs may have been stored, moved or made a baseline. Sides that return
    different texts do different work, even at the same speed.
    """
    texts_a, texts_b = _texts_by_prompt(a), _texts_by_prompt(b)
    prompts = [prompt for prompt in texts_a if prompt in texts_b]
    if not prompts:
        return None
    steady = [prompt for prompt in prompts if len(texts_a[prompt]) == len(texts_b[prompt]) == 1]
    equal = [prompt for prompt in steady if texts_a[prompt] == texts_b[prompt]]
    return OutputComparison(
        prompts=len(prompts),
        equal=len(equal),
        differing=[prompt for prompt in steady if prompt not in equal],
        unsteady=[prompt for prompt in prompts if prompt not in steady],
    )


def _texts_by_prompt(runs: Sequence[Run]) -> dict[str, set[object]]:
    """By prompt digest, the response digests; a prompt whose responses varied within a run also has `None`."""
    texts: dict[str, set[object]] = {}
    for run in runs:
        prompts = {prompt.index: prompt.hash for prompt in run.prompts}
        models = {level.model for level in run.levels}
        for output in run.outputs or ():
            if output.model in models and output.prompt in prompts and output.first_hash is not None:
                digests: set[object] = {output.first_hash} if output.equal else {output.first_hash, None}
                texts.setdefault(prompts[output.prompt], set()).update(digests)
    return texts
