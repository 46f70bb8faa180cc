"""What the Responses endpoint is asked and what it answers: events that say what they are.

    response.created, .in_progress, .output_item.added, .content_part.added     an answer begins: no token yet
    response.output_text.delta                                                   a piece of what the user sees
    response.reasoning_text.delta, .reasoning_summary_text.delta                 … of the reasoning
    response.function_call_arguments.delta, .refusal.delta                       … of what is neither
    response.completed, .incomplete, .failed                                     the end, with the usage
    error                                                                        the end, in the middle

No `[DONE]` is needed: the last event is the end. Where events are numbered, none may be missing. What `.done` events
repeat has been counted. Source: the published description of OpenAI's API, and what llama.cpp and Foundry Local send.
"""

from __future__ import annotations

from typing import Any

import orjson

from loadbench.wire.openai import DONE, BadChunk, Chunk, Usage, count, error_in, message_of, object_of, string

_DELTA = ".delta"
_VISIBLE = "response.output_text.delta"
# What ends an answer, and the finish_reason of the chat endpoint that says the same.
_ENDS = {"response.completed": "stop", "response.incomplete": "incomplete", "response.failed": "error"}
_REASONS = {"max_output_tokens": "length"}


def request_body(
    *, model: str, messages: list[dict[str, str]], max_tokens: int, temperature: float | None, seed: int | None
) -> bytes:
    """The JSON of one request, streamed and not to be kept by the server. No seed is sent: the endpoint takes none."""
    del seed
    body: dict[str, Any] = {"model": model, "input": messages, "max_output_tokens": max_tokens}
    if temperature is not None:
        body["temperature"] = temperature
    return orjson.dumps({**body, "store": False, "stream": True})


class Reader:
    """Reads the events of one answer, in their order."""

    __slots__ = ("_number",)

    def __init__(self) -> None:
        self._number: int | None = None  # of the last event

    def __call__(self, data: bytes) -> Chunk:
        """One event; raises `BadChunk` for bytes that are no JSON object, or when events are missing before it."""
        if data.strip() == b"[DONE]":  # some send it all the same
            return DONE
        document = object_of(data)
        self._follow(document.get("sequence_number"))
        kind = string(document.get("type"))
        if kind in _ENDS:
            return _end(kind, document)
        if kind == "error" or not kind:
            return Chunk(error=error_in(document) or message_of(document))
        return _delta(kind, document) if kind.endswith(_DELTA) else Chunk()

    def _follow(self, number: object) -> None:
        last, self._number = self._number, count(number)
        if last is not None and self._number is not None and self._number != last + 1:
            raise BadChunk(f"event {self._number} right after event {last}")


def _delta(kind: str, document: dict[str, Any]) -> Chunk:
    text = string(document.get("delta"))
    if kind == _VISIBLE:
        logprobs = document.get("logprobs")
        return Chunk(text=text, tokens=len(logprobs) if isinstance(logprobs, list) and logprobs else None, choices=1)
    return Chunk(hidden=text, choices=1) if "reasoning" in kind else Chunk(tool=text, choices=1)


def _end(kind: str, document: dict[str, Any]) -> Chunk:
    """The last event, which holds the whole response: its text has been read, its account has not."""
    response = document.get("response")
    response = response if isinstance(response, dict) else {}
    finish = _finish(kind, response)
    failed = error_in(response) or ("the response failed" if finish == "error" else None)
    model = string(response.get("model")) or None
    return Chunk(finish_reason=finish, usage=_usage(response), error=failed, model=model, done=True)


def _finish(kind: str, response: dict[str, Any]) -> str:
    """Why it ended. A response that is complete but used up its tokens does not say so: it is told as it is."""
    details = response.get("incomplete_details")
    reason = string(details.get("reason")) if isinstance(details, dict) else ""
    return _REASONS.get(reason, reason) or _ENDS[kind]


def read_whole(data: bytes) -> Chunk:
    """An answer that was not streamed; raises `BadChunk` for bytes that are no JSON object."""
    document = object_of(data)
    output = document.get("output")
    items = [item for item in output if isinstance(item, dict)] if isinstance(output, list) else []
    status = string(document.get("status"))
    return Chunk(
        text="".join(_text(item) for item in items if item.get("type") == "message"),
        hidden="".join(_text(item) for item in items if item.get("type") == "reasoning"),
        tool="".join(string(item.get("arguments")) for item in items if item.get("type") == "function_call"),
        finish_reason=_finish(f"response.{status}", document) if f"response.{status}" in _ENDS else None,
        usage=_usage(document),
        error=error_in(document),
        model=string(document.get("model")) or None,
        choices=int(isinstance(output, list)),
    )


def _text(item: dict[str, Any]) -> str:
    parts = item.get("content")
    held = [part for part in parts if isinstance(part, dict)] if isinstance(parts, list) else []
    return "".join(string(part.get("text")) for part in held)


def _usage(response: dict[str, Any]) -> Usage | None:
    usage = response.get("usage")
    if not isinstance(usage, dict):
        return None
    asked, made = usage.get("input_tokens_details"), usage.get("output_tokens_details")
    return Usage(
        input=count(usage.get("input_tokens")),
        output=count(usage.get("output_tokens")),
        cached=count(asked.get("cached_tokens")) if isinstance(asked, dict) else None,
        reasoning=count(made.get("reasoning_tokens")) if isinstance(made, dict) else None,
        total=count(usage.get("total_tokens")),
    )
