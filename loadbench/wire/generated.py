"""What the model generated, wherever a server puts it: visible text, reasoning, and what is neither.

Servers agree on `content` and on little else. Reasoning is `reasoning_content` (DeepSeek, vLLM, llama.cpp), `reasoning`
and `reasoning_details` (OpenRouter), `thinking` (Ollama), `thinking_blocks` (LiteLLM), `reasoning_text` (Copilot), a
content part whose text lies one list deeper (Mistral's Magistral), or content that is flagged as a thought (Gemini).
Such names are not looked up in a list but read: a name with the word reasoning, thinking or thought holds reasoning,
unless another word says that it is only about it, as in `reasoning_effort` or `thought_signature`.

What one object has under two names counts once: many servers repeat reasoning for clients that know another name.
"""

from __future__ import annotations

import json
import re
from functools import lru_cache
from typing import Literal, NamedTuple

# What a value is. An object of unknown meaning is only searched for names of reasoning.
Kind = Literal["text", "reasoning", "tool", "audio", "unknown"]

_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+")
_THOUGHT = frozenset({"reasoning", "think", "thinking", "thought", "thoughts", "rationale", "cot"})
_CALL = frozenset({"tool", "function", "call", "calls", "refusal"})
# With one of these words a name is about reasoning or a call and does not hold its text.
_ABOUT = frozenset(
    {"id", "ids", "index", "signature", "effort", "status", "state", "type", "format", "tokens", "token", "count"}
    | {"time", "duration", "ms", "level", "budget", "mode", "enabled", "disabled", "supported", "start", "started"}
    | {"end", "ended", "done", "finished", "finish", "stop", "hash", "encrypted", "opaque", "redacted", "config"}
    | {"options", "choice", "model", "parser", "version"}
)
_HOLDERS = frozenset({"content", "text", "value", "parts", "transcript", "output_text", "delta", "message"})
# Names that hold text only inside reasoning, or inside a call.
_HOLDERS_IN: dict[Kind, frozenset[str]] = {
    "reasoning": frozenset({"summary"}),
    "tool": frozenset({"name", "arguments", "input", "parameters", "code", "custom"}),
}
# Most servers send these as text, some as an object.
_ARGUMENTS = frozenset({"arguments", "input", "parameters"})
# No server nests text deeper than half of this.
_MOST_LEVELS = 12


class Generated(NamedTuple):
    """The text in one frame, by its kind."""

    text: str = ""  # visible to the user
    reasoning: str = ""
    tool: str = ""  # tool calls, refusals and audio: generated, but neither of the others


_NOTHING = Generated()


def generated(value: object, kind: Kind = "text", levels: int = _MOST_LEVELS) -> Generated:
    """All that was generated in a delta, a message, a content part, or a list of these."""
    if isinstance(value, str):
        if kind == "text":
            return Generated(value, "", "")
        if kind == "reasoning":
            return Generated("", value, "")
        return _NOTHING if kind == "unknown" else Generated("", "", value)
    if not levels or not isinstance(value, dict | list):
        return _NOTHING
    if isinstance(value, list):
        if len(value) == 1:
            return generated(value[0], kind, levels - 1)
        items = [generated(item, kind, levels - 1) for item in value]
        return Generated(*map("".join, zip(*items, strict=True))) if items else _NOTHING

    if kind != "unknown" and ("type" in value or "thought" in value or "extra_content" in value):
        named, extra = value.get("type"), value.get("extra_content")
        google = extra.get("google") if isinstance(extra, dict) else None
        if value.get("thought") is True or (isinstance(google, dict) and google.get("thought") is True):
            kind = "reasoning"
        elif isinstance(named, str) and kind != "reasoning":
            kind = kind_of(named) or kind
    # This is read for most events of servers that send reasoning: strings are not worth another call.
    parts: list[tuple[str, str, str]] = []
    for name, inner in value.items():
        kind_inside = inside(name, kind) if inner else None
        if kind_inside is None:
            continue
        if isinstance(inner, str):
            if kind_inside == "text":
                parts.append((inner, "", ""))
            elif kind_inside == "reasoning":
                parts.append(("", inner, ""))
            elif kind_inside != "unknown":
                parts.append(("", "", inner))
        elif kind_inside == "tool" and name in _ARGUMENTS:
            parts.append(("", "", json_text(inner)))  # as most servers send it
        elif (part := generated(inner, kind_inside, levels - 1)) is not _NOTHING:
            parts.append(part)
    if not parts:
        return _NOTHING
    if len(parts) == 1 or (len(parts) == 2 and parts[0] == parts[1]):
        found = parts[0]
        return found if isinstance(found, Generated) else Generated(*found)
    return Generated(*("".join(dict.fromkeys(texts)) for texts in zip(*parts, strict=True)))


@lru_cache(maxsize=1024)
def inside(name: str, kind: Kind) -> Kind | None:
    """What stands under this name in an object of this kind; `None` for nothing that was generated."""
    if kind == "audio":
        return {"transcript": "text", "data": "audio", "audio": "audio"}.get(name)  # type: ignore[return-value]
    if kind != "unknown" and (name in _HOLDERS or name in _HOLDERS_IN.get(kind, ())):
        return kind
    of_name = kind_of(name)
    return "unknown" if of_name is None or (kind == "unknown" and of_name != "reasoning") else of_name


@lru_cache(maxsize=1024)
def kind_of(name: str) -> Kind | None:
    """What a key, or the type of a part or an event, says that it holds; `None` if it says nothing of the kind."""
    words = {word.lower() for word in _WORD.findall(name)}
    if words & _ABOUT:
        return None
    if words & _THOUGHT:
        return "reasoning"
    if words & _CALL:
        return "tool"
    return "audio" if "audio" in words and "transcript" not in words else None


def json_text(value: object) -> str:
    """A string as it is, any other value as its JSON."""
    try:
        return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    except RecursionError:
        return "deeply nested JSON"
