"""What faults are made of: the entry of one in the table, the frames of an answer, and the usual parts of it.

A fault is a small function that plays on the wire of one request what some server or proxy has been seen to do. Its
entry says beforehand how that request must end: its `outcomes`, of which most have one. Its docstring says what is done
and which figures are right for it. The tables are in `loadbench.sim.answer_faults` and `loadbench.sim.wire_faults`.

Pauses are in seconds of a server that is `speed` times slower than the one that plays: all shrink with it, their ratios
do not. `wire.asked` is the number of tokens that were asked for, and given unless the fault is about that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import orjson

from loadbench.record.outcome import Outcome, TokenSource

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from loadbench.sim.faults import Wire

    Play: TypeAlias = Callable[[Wire], Coroutine[None, None, None]]

# From token to token; and the long pauses are a hundred of these.
GAP_S = 0.02
LATE_S = 100 * GAP_S
DONE = b"data: [DONE]\n\n"


@dataclass(frozen=True, slots=True)
class Fault:
    """One entry: `source` is where an ok answer's number of tokens must come from."""

    name: str
    play: Play
    outcomes: frozenset[Outcome]
    source: TokenSource

    @property
    def stands_for(self) -> str:
        """What it does and what must come of it, in one line."""
        return " ".join((self.play.__doc__ or "").split())


class FaultTable(dict[str, Fault]):
    """Faults by name; functions are entered by `ends`."""

    def ends(self, *outcomes: Outcome, source: TokenSource = TokenSource.USAGE) -> Callable[[Play], Play]:
        """Enter the function under its name: this is how its requests end."""

        def enter(play: Play) -> Play:
            name = play.__name__
            self[name] = Fault(name, play, frozenset(outcomes), source)
            return play

        return enter


# Frames.


def frame(document: object) -> bytes:
    """An event with this JSON as its data."""
    return b"data: " + orjson.dumps(document) + b"\n\n"


def choice(
    wire: Wire,
    delta: dict[str, object],
    *,
    finish: str | None = None,
    ids: list[int] | None = None,
    usage: dict[str, object] | None = None,
) -> bytes:
    """A frame with one choice."""
    made = {"index": 0, "delta": delta, "finish_reason": finish} | ({} if ids is None else {"token_ids": ids})
    told = {} if usage is None else {"usage": usage}
    return frame({"object": "chat.completion.chunk", "model": wire.model, "choices": [made], **told})


def word(
    wire: Wire,
    number: int,
    *,
    finish: str | None = None,
    ids: list[int] | None = None,
    usage: dict[str, object] | None = None,
) -> bytes:
    """A frame with a word of the answer."""
    return choice(wire, {"content": f"w{number} "}, finish=finish, ids=ids, usage=usage)


def stop(wire: Wire, *, usage: dict[str, object] | None = None) -> bytes:
    """The frame with the finish_reason."""
    return choice(wire, {}, finish="stop", usage=usage)


def counts(wire: Wire, tokens: int, *, reasoning: int | None = None) -> dict[str, object]:
    """A usage; reasoning is a part of the tokens."""
    asked = wire.prompt_tokens
    more = {} if reasoning is None else {"completion_tokens_details": {"reasoning_tokens": reasoning}}
    return {"prompt_tokens": asked, "completion_tokens": tokens, "total_tokens": asked + tokens, **more}


def usage_alone(wire: Wire, tokens: int, *, reasoning: int | None = None) -> bytes:
    """The frame with the usage."""
    return frame({"model": wire.model, "choices": [], "usage": counts(wire, tokens, reasoning=reasoning)})


# Parts of an answer.


async def words(wire: Wire, count: int, *, gap_s: float = GAP_S, start: int = 0) -> None:
    """So many tokens, one an event, a pause before each."""
    for number in range(start, start + count):
        await wire.pause(gap_s)
        await wire.send(word(wire, number))


async def finish(wire: Wire, tokens: int | None = None, *, reasoning: int | None = None) -> None:
    """How an answer ends that nothing is wrong with."""
    count = wire.asked if tokens is None else tokens
    await wire.send(stop(wire), usage_alone(wire, count, reasoning=reasoning), DONE)
    await wire.end()


async def answer(wire: Wire) -> None:
    """An answer that nothing is wrong with."""
    wire.open()
    await words(wire, wire.asked)
    await finish(wire)


def whole_stream(wire: Wire) -> bytes:
    """All frames of an answer, the first of them without a token."""
    made = b"".join(word(wire, number) for number in range(wire.asked))
    return choice(wire, {"role": "assistant"}) + made + stop(wire) + usage_alone(wire, wire.asked) + DONE
