"""Messages and request fields of the chat endpoint, as the other endpoints have them.

    chat                                  responses                            Ollama
    content: text, image_url, file        input_text, input_image, input_file  content, images (base64, no URL)
    tool_calls of an assistant            function_call items                  arguments as objects
    a tool's message                      function_call_output                 tool_name in place of the call's id
    tools: {type, function: {name, …}}    {type, name, …}                      the same
    response_format                       text.format                          format
    reasoning_effort                      reasoning.effort                     think
    top_p, stop, …                        top_p; there is no stop, no seed     options

What an endpoint cannot express raises `ValueError` with the reason: a request is never sent without a part of it.
What is not known here is passed on as it is.
"""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Any

from loadbench.core.bounded import parse_json
from loadbench.wire.openai import Api

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from loadbench.plan.conversation import Message

_NO_TEXT = ("tools", "tool_choice", "functions", "function_call", "parallel_tool_calls", "reasoning_effort")
_NOT_IN_RESPONSES = (
    *("stop", "seed", "logit_bias", "n", "presence_penalty", "frequency_penalty", "logprobs", "functions"),
    *("function_call", "modalities", "audio", "prediction", "web_search_options"),
)
_NOT_IN_MESSAGES = ("name", "function_call", "refusal", "reasoning_details")  # of responses and of Ollama
_NOT_IN_OLLAMA = ("logit_bias", "n", "functions", "function_call", "modalities", "audio", "parallel_tool_calls")
_OPTIONS = {
    **{name: name for name in ("temperature", "top_p", "top_k", "min_p", "typical_p", "seed", "stop")},
    **{name: name for name in ("presence_penalty", "frequency_penalty", "repeat_penalty")},
    "repetition_penalty": "repeat_penalty",
}
_DATA_URL = re.compile(r"data:[^,]*;base64,", re.IGNORECASE)


def translated_messages(api: Api, messages: Sequence[Message]) -> Any:
    """What the endpoint takes in place of the chat endpoint's messages; for completions the one text."""
    if api is Api.CHAT:
        return messages
    if api is Api.COMPLETIONS:
        if len(messages) != 1 or messages[0].get("role", "user") != "user":
            raise ValueError("the completions endpoint takes one text, and no roles")
        return _plain_text(messages[0].get("content"), "the completions endpoint takes one text")
    if all(message.keys() <= {"role", "content"} and isinstance(message.get("content"), str) for message in messages):
        return messages if api is Api.RESPONSES else [_renamed(message) for message in messages]
    if api is Api.RESPONSES:
        return [item for message in messages for item in _response_items(message)]
    calls: dict[str, str] = {}  # the names of tools, by the id of their call
    return [_ollama_message(message, calls) for message in messages]


def translated_fields(api: Api, fields: Mapping[str, Any]) -> dict[str, Any]:
    """The endpoint's fields for those of the chat endpoint."""
    match api:
        case Api.CHAT:
            return dict(fields)
        case Api.COMPLETIONS:
            _refuse(fields, _NO_TEXT, "the completions endpoint")
            return dict(fields)
        case Api.RESPONSES:
            return _response_fields(fields)
        case Api.OLLAMA:
            return _ollama_fields(fields)


def _refuse(fields: Iterable[str], names: Sequence[str], endpoint: str) -> None:
    missing = [name for name in fields if name in names]
    if missing:
        raise ValueError(f"{endpoint} has no {', '.join(missing)}")


def _plain_text(content: object, rule: str) -> str:
    """The text of a content; raises `ValueError` with the rule if it is more than text."""
    if content is None or isinstance(content, str):
        return content or ""
    texts = [part.get("text") for part in content if isinstance(part, dict)] if isinstance(content, list) else [None]
    if not all(isinstance(text, str) for text in texts):
        raise ValueError(rule)
    return "\n".join(map(str, texts))


# The responses endpoint.


def _response_items(message: Message) -> list[Mapping[str, Any]]:
    """A message as items of the input. What has a type already is an item."""
    role, content = message.get("role"), message.get("content")
    if "type" in message or role is None:
        return [message]
    if role == "tool":
        output = _plain_text(content, "the responses endpoint takes texts as results of tools")
        return [{"type": "function_call_output", "call_id": message.get("tool_call_id", ""), "output": output}]
    more = ("reasoning_content", "reasoning", "prefix", "partial")
    _refuse(message, (*_NOT_IN_MESSAGES, *more), "a message of the responses endpoint")
    items: list[Mapping[str, Any]] = []
    if content or (content == "" and not message.get("tool_calls")):
        parts = content if isinstance(content, str) else [_response_part(part, role) for part in content]
        items.append({"role": role, "content": parts})
    for call in message.get("tool_calls") or ():
        function = call.get("function") or {}
        called = {"name": function.get("name", ""), "arguments": function.get("arguments", "")}
        items.append({"type": "function_call", "call_id": call.get("id", ""), **called})
    return items


def _response_part(part: Mapping[str, Any], role: str) -> Mapping[str, Any]:
    match part.get("type"):
        case "text":
            return {"type": "output_text" if role == "assistant" else "input_text", "text": part.get("text", "")}
        case "image_url":
            image = part.get("image_url")
            given = image if isinstance(image, dict) else {"url": image}
            detail = {"detail": given["detail"]} if given.get("detail") else {}
            return {"type": "input_image", "image_url": given.get("url"), **detail}
        case "file":
            return {"type": "input_file", **(part.get("file") or {})}
        case str(kind) if kind.startswith(("input_", "output_")) and kind != "input_audio":
            return part
        case kind:
            raise ValueError(f"the responses endpoint takes no content of the type {kind}")


def _response_fields(fields: Mapping[str, Any]) -> dict[str, Any]:
    _refuse(fields, _NOT_IN_RESPONSES, "the responses endpoint")
    result: dict[str, Any] = {}
    for name, value in fields.items():
        if name == "tools":
            # There, a tool is strict unless it says otherwise; here, the other way round.
            result[name] = [
                {"type": "function", "strict": False, **tool["function"]} if "function" in tool else tool
                for tool in value
            ]
        elif name == "tool_choice" and isinstance(value, dict) and "function" in value:
            result[name] = {"type": "function", **value["function"]}
        elif name == "response_format":
            form = {"type": value.get("type"), **(value.get("json_schema") or {})}
            result["text"] = {**result.get("text", {}), "format": form}
        elif name == "verbosity":
            result["text"] = {**result.get("text", {}), "verbosity": value}
        elif name == "reasoning_effort":
            result["reasoning"] = {"effort": value}
        else:
            result[name] = value
    return result


# Ollama.


def _renamed(message: Message) -> Message:
    return {**message, "role": "system"} if message.get("role") == "developer" else message


def _ollama_message(message: Message, calls: dict[str, str]) -> dict[str, Any]:
    """A message; the names of the tools that it calls are added to `calls`."""
    _refuse(message, _NOT_IN_MESSAGES if message.get("role") != "tool" else (), "a message of Ollama")
    content = message.get("content")
    parts = content if isinstance(content, list) else []
    images = []
    for part in parts:
        if part.get("type") == "image_url":
            image = part.get("image_url")
            url = str(image.get("url")) if isinstance(image, dict) else str(image)
            data = _DATA_URL.match(url)
            if data is None:
                raise ValueError(f"Ollama takes images as base64, and no address of one: {url[:60]}")
            images.append(url[data.end() :])
    texts = [part for part in parts if part.get("type") != "image_url"] if parts else content
    said: dict[str, Any] = {
        **_renamed({"role": message.get("role", "user")}),
        "content": _plain_text(texts, "Ollama takes texts and images only"),
    }
    if images:
        said["images"] = images
    if message.get("tool_calls"):
        said["tool_calls"] = []
        for call in message["tool_calls"]:
            function = call.get("function") or {}
            arguments = function.get("arguments") or {}
            if isinstance(arguments, str):
                arguments = parse_json(arguments, sys.maxsize)  # of the user's own file; its error is a ValueError
            calls[call.get("id", "")] = function.get("name", "")
            said["tool_calls"].append({"function": {"name": function.get("name", ""), "arguments": arguments}})
    if thinking := message.get("reasoning_content") or message.get("reasoning"):
        said["thinking"] = thinking
    if message.get("role") == "tool":
        said["tool_name"] = message.get("name") or calls.get(message.get("tool_call_id", ""), "")
    return said


def _ollama_fields(fields: Mapping[str, Any]) -> dict[str, Any]:
    _refuse(fields, _NOT_IN_OLLAMA, "Ollama")
    result: dict[str, Any] = {}
    options: dict[str, Any] = {}
    for name, value in fields.items():
        if name in _OPTIONS:
            options[_OPTIONS[name]] = value
        elif name == "response_format":
            schema = (value.get("json_schema") or {}).get("schema")
            if value.get("type") != "text":
                result["format"] = "json" if schema is None else schema
        elif name == "reasoning_effort":
            result["think"] = value
        elif name == "tool_choice":
            if value != "auto":
                raise ValueError("Ollama has no tool_choice")
        else:
            result[name] = value
    if options:
        result["options"] = {**options, **result.get("options", {})}
    return result
