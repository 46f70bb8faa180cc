"""One row of a data set as a prompt: what is sent, what is left out, and why a row cannot be used.

    messages, conversations, …    [{"role", "content"}], [{"from", "value"}]; or the bare list      OpenAI, ShareGPT
    turns                         ["first message of the user", "the second", …]                    MT-bench
    custom_id, body               a line of a batch: the body is sent but for what is loadbench's   OpenAI batch
    instruction, input            one text of both, with `system` and `history`                     Alpaca
    prompt, text, question, …     one text, with `system`, an image, and a `context` before a question
    request, params, input, …     an object with any of these inside

A list of messages that ends with a response is a *recorded dialogue*: what its user wrote is sent turn by turn, with
the server's own responses between. Any other list is one request, sent as recorded. Tool messages answer the calls of
the recorded responses: a dialogue that has some is one request, up to the last of them or of the user's.

Request fields of a row (`FIELDS`), its limit of output tokens (`LIMITS`), `extra_body` and `facets` belong to its
requests. A recorded response is no limit: its words are not the server's tokens.
"""

from __future__ import annotations

import ast
import re
import sys
import warnings
from contextlib import suppress
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from loadbench.core.bounded import MOST_COST, is_costly, parse_json
from loadbench.core.errors import BadInput
from loadbench.core.text import kind_of
from loadbench.plan.data_messages import (
    ROLES,
    UnusableRowError,
    image_url,
    is_user,
    read_messages,
    read_tools,
    system_text,
    with_images,
)
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
    "conversation_input",
    "chat_messages",
    "contents",
)
TEXTS = (
    *("prompt", "instruction", "question", "query", "user_input", "problem", "goal", "input", "inputs", "text"),
    *("text_input", "user_prompt", "user_message", "message", "content", "prompts"),
)
_ABOUT_TEXTS = ("question", "query", "input")
_SYSTEMS = ("system", "system_prompt", "system_message", "system_instruction", "systeminstruction")
LIMITS = (
    *("max_tokens", "max_completion_tokens", "max_output_tokens", "max_new_tokens", "output_tokens"),
    *("output_tokens_count", "output_length", "num_predict", "n_predict"),
)
# Under which a row has its request, if it has one inside.
_AROUND = ("row", "request", "params", "modelinput", "payload", "input", "inputs", "prompt")

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
_OF_TOOLS = {"tool", "function", "tool_calls", "function_call"}
_LARGEST = 2**53  # beyond, JSON's numbers are not exact
_WHOLE = {"top_k", "seed", "min_tokens", "top_logprobs", "thinking_budget"}
# Fields of a batch's body that loadbench gives itself, or reads as something else.
_OWN_FIELDS = {"model", "stream", "stream_options", "messages", "prompt", "input", "extra_body", *LIMITS}
# Columns that only describe a row. Others are named if they are likely to be meant for the request.
_ABOUT = re.compile(
    r"(.*_)?(ids?|idx|index|hash|uuid|name|url|key|date|time|timestamp|created(_at)?|scores?|ratings?|labels?|tags?"
    r"|reference|references|answers?|outputs?|responses?|completions?|model|language|lang|category|topic|source|type"
    r"|moderation|count|split|dataset|subset|difficulty|domain|level|turn|object|usage|info|weight)"
    r"|unnamed:_\d+|chosen|rejected|targets?|expected.*|ground_truth|solution|explanation|rationale|meta(data)?|title"
    r"|comments?|notes?|user|facets|method|stream|stream_options|store|n_turns|num_turns|toxic|redacted|state|country"
    r"|header|winner|judge|tstamp|anony|prompt_(tokens|len|length)|input_(tokens|length)|finish_reason|status|row|"
)
_LIKELY = re.compile(
    r"image|img|photo|picture|video|audio|document|passage|context|history|^system|input|prompt|instruction|message"
    r"|conversation|dialog|tool|function|temperature|^top_|penalty|^seed|^stop|schema|choices|options|^max_|^min_"
    r"|thinking|reasoning|prefix|suffix|attachment|file|format|extra|grammar|^delay|^generation_?config"
)


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
        return DataRow(_prompt_of_text(row), "texts")
    if isinstance(row, list):
        return DataRow(_prompt_of_messages(read_messages(row, "messages")[0]), "OpenAI messages")
    if row is None:
        raise UnusableRowError("an empty row")
    if not isinstance(row, dict):
        raise BadInput(f"{place} is {kind_of(row)}", hint='write a string, or an object with "prompt" or "messages"')
    if isinstance(row.get("body"), dict):
        return _batch_row(row, place)
    columns = _columns_of(row)
    for name in _AROUND:
        inner = columns.get(name)
        if isinstance(inner, dict):
            if isinstance(inner.get("body"), dict):
                return _batch_row(inner, place)
            if not {*MESSAGES, *TEXTS}.isdisjoint(own := _columns_of(inner)):
                columns = {**{other: value for other, value in columns.items() if other != name}, **own}
                break
    return _columns_row(columns, place)


def requests_in(row: object) -> list[object]:
    """The rows in a row: the requests of a session, as aiperf and genai-perf write what they sent; or the row."""
    payloads = (row.get("payloads") or row.get("payload")) if isinstance(row, dict) else None
    if isinstance(payloads, list) and payloads and all(isinstance(body, dict) for body in payloads):
        return [{"body": body} for body in payloads]
    return [row]


def _columns_of(row: Mapping[str, Any]) -> dict[str, Any]:
    columns: dict[str, Any] = {}
    for name, value in row.items():
        if value is not None and value not in ("", [], {}):
            columns.setdefault(column_name(str(name)), value)
    return columns


def _batch_row(row: Mapping[str, Any], place: str) -> DataRow:
    """A line of a batch. All of its body is sent but what loadbench decides."""
    body, url = row["body"], str(row.get("url") or "")
    limit = _limit(body, place)
    fields = {name: value for name, value in body.items() if name not in _OWN_FIELDS and value is not None}
    extra = _extra_body(body, place)
    said = next((body[name] for name in ("messages", "input", "prompt") if body.get(name)), None)
    if isinstance(said, list) and len(said) == 1 and isinstance(said[0], str):
        (said,) = said
    if isinstance(said, str):
        prompt = _prompt_of_text(said)
    elif isinstance(said, list) and said and all(isinstance(message, dict) for message in said):
        if not any("role" not in message or is_user(message) for message in said):
            raise UnusableRowError("no message of a user")
        prompt = _simplest(said)  # as it is: a response at its end is for the server to continue
    elif isinstance(said, list) and all(isinstance(text, str) for text in said):
        raise UnusableRowError("several prompts in one request")
    else:
        raise UnusableRowError("token numbers as its prompt" if isinstance(said, list) else "no messages in its body")
    prompt = prompt._replace(output_tokens=limit, fields=fields or None, extra=extra)
    return DataRow(prompt, "OpenAI batch", model=str(body.get("model") or ""), url=url)


def _columns_row(columns: Mapping[str, Any], place: str) -> DataRow:
    """A row of any other form."""
    fields, used = _fields_in(columns)
    used |= {"extra_body", "facets", "expected_facets", *LIMITS}
    systems = ((name, system_text(columns[name])) for name in _SYSTEMS if name in columns)
    system, lead = next(((name, text) for name, text in systems if text is not None), ("", ""))
    leading: list[Message] = [{"role": "system", "content": lead}] if system else []

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
    keys = frozenset[str]()
    if isinstance(said[at], list) and not (at in TEXTS and len(texts) == 1):
        # Several texts as a prompt are those of the user, turn by turn.
        messages, keys = read_messages(said[at], "turns" if at in TEXTS else at)
        if leading and not any(message["role"] in ("system", "developer") for message in messages):
            messages = [*leading, *messages]
            used.add(system)
        prefilled = fields.get("continue_final_message") or fields.get("add_generation_prompt") is False
        prompt = _prompt_of_messages(messages, as_recorded=bool(prefilled))
        form = "OpenAI messages" if any(isinstance(item, (dict, list)) for item in said[at]) else "turns"
        form = "ShareGPT" if any(isinstance(item, dict) and "from" in item for item in said[at]) else form
    else:
        prompt, taken = _prompt_in_columns(texts[0] if texts else columns[at], at, columns, leading)
        used |= {system, *taken}
        form = "Alpaca" if at == "instruction" else "prompts"

    strict = at == "messages"
    sent = [message.get("content") for turn in (prompt, *prompt.then) for message in turn.sent]
    unsent = [name for name in columns if name not in used and columns[name] not in (False, *sent)]
    not_sent = frozenset(name for name in (*unsent, *keys) if may_be_sent(name, strict=strict))
    prompt = prompt._replace(
        output_tokens=_limit(columns, place),
        facets=read_facets(unquoted(columns.get("facets", columns.get("expected_facets"))), place),
        fields=fields or None,
        extra=_extra_body(columns, place),
    )
    model = columns.get("model")
    return DataRow(prompt, form, not_sent, model if strict and isinstance(model, str) else "")


def _fields_in(columns: Mapping[str, Any]) -> tuple[dict[str, Any], set[str]]:
    """(the fields of the request among the columns, the names of these columns)."""
    fields, used = dict[str, Any](), set[str]()
    for name in columns:
        types = FIELDS.get(name) or (_PROVIDER_FIELDS.get(name) if "messages" in columns else None)
        if types is None:
            continue
        value = unquoted(columns[name])
        if str in types and not isinstance(value, types):
            value = columns[name]
        if name in _WHOLE and isinstance(value, float) and value.is_integer():
            value = int(value)  # a table has 12.0 where other rows have none
        if name == "tools":
            value = read_tools(value)
        exact = not isinstance(value, (int, float)) or abs(value) <= _LARGEST
        if exact and isinstance(value, types) and isinstance(value, bool) == (bool in types):
            fields[name] = value
            used.add(name)
    if "tools" not in fields and "function" in columns and (tools := read_tools(unquoted(columns["function"]))):
        fields["tools"] = tools
        used.add("function")
    return fields, used


def _prompt_in_columns(
    text: object, at: str, columns: Mapping[str, Any], leading: Sequence[Message]
) -> tuple[Prompt, set[str]]:
    """(the prompt of a text in the column `at`, the names of the columns that are sent with it)."""
    if not isinstance(text, str):
        raise UnusableRowError(f"{kind_of(text)} as its {at}")
    role = ROLES.get(str(columns.get("role")).lower(), "user")
    if role != "user":
        raise UnusableRowError(f"a text of the {role}")  # data sets of single messages, such as OASST
    messages, used = list(leading), set[str]()
    # Dolly has under `context` what Alpaca has under `input`. A question about a text comes after the text.
    added = ("input", "context") if at == "instruction" else ("context", "passage") if at in _ABOUT_TEXTS else ()
    more = next((name for name in added if isinstance(columns.get(name), str)), None)
    if more is not None and columns[more].strip():
        text = f"{text}\n\n{columns[more]}" if at == "instruction" else f"{columns[more]}\n\n{text}"
        used.add(more)
    history = unquoted(columns.get("history")) if at == "instruction" else None
    if isinstance(history, list) and all(isinstance(pair, list) and len(pair) == 2 for pair in history):
        for asked, response in history:
            messages.append({"role": "user", "content": str(asked)})
            messages.append({"role": "assistant", "content": str(response)})
        used.add("history")
    prompt = _prompt_of_text(text)
    shown = next((name for name in ("image", "images", "image_url") if name in columns), "")
    images = columns[shown] if isinstance(columns.get(shown), list) else [columns.get(shown)]
    if all(urls := [image_url(image) for image in images]):
        prompt = Prompt("", messages=({"role": "user", "content": with_images(text, urls)},))
        used.add(shown)
    return (Prompt("", messages=(*messages, *prompt.sent)) if messages else prompt), used


@lru_cache(maxsize=4096)  # a data set has a few columns
def column_name(name: str) -> str:
    """A column's name as it is looked for: `Max Tokens` is `max_tokens`."""
    return re.sub(r"[\s-]+", "_", name.strip().lower())


@lru_cache(maxsize=4096)
def may_be_sent(name: str, *, strict: bool = False) -> bool:
    """Whether a column may be meant for the request. If `strict`, all are that do not only describe their row."""
    return _ABOUT.fullmatch(name) is None and (strict or name in LIMITS or _LIKELY.search(name) is not None)


def unquoted(value: object) -> Any:
    """A value that a table has as text: a list or an object in JSON or as Python prints it, a number, or true."""
    if not isinstance(value, str):
        return value
    text = value.strip()
    if text[:1] not in "[{" and not re.fullmatch(r"-?\d{1,18}(\.\d*)?([eE]-?\d+)?|true|false", text, re.IGNORECASE):
        return value
    with suppress(orjson.JSONDecodeError):
        # The user's own file, which has a bound of its own.
        return parse_json(text.lower() if text[:1] not in "[{" else text, sys.maxsize)
    if is_costly(text, MOST_COST):  # as Python's it would take a hundred times its length
        return value
    with suppress(ValueError, SyntaxError, TypeError, MemoryError, RecursionError), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the text's escapes
        # Nothing that only Python has, such as a set.
        return parse_json(orjson.dumps(ast.literal_eval(text), option=orjson.OPT_NON_STR_KEYS))
    return value


def _limit(columns: Mapping[str, Any], place: str) -> int | None:
    """The row's own limit of output tokens."""
    name = next((name for name in LIMITS if columns.get(name) is not None), None)
    if name is None:
        return None
    limit = unquoted(columns[name])
    if isinstance(limit, str) and limit.strip().lower() in ("nan", "none", "null"):
        return None  # as programs write a table's empty cells
    if isinstance(limit, float) and limit.is_integer():
        limit = int(limit)
    if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= _LARGEST:
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


def _prompt_of_messages(messages: Sequence[Message], *, as_recorded: bool = False) -> Prompt:
    """A request, or the turns of the user in a recorded dialogue."""
    last = next((at for at in reversed(range(len(messages))) if is_user(messages[at])), None)
    if last is None or not any(message["role"] == "user" for message in messages):
        raise UnusableRowError("no message of a user")
    final = messages[-1]
    if as_recorded or final.get("prefix") or final.get("partial"):
        return Prompt("", messages=tuple(messages))  # the server continues the response
    if any(message["role"] in _OF_TOOLS or _OF_TOOLS & message.keys() for message in messages[: last + 1]):
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
