"""Lists of models, in the shapes that servers send them.

OpenAI has `{"data": [{"id": …}]}`. Others send a bare list, names instead of objects, `models` instead of `data`
(Ollama, Cohere, Gemini), an object by name, or entries with a name and no id. What is no name is no model.
"""

from __future__ import annotations

import re
from typing import Any

from loadbench.wire.openai import error_in

_LISTS = ("data", "models", "items", "result", "results", "model_list")
_NAMES = ("id", "model", "name", "model_name", "key")
_KINDS = ("type", "task", "model_type", "kind", "mode", "pipeline_tag")
_LONGEST_NAME = 300
# What kinds, labels and names say of models that generate no text.
_NO_TEXT = re.compile(
    r"embed|rerank|moderation|whisper|transcri|speech|\btts\b|audio[-_]?to|to[-_]?(image|video|speech|audio)"
    r"|^(audio|image|video|diffusion)",
    re.IGNORECASE,
)
_TEXT = re.compile(r"chat|complet|generat|text|llm|vlm|language|instruct|vision|responses", re.IGNORECASE)


def entries_of(document: object) -> list[dict[str, Any]] | None:
    """The entries of a list of models, each with its `id` as text; `None` if the document is no such list."""
    if isinstance(document, dict):
        if error_in(document) is not None:
            return None
        named = next((name for name in _LISTS if name in document), None)
        if named is not None:
            document = document[named]
            if document is None:
                return []  # an empty list as Go writes it
        elif not document:
            return None
    if isinstance(document, dict):
        if not all(isinstance(value, dict) for value in document.values()):
            return None
        document = [{"id": name, **value} for name, value in document.items()]
    if not isinstance(document, list):
        return None
    entries: list[dict[str, Any]] = []
    for item in document:
        entry = item if isinstance(item, dict) else {"id": item}
        names = (entry.get(name) for name in _NAMES)
        name = next((str(name) for name in names if _is_name(name)), None)
        if name is not None:
            entries.append({**entry, "id": name})
    # A list of other things is no list of models.
    return entries if entries or not document or any(isinstance(item, dict) for item in document) else None


def has_more(document: object) -> bool:
    """Whether the list goes on at another page, which is not fetched."""
    if not isinstance(document, dict):
        return False
    return document.get("has_more") is True or any(
        document.get(name) for name in ("next", "next_page", "nextPageToken", "next_page_token", "next_cursor")
    )


def generates_text(entry: dict[str, Any]) -> bool:
    """Whether a model may be the one to test, by what its entry says: an embedding model is not."""
    kinds = [value for name in _KINDS if isinstance(value := entry.get(name), str)]
    for name in ("capabilities", "labels", "supported_endpoints", "supportedGenerationMethods", "endpoints"):
        value = entry.get(name)
        if isinstance(value, dict):
            kinds += [key for key, is_able in value.items() if is_able is True]
        elif isinstance(value, list):
            kinds += [item for item in value if isinstance(item, str)]
    if any(_TEXT.search(kind) and not _NO_TEXT.search(kind) for kind in kinds):
        return True
    return not any(_NO_TEXT.search(kind) for kind in [*kinds, entry["id"]])


def _is_name(name: object) -> bool:
    """Whether it can be a model's name, of a length that a message can show."""
    if isinstance(name, str):
        return bool(name.strip()) and len(name) <= _LONGEST_NAME
    return isinstance(name, int) and not isinstance(name, bool)
