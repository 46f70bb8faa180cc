"""What OpenAI-compatible servers are asked and what they answer, frame by frame: JSON in, one flat record out.

The servers agree on the outline and on little else: choices missing or empty, `content` null, "" or a list of parts,
`message` beside or instead of `delta`, usage anywhere or on every frame, errors as objects, strings or lists. The
reader takes all of it and invents nothing: what a frame does not tell is `None` or "". Only bytes that are no JSON
object are refused. How frames add up to an answer is the business of `loadbench.wire.response_reader`.
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
    from collections.abc import Sequence

    from loadbench.record.timings import Timings

# Long enough for a server's reason, short enough for a line of a report.
_LONGEST_LINE = 300
# Invisible, direction-changing and broken characters: a server's words must not rewrite a terminal or a report.
_UNSHOWN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn"})
_TITLE = re.compile(r"<title[^>]*>([^<]*)", re.IGNORECASE)
# Above this a count is a slip of the server; and it still fits where the counts are kept.
_MOST_TOKENS = 2**40


class Api(StrEnum):
    """Which endpoint is asked."""

    CHAT = "chat"
    COMPLETIONS = "completions"
    RESPONSES = "responses"
    OLLAMA = "ollama"  # its own chat, which tells what its OpenAI-compatible one does not


class BadChunk(ValueError):  # noqa: N818 - reads as what it is at the raise
    """Bytes that are no JSON object; the message says what they are."""


class Usage(NamedTuple):
    """The server's own count of tokens; `None` where it does not tell."""

    input: int | None = None
    output: int | None = None
    cached: int | None = None
    reasoning: int | None = None
    total: int | None = None

    @property
    def generated(self) -> int | None:
        """All output tokens, those of the reasoning included.

        Most servers count reasoning into `output` and some beside it. Where the total tells that it came on top it is
        added, and only there.
        """
        if self.output is None or self.input is None or not self.reasoning:
            return self.output
        apart = self.total == self.input + self.output + self.reasoning
        return self.output + self.reasoning if apart else self.output


class Chunk(NamedTuple):
    """One frame of an answer. With several choices their texts are put together and their tokens added up."""

    text: str = ""  # what the user would see
    hidden: str = ""  # reasoning
    tool: str = ""  # names and arguments of tool calls, and refusals
    tokens: int | None = None  # in this frame, where ids or logprobs tell
    finish_reason: str | None = None
    usage: Usage | None = None
    error: str | None = None
    model: str | None = None
    choices: int = 0  # without any it is no part of an answer
    done: bool = False
    timings: Timings | None = None  # the server's own


DONE = Chunk(done=True)


def request_body(
    api: Api,
    *,
    model: str,
    prompt: str,
    max_tokens: int,
    temperature: float | None,
    seed: int | None,
    stream: bool = True,
    said: Sequence[tuple[str, str]] = (),
) -> bytes:
    """The JSON of one request. Usage is always asked for; what is `None` is left to the server.

    `said` is what was said before the prompt, as (role, text): chat has room for it, plain completions have not.
    """
    body: dict[str, Any] = {"model": model}
    if api is Api.CHAT:
        body["messages"] = messages_of(prompt, said)
    else:
        body["prompt"] = prompt
    body["max_tokens"] = max_tokens
    if temperature is not None:
        body["temperature"] = temperature
    if seed is not None:
        body["seed"] = seed
    body["stream"] = stream
    if stream:
        body["stream_options"] = {"include_usage": True}
    return orjson.dumps(body)


def messages_of(prompt: str, said: Sequence[tuple[str, str]]) -> list[dict[str, str]]:
    """The prompt as the last of the messages."""
    return [*({"role": role, "content": text} for role, text in said), {"role": "user", "content": prompt}]


# One frame.


def read_chunk(data: bytes) -> Chunk:
    """One frame of a stream; raises `BadChunk` for bytes that are no JSON object and not `[DONE]`."""
    if data.startswith(b"[") and data.strip() == b"[DONE]":
        return DONE
    return _read(object_of(data), "delta", "message")


def read_whole(data: bytes) -> Chunk:
    """An answer that was not streamed; raises `BadChunk` for bytes that are no JSON object."""
    return _read(object_of(data), "message", "delta")


def object_of(data: bytes) -> dict[str, Any]:
    """The JSON object in these bytes; raises `BadChunk` where there is none."""
    try:
        document = orjson.loads(data)
    except orjson.JSONDecodeError:
        document = _lenient(data)
    if not isinstance(document, dict):
        raise BadChunk(f"{_kind(document)} instead of a JSON object")
    return document


def _lenient(data: bytes) -> object:
    """What strict JSON refuses and servers send: broken UTF-8 inside a string, half a surrogate pair, NaN."""
    try:
        return json.loads(data.decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        raise BadChunk(f"not JSON: {clean(data[:200].decode('utf-8', 'replace'))!r}") from None


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
    """The frame whose choices hold their text under `first`, or, where that is missing, under `second`."""
    text = hidden = tool = ""
    tokens = finish = None
    usage, error, choices = document.get("usage"), error_in(document), document.get("choices")
    choices = [choice for choice in choices if isinstance(choice, dict)] if isinstance(choices, list) else []
    for choice in choices:
        part = choice.get(first)
        if not isinstance(part, dict):
            part = choice.get(second)
        if isinstance(part, dict):
            text += _words(part.get("content"))
            # Not every frame pays for what few have: hardly a part has more than its content.
            if len(part) > 1 or "content" not in part:
                hidden += _words(part.get("reasoning_content")) or _words(part.get("reasoning"))
                tool += _tool_text(part)
        else:
            text += _words(choice.get("text"))
        finish = _reason(choice.get("finish_reason")) or finish
        held = _tokens(choice)
        if held is not None:
            tokens = held + (tokens or 0)
        if "usage" in choice or "error" in choice:
            usage, error = usage or choice.get("usage"), error or message_of(choice.get("error"))
    told = _usage(usage) if isinstance(usage, dict) and usage else None
    model, timings = string(document.get("model")) or None, timings_in(document)
    return Chunk(text, hidden, tool, tokens, finish, told, error, model, len(choices), timings=timings)


def _words(content: object) -> str:
    """Text as a string, or as a list of parts that hold some; anything else is none."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    return "".join(string(part.get("text")) for part in content if isinstance(part, dict))


def _reason(value: object) -> str | None:
    """A finish reason as a word, or as an object whose type is that word."""
    if isinstance(value, dict):
        value = value.get("type")
    return value if isinstance(value, str) and value else None


def _tool_text(part: dict[str, Any]) -> str:
    """Names and arguments of the calls in this part, and its refusal: generated, though no answer's text."""
    calls = part.get("tool_calls")
    texts = [_words(part.get("refusal")), _call_text(part.get("function_call"))]
    for call in calls if isinstance(calls, list) else ():
        if isinstance(call, dict):
            texts += _call_text(call.get("function")), _call_text(call.get("custom"))
    return "".join(texts)


def _call_text(call: object) -> str:
    if not isinstance(call, dict):
        return ""
    given = call.get("arguments") or call.get("input")
    # Some servers send the arguments as an object instead of its text.
    return string(call.get("name")) + (given if isinstance(given, str) else _json(given) if given else "")


def _tokens(choice: dict[str, Any]) -> int | None:
    """How many tokens this choice brought, by their ids or by their logprobs."""
    ids = choice.get("token_ids")
    if isinstance(ids, list):
        return len(ids)
    logprobs = choice.get("logprobs")
    if not isinstance(logprobs, dict):
        return None
    lists = [logprobs.get(name) for name in ("content", "refusal")]
    if not any(isinstance(found, list) for found in lists):
        lists = [logprobs.get("tokens")]  # the older form, of /completions
    counts = [len(found) for found in lists if isinstance(found, list)]
    return sum(counts) if counts else None


def _usage(usage: dict[str, Any]) -> Usage:
    asked, made = usage.get("prompt_tokens_details"), usage.get("completion_tokens_details")
    return Usage(
        count(usage.get("prompt_tokens")),
        count(usage.get("completion_tokens")),
        count(asked.get("cached_tokens")) if isinstance(asked, dict) else None,
        count(made.get("reasoning_tokens") if isinstance(made, dict) else usage.get("reasoning_tokens")),
        count(usage.get("total_tokens")),
    )


def count(value: object) -> int | None:
    """A plausible number of tokens, or `None`."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if type(value) is int and 0 <= value <= _MOST_TOKENS else None


def string(value: object) -> str:
    """The text, or none where this is something else."""
    return value if isinstance(value, str) else ""


def _json(value: object) -> str:
    """A value as its JSON, which reads back; what is nested too deeply for that has no words for people."""
    try:
        return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    except RecursionError:
        return "deeply nested JSON"


# Errors, and text for people.


def error_text(body: bytes) -> str:
    """One clean line of at most 300 characters that says what a server's error body says."""
    if not body.strip():
        return "no body"
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return page_text(body) or clean(body.decode("utf-8", "replace")) or "no text"
    found = error_in(document) or message_of(document) if isinstance(document, dict) else None
    return found or clean(body.decode("utf-8", "replace")) or "no text"


def page_text(body: bytes) -> str | None:
    """That it is an HTML page, with its title; `None` if it is something else."""
    start = body[:1024].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if not start.startswith(b"<") or not (b"<html" in start or b"<!doctype html" in start or b"<head" in start):
        return None
    title = _TITLE.search(body.decode("utf-8", "replace"))
    named = clean(html.unescape(title.group(1))) if title else ""
    return f"an HTML page ({named})" if named else "an HTML page"


def clean(text: str) -> str:
    """One line without control, bidirectional and other unshown characters, cut at 300."""
    # Far more than is kept is not looked at: it could be 16 MiB.
    start = text[: 20 * _LONGEST_LINE]
    shown = (letter for letter in start if letter.isspace() or unicodedata.category(letter) not in _UNSHOWN)
    line = " ".join("".join(shown).split())
    return line if len(line) <= _LONGEST_LINE else line[: _LONGEST_LINE - 1] + "…"


def error_in(document: dict[str, Any]) -> str | None:
    """The error that a document reports, as an `error` of any shape or in the older form that is one itself."""
    error = document.get("error")
    if error:
        return message_of(error) or "an error without a message"
    if document.get("object") == "error" or (document.get("detail") and "choices" not in document):
        return message_of(document)
    return None


def message_of(error: object) -> str | None:
    """The words in an error, wherever they are, in one clean line."""
    match error:
        case str():
            return clean(error) or None
        case {"message": str(words)} | {"detail": str(words)} | {"msg": str(words)} if words.strip():
            return clean(words)
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
    what = string(item.get("msg")) or _json(item)
    return f"{where}: {what}" if where else what
