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
from contextlib import suppress
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import orjson

from loadbench.core.bounded import MOST_COST, TOO_DEEP, OutOfBounds, is_costly, is_deep, parse_json
from loadbench.wire.generated import generated, json_text
from loadbench.wire.timings import timings_in
from loadbench.wire.usage import Usage, usage_in
from loadbench.wire.vocabulary import Ending, ending_of, names_error

if TYPE_CHECKING:
    from loadbench.record.timings import Timings

# Long enough for a server's error message, short enough for a line of a report.
_LONGEST_LINE = 300
# Invisible, direction-changing and broken characters: a server's text must not rewrite a terminal or a report.
_UNPRINTABLE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn"})
_TITLE = re.compile(r"<title[^<>]*>([^<]*)", re.IGNORECASE)
# What only a frame of a response has; a frame with none of these is not understood.
_PARTS = frozenset({"choices", "usage", "model", "created", "timings", "system_fingerprint", "service_tier"})
# Where errors are, what says that there is one, and where its message is, in the order in which they are looked for.
_ERRORS = ("error", "errors", "fault", "exception")
_CODES = ("error_code", "errorCode", "err_code", "errcode", "errno", "error_msg", "error_message", "errorMessage",
          "errmsg", "err_msg", "err", "error_type", "ret", "retcode", "base_resp")  # fmt: skip
MESSAGE_KEYS = ("message", "detail", "msg", "error_message", "error_msg", "errorMessage", "errmsg", "err_msg",
             "status_msg", "faultstring", "error_description", "description", "reason")  # fmt: skip
_NESTED = ("x_groq", "data", "result", "response")  # objects that may have an `error`
ERROR_KEYS = frozenset(
    {*_ERRORS, *_CODES, *_NESTED, "code", "status", "status_code", "statusCode", "detail", "success", "ok", "type"}
)
_SUCCESS = frozenset({"", "0", "200", "ok", "success", "succeeded", "successful", "null", "none", "completed"})
# No server nests an error deeper than half of this.
_MOST_LEVELS = 12
# Lists that are not used, not even counted, and make most of the largest events: a prompt's tokens, and alternatives to
# those that were generated, with the bytes of each. A quote after a backslash is part of a text; the brackets of the
# innermost lists are gone before the outer ones are looked at.
_UNUSED_NUMBERS = re.compile(rb'(?<!\\)"(bytes|prompt_token_ids)"\s*+:\s*+\[[\s\d.,eE+-]*+\]')
_UNUSED_LISTS = re.compile(
    rb'(?<!\\)"(top_logprobs|prompt_logprobs)"\s*+:\s*+\[(?:[^\[\]"\\]|"(?:[^"\\]|\\.)*+")*+\]', re.DOTALL
)
# The title of a page, and objects in lines of their own, are looked for in this much of a body.
_SEARCHED_BYTES = 64 * 1024


class Api(StrEnum):
    """Which endpoint the requests go to."""

    CHAT = "chat"
    COMPLETIONS = "completions"
    RESPONSES = "responses"
    OLLAMA = "ollama"  # its own chat, which reports times that its OpenAI-compatible one does not


class BadChunk(ValueError):  # noqa: N818 - reads as what it is at the raise
    """Bytes that are not a JSON object; the message says what they are.

    `loses_text`: they were a frame of the response, or one before them is missing, so that its text has a gap.
    `is_beyond`: they are JSON, perhaps, but more than is read.
    """

    def __init__(self, message: str, *, loses_text: bool = False, is_beyond: bool = False) -> None:
        super().__init__(message)
        self.loses_text = loses_text
        self.is_beyond = is_beyond


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
    foreign: bool = False  # an object with nothing that a response has
    is_message: bool = False  # it has a whole message where streams have deltas


DONE = Chunk(done=True)
FOREIGN = Chunk(foreign=True)


# One frame.


def read_chunk(data: bytes) -> Chunk:
    """One frame of a stream; raises `BadChunk` for bytes that are neither a JSON object nor `[DONE]`."""
    if data.startswith(b"[") and data.strip() == b"[DONE]":
        return DONE
    document = object_of(data)
    chunk = _read(document, "delta", "message")
    if not chunk.choices and chunk == Chunk(model=chunk.model):
        is_known = not _PARTS.isdisjoint(document) or ("code" in document and says_success(document["code"]))
        if not is_known or not says_success(string(document.get("message"))):
            error = error_in({key.lower(): value for key, value in document.items()})
            return Chunk(error=error, model=chunk.model, foreign=True)
    return chunk


def read_whole(data: bytes) -> Chunk:
    """A response that was not streamed; raises `BadChunk` for bytes that are not a JSON object."""
    return _read(object_of(data), "message", "delta")


def object_of(data: bytes) -> dict[str, Any]:
    """The JSON object in these bytes; raises `BadChunk` if they are something else."""
    if is_costly(data, MOST_COST):
        data = _UNUSED_LISTS.sub(rb'"\1":null', _UNUSED_NUMBERS.sub(rb'"\1":null', data))
    try:
        document = parse_json(data)
    except orjson.JSONDecodeError as error:
        # Servers send what strict JSON refuses: broken UTF-8 inside a string, half a surrogate pair, NaN.
        beyond, loses_text = error.msg if isinstance(error, OutOfBounds) else "", b"{" in data
        try:
            document = ... if beyond else json.loads(data.decode("utf-8-sig", "replace"))
            beyond = beyond or (TOO_DEEP if is_deep(data, document) else "")
        except RecursionError:
            beyond = TOO_DEEP
        except ValueError:
            raise BadChunk(f"not JSON: {quoted(data)}", loses_text=loses_text) from None
        if beyond:
            remedy = "" if beyond == TOO_DEEP else " (request less with each event, as fewer log-probabilities)"
            what = f"more than is read, {beyond}{remedy}: {quoted(data)}"
            raise BadChunk(what, loses_text=loses_text, is_beyond=True) from None
    if not isinstance(document, dict):
        raise BadChunk(f"{_kind(document)} instead of a JSON object: {quoted(data)}", loses_text=b"{" in data)
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
    tokens = finish = usage = None
    is_message = False
    error, choices = error_in(document), document.get("choices")
    choices = [choice for choice in choices if isinstance(choice, dict)] if isinstance(choices, list) else []
    for choice in choices:
        part = choice.get(first)
        if not isinstance(part, dict):
            part = choice.get(second)
            is_message = part is not None and second == "message"
        # Nearly every part has only its content, some its role, and need not pay for looking for more.
        if isinstance(part, dict):
            content = part.get("content")
            is_plain = len(part) == 1 or (len(part) == 2 and "role" in part)
        else:
            part, content = choice, choice.get("text")
            is_plain = bool(content)
        if is_plain and isinstance(content, str):
            text += content
        elif part:
            if "error" in part:
                error = error or message_of(part["error"])
            more_text, more_reasoning, more_tool = generated(part)
            text, reasoning, tool = text + more_text, reasoning + more_reasoning, tool + more_tool
        reason = choice.get("finish_reason")
        if isinstance(reason, dict):  # with the word as its type, and the reason for a failure (SGLang)
            if ending_of(string(reason.get("type"))) is Ending.FAILED:
                error = error or message_of(reason)
            reason = reason.get("type")
        # Of several choices, one that did not end well counts.
        if reason and isinstance(reason, str) and (ending := ending_of(reason)) is not Ending.NONE:
            finish = finish if finish and ending in {Ending.GOOD, Ending.FILTERED} else reason
        if (choice.get("logprobs") or "token_ids" in choice) and (held := _tokens(choice)) is not None:
            tokens = held + (tokens or 0)
        if "usage" in choice or "error" in choice:
            usage, error = usage or usage_in(choice), error or message_of(choice.get("error"))
    # Usage has many places. Beside what was generated it is looked for only where most servers have it. A type, where
    # choices should be, is that of another protocol.
    if document.get("usage") or finish is not None or not (text or reasoning or tool):
        for place in (document, *choices) if "choices" in document or "type" not in document else ():
            if (found := usage_in(place)) is not None:
                usage = found
                break
    model = document.get("model")
    model = model if model and isinstance(model, str) else None
    timings = timings_in(document) if "timings" in document or "metrics" in document else None
    return Chunk(
        text, reasoning, tool, tokens, finish, usage, error, model, len(choices), timings=timings, is_message=is_message
    )


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


def string(value: object) -> str:
    """The text; "" for anything that is not text."""
    return value if isinstance(value, str) else ""


# Errors, and text for people.


def error_text(body: bytes) -> str:
    """The message of a server's error body, as one clean line of at most 300 characters."""
    if not body.strip():
        return "no body"
    try:
        document = parse_json(body)
    except orjson.JSONDecodeError:
        page = page_text(body)
        # An object in a line of its own says more than the text around it.
        lines = () if page else (line for line in body[:_SEARCHED_BYTES].splitlines() if line.lstrip()[:1] == b"{")
        for line in lines:
            with suppress(orjson.JSONDecodeError):
                if message := error_in(parse_json(line)):
                    return message
        return page or clean(body.decode("utf-8", "replace")) or "no text"
    if isinstance(document, list) and document and isinstance(document[0], dict):  # Gemini's errors are lists
        document = document[0]
    message = error_in(document) or message_of(document) if isinstance(document, dict) else None
    return message or clean(body.decode("utf-8", "replace")) or "no text"


def page_text(body: bytes) -> str | None:
    """`an HTML page` with its title; `None` if it is something else."""
    start = body[:1024].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if not start.startswith(b"<") or not (b"<html" in start or b"<!doctype html" in start or b"<head" in start):
        return None
    title = _TITLE.search(body[:_SEARCHED_BYTES].decode("utf-8", "replace"))
    name = clean(html.unescape(title.group(1))) if title else ""
    return f"an HTML page ({name})" if name else "an HTML page"


def clean(text: str) -> str:
    """One line without control, bidirectional and other unprintable characters, cut at 300."""
    # Look at little more than is kept: the text could be megabytes.
    start = text[: 20 * _LONGEST_LINE]
    if not (start.isascii() and start.isprintable()):  # as a name or a word seldom is
        kept = (letter for letter in start if letter.isspace() or unicodedata.category(letter) not in _UNPRINTABLE)
        start = "".join(kept)
    line = " ".join(start.split())
    return line if len(line) <= _LONGEST_LINE else line[: _LONGEST_LINE - 1] + "…"


def quoted(data: bytes) -> str:
    """The beginning of these bytes in quotes, with what cannot be printed as escapes: for a line of a report."""
    text = data[:_LONGEST_LINE].decode("utf-8", "backslashreplace")
    escaped = (
        letter if letter == " " or unicodedata.category(letter) not in _UNPRINTABLE else repr(letter)[1:-1]
        for letter in text
    )
    return f"'{''.join(escaped)}{'…' if len(data) > _LONGEST_LINE else ''}'"


def error_in(document: dict[str, Any]) -> str | None:
    """The error that a document reports, in any of the shapes that servers use; `None` if it reports none."""
    if ERROR_KEYS.isdisjoint(document) and document.get("object") != "error":
        return None
    for key in _ERRORS:
        error = document.get(key)
        if error and not says_success(error):
            return message_of(error) or "an error without a message"
    for key in _NESTED:
        inner = document.get(key)
        if isinstance(inner, dict) and inner.get("error"):
            return message_of(inner["error"])
    message = next((text for key in MESSAGE_KEYS if (text := document.get(key)) and isinstance(text, str)), "")
    # Where a frame has choices, a code alone is not enough: it may be anything.
    has_choices = bool(document.get("choices"))
    failed = document.get("object") == "error" or document.get("success") is False or document.get("ok") is False
    failed = failed or any(not says_success(document[key]) for key in _CODES if key in document)
    if "code" in document and not says_success(document["code"]):
        failed = failed or (not says_success(message) if message else not has_choices)
    for key in ("status", "status_code", "statusCode", "type"):
        failed = failed or _says_failure(document.get(key))
    failed = failed or bool(document.get("detail") and "choices" not in document)
    return (message_of(document) or "an error without a message") if failed else None


def says_success(value: object) -> bool:
    """Whether a code, a message or an object with both is that of a success: 0, "0", 200, null, "success", …"""
    match value:
        case dict():
            # Only a code says so: an object without one, or with an empty message alone, is there for a reason.
            codes = [value[key] for key in ("code", "status_code") if key in value]
            words = (*codes, *map(value.get, MESSAGE_KEYS))
            return bool(codes) and all(not isinstance(word, dict) and says_success(word) for word in words)
        case str():
            return value.strip().lower().rstrip(".!") in _SUCCESS
        case bool() | None:
            return not value
        case int() | float():
            return value == 0 or 200 <= value < 300
        case _:
            return not value


def _says_failure(value: object) -> bool:
    """Whether a status or a type is that of a failure: 500, "500", "error", "failed", "invalid_request_error"."""
    if isinstance(value, str) and not value.isdecimal():
        return names_error(value)
    if isinstance(value, str):
        value = int(value[:9])
    return isinstance(value, int) and 400 <= value < 600


def message_of(error: object, levels: int = _MOST_LEVELS) -> str | None:
    """The message in an error, wherever it is, as one clean line."""
    if not levels:
        return clean(json_text(error))
    match error:
        case str():
            return clean(error) or None
        case [dict(), *_]:
            return clean("; ".join(message_of(item, levels - 1) or "" for item in error[:20])) or None
        case {"detail": list(items)} | {"message": list(items)}:
            return clean("; ".join(_problem(item) for item in items[:20])) or None
        case dict():
            text = next((text for key in MESSAGE_KEYS if (text := error.get(key)) and isinstance(text, str)), "")
            if text.strip():
                return clean(text + _more(cast("dict[str, Any]", error), text))
            for key in (*_ERRORS, *MESSAGE_KEYS, "base_resp", "data", "response"):
                if isinstance(error.get(key), (dict, list)) and error[key]:
                    return message_of(error[key], levels - 1)
    return clean(json_text(error)) if error else None


def _more(error: dict[str, Any], text: str) -> str:
    """What an error says beside its text: the field that it is about, or the error behind it, as gateways quote it."""
    param, code, metadata = string(error.get("param")), string(error.get("code")), error.get("metadata")
    quoted = string(metadata.get("raw") if isinstance(metadata, dict) else error.get("cause"))
    more = f" ({code.replace('_', ' ')}: {param})" if param and param not in text else ""
    return more + (f": {error_text(quoted.encode())}" if quoted.strip() and quoted not in text else "")


def _problem(item: object) -> str:
    """One entry of a list of validation errors: where, and what is wrong there."""
    if not isinstance(item, dict):
        return json_text(item)
    place = item.get("loc")
    where = ".".join(str(step) for step in place if isinstance(step, str | int)) if isinstance(place, list) else ""
    problem = string(item.get("msg")) or json_text(item)
    return f"{where}: {problem}" if where else problem
