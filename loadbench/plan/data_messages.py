"""Messages and tools of a row as the chat endpoint has them, from each of the forms in which data sets have them.

    {"role", "content"}, {"from", "value"}, {"speaker", "text"}, …      one message
    {"human": …, "assistant": …}, {"input": …, "output": …}             what each says
    a text                                                             by each in turn
    [[message, …], [message, …]]                                       the messages of one turn after another (BFCL)
    parts: texts, {"text"}, images of Anthropic, Gemini and Qwen       text and image_url
    tool_use and tool_result (Anthropic)                               tool_calls, and messages of the tool
    tools: {"name", "parameters" or "input_schema"}                    {"type": "function", "function": {…}}

What is not known here is passed on as it is.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import orjson

from loadbench.core.text import kind_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadbench.plan.conversation import Message

# Who speaks, by the names that data sets have for it.
ROLES = {
    **dict.fromkeys(("user", "human", "prompter", "customer", "question", "input"), "user"),
    **dict.fromkeys(("assistant", "gpt", "chatgpt", "bing", "bard", "claude", "model"), "assistant"),
    **dict.fromkeys(("bot", "chatbot", "ai", "answer", "output", "function_call", "tool_call"), "assistant"),
    **dict.fromkeys(("tool", "function", "observation", "function_response", "tool_response"), "tool"),
    "system": "system",
    "developer": "developer",
}
_SPEAKER = ("role", "from", "speaker", "author", "sender")
_SAID = ("content", "value", "text", "utterance", "message", "parts")
# What servers read of a message; data sets add more, which strict servers refuse.
_SENT = {
    *("role", "content", "name", "tool_calls", "tool_call_id", "function_call", "refusal", "prefix", "partial"),
    *("reasoning_content", "reasoning", "reasoning_details", "cache_control"),
}
_KNOWN = {*_SENT, *_SPEAKER, *_SAID, *ROLES, "type"}
# How images begin in base64.
_IMAGES = {"iVBOR": "png", "/9j/": "jpeg", "R0lGOD": "gif", "UklGR": "webp"}


class UnusableRowError(ValueError):
    """A row with nothing to send, and why: it is skipped."""


def read_messages(items: Sequence[Any], column: str) -> tuple[list[Message], frozenset[str]]:
    """(the messages of a list, without empty ones of the user; the keys of what is asked that are not sent).

    Texts under `turns` are all of the user. Raises `UnusableRowError`.
    """
    if items and all(isinstance(turn, list) and all(isinstance(one, dict) for one in turn) for turn in items):
        items = [message for turn in items for message in (*turn, {"role": "assistant", "content": ""})]
    messages: list[Message] = []
    not_sent: set[str] = set()
    # A shared dialogue may begin with the middle of a response.
    cut_off = bool(items) and isinstance(items[0], dict) and "from" in items[0]
    for number, one in enumerate(items):
        by = "assistant" if column != "turns" and number % 2 == 1 else "user"
        item = {"role": by, "content": one} if isinstance(one, str) else one
        if not isinstance(item, dict):
            raise UnusableRowError(f"{kind_of(item)} among its {column}")
        key = next((name for name in _SPEAKER if isinstance(item.get(name), str)), None)
        if key is None and isinstance(item.get("type"), str) and item["type"] in ROLES:
            key = "type"  # LangChain's
        if key is None:
            pairs = [(ROLES[name], item[name]) for name in item if name in ROLES and item[name] is not None]
            pairs = pairs or [(by, item[name]) for name in _SAID if item.get(name) is not None][:1]
            if not pairs:
                raise UnusableRowError("a message without a role")
            said = [{"role": role, "content": content} for role, content in pairs]
        else:
            role = ROLES.get(item[key].strip().lower())
            if role is None:
                raise UnusableRowError(f"a message of {item[key][:40]!r}, which is no role")
            if key == "role" and item[key] == "function":
                role = "function"  # of OpenAI's first form of tools, which servers still take
            content = next((item[name] for name in _SAID if name in item), None)
            kept = {name: item[name] for name in item if name in _SENT and item[name] is not None}
            said = [{**kept, "role": role, "content": content}]
        for message in said:
            content = message["content"] = _content(message["content"])
            if message["role"] != "assistant":
                images = item.get("images")
                urls = [image_url(image) for image in images] if isinstance(images, list) else []
                if urls and all(urls):
                    content = message["content"] = with_images(content or "", urls)
                unsent = (name for name in item if name not in _KNOWN and item[name])
                not_sent |= {name for name in unsent if name != "images" or not all(urls)}
            if _is_blank(content) and message["role"] in ("user", "system", "developer"):
                continue
            cut_off = cut_off and message["role"] != "user"
            if not (cut_off and message["role"] == "assistant"):
                messages += _with_calls(message)
    if column == "turns" and all(message["role"] == "user" for message in messages):
        # The user's side of a dialogue alone: each is sent after the response to the one before.
        messages = [said for message in messages for said in (message, {"role": "assistant", "content": ""})]
    return messages, frozenset(not_sent)


def read_tools(tools: object) -> list[Any] | None:
    """The tools of a row; `None` if they are something else, such as names."""
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        return None
    result = []
    for tool in tools:
        if isinstance(tool.get("name"), str) and not {"type", "function"} & tool.keys():
            function = {name: value for name, value in tool.items() if name != "input_schema"}
            if "input_schema" in tool:
                function["parameters"] = tool["input_schema"]
            tool = {"type": "function", "function": function}  # noqa: PLW2901 - the tool in its other form
        result.append(tool)
    return result


def image_url(value: object) -> str | None:
    """An image as the chat endpoint takes it, by its address or in base64; `None` for anything else, such as a path."""
    if not isinstance(value, str):
        return None
    if re.match(r"https?://|data:", value):
        return value
    kind = next((kind for begin, kind in _IMAGES.items() if value.startswith(begin)), None)
    return None if kind is None else f"data:image/{kind};base64,{value}"


def with_images(content: str | list[dict[str, Any]], urls: Sequence[str | None]) -> list[dict[str, Any]]:
    """A content with these images after it."""
    parts = content if isinstance(content, list) else [{"type": "text", "text": content}] * bool(content)
    return [*parts, *({"type": "image_url", "image_url": {"url": url}} for url in urls)]


def _is_blank(content: str | list[dict[str, Any]] | None) -> bool:
    if not isinstance(content, list):
        return content is None or not content.strip()
    return all(part.get("type") == "text" and not str(part.get("text", "")).strip() for part in content)


def _content(content: object) -> str | list[dict[str, Any]] | None:
    """A content as the chat endpoint has it."""
    if content is None or isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise UnusableRowError(f"{kind_of(content)} as the content of a message")
    parts = []
    for given in content:
        # Tables give all parts the keys of all.
        part = {"text": given} if isinstance(given, str) else given
        if not isinstance(part, dict):
            raise UnusableRowError(f"{kind_of(part)} among the parts of a message")
        part = {name: value for name, value in part.items() if value is not None}
        match part:
            case {"type": "image"} | {"inline_data": _} | {"inlineData": _}:
                sources = (part[name] for name in ("source", "inline_data", "inlineData") if name in part)
                source: Any = next((one for one in sources if isinstance(one, dict)), part)
                data = next((source[name] for name in ("data", "url", "image", "base64") if name in source), None)
                kind = source.get("media_type") or source.get("mime_type") or source.get("mimeType")
                url = f"data:{kind};base64,{data}" if kind and isinstance(data, str) else image_url(data)
                if url is None:
                    raise UnusableRowError("an image that its message does not contain")
                part = {"type": "image_url", "image_url": {"url": url}}
            case {"type": "input_image", "image_url": str(url)}:
                part = {"type": "image_url", "image_url": {"url": url}}
            case {"text": str(text)} if part.get("type") in (None, "input_text", "output_text"):
                part = {"type": "text", "text": text}
        parts.append(part)
    return parts or None


def _with_calls(message: dict[str, Any]) -> list[dict[str, Any]]:
    """A message with the calls of tools that are parts of it, or the messages of the tools whose results are."""
    parts = message["content"]
    if not isinstance(parts, list) or all(part.get("type") not in ("tool_use", "tool_result") for part in parts):
        return [message]
    rest = [part for part in parts if part.get("type") not in ("tool_use", "tool_result")]
    calls = [
        {
            "id": part.get("id", ""),
            "type": "function",
            "function": {"name": part.get("name", ""), "arguments": orjson.dumps(part.get("input") or {}).decode()},
        }
        for part in parts
        if part.get("type") == "tool_use"
    ]
    results: list[dict[str, Any]] = [
        {"role": "tool", "tool_call_id": part.get("tool_use_id", ""), "content": _content(part.get("content")) or ""}
        for part in parts
        if part.get("type") == "tool_result"
    ]
    own = [{**message, "content": rest or None, **({"tool_calls": calls} if calls else {})}] if rest or calls else []
    return [*results, *own]


def system_text(value: object) -> str | None:
    """A system message as a text: a string, blocks of Anthropic, or parts of Gemini."""
    parts: Any = value.get("parts") if isinstance(value, dict) else value
    if isinstance(parts, str):
        return parts
    texts = [part.get("text") if isinstance(part, dict) else part for part in parts] if isinstance(parts, list) else []
    return "\n\n".join(map(str, texts)) if texts and all(isinstance(text, str) for text in texts) else None


def is_user(message: Message) -> bool:
    """Whether a message waits for a response."""
    return message["role"] in ("user", "tool", "function")
