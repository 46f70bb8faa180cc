"""Whether two sides answered the same to the same prompts, where both runs were deterministic.

Each run says of each of its given prompts which text came first, as a digest, and whether all others were equal to it
(`loadbench.analyze.level.outputs`). Prompts are known again by their own digests, so that the runs may have been
kept, moved
or put into a baseline. Other answers are other work, however alike their speed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadbench.results.compare import Answers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadbench.results.run import Run


def answers_compared(a: Sequence[Run], b: Sequence[Run]) -> Answers | None:
    """`None` where no prompt was asked of both sides by deterministic runs."""
    ours, theirs = _texts(a), _texts(b)
    asked = [prompt for prompt in ours if prompt in theirs]
    if not asked:
        return None
    steady = [prompt for prompt in asked if len(ours[prompt]) == len(theirs[prompt]) == 1]
    equal = [prompt for prompt in steady if ours[prompt] == theirs[prompt]]
    return Answers(
        prompts=len(asked),
        equal=len(equal),
        differing=[prompt for prompt in steady if prompt not in equal],
        unsteady=[prompt for prompt in asked if prompt not in steady],
    )


def _texts(runs: Sequence[Run]) -> dict[str, set[object]]:
    """Of each prompt, by its digest, the digests of its answers; one that was unsteady within a run has two."""
    found: dict[str, set[object]] = {}
    for run in runs:
        prompts = {prompt.index: prompt.hash for prompt in run.prompts}
        models = {level.model for level in run.levels}
        for one in run.outputs or ():
            if one.model in models and one.prompt in prompts and one.first_hash is not None:
                texts = found.setdefault(prompts[one.prompt], set())
                texts.update({one.first_hash} if one.equal else {one.first_hash, None})
    return found
