"""The responses of the Responses endpoint: events with a type.

    response.created, .in_progress, .output_item.added, .content_part.added     a response begins: no token yet
    response.output_text.delta                                                   visible text
    response.reasoning_text.delta, .reasoning_summary_text.delta                 reasoning
    response.function_call_arguments.delta, .refusal.delta                       generated, but neither
    response.completed, .incomplete, .failed                                     the end, with the usage
    error                                                                        the end, in the middle

The last event is the end, without `[DONE]`. Where events are numbered, none may be missing. The `.done` events repeat
what was counted before. Source: the published description of OpenAI's API, and what llama.cpp and Foundry Local send.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from loadbench.wire.generated import Generated, generated, kind_of
from loadbench.wire.openai import DONE, BadChunk, Chunk, error_in, message_of, object_of, string
from loadbench.wire.typed import Bare
from loadbench.wire.usage import MOST_TOKENS, count, usage_in
from loadbench.wire.vocabulary import is_error_event

_DELTA, _DONE = ".delta", ".done"
_VISIBLE = "response.output_text.delta"
# The events that end a response, and the same as finish_reason of the chat endpoint.
_ENDS = {"response.completed": "stop", "response.incomplete": "incomplete", "response.failed": "error",
         "response.cancelled": "cancelled"}  # fmt: skip
_REASONS = {"max_output_tokens": "length"}


class _TextDelta(Bare, forbid_unknown_fields=True, kw_only=True, gc=False):
    """A piece of visible text, as it usually is."""

    type: Literal["response.output_text.delta"]
    content: str = msgspec.field(name="delta")
    sequence_number: int | None = None
    item_id: str | None = None
    output_index: int | None = None
    content_index: int | None = None
    entries: list[Any] | None = msgspec.field(default=None, name="logprobs")
    obfuscation: str | None = None

    @property
    def token_ids(self) -> list[Any] | None:
        """As many as there are tokens."""
        return self.entries or None


_decode = msgspec.json.Decoder(_TextDelta).decode


class EventReader:
    """Reads the events of one response, in their order."""

    __slots__ = ("_last", "_number", "_shown")

    def __init__(self) -> None:
        self._number: int | None = None  # of the last event
        self._last: tuple[str, object] | None = None  # of the last delta with text, its type and its item
        self._shown: dict[str, set[object]] = {}  # by kind of text, the ids and indices of the items that had it

    def __call__(self, data: bytes) -> Chunk:
        """One event; raises `BadChunk` for bytes that are not a JSON object, or if events before it are missing."""
        if data.startswith(b"[") and data.strip() == b"[DONE]":  # some servers send it anyway
            return DONE
        document = object_of(data)
        number = document.get("sequence_number")
        if number is not None and (number := count(number)) is not None:
            last, self._number = self._number, number
            if last is not None and number != last + 1:
                raise BadChunk(f"event {number} right after event {last}", loses_text=True)

        kind = string(document.get("type"))
        if kind.endswith(_DELTA):
            delta, item = document.get("delta"), document.get("item_id") or document.get("output_index")
            logprobs = document.get("logprobs") if kind == _VISIBLE else None
            tokens = len(logprobs) if logprobs and isinstance(logprobs, list) else None
            is_next, of_kind = self._last == (kind, item), kind_of(kind)  # nearly always it continues the last one
            if is_next and isinstance(delta, str) and of_kind in {None, "reasoning"}:
                return Chunk(delta, "", "", tokens, choices=1) if of_kind is None else Chunk("", delta, choices=1)
            found = generated(delta, of_kind or "text")
            if not is_next and any(found):
                self._last = kind, item
                self._unshown(document, found)
            return Chunk(*found, tokens, choices=1)
        if kind.endswith(_DONE):
            # It repeats what came in deltas. Some servers send no deltas, and this is where their text is.
            whole = document.get("item") or document.get("part") or document
            found = self._unshown(document, generated(whole, kind_of(kind.removesuffix(_DONE)) or "text"))
            return Chunk(*found, choices=int(any(found)))
        if kind in _ENDS:
            # The last event repeats the whole response. Its text was read before, or is only here; so is its usage.
            response = document.get("response")
            response = response if isinstance(response, dict) else {}
            found = self._unshown({}, generated(response.get("output")))
            finish = _finish(kind, response)
            error = error_in(response) or error_in(document) or ("the response failed" if finish == "error" else None)
            model = string(response.get("model")) or None
            usage = usage_in(response) or usage_in(document)
            return Chunk(*found, finish_reason=finish, usage=usage, error=error, model=model, done=True)
        if is_error_event(kind):
            return Chunk(error=error_in(document) or message_of(document))
        # An event of a known kind with nothing to count, or something else.
        if kind.startswith("response."):
            return Chunk(error=message_of(document.get("error")))
        return Chunk(error=error_in(document), foreign=True)

    def read_text(self, data: bytes) -> Bare:
        """The next piece of the visible text; raises `ValueError` for any other event. See `loadbench.wire.typed`."""
        event = _decode(data)
        number, last = event.sequence_number, self._number
        is_next = self._last == (_VISIBLE, event.item_id or event.output_index) and event.content != ""
        if not is_next or (
            number is not None and not 0 <= number == (number if last is None else last + 1) <= MOST_TOKENS
        ):
            raise ValueError
        if number is not None:
            self._number = number
        return event

    def _unshown(self, document: dict[str, Any], found: Generated) -> Generated:
        """What of this text no earlier event of its item had. Without an item, it belongs to any."""
        item = document.get("item")
        ids = document.get("output_index"), document.get("item_id"), item.get("id") if isinstance(item, dict) else None
        names: set[object] = {name for name in ids if isinstance(name, int | str)} or {None}
        new = {}
        for kind, text in found._asdict().items():
            shown = self._shown.setdefault(kind, set())
            if text and not (names & shown or (shown and (None in names or None in shown))):
                new[kind] = text
                shown |= names
        return Generated(**new)


def _finish(kind: str, response: dict[str, Any]) -> str:
    """Why it ended. A complete response is `stop`, even if it used all its tokens: the endpoint does not say so."""
    details = response.get("incomplete_details")
    reason = string(details.get("reason")) if isinstance(details, dict) else ""
    return _REASONS.get(reason, reason) or _ENDS[kind]


def read_whole(data: bytes) -> Chunk:
    """A response that was not streamed; raises `BadChunk` for bytes that are not a JSON object."""
    document = object_of(data)
    output = document.get("output")
    found = generated(output)
    status = string(document.get("status"))
    return Chunk(
        *found,
        finish_reason=_finish(f"response.{status}", document) if f"response.{status}" in _ENDS else None,
        usage=usage_in(document),
        error=error_in(document),
        model=string(document.get("model")) or None,
        choices=int(isinstance(output, list)),
    )
