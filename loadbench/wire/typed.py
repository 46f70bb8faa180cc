"""A typed decoder for events that differ in more than their text: numbers, padding, token ids, usage, tool calls.

Once an event has been parsed, the names in it are known. A decoder for objects with just these names reads the text and
what is counted, and builds nothing else. It never decides what a frame means: it refuses each event in which the parser
might see more than that, such as one with another name, an error, an end or a second choice, and this event is parsed.

What it passes over is what the parser does not look at either: names of a frame or of a choice that mean nothing there.
A name by which a server may report an error must keep the value that it had in the parsed event, where it meant none.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from typing import Any, ClassVar, Literal, NamedTuple, cast

import msgspec
from msgspec import Struct

from loadbench.wire.openai import ERROR_KEYS, object_of, says_success

# Read, unless they have a value that never changes: by their error, or into timings, which are not counted per event.
_PINNED = ERROR_KEYS | {"object", "timings", "metrics"}


class _Absent:
    """The type of what must not be there: no value in JSON has it."""


_ABSENT = _Absent()


class _Function(Struct, forbid_unknown_fields=True, gc=False):
    name: str | None = None
    arguments: str | None = None


class _Call(Struct, forbid_unknown_fields=True, gc=False):
    index: int | None = None
    id: str | None = None
    type: Literal["function"] | None = None
    function: _Function | None = None


class _Delta(Struct, forbid_unknown_fields=True, gc=False):
    """The delta of most servers. In a delta every name may hold text, so none is passed over."""

    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[_Call] | None = None
    role: str | None = None
    refusal: None = None
    function_call: None = None
    audio: None = None


class _Entry(Struct, gc=False):
    """One token's log-probabilities, of which only their number is used."""


class _Logprobs(Struct, gc=False):
    content: list[_Entry] | None = None
    refusal: list[_Entry] | None = None
    tokens: list[Any] | None = None  # the older form, of /completions

    @property
    def count(self) -> int | None:
        """How many tokens these are, as the parser counts them."""
        counts = [len(entries) for entries in (self.content, self.refusal) if entries is not None]
        if not counts and self.tokens is not None:
            counts.append(len(self.tokens))
        return sum(counts) if counts else None


class Choice(Struct, kw_only=True, gc=False):
    """The only choice of a frame; `delta` is `None` where the text is its own."""

    delta: Any
    finish_reason: str | None = None
    logprobs: _Logprobs | None = None
    token_ids: list[Any] | None = None
    usage: _Absent = _ABSENT
    error: _Absent = _ABSENT


class _Usual(Choice, kw_only=True, gc=False):
    delta: _Delta


class _Unusual(Choice, kw_only=True, gc=False):
    """With a delta that is read name by name, as by the parser."""

    delta: dict[str, Any]


class _Completion(Choice, kw_only=True, gc=False):
    """Of the older endpoint, with the text in the choice."""

    reasoning_content: ClassVar[None] = None
    reasoning: ClassVar[None] = None
    tool_calls: ClassVar[None] = None
    content: str = msgspec.field(name="text")
    delta: None = None
    message: None = None


class Counts(Struct, forbid_unknown_fields=True, gc=False):
    """The usage that most servers report which report it with every event."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class Frame(Struct, gc=False):
    """What all decoded frames have, besides names that mean nothing."""

    choices: tuple[Choice]
    usage: Any = None  # `Counts`, or any object


Decode = Callable[[bytes], Frame]


class Form(NamedTuple):
    """What frames have in common that the typed decoder reads."""

    names: tuple[str, ...] = ()
    pinned: tuple[tuple[str, str | int | None], ...] = ()  # names that have one value
    choice: type[Choice] = _Usual
    usage: type[Counts] | type[dict[str, Any]] = Counts


def _reads(kind: type[Choice]) -> Decode:
    frame = msgspec.defstruct("Frame", [("choices", tuple[kind])])  # type: ignore[valid-type]
    return cast("Decode", msgspec.json.Decoder(frame).decode)


_COUNTS = frozenset(Counts.__struct_fields__)
_CHOICES = tuple((kind, _reads(kind)) for kind in (_Usual, _Unusual, _Completion))


def form_of(data: bytes, known: Form, *, has_model: bool) -> Form | None:
    """The form of the frames that were `known` and of this one, which was parsed and has text, no end and no error.

    `None` if frames like it must be parsed. `has_model`: the model is known, so that no frame can change it.
    """
    document = object_of(data)
    pinned = dict(known.pinned)
    for name in document.keys() & _PINNED if has_model else document.keys() & (_PINNED | {"model"}):
        value = document[name]
        if not (value is None or type(value) in {str, int}) or (name == "code" and not says_success(value)):
            return None
        pinned[name] = value
    usage = document.get("usage")
    is_usual = known.usage is Counts and (not isinstance(usage, dict) or usage.keys() == _COUNTS)
    for kind, decode in _CHOICES[known.choice is _Unusual :]:
        with suppress(msgspec.DecodeError, ValueError, RecursionError):
            decode(data)
            names = tuple(dict.fromkeys((*known.names, *document)))
            return Form(names, tuple(pinned.items()), kind, Counts if is_usual else dict[str, Any])
    return None


@lru_cache(maxsize=256)
def decoder(form: Form) -> Decode | None:
    """Reads frames of this form and raises for all others; `None` if msgspec does not take one of the names."""
    types: dict[str, Any] = dict.fromkeys(form.names, Any) | {name: Literal[value] for name, value in form.pinned}
    choice, usage = form.choice, form.usage
    types |= {"choices": tuple[choice], "usage": usage | None}  # type: ignore[valid-type]
    names = {name: name if name in {"choices", "usage"} else f"field_{number}" for number, name in enumerate(types)}
    if not all(name.isprintable() and '"' not in name and "\\" not in name for name in names):
        return None
    frame = msgspec.defstruct(
        "Frame",
        [(names[name], kind) if name == "choices" else (names[name], kind, None) for name, kind in types.items()],
        rename={field: name for name, field in names.items()},
        kw_only=True,
        forbid_unknown_fields=True,
        gc=False,
    )
    return cast("Decode", msgspec.json.Decoder(frame).decode)
