"""What the words of servers mean: why a response ended, whether a text reports an error, what is only a sign of life.

No two servers use the same words, so these are rules and not lists alone. They are applied to what ends a response and
to frames that are no part of one, never to generated text.
"""

from __future__ import annotations

import re
from enum import StrEnum
from functools import lru_cache

import orjson

from loadbench.core.bounded import parse_json


class Ending(StrEnum):
    """What a finish_reason says about its response."""

    NONE = "none"  # nothing: the response goes on
    GOOD = "good"  # it is complete, or as long as it was allowed to be
    FILTERED = "filtered"  # a policy cut it, or refused it
    FAILED = "failed"
    UNKNOWN = "unknown"


# Strings that stand for null: DashScope and others send "null" with every frame, watsonx.ai "not_finished".
_NO_END = frozenset({"", "null", "none", "nil", "undefined", "not_finished", "in_progress", "generating"})
# Good ends that the rules below would not recognise: context windows that are full (Anthropic, Zhipu), a stop word
# (llama.cpp), a repetition that was stopped (vLLM), a model that was only loaded (Ollama), a turn that continues
# elsewhere (Anthropic), a Responses object that is incomplete for a reason that is not stated.
_GOOD = frozenset(
    {"model_context_window_exceeded", "context_length_exceeded", "word", "repetition", "load", "pause_turn"}
    | {"incomplete", "compaction"}
)
_FAILED = re.compile(
    r"error|fail|abort|cancel|time_?out|timed_out|time_limit|deadline|network|connection|disconnect|insufficient"
    r"|resource|unavailable|overload|exception|malformed|invalid|unexpected|unspecified|interrupt|kill|crash|memory"
    r"|(?:^|_)(?:oom|lost|user|busy|server|panic|fatal)(?:_|$)|unload|preempt|evict|reject|denied|unauthor|quota"
    r"|rate_limit|throttl|endpoint|retries|too_many|internal|broken|expired|terminated"
)
# OpenAI, Azure, Gemini and its image variants, Zhipu, Bedrock, Anthropic.
_FILTERED = re.compile(
    r"content_?filter|filtered|safety|recitation|block_?list|blocked|prohibited|spii|sensitive|guardrail|moderation"
    r"|refusal|^language$"
)
# A part of the word begins like this: stop_sequence, eos_token, endoftext, maxPredictedTokensReached, MAX_TOKENS,
# model_length, COMPLETE, FINISHED, tool_calls, STOP_CRITERIA_MET, …
_ENDED = re.compile(
    r"(?:^|_)(?:stop|eos|eot|eog|end|length|max|limit|complet|finish|done|tool|function|normal|success)"
)
_LONGEST_WORD = 200
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


def ending_of(word: str) -> Ending:
    """What this finish_reason means, in any spelling. A word that fits no rule is unknown, which is not good."""
    return _ending_of(word[:_LONGEST_WORD])


@lru_cache(maxsize=256)
def _ending_of(word: str) -> Ending:
    plain = re.sub(r"[^a-z0-9]+", "_", _HUMP.sub("_", word).lower()).strip("_")
    if plain in _NO_END:
        return Ending.NONE
    if plain in _GOOD:
        return Ending.GOOD
    if _FAILED.search(plain):
        return Ending.FAILED
    if _FILTERED.search(plain):
        return Ending.FILTERED
    return Ending.GOOD if _ENDED.search(plain) else Ending.UNKNOWN


# Errors.

_ERROR = re.compile(
    r"(?<!no[ _-])(?<!without )error|exception|traceback|fail(?:ed|ure|s|ing)?\b|\bfault\b|fatal|panic|crash|abort"
    r"|overload|unavailable|tim(?:e[ds]?|ing)[ _-]?out|refused|denied|unauthori[sz]ed|forbidden|invalid|exceed"
    r"|out of memory|\boom\b|cancell?ed|too many requests|rate[ _-]?limited|quota|insufficient|not found|bad gateway"
    r"|bad request|unable to|can ?not\b|can't|could not|no capacity|no healthy|throttl|expired|disconnect|terminated"
    r"|killed|unsupported|not supported|rejected",
    re.IGNORECASE,
)
_ERROR_NAME = re.compile(r"error|(?:^|[._-])err(?:$|[._-])|exception|fail|abort|fatal|panic|time_?out|overload|cancel")
_CUT_ERROR = re.compile(rb"""\s*\{\s*["'](?:errors?|error_\w+|detail|fault|exception|code|status)["']""", re.IGNORECASE)
# Longer strings in a JSON object are documents, such as what a search returned, not messages.
_LONGEST_MESSAGE = 300
_MOST_BYTES = 64 * 1024


@lru_cache(maxsize=64)
def is_error_event(name: str) -> bool:
    """Whether an event with this name reports that the request failed.

    A step inside of a response may fail, as `response.mcp_call.failed`, and the response go on.
    """
    lower = name.lower()
    inner_step = lower.startswith("response.") and lower.count(".") > 1
    return not inner_step and _ERROR_NAME.search(lower) is not None


def names_error(text: str) -> bool:
    """Whether these words, of a status or a message, are those of an error."""
    return _ERROR.search(text) is not None


def reads_like_error(data: bytes) -> bool:
    """Whether this text or JSON, which is no part of a response, has the words of an error."""
    try:
        document = parse_json(data)
    except orjson.JSONDecodeError:
        if data.lstrip().startswith(b"{"):  # an object that was cut: only its first key is not generated text
            return _CUT_ERROR.match(data) is not None
        return names_error(data[:_MOST_BYTES].decode("utf-8", "replace"))
    return _has_error(document, 0)


def _has_error(value: object, depth: int) -> bool:
    """Whether a message, or a key with a value, is an error's. A key whose value is false, 0, null or empty is not.

    Nor is a warning: the response goes on.
    """
    match value:
        case str():
            return len(value) <= _LONGEST_MESSAGE and names_error(value)
        case dict() if depth < 5:
            items = ((key, item) for key, item in value.items() if item and "warn" not in key.lower())
            return any(names_error(key) or _has_error(item, depth + 1) for key, item in items)
        case list() if depth < 5:
            return any(_has_error(item, depth + 1) for item in value[:100])
        case _:
            return False


# Signs of life.

_SIGN = (
    r"(?:ping|pong|heart[-_ ]?beat|keep[-_ ]?alive|no-?op|(?:still[-_ ])?alive|still[-_ ]here"
    r"|processing|progress|loading|queued|waiting|pending)"
)
# As the name of an event or of an object, perhaps the last part of it: `heartbeat`, `chat.completion.ping`.
_IS_SIGN = re.compile(rf"(?:.*[._ /:-])?{_SIGN}", re.IGNORECASE).fullmatch
# At the beginning of a text: `ping - 2024-05-01 12:00:00`.
_BEGINS_AS_SIGN = re.compile(rf"{_SIGN}(?![a-z])", re.IGNORECASE).match
_LONGEST_SIGN = 200


def is_keep_alive(event: str, data: bytes) -> bool:
    """Whether an event, which is no part of a response, only keeps the connection open.

    By its name, or by its data: none, `null`, `{}`, `[PING]`, a comment, `{"type": "ping"}`, `{"heartbeat": 17}`.
    """
    if event != "message" and _IS_SIGN(event):
        return True
    if len(data) > _LONGEST_SIGN or b"\n" in data.strip():
        return False
    try:
        document = parse_json(data)
    except orjson.JSONDecodeError:
        document = data.decode("utf-8-sig", "replace")
    if isinstance(document, dict):
        signs = [*document, *(value for value in document.values() if isinstance(value, str))]
        return not document or (any(map(_IS_SIGN, signs)) and not _has_error(document, 0))
    if document is None or document == []:
        return True
    if not isinstance(document, str) or names_error(document):
        return False
    text = document.strip()
    word = text.lstrip(":;,.-_*# \t[(<\"'")
    return not word or text.startswith(":") or word.lower() == "null" or _BEGINS_AS_SIGN(word) is not None
