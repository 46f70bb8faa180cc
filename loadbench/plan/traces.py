"""Traces: recorded requests, to be replayed at their original times and lengths (`trace_files` reads them).

Most traces have no texts. Prompts are then generated words of the recorded length; equal ids of blocks become equal
words, so that prompts share beginnings as the recorded ones did. A length of 0 becomes 1, the shortest that can be
requested.

A session is a conversation: its first turn is due at its time, and each later turn a recorded delay after the end of
the response before it. Later turns contain the conversation so far, with the server's own responses.

A request is kept as a few numbers, in the order of time, so that a million of them fit into memory.
"""

from __future__ import annotations

import math
from array import array
from dataclasses import dataclass, field
from itertools import pairwise
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from loadbench.core.units import NS_PER_S
from loadbench.plan.arrivals import Schedule
from loadbench.plan.prompts import Prompt
from loadbench.plan.trace_formats import BLOCK_TOKENS

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from loadbench.plan.prompts import Calibration, WordPrompts

# Allows for a late client: the last request must be sent inside the window, too.
_MIN_GAP_NS = 100_000_000


class Row(NamedTuple):
    """One request of a trace: its time from any origin, its lengths in tokens, the ids of its blocks, and its text.

    A text has its own length: `input_tokens` may be 0 then. The later turn of a session has the number of the row
    before it, from 0 in the order of the trace's rows, and for a time the delay after the response to that.
    """

    at: float
    input_tokens: int
    output_tokens: int
    hash_ids: Sequence[int] = ()
    text: str | None = None
    after: int | None = None


@dataclass(frozen=True, slots=True)
class Trace:
    """The requests of a trace in the order of time, then the later turns of sessions; offsets are in ns from the first.

    `skipped` has why and how many requests were left out; `notes` is what else a reader should know.
    """

    name: str
    offsets_ns: array[int]
    input_tokens: array[int]
    output_tokens: array[int]
    block_ids: array[int] = field(default_factory=lambda: array("q"), repr=False)  # of all requests, one after another
    block_ends: array[int] = field(default_factory=lambda: array("q"), repr=False)  # by request; empty without ids
    block_tokens: int = BLOCK_TOKENS
    warm: bytes = field(default=b"", repr=False)  # by request: whether an earlier one had the same first block
    texts: tuple[str | None, ...] = field(default=(), repr=False)
    next_turns: array[int] = field(default_factory=lambda: array("q"), repr=False)  # by request, -1: none; or empty
    delays_ns: array[int] = field(default_factory=lambda: array("q"), repr=False)  # by request, after that before it
    title: str = ""
    skipped: tuple[tuple[str, int], ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def span_ns(self) -> int:
        """The time from the first request to the last."""
        return self.offsets_ns[-1]

    @property
    def has_sessions(self) -> bool:
        """Whether some requests follow the response to another."""
        return bool(self.next_turns)

    def blocks_of(self, number: int) -> array[int]:
        """The ids of the blocks of a request, in order; none if they are not known."""
        if not self.block_ends:
            return self.block_ids
        return self.block_ids[self.block_ends[number - 1] if number else 0 : self.block_ends[number]]

    def __len__(self) -> int:
        return len(self.output_tokens)

    def __hash__(self) -> int:
        return hash((self.name, len(self)))


class TraceBuilder:
    """Collects the requests of a trace in any order; the unit of their times may be found out last."""

    def __init__(self) -> None:
        self._times, self._inputs, self._outputs = array("d"), array("q"), array("q")
        self._ids, self._ends = array("q"), array("q")
        self._texts: list[str | None] = []
        self._has_texts = False
        self._after = array("q")
        self._origin: float | None = None

    def __len__(self) -> int:
        return len(self._times)

    def add(self, row: Row) -> None:
        """Take a request."""
        if self._origin is None and row.after is None:
            self._origin = row.at
        # A float counts the nanoseconds of a hundred days exactly, but not those since 1970.
        self._times.append(row.at - (self._origin or 0) if row.after is None else row.at)
        self._after.append(-1 if row.after is None else row.after)
        self._inputs.append(row.input_tokens)
        self._outputs.append(row.output_tokens)
        self._ids.extend(row.hash_ids)
        self._ends.append(len(self._ids))
        self._has_texts |= row.text is not None
        self._texts.append(row.text)

    def build(
        self,
        name: str,
        *,
        unit_ns: float = 1,
        block_tokens: int = BLOCK_TOKENS,
        title: str = "",
        skipped: Mapping[str, int] = MappingProxyType({}),
        notes: Sequence[str] = (),
    ) -> Trace:
        """The trace of these requests, of which there is at least one."""
        times, ends = self._times, self._ends
        arrivals: Sequence[int] = [index for index, after in enumerate(self._after) if after < 0]
        later_turns = [index for index, after in enumerate(self._after) if after >= 0]
        if any(times[later] < times[before] for before, later in pairwise(arrivals)):
            arrivals = sorted(arrivals, key=times.__getitem__)
        order = [*arrivals, *later_turns]
        first = times[order[0]]
        next_turns, delays_ns = array("q"), array("q")
        if later_turns:
            number_of = dict(zip(order, range(len(order)), strict=True))
            next_turns, delays_ns = (array("q", [fill]) * len(order) for fill in (-1, 0))
            for index in later_turns:
                next_turns[number_of[self._after[index]]] = number_of[index]
                delays_ns[number_of[index]] = round(times[index] * unit_ns)
        ids, block_ends = array("q"), array("q")
        warm, first_blocks = bytearray(), set[int]()
        for index in order if self._ids else ():
            start, end = ends[index - 1] if index else 0, ends[index]
            ids.extend(self._ids[start:end])
            block_ends.append(len(ids))
            warm.append(end > start and self._ids[start] in first_blocks)
            if end > start:
                first_blocks.add(self._ids[start])
        return Trace(
            name,
            array("q", (round((times[index] - first) * unit_ns) for index in arrivals)),
            array("q", (self._inputs[index] for index in order)),
            array("q", (self._outputs[index] for index in order)),
            ids,
            block_ends,
            block_tokens,
            bytes(warm),
            tuple(self._texts[index] for index in order) if self._has_texts else (),
            next_turns,
            delays_ns,
            title,
            tuple(skipped.items()),
            tuple(notes),
        )


def trace_of(name: str, rows: Iterable[Row]) -> Trace:
    """The trace of these rows, at least one of which has known lengths; their times are in ns."""
    builder = TraceBuilder()
    for row in rows:
        builder.add(row)
    return builder.build(name)


@dataclass(frozen=True, slots=True)
class Replayed(Schedule):
    """The arrivals of a trace, `time_scale` times as fast as they were."""

    trace: Trace
    time_scale: float = 1.0

    @property
    def rate_varies(self) -> bool:
        """As in the trace."""
        return True

    @property
    def request_count(self) -> int:
        """The number of the trace's requests."""
        return len(self.trace)

    @property
    def has_sessions(self) -> bool:
        """Whether some requests follow the response to another: only the server decides when the last is due."""
        return self.trace.has_sessions

    @property
    def window_ns(self) -> int:
        """The time that the trace takes, with an average gap after the last arrival, rounded up.

        At least a second, so that requests that came all at once have a rate.
        """
        span_ns = self.trace.span_ns / self.time_scale
        gap_ns = max(_MIN_GAP_NS, span_ns / max(1, len(self.trace.offsets_ns) - 1))
        step_ns = NS_PER_S if span_ns > 60 * NS_PER_S else NS_PER_S // 10
        return max(NS_PER_S, math.ceil((span_ns + gap_ns) / step_ns) * step_ns)

    @property
    def rate_per_s(self) -> float:
        """The mean rate of the requests with a time, over the whole trace, to three digits."""
        return float(f"{len(self.trace.offsets_ns) * NS_PER_S / self.window_ns:.3g}")

    def offsets_ns(self, rate_per_s: float, rng: random.Random, *, lead_ns: int = 0) -> Iterator[int]:  # noqa: ARG002 - the trace has the times
        """Offsets from the level's beginning in ns; after the last the load ends."""
        return (round(offset_ns / self.time_scale) for offset_ns in self.trace.offsets_ns)

    def __str__(self) -> str:
        parts = [f"the trace {self.trace.name}"]
        parts += [f"{count} request{'s' * (count > 1)} {reason} left out" for reason, count in self.trace.skipped]
        if self.has_sessions:
            later = len(self.trace) - len(self.trace.offsets_ns)
            parts.append(f"{later} later turn{'s' * (later > 1)} after responses")
        if self.time_scale != 1:
            parts.append(f"{self.time_scale:g} times as fast")
        return ", ".join(parts)


class TracePrompts:
    """A prompt source of a trace: words of the recorded lengths, or the recorded texts."""

    def __init__(self, trace: Trace, words: WordPrompts, *, time_scale: float = 1.0) -> None:
        self._trace = trace
        self._words = words
        self._time_scale = time_scale

    def next(self, number: int, user: int | None) -> Prompt:  # noqa: ARG002 - a trace has no users
        """The prompt of the trace's request `number`."""
        prompt, next_turns = self._prompt(number), self._trace.next_turns
        if not next_turns or next_turns[number] < 0:
            return prompt
        following, turns = next_turns[number], 1
        delay_ns = round(self._trace.delays_ns[following] / self._time_scale)
        while number >= 0:
            number, turns = next_turns[number], turns + 1
        return prompt._replace(turns=turns - 1, next_turn=(following, delay_ns))

    def _prompt(self, number: int) -> Prompt:
        trace = self._trace
        text = trace.texts[number] if trace.texts else None
        if text is not None:
            return Prompt(text, trace.output_tokens[number])
        lengths = trace.input_tokens[number], trace.output_tokens[number]
        blocks = trace.blocks_of(number)
        if not blocks:
            return self._words.sized(number, *lengths)
        prompt = self._words.shared(blocks, *lengths, block_tokens=trace.block_tokens)
        return prompt._replace(warm=bool(trace.warm[number]))

    def calibration_prompts(self) -> Sequence[Prompt]:
        """As for generated words."""
        return self._words.calibration_prompts()

    def calibrate(self, tokens: Sequence[int | None]) -> Calibration | None:
        """As for generated words."""
        return self._words.calibrate(tokens)
