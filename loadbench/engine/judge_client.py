"""Requests sent one after another for their response texts: answers to be rated, and a judge's ratings.

Nothing is measured here. The client is the measuring one, so every server that it supports can be a judge.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadbench.plan.judging import again_prompt, read_reply
from loadbench.record.outcome import Outcome

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from loadbench.plan.judging import JudgeReply
    from loadbench.record.sample import Sample


async def judgement(
    answer: Callable[[str], Awaitable[Sample]], prompt: str, *, facets: Sequence[str], max_tokens: int
) -> JudgeReply:
    """A judge's reply to this prompt; the prompt is sent once more if the first reply cannot be used. `answer` sends
    it, with at most `max_tokens`, and returns the sample with the response text.

    Raises `ValueError` with the reason if the second cannot be used either.
    """
    question = prompt
    fault = ""
    for _ in range(2):
        sample = await answer(question)
        text = sample.text or ""
        fault = failure_text(sample)
        if sample.outcome is Outcome.OK:
            try:
                return read_reply(text, facets)
            except ValueError as error:
                fault = str(error)
        if sample.finish_reason == "length":
            fault += f" (it was cut at {max_tokens} tokens)"
        question = again_prompt(prompt, text, fault)
    raise ValueError(fault)


def failure_text(sample: Sample) -> str:
    """How a request failed, with the server's message."""
    return f"{sample.outcome}: {sample.detail}".rstrip(": ")
