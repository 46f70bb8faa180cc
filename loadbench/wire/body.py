"""The body of a request: what every endpoint calls the same things, and what the user and the server want changed.

    endpoint      messages            limit                  temperature, seed
    chat          messages            max_tokens             temperature, seed
    completions   prompt (one text)   max_tokens             temperature, seed
    responses     input               max_output_tokens      temperature (it has no seed)
    Ollama        messages            options.num_predict    options.temperature, options.seed

Usage is always requested. A parameter that is `None` is left to the server.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, assert_never

import orjson

from loadbench.wire.openai import Api
from loadbench.wire.translation import translated_fields, translated_messages
from loadbench.wire.usage import count

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from loadbench.plan.conversation import Message


class BodyChanges(NamedTuple):
    """How the bodies of a run differ from those that loadbench makes by itself.

    `extra` are JSON objects, merged into the body one after another (`merged`). `left_out` are names of loadbench's own
    fields and of a prompt's that are not sent, `options.seed` one inside another. `renamed` has (name, new name) of
    fields that are sent under another name, whoever gave them. `exact` are fields that make a response as long as
    requested: one that begins with `min_` gets the number of tokens, another is a switch.
    """

    extra: tuple[Mapping[str, Any], ...] = ()
    renamed: tuple[tuple[str, str], ...] = ()
    left_out: frozenset[str] = frozenset()
    exact: tuple[str, ...] = ()


NO_CHANGES = BodyChanges()

# Fields with which servers generate exactly as many tokens as requested, in the order in which they are tried: of vLLM,
# SGLang and TensorRT-LLM (of llama.cpp the first alone), and of text-generation-webui, LMDeploy and LoRAX.
EXACT_FIELDS: tuple[tuple[str, ...], ...] = (
    ("ignore_eos", "min_tokens"),
    ("ignore_eos",),
    ("min_tokens",),
    ("ban_eos_token", "min_new_tokens", "ignore_eos_token"),
    (),
)
EXACT_NAMES = frozenset(name for names in EXACT_FIELDS for name in names)


def request_body(
    api: Api,
    *,
    model: str,
    messages: Sequence[Message],
    max_tokens: int,
    temperature: float | None,
    seed: int | None,
    changes: BodyChanges = NO_CHANGES,
    fields: Mapping[str, Any] | None = None,
    extra: Mapping[str, Any] | None = None,
) -> bytes:
    """The JSON of one streamed request. Its own `fields`, named as for the chat endpoint, come after the changes of the
    run, and `extra` is merged in after them, as it is.

    Raises `ValueError` if the endpoint cannot have these messages or fields.
    """
    said = messages if api is Api.CHAT else translated_messages(api, messages)
    sampling = {"temperature": temperature, "seed": seed}
    sampling = {name: value for name, value in sampling.items() if value is not None}
    body: dict[str, Any] = {"model": model}
    match api:
        case Api.CHAT:
            body |= {"messages": said, "max_tokens": max_tokens, **sampling}
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        case Api.COMPLETIONS:
            body |= {"prompt": said, "max_tokens": max_tokens, **sampling}
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        case Api.RESPONSES:
            sampling.pop("seed", None)
            body |= {"input": said, "max_output_tokens": max_tokens, **sampling, "store": False, "stream": True}
        case Api.OLLAMA:
            body |= {"messages": said, "stream": True, "options": {"num_predict": max_tokens, **sampling}}
        case _ as never:
            assert_never(never)
    for name in changes.exact:
        (body["options"] if api is Api.OLLAMA else body)[name] = max_tokens if name.startswith("min_") else True
    own = {} if fields is None else translated_fields(api, fields)
    for name in changes.left_out:
        outer, _, inner = name.rpartition(".")
        for part in (body, own):
            (part.get(outer, {}) if outer else part).pop(inner, None)
    for patch in changes.extra:
        body = merged(body, patch)
    if own:
        # Not merged: a schema's `null` is a value.
        if isinstance(options := body.get("options"), dict) and "options" in own:
            own["options"] = options | own["options"]
        body |= own
    if extra is not None:
        body = merged(body, extra)
    for name, new in changes.renamed:
        if name in body:
            body[new] = body.pop(name)
    # A copy: what orjson returns occupies 4 KiB, however short it is, and every user keeps two bodies.
    return bytes(memoryview(orjson.dumps(body)))


def limit_in(body: bytes) -> int | None:
    """The most output tokens that a body allows, under whatever name; `None` if it sets no limit."""
    document = orjson.loads(body)
    options = document.get("options")
    fields = document | (options if isinstance(options, dict) else {})
    limits = [count(value) or 0 for name, value in fields.items() if "max" in name or "predict" in name]
    answers = max(1, *(count(document.get(name)) or 1 for name in ("n", "best_of")))
    return max(limits) * answers if any(limits) else None


def merged(target: object, patch: object) -> Any:
    """The target with a JSON Merge Patch applied (RFC 7386): objects are merged, `null` removes a field."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merged(result.get(name), value)
    return result
