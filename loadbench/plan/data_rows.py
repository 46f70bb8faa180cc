"""One row of a data set as a prompt: what is sent, what is left out, and why a row cannot be used.

    messages, conversations, …    [{"role", "content"}], [{"from", "value"}]; or the bare list      OpenAI, ShareGPT
    turns                         ["first message of the user", "the second", …]                    MT-bench
    custom_id, body               a line of a batch: the body is sent but for what is loadbench's   OpenAI batch
    instruction, input            one text of both, with `system` and `history`                     Alpaca
    prompt, text, question, …     one text, with `system`

A list of messages that ends with a response is a *recorded dialogue*: what its user wrote is sent turn by turn, with
the server's own responses between. Any other list is one request, sent as recorded. Tool messages answer the calls of
the recorded responses: a dialogue that has some is one request, up to the last of them or of the user's.

Request fields of a row (`FIELDS`), its limit of output tokens (`LIMITS`), `extra_body` and `facets` belong to its
requests. A recorded response is no limit: its words are not the server's tokens.
"""

from __future__ import annotations

import ast
import re
import warnings
from contextlib import suppress
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from loadbench.core.errors import BadInput
from loadbench.core.text import kind_of
from loadbench.plan.prompts import Prompt
from loadbench.plan.rubric import read_facets

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from loadbench.plan.conversation import Message

# Where the messages of a row are, and its text, the likeliest first: Alpaca has the response as well in its `text`.
MESSAGES = (
    "messages",
    "conversations",
    "conversation",
    "conversation_a",
    "dialogue",
    "dialog",
    "chat",
    "turns",
    "data",
)
TEXTS = ("prompt", "instruction", "question", "query", "user_input", "problem", "goal", "input", "inputs", "text")
_SYSTEMS = ("system", "system_prompt", "system_message")
LIMITS = ("max_tokens", "max_completion_tokens", "max_output_tokens", "max_new_tokens", "output_tokens")

_NUMBER, _FLAG = (int, float), (bool,)
# Fields of requests that a row may have as columns, with the types that they have there: a column of another type is
# something else that has the same name. These are OpenAI's, and those that vLLM, SGLang and llama.cpp add to them.
FIELDS: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("tools", "functions", "stop_token_ids", "bad_words", "modalities", "guided_choice"), (list,)),
    **dict.fromkeys(("tool_choice", "function_call", "guided_json"), (str, dict)),
    **dict.fromkeys(("response_format", "logit_bias", "chat_template_kwargs", "structured_outputs"), (dict,)),
    **dict.fromkeys(("reasoning", "thinking", "web_search_options", "json_schema"), (dict,)),
    **dict.fromkeys(("temperature", "top_p", "top_k", "min_p", "typical_p", "seed", "min_tokens"), _NUMBER),
    **dict.fromkeys(("presence_penalty", "frequency_penalty", "repetition_penalty", "repeat_penalty"), _NUMBER),
    **dict.fromkeys(("top_logprobs", "length_penalty", "thinking_budget"), _NUMBER),
    **dict.fromkeys(("parallel_tool_calls", "logprobs", "ignore_eos", "skip_special_tokens", "cache_prompt"), _FLAG),
    **dict.fromkeys(("add_generation_prompt", "continue_final_message", "enable_thinking"), _FLAG),
    **dict.fromkeys(("reasoning_effort", "verbosity", "service_tier", "grammar", "guided_regex"), (str,)),
    **dict.fromkeys(("guided_grammar", "prompt_cache_key", "safety_identifier"), (str,)),
    "stop": (str, list),
}
# And those of other providers, whose names are as likely to be about the row: only next to `messages`.
_PROVIDER_FIELDS: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("n", "best_of", "id_slot"), _NUMBER),
    **dict.fromkeys(("provider", "search_parameters", "prediction", "options"), (dict,)),
    **dict.fromkeys(("plugins", "transforms", "samplers"), (list,)),
    **dict.fromkeys(("safe_prompt", "enable_search", "include_reasoning", "use_beam_search", "think"), _FLAG),
    "keep_alive": (str,),
}
_WHOLE = {"top_k", "seed", "min_tokens", "top_logprobs", "thinking_budget"}
# Fields of a batch's body that loadbench gives itself, or reads as something else.
_OWN_FIELDS = {"model", "stream", "stream_options", "messages", "prompt", "input", "extra_body", *LIMITS}
# Columns that only describe a row. Others are named if they are likely to be meant for the request.
_ABOUT = re.compile(
    r"(.*_)?(ids?|idx|index|hash|uuid|name|url|key|date|time|timestamp|created(_at)?|scores?|ratings?|labels?|tags?"
    r"|reference|references|answers?|outputs?|responses?|completions?|model|language|lang|category|topic|source|type"
    r"|moderation|count|split|dataset|subset|language|difficulty|domain|level|turn|object|usage|info|weight)"
    r"|unnamed:_\d+|chosen|rejected|targets?|expected.*|ground_truth|solution|explanation|rationale|meta(data)?|title"
    r"|comments?|notes?|user|facets|method|stream|stream_options|store|n_turns|num_turns|toxic|redacted|state|country"
    r"|header|winner|judge|tstamp|anony|prompt_(tokens|len|length)|input_(tokens|length)|finish_reason|status|row|"
)
_LIKELY = re.compile(
    r"image|img|photo|picture|video|audio|document|passage|context|history|^system|input|prompt|instruction|message"
    r"|conversation|dialog|tool|function|temperature|^top_|penalty|^seed|^stop|schema|choices|options|^max_|^min_"
    r"|thinking|reasoning|prefix|suffix|attachment|file|format|extra|grammar"
)
_ROLES = {
    **dict.fromkeys(("user", "human", "prompter", "customer", "question"), "user"),
    **dict.fromkeys(
        ("assistant", "gpt", "chatgpt", "bing", "bard", "claude", "model", "bot", "ai", "answer"), "assistant"
    ),
    **dict.fromkeys(("tool", "function", "observation", "function_response", "tool_response"), "tool"),
    **dict.fromkeys(("function_call", "tool_call"), "assistant"),
    "system": "system",
    "developer": "developer",
}
_SPEAKER, _SAID = ("role", "from", "speaker", "author"), ("content", "value", "text", "utterance", "message")
# What servers read of a message; data sets add more, which strict servers refuse.
_MESSAGE_KEYS = {
    *("role", "content", "name", "tool_calls", "tool_call_id", "function_call", "refusal", "prefix", "partial"),
    *("reasoning_content", "reasoning", "reasoning_details", "cache_control"),
}


class UnusableRowError(ValueError):
    """A row with nothing to send, and why: it is skipped."""


class DataRow(NamedTuple):
    """A row: its prompt, the form in which it is written, the columns that are not sent, and the model it names."""

    prompt: Prompt
    form: str
    not_sent: frozenset[str] = frozenset()
    model: str = ""
    url: str = ""


def read_row(row: object, place: str) -> DataRow:
    """The prompt of a row.

    Raises `UnusableRowError` if it has nothing to send, `BadInput` with its `place` if something in it cannot be right.
    """
    if isinstance(row, str):
        row = {"prompt": row}
        return DataRow(_prompt_of_text(row["prompt"]), "texts")
    if isinstance(row, list):
        return DataRow(_prompt_of_messages(_messages(row, "messages")), "OpenAI messages")
    if not isinstance(row, dict):
        raise BadInput(f"{place} is {kind_of(row)}", hint='write a string, or an object with "prompt" or "messages"')
    given: dict[str, Any] = row
    if isinstance(given.get("row"), dict):  # as the server of Hugging Face's data sets wraps it
        given = given["row"]
    if isinstance(given.get("body"), dict):
        return _batch_row(given, place)
    columns: dict[str, Any] = {}
    for name, value in given.items():
        if value is not None and value not in ("", [], {}):
            columns.setdefault(column_name(str(name)), value)
    return _columns_row(columns, place)


def _batch_row(row: Mapping[str, Any], place: str) -> DataRow:
    """A line of a batch. All of its body is sent but what loadbench decides."""
    body, url = row["body"], str(row.get("url") or "")
    limit = _limit(body, place)
    fields = {name: value for name, value in body.items() if name not in _OWN_FIELDS and value is not None}
    extra = _extra_body(body, place)
    said = next((body[name] for name in ("messages", "input", "prompt") if body.get(name)), None)
    if isinstance(said, str):
        prompt = _prompt_of_text(said)
    elif isinstance(said, list) and said and all(isinstance(message, dict) for message in said):
        if not any(message.get("role") in ("user", "tool") or "role" not in message for message in said):
            raise UnusableRowError("no message of a user")
        prompt = _simplest(said)  # as it is: a response at its end is for the server to continue
    else:
        raise UnusableRowError("no messages in its body")
    prompt = prompt._replace(output_tokens=limit, fields=fields or None, extra=extra)
    return DataRow(prompt, "OpenAI batch", model=str(body.get("model") or ""), url=url)


def _columns_row(columns: Mapping[str, Any], place: str) -> DataRow:
    """A row of any other form."""
    used: set[str] = {"extra_body", "facets", "expected_facets", *LIMITS}
    fields = {}
    for name in columns:
        types = FIELDS.get(name) or (_PROVIDER_FIELDS.get(name) if "messages" in columns else None)
        if types is not None:
            value = unquoted(columns[name])
            if str in types and not isinstance(value, types):
                value = columns[name]
            if name in _WHOLE and isinstance(value, float) and value.is_integer():
                value = int(value)  # a table has 12.0 where other rows have none
            if isinstance(value, types) and isinstance(value, bool) == (bool in types):
                fields[name] = value
                used.add(name)
    system = next((name for name in _SYSTEMS if isinstance(columns.get(name), str)), None)
    lead = ({"role": "system", "content": columns[system]},) if system is not None else ()

    # A table has lists as text; a text that happens to be a list is a text.
    said = {name: unquoted(columns[name]) for name in MESSAGES if name in columns}
    for name in TEXTS:
        if name in columns:
            listed = isinstance(columns[name], str) and re.match(r"\s*\[\s*\{", columns[name])
            said[name] = unquoted(columns[name]) if listed else columns[name]
    at = next((name for name in MESSAGES if isinstance(said.get(name), list)), None)
    if at is None:
        at = next((name for name in TEXTS if name in said), None)
    if at is None:
        raise UnusableRowError("no prompt")
    used.add(at)
    texts = said[at] if isinstance(said[at], list) and all(isinstance(item, str) for item in said[at]) else []
    if isinstance(said[at], list) and not (at in TEXTS and len(texts) == 1):
        # Several texts as a prompt are those of the user, turn by turn.
        messages = _messages(said[at], "turns" if at in TEXTS else at)
        if lead and not any(message["role"] in ("system", "developer") for message in messages):
            messages = [*lead, *messages]
            used.add(str(system))
        prefilled = fields.get("continue_final_message") or fields.get("add_generation_prompt") is False
        prompt = _prompt_of_messages(messages, as_recorded=bool(prefilled))
        written = [item for item in said[at] if isinstance(item, dict)]
        unknown = {key for item in written for key in item if key not in {*_MESSAGE_KEYS, *_SPEAKER, *_SAID, *_ROLES}}
        columns = {**columns, **dict.fromkeys(unknown)}
        form = "ShareGPT" if any("from" in item for item in written) else "OpenAI messages"
        form = "turns" if not written else form
    else:
        text, form = texts[0] if texts else columns[at], "Alpaca" if at == "instruction" else "prompts"
        if not isinstance(text, str):
            raise UnusableRowError(f"{kind_of(text)} as its {at}")
        messages = list(lead)
        used.update(() if system is None else (system,))
        if at == "instruction":
            # Dolly has under `context` what Alpaca has under `input`.
            more = next((name for name in ("input", "context") if isinstance(columns.get(name), str)), None)
            if more is not None and columns[more].strip():
                text, used = f"{text}\n\n{columns[more]}", {*used, more}
            history = unquoted(columns.get("history"))
            if isinstance(history, list) and all(isinstance(pair, list) and len(pair) == 2 for pair in history):
                roles = ("user", "assistant")
                messages += [
                    {"role": role, "content": str(said)}
                    for pair in history
                    for role, said in zip(roles, pair, strict=True)
                ]
                used.add("history")
        prompt = _prompt_of_text(text)
        if messages:
            prompt = Prompt("", messages=(*messages, *prompt.sent))

    strict = at == "messages"
    unsent = [name for name in columns if name not in used and not _is_about(name)]
    prompt = prompt._replace(
        output_tokens=_limit(columns, place),
        facets=read_facets(unquoted(columns.get("facets", columns.get("expected_facets"))), place),
        fields=fields or None,
        extra=_extra_body(columns, place),
    )
    model = columns.get("model")
    return DataRow(
        prompt,
        form,
        frozenset(name for name in unsent if strict or _LIKELY.search(name)),
        model if strict and isinstance(model, str) else "",
    )


@lru_cache(maxsize=4096)  # a data set has a few columns
def column_name(name: str) -> str:
    """A column's name as it is looked for: `Max Tokens` is `max_tokens`."""
    return re.sub(r"[\s-]+", "_", name.strip().lower())


@lru_cache(maxsize=4096)
def _is_about(name: str) -> bool:
    """Whether a column only describes its row."""
    return _ABOUT.fullmatch(name) is not None


def unquoted(value: object) -> Any:
    """A value that a table has as text: a list or an object in JSON or as Python prints it, a number, or true."""
    if not isinstance(value, str):
        return value
    text = value.strip()
    if text[:1] not in "[{" and not re.fullmatch(r"-?\d{1,18}(\.\d*)?([eE]-?\d+)?|true|false", text, re.IGNORECASE):
        return value
    with suppress(orjson.JSONDecodeError):
        return orjson.loads(text.lower() if text[:1] not in "[{" else text)
    with suppress(ValueError, SyntaxError, TypeError, MemoryError, RecursionError), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the text's escapes
        # Nothing that only Python has, such as a set.
        return orjson.loads(orjson.dumps(ast.literal_eval(text), option=orjson.OPT_NON_STR_KEYS))
    return value


def _limit(columns: Mapping[str, Any], place: str) -> int | None:
    """The row's own limit of output tokens."""
    name = next((name for name in LIMITS if columns.get(name) is not None), None)
    if name is None:
        return None
    limit = unquoted(columns[name])
    if isinstance(limit, float) and limit.is_integer():
        limit = int(limit)
    if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
        raise BadInput(
            f"{place} has the {name} {columns[name]!r}", hint="write a whole number of at least 1, or omit it"
        )
    return limit


def _extra_body(columns: Mapping[str, Any], place: str) -> dict[str, Any] | None:
    extra = unquoted(columns.get("extra_body"))
    if extra is not None and not isinstance(extra, dict):
        raise BadInput(f"{place} has {kind_of(extra)} as its extra_body", hint="write an object, or omit it")
    return extra


def _prompt_of_text(text: str) -> Prompt:
    if not text.strip():
        raise UnusableRowError("an empty text")
    return Prompt(text)


def _messages(items: Sequence[Any], column: str) -> list[dict[str, Any]]:
    """The messages of a list in any of its forms, as the chat endpoint has them; without empty ones of the user."""
    messages: list[dict[str, Any]] = []
    for number, one in enumerate(items):
        replies = column != "turns" and number % 2 == 1
        item = {"role": "assistant" if replies else "user", "content": one} if isinstance(one, str) else one
        if not isinstance(item, dict):
            raise UnusableRowError(f"{kind_of(item)} among its {column}")
        speaker = next((item[name] for name in _SPEAKER if isinstance(item.get(name), str)), None)
        if speaker is None:
            # {"human": …, "assistant": …}, or only what is said, by each in turn.
            said = [(name, item[name]) for name in item if name in _ROLES and item[name] is not None]
            by = "assistant" if replies else "user"
            said = said or [(by, item[name]) for name in _SAID if item.get(name) is not None][:1]
            if not said:
                raise UnusableRowError("a message without a role")
            messages += [{"role": _ROLES[name], "content": content} for name, content in said]
            continue
        role = _ROLES.get(speaker.strip().lower())
        if role is None:
            raise UnusableRowError(f"a message of {speaker[:40]!r}, which is no role")
        message = {key: item[key] for key in item if key in _MESSAGE_KEYS and item[key] is not None}
        messages.append(message | {"role": role, "content": next((item[key] for key in _SAID if key in item), None)})
    kept: list[dict[str, Any]] = []
    # A shared dialogue may begin with the middle of a response.
    cut_off = bool(items) and isinstance(items[0], dict) and "from" in items[0]
    for message in messages:
        content = message["content"]
        if isinstance(content, list):
            # Tables give all parts the keys of all.
            parts = [
                {key: part[key] for key in part if part[key] is not None} for part in content if isinstance(part, dict)
            ]
            message["content"] = content = parts or None
        elif content is not None and not isinstance(content, str):
            raise UnusableRowError(f"{kind_of(content)} as the content of a message")
        empty = content is None or (isinstance(content, str) and not content.strip())
        if empty and message["role"] in ("user", "system", "developer"):
            continue
        cut_off = cut_off and message["role"] != "user"
        if not (cut_off and message["role"] == "assistant"):
            kept.append(message)
    if column == "turns" and all(message["role"] == "user" for message in kept):
        # The user's side of a dialogue alone: each is sent after the response to the one before.
        kept = [said for message in kept for said in (message, {"role": "assistant", "content": ""})]
    return kept


def _prompt_of_messages(messages: Sequence[Message], *, as_recorded: bool = False) -> Prompt:
    """A request, or the turns of the user in a recorded dialogue."""
    last = next((at for at in reversed(range(len(messages))) if messages[at]["role"] in ("user", "tool")), None)
    if last is None or not any(message["role"] == "user" for message in messages):
        raise UnusableRowError("no message of a user")
    final = messages[-1]
    if as_recorded or final.get("prefix") or final.get("partial"):
        return Prompt("", messages=tuple(messages))  # the server continues the response
    if any(message["role"] == "tool" or message.get("tool_calls") for message in messages[: last + 1]):
        return Prompt("", messages=tuple(messages[: last + 1]))
    if last == len(messages) - 1:
        return _simplest(messages)
    turns: list[list[Message]] = [[]]
    for message in messages[: last + 1]:
        if message["role"] != "assistant":
            turns[-1].append(message)
        elif any(said["role"] == "user" for said in turns[-1]):
            turns.append([])
    first, *others = [_simplest(turn) for turn in turns]
    return first._replace(turns=len(turns), then=tuple(others))


def _simplest(messages: Sequence[Message]) -> Prompt:
    """One text of the user is sent in every API."""
    only = messages[0]
    is_text = len(messages) == 1 and only.keys() == {"role", "content"} and isinstance(only["content"], str)
    return Prompt(only["content"]) if is_text and only["role"] == "user" else Prompt("", messages=tuple(messages))
