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

from typing import Any

from loadbench.wire.openai import DONE, BadChunk, Chunk, Usage, count, error_in, message_of, object_of, string

_DELTA = ".delta"
_VISIBLE = "response.output_text.delta"
# The events that end a response, and the same as finish_reason of the chat endpoint.
_ENDS = {"response.completed": "stop", "response.incomplete": "incomplete", "response.failed": "error"}
_REASONS = {"max_output_tokens": "length"}


class EventReader:
    """Reads the events of one response, in their order."""

    __slots__ = ("_number",)

    def __init__(self) -> None:
        self._number: int | None = None  # of the last event

    def __call__(self, data: bytes) -> Chunk:
        """One event; raises `BadChunk` for bytes that are not a JSON object, or if events before it are missing."""
        if data.strip() == b"[DONE]":  # some servers send it anyway
            return DONE
        document = object_of(data)
        last, self._number = self._number, count(document.get("sequence_number"))
        if last is not None and self._number is not None and self._number != last + 1:
            raise BadChunk(f"event {self._number} right after event {last}")

        kind = string(document.get("type"))
        text = string(document.get("delta"))
        if kind == _VISIBLE:
            logprobs = document.get("logprobs")
            tokens = len(logprobs) if isinstance(logprobs, list) and logprobs else None
            return Chunk(text=text, tokens=tokens, choices=1)
        if kind.endswith(_DELTA):
            return Chunk(reasoning=text, choices=1) if "reasoning" in kind else Chunk(tool=text, choices=1)
        if kind in _ENDS:
            # The last event repeats the whole response: its text was read before, its usage was not.
            response = document.get("response")
            response = response if isinstance(response, dict) else {}
            finish = _finish(kind, response)
            error = error_in(response) or ("the response failed" if finish == "error" else None)
            model = string(response.get("model")) or None
            return Chunk(finish_reason=finish, usage=_usage(response), error=error, model=model, done=True)
        if kind == "error" or not kind:
            return Chunk(error=error_in(document) or message_of(document))
        return Chunk()


def _finish(kind: str, response: dict[str, Any]) -> str:
    """Why it ended. A complete response is `stop`, even if it used all its tokens: the endpoint does not say so."""
    details = response.get("incomplete_details")
    reason = string(details.get("reason")) if isinstance(details, dict) else ""
    return _REASONS.get(reason, reason) or _ENDS[kind]


def read_whole(data: bytes) -> Chunk:
    """A response that was not streamed; raises `BadChunk` for bytes that are not a JSON object."""
    document = object_of(data)
    output = document.get("output")
    items = [item for item in output if isinstance(item, dict)] if isinstance(output, list) else []
    status = string(document.get("status"))
    return Chunk(
        text="".join(_text(item) for item in items if item.get("type") == "message"),
        reasoning="".join(_text(item) for item in items if item.get("type") == "reasoning"),
        tool="".join(string(item.get("arguments")) for item in items if item.get("type") == "function_call"),
        finish_reason=_finish(f"response.{status}", document) if f"response.{status}" in _ENDS else None,
        usage=_usage(document),
        error=error_in(document),
        model=string(document.get("model")) or None,
        choices=int(isinstance(output, list)),
    )


def _text(item: dict[str, Any]) -> str:
    parts = item.get("content")
    parts = [part for part in parts if isinstance(part, dict)] if isinstance(parts, list) else []
    return "".join(string(part.get("text")) for part in parts)


def _usage(response: dict[str, Any]) -> Usage | None:
    usage = response.get("usage")
    if not isinstance(usage, dict):
        return None
    inputs, outputs = usage.get("input_tokens_details"), usage.get("output_tokens_details")
    return Usage(
        input=count(usage.get("input_tokens")),
        output=count(usage.get("output_tokens")),
        cached=count(inputs.get("cached_tokens")) if isinstance(inputs, dict) else None,
        reasoning=count(outputs.get("reasoning_tokens")) if isinstance(outputs, dict) else None,
        total=count(usage.get("total_tokens")),
    )
