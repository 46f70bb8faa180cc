"""The frames of responses of OpenAI-compatible servers: JSON in, one flat record out.

The servers agree on the outline and on little else: choices missing or empty, `content` null, "" or a list of parts,
`message` with or instead of `delta`, usage anywhere or on every frame, errors as objects, strings or lists. The reader
accepts all of this and invents nothing: what a frame does not have is `None` or "". Only bytes that are not a JSON
object are refused. `loadbench.wire.response_reader` adds the frames up to a response.
"""

from __future__ import annotations

import html
import json
import re
import unicodedata
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from loadbench.wire.timings import timings_in

if TYPE_CHECKING:
    from loadbench.record.timings import Timings

# Long enough for a server's error message, short enough for a line of a report.
_LONGEST_LINE = 300
# Invisible, direction-changing and broken characters: a server's text must not rewrite a terminal or a report.
_UNPRINTABLE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn"})
_TITLE = re.compile(r"<title[^>]*>([^<]*)", re.IGNORECASE)
# A higher count is a mistake of the server. This one still fits the arrays where counts are kept.
_MOST_TOKENS = 2**40


class Api(StrEnum):
    """Which endpoint the requests go to."""

    CHAT = "chat"
    COMPLETIONS = "completions"
    RESPONSES = "responses"
    OLLAMA = "ollama"  # its own chat, which reports times that its OpenAI-compatible one does not


class BadChunk(ValueError):  # noqa: N818 - reads as what it is at the raise
    """Bytes that are not a JSON object; the message says what they are."""


class Usage(NamedTuple):
    """The server's own count of tokens; `None` for counts that it does not report."""

    input: int | None = None
    output: int | None = None
    cached: int | None = None
    reasoning: int | None = None
    total: int | None = None

    @property
    def generated(self) -> int | None:
        """All output tokens, including reasoning.

        Most servers include reasoning in `output`, some do not. It is added only where the total shows that it was not
        included.
        """
        if self.output is None or self.input is None or not self.reasoning:
            return self.output
        separate = self.total == self.input + self.output + self.reasoning
        return self.output + self.reasoning if separate else self.output


class Chunk(NamedTuple):
    """One frame of a response. The texts of several choices are concatenated and their tokens added."""

    text: str = ""  # visible to the user
    reasoning: str = ""
    tool: str = ""  # names and arguments of tool calls, and refusals
    tokens: int | None = None  # in this frame, by its ids or logprobs
    finish_reason: str | None = None
    usage: Usage | None = None
    error: str | None = None
    model: str | None = None
    choices: int = 0  # a frame without choices is not part of a response
    done: bool = False
    timings: Timings | None = None  # the server's own


DONE = Chunk(done=True)


# One frame.


def read_chunk(data: bytes) -> Chunk:
    """One frame of a stream; raises `BadChunk` for bytes that are neither a JSON object nor `[DONE]`."""
    if data.startswith(b"[") and data.strip() == b"[DONE]":
        return DONE
    return _read(object_of(data), "delta", "message")


def read_whole(data: bytes) -> Chunk:
    """A response that was not streamed; raises `BadChunk` for bytes that are not a JSON object."""
    return _read(object_of(data), "message", "delta")


def object_of(data: bytes) -> dict[str, Any]:
    """The JSON object in these bytes; raises `BadChunk` if they are something else."""
    try:
        document = orjson.loads(data)
    except orjson.JSONDecodeError:
        # Servers send what strict JSON refuses: broken UTF-8 inside a string, half a surrogate pair, NaN.
        try:
            document = json.loads(data.decode("utf-8", "replace"))
        except (ValueError, RecursionError):
            raise BadChunk(f"not JSON: {clean(data[:200].decode('utf-8', 'replace'))!r}") from None
    if not isinstance(document, dict):
        raise BadChunk(f"{_kind(document)} instead of a JSON object")
    return document


def _kind(document: object) -> str:
    match document:
        case list():
            return "a JSON list"
        case str():
            return "a JSON string"
        case None:
            return "null"
        case _:
            return "a JSON number" if not isinstance(document, bool) else "true or false"


def _read(document: dict[str, Any], first: str, second: str) -> Chunk:
    """The frame whose choices have their text under `first`, or without that under `second`."""
    text = reasoning = tool = ""
    tokens = finish = None
    usage, error, choices = document.get("usage"), error_in(document), document.get("choices")
    choices = [choice for choice in choices if isinstance(choice, dict)] if isinstance(choices, list) else []
    for choice in choices:
        part = choice.get(first)
        if not isinstance(part, dict):
            part = choice.get(second)
        if isinstance(part, dict):
            text += _text_of(part.get("content"))
            # Nearly every part has only its content, and need not pay for looking for more.
            if len(part) > 1 or "content" not in part:
                reasoning += _text_of(part.get("reasoning_content")) or _text_of(part.get("reasoning"))
                tool += _tool_text(part)
        else:
            text += _text_of(choice.get("text"))
        reason = choice.get("finish_reason")
        if isinstance(reason, dict):  # with the word as its type
            reason = reason.get("type")
        if reason and isinstance(reason, str):
            finish = reason
        choice_tokens = _tokens(choice)
        if choice_tokens is not None:
            tokens = choice_tokens + (tokens or 0)
        if "usage" in choice or "error" in choice:
            usage, error = usage or choice.get("usage"), error or message_of(choice.get("error"))
    counts = _usage(usage) if isinstance(usage, dict) and usage else None
    model, timings = string(document.get("model")) or None, timings_in(document)
    return Chunk(text, reasoning, tool, tokens, finish, counts, error, model, len(choices), timings=timings)


def _text_of(content: object) -> str:
    """Text that is a string or a list of parts with text; "" for anything else."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    return "".join(string(part.get("text")) for part in content if isinstance(part, dict))


def _tool_text(part: dict[str, Any]) -> str:
    """Names and arguments of the tool calls in this part, and its refusal: generated, but not visible text."""
    calls = part.get("tool_calls")
    texts = [_text_of(part.get("refusal")), _call_text(part.get("function_call"))]
    for call in calls if isinstance(calls, list) else ():
        if isinstance(call, dict):
            texts += _call_text(call.get("function")), _call_text(call.get("custom"))
    return "".join(texts)


def _call_text(call: object) -> str:
    if not isinstance(call, dict):
        return ""
    arguments = call.get("arguments") or call.get("input")
    # Most servers send the arguments as text, some as an object.
    return string(call.get("name")) + (_json(arguments) if arguments else "")


def _tokens(choice: dict[str, Any]) -> int | None:
    """The number of tokens in this choice, by their ids or by their logprobs."""
    ids = choice.get("token_ids")
    if isinstance(ids, list):
        return len(ids)
    logprobs = choice.get("logprobs")
    if not isinstance(logprobs, dict):
        return None
    lists = [logprobs.get(name) for name in ("content", "refusal")]
    if not any(isinstance(entries, list) for entries in lists):
        lists = [logprobs.get("tokens")]  # the older form, of /completions
    counts = [len(entries) for entries in lists if isinstance(entries, list)]
    return sum(counts) if counts else None


def _usage(usage: dict[str, Any]) -> Usage:
    prompt, completion = usage.get("prompt_tokens_details"), usage.get("completion_tokens_details")
    return Usage(
        count(usage.get("prompt_tokens")),
        count(usage.get("completion_tokens")),
        count(prompt.get("cached_tokens")) if isinstance(prompt, dict) else None,
        count(completion.get("reasoning_tokens") if isinstance(completion, dict) else usage.get("reasoning_tokens")),
        count(usage.get("total_tokens")),
    )


def count(value: object) -> int | None:
    """A plausible number of tokens, or `None`."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if type(value) is int and 0 <= value <= _MOST_TOKENS else None


def string(value: object) -> str:
    """The text; "" for anything that is not text."""
    return value if isinstance(value, str) else ""


def _json(value: object) -> str:
    """A string as it is, any other value as its JSON."""
    try:
        return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    except RecursionError:
        return "deeply nested JSON"


# Errors, and text for people.


def error_text(body: bytes) -> str:
    """The message of a server's error body, as one clean line of at most 300 characters."""
    if not body.strip():
        return "no body"
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return page_text(body) or clean(body.decode("utf-8", "replace")) or "no text"
    message = error_in(document) or message_of(document) if isinstance(document, dict) else None
    return message or clean(body.decode("utf-8", "replace")) or "no text"


def page_text(body: bytes) -> str | None:
    """`an HTML page` with its title; `None` if it is something else."""
    start = body[:1024].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if not start.startswith(b"<") or not (b"<html" in start or b"<!doctype html" in start or b"<head" in start):
        return None
    title = _TITLE.search(body.decode("utf-8", "replace"))
    name = clean(html.unescape(title.group(1))) if title else ""
    return f"an HTML page ({name})" if name else "an HTML page"


def clean(text: str) -> str:
    """One line without control, bidirectional and other unprintable characters, cut at 300."""
    # Look at little more than is kept: the text could be 16 MiB.
    start = text[: 20 * _LONGEST_LINE]
    printable = (letter for letter in start if letter.isspace() or unicodedata.category(letter) not in _UNPRINTABLE)
    line = " ".join("".join(printable).split())
    return line if len(line) <= _LONGEST_LINE else line[: _LONGEST_LINE - 1] + "…"


def error_in(document: dict[str, Any]) -> str | None:
    """The error that a document reports: its `error`, of any shape, or in the older form the document itself."""
    error = document.get("error")
    if error:
        return message_of(error) or "an error without a message"
    if document.get("object") == "error" or (document.get("detail") and "choices" not in document):
        return message_of(document)
    return None


def message_of(error: object) -> str | None:
    """The message in an error, wherever it is, as one clean line."""
    match error:
        case str():
            return clean(error) or None
        case {"message": str(text)} | {"detail": str(text)} | {"msg": str(text)} if text.strip():
            return clean(text)
        case {"detail": list(items)}:
            return clean("; ".join(_problem(item) for item in items[:20])) or None
        case _:
            return clean(_json(error)) if error else None


def _problem(item: object) -> str:
    """One entry of a list of validation errors: where, and what is wrong there."""
    if not isinstance(item, dict):
        return _json(item)
    place = item.get("loc")
    where = ".".join(str(step) for step in place if isinstance(step, str | int)) if isinstance(place, list) else ""
    problem = string(item.get("msg")) or _json(item)
    return f"{where}: {problem}" if where else problem
