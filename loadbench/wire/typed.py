"""A typed decoder for events that differ in more than their text: numbers, padding, token ids, usage, tool calls.

Once an event has been parsed, the names in it are known. A decoder for objects with just these names reads the text and
what is counted, and builds nothing else. It never decides what a frame means: it refuses each event in which the parser
might see more than that, such as one with another name, an error, an end or a second choice, and this event is parsed.

What it passes over is what the parser does not look at either: names of a frame or of a choice that mean nothing there.
A name by which a server may report an error must keep the value that it had in the parsed event, where it meant none.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import lru_cache
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, cast

import msgspec
from msgspec import Meta, Struct, defstruct

from loadbench.wire.generated import inside
from loadbench.wire.openai import ERROR_KEYS, MESSAGE_KEYS, object_of, says_success
from loadbench.wire.usage import Usage, read_usage

# Read, unless they have a value that never changes: by their error, or into timings, which are not counted per event.
_PINNED = ERROR_KEYS | frozenset(MESSAGE_KEYS) | {"object", "timings", "metrics"}
# A value that may be the same in all events: what has digits is an id, and would need another decoder each time.
_WORD = re.compile(r"[^0-9]{0,40}|200|0").fullmatch
# Read into a frame, besides those: all other names of it may have any value.
_MEANINGFUL = frozenset({"choices", "usage", "model"})
# In a delta they say what all of it is.
_DECIDES = frozenset({"type", "thought", "extra_content", "error"})


def means_nothing(name: str) -> bool:
    """Whether a name of a frame says nothing that is used, whatever its value is."""
    return name not in _PINNED and name not in _MEANINGFUL


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

    @property
    def tool(self) -> str:
        """Text of a tool call, if there is any."""
        for call in self.tool_calls or ():
            function = call.function
            if function is not None and (text := function.arguments or function.name):
                return text
        return ""


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


# What a name in a delta may have that says nothing of text, so that there is none in it.
_TEXTLESS = (
    str | float | bool | None | Annotated[list[Any], Meta(max_length=0)] | Annotated[dict[str, Any], Meta(max_length=0)]
)


@lru_cache(maxsize=256)
def _usual(names: tuple[str, ...]) -> type[Choice]:
    """A choice whose delta has these names too, none of which holds text."""
    if not names:
        return _Usual
    fields = {f"field_{number}": name for number, name in enumerate(names)}
    types = [(field, Any if inside(name, "text") is None else _TEXTLESS, None) for field, name in fields.items()]
    delta = defstruct("Delta", types, bases=(_Delta,), rename=fields, forbid_unknown_fields=True, gc=False)
    return cast("type[Choice]", defstruct("Choice", [("delta", delta)], bases=(Choice,), kw_only=True, gc=False))


class Bare(Struct, kw_only=True, gc=False):
    """A frame of another API, which is its own only choice; subclasses have its `content`, and all that it may have."""

    delta: ClassVar[Any] = None
    finish_reason: ClassVar[None] = None
    logprobs: ClassVar[Any] = None
    token_ids: ClassVar[Any] = None
    usage: ClassVar[None] = None
    reasoning_content: ClassVar[None] = None
    reasoning: ClassVar[None] = None
    tool_calls: ClassVar[None] = None

    @property
    def choices(self) -> tuple[Bare]:
        """The frame itself."""
        return (self,)


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


class _Details(Struct, forbid_unknown_fields=True, gc=False):
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None
    audio_tokens: int | None = None
    accepted_prediction_tokens: int | None = None
    rejected_prediction_tokens: int | None = None


class Counts(Struct, forbid_unknown_fields=True, gc=False):
    """The usage of most servers that report it with every event."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: _Details | None = None
    completion_tokens_details: _Details | None = None
    reasoning_tokens: int | None = None

    def replaces(self, other: Counts | None) -> bool:
        """Whether nothing is left of this earlier usage beside this one, which has positive counts and no reasoning."""
        details = self.completion_tokens_details
        if self.reasoning_tokens or (details is not None and details.reasoning_tokens):
            return False
        return other is None or (
            details == other.completion_tokens_details
            and self.prompt_tokens_details == other.prompt_tokens_details
            and self.reasoning_tokens == other.reasoning_tokens
        )

    @property
    def usage(self) -> Usage:
        """The usage, as the parser reads it."""
        return read_usage(msgspec.to_builtins(self)) or Usage()


class Frame(Struct, gc=False):
    """What all decoded frames have, besides names that mean nothing."""

    choices: tuple[Choice]
    usage: Any = None  # `Counts`, or any object


Decode = Callable[[bytes], Frame | Bare]


class Form(NamedTuple):
    """What frames have in common that the typed decoder reads."""

    names: tuple[str, ...] = ()
    in_delta: tuple[str, ...] = ()  # of a usual delta, beside those of `_Delta`
    pinned: tuple[tuple[str, str | int | None], ...] = ()  # names that have one value
    choice: type[Choice] = _Usual
    usage: type[Counts] | type[dict[str, Any]] = Counts


@lru_cache(maxsize=256)
def _reads(kind: type[Choice]) -> Decode:
    frame = defstruct("Frame", [("choices", tuple[kind])])  # type: ignore[valid-type]
    return cast("Decode", msgspec.json.Decoder(frame).decode)


def form_of(data: bytes, known: Form, *, has_model: bool) -> Form | None:
    """The form of the frames that were `known` and of this one, which was parsed and has text, no end and no error.

    `None` if frames like it must be parsed. `has_model`: the model is known, so that no frame can change it.
    """
    document = object_of(data)
    pinned = dict(known.pinned)
    for name in document.keys() & _PINNED if has_model else document.keys() & (_PINNED | {"model"}):
        value = document[name]
        is_word = value is None or type(value) is int or (isinstance(value, str) and _WORD(value) is not None)
        if not is_word or pinned.get(name, value) != value or (name == "code" and not says_success(value)):
            return None
        pinned[name] = value
    usage = document.get("usage")
    is_usual = known.usage is Counts
    if is_usual and usage is not None:
        try:
            msgspec.convert(usage, Counts)
        except msgspec.ValidationError:
            is_usual = False
    names, in_delta = tuple(dict.fromkeys((*known.names, *document))), known.in_delta
    kinds: list[type[Choice]] = [_Unusual, _Completion]
    with suppress(LookupError, TypeError):  # whatever the choices are: the decoder reads one, or refuses
        delta = document["choices"][0]["delta"]
        more = [name for name in dict.fromkeys((*in_delta, *delta)) if name not in _Delta.__struct_fields__]
        holds_none = not any(name in _DECIDES or inside(name, "text") not in {None, "unknown"} for name in more)
        if known.choice is not _Unusual and holds_none and _can_name(more):
            in_delta = tuple(more)
            kinds.insert(0, _Usual)
    for kind in kinds:
        with suppress(msgspec.DecodeError, ValueError, RecursionError):
            _reads(_usual(in_delta) if kind is _Usual else kind)(data)
            return Form(names, in_delta, tuple(pinned.items()), kind, Counts if is_usual else dict[str, Any])
    return None


def _can_name(names: Iterable[str]) -> bool:
    """Whether msgspec takes these names."""
    return all(name.isprintable() and '"' not in name and "\\" not in name for name in names)


@lru_cache(maxsize=256)
def decoder(form: Form) -> Decode | None:
    """Reads frames of this form and raises for all others; `None` if msgspec does not take one of the names."""
    types: dict[str, Any] = dict.fromkeys(form.names, Any) | {name: Literal[value] for name, value in form.pinned}
    choice, usage = _usual(form.in_delta) if form.choice is _Usual else form.choice, form.usage
    types |= {"choices": tuple[choice], "usage": usage | None}  # type: ignore[valid-type]
    names = {name: name if name in {"choices", "usage"} else f"field_{number}" for number, name in enumerate(types)}
    if not _can_name(names):
        return None
    frame = defstruct(
        "Frame",
        [(names[name], kind) if name == "choices" else (names[name], kind, None) for name, kind in types.items()],
        rename={field: name for name, field in names.items()},
        kw_only=True,
        forbid_unknown_fields=True,
        gc=False,
    )
    return cast("Decode", msgspec.json.Decoder(frame).decode)
