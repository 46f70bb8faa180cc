"""Questions asked one after another for the sake of their answers: to be rated, or to rate.

Nothing is measured here. The client is the one that measures, so that whatever it can talk to can be asked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadbench.client.client import Request
from loadbench.plan.judging import again_prompt, read_reply
from loadbench.plan.load import Phase
from loadbench.record.outcome import Outcome

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadbench.client.client import Client
    from loadbench.core.clock import Clock
    from loadbench.plan.judging import JudgeReply
    from loadbench.record.sample import Sample


async def answer_to(client: Client, clock: Clock, prompt: str, *, max_tokens: int) -> Sample:
    """One question and its sample, with the answer's text, however it ended."""
    due_ns = clock.now_ns()
    return await client.send(
        Request(number=0, phase=Phase.MEASURED, due_ns=due_ns, prompt=prompt, max_tokens=max_tokens, keep_answer=True)
    )


async def judgement(client: Client, clock: Clock, prompt: str, *, facets: Sequence[str], max_tokens: int) -> JudgeReply:
    """A judge's reply to this prompt; asked once more if its first cannot be used.

    Raises `ValueError` with the reason if the second cannot be used either.
    """
    asked = prompt
    fault = ""
    for _ in range(2):
        sample = await answer_to(client, clock, asked, max_tokens=max_tokens)
        text = sample.answer or ""
        try:
            return _reply(sample, text, facets)
        except ValueError as error:
            fault = str(error)
            if sample.finish_reason == "length":
                fault += f" (it was cut at {max_tokens} tokens)"
            asked = again_prompt(prompt, text, fault)
    raise ValueError(fault)


def _reply(sample: Sample, text: str, facets: Sequence[str]) -> JudgeReply:
    if sample.outcome is not Outcome.OK:
        raise ValueError(failure_text(sample))
    return read_reply(text, facets)


def failure_text(sample: Sample) -> str:
    """How a request failed, in the server's words."""
    return f"{sample.outcome}: {sample.detail}".rstrip(": ")
