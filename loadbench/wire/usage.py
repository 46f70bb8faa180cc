"""The server's own count of tokens, under the names and in the places that servers give it.

    prompt_tokens, completion_tokens      OpenAI and nearly everybody; in a choice: Moonshot; below `x_groq`: Groq
    input_tokens, output_tokens           the Responses API; Anthropic, whose input leaves out what was in the cache
    inputTokens, outputTokens             Bedrock, likewise
    promptTokenCount, candidatesTokenCount, thoughtsTokenCount      Gemini, below `usageMetadata`; thoughts come on top
    prompt_eval_count, eval_count         Ollama
    prompt_cache_hit_tokens, prompt_cache_miss_tokens               DeepSeek

Names are compared without their case and underscores. A count may be a string or a float. What cannot be a count is
kept as a fault, and the names of an object that has no count of the output are kept, so that a level can say so.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

from loadbench.wire.generated import json_text

# A higher count is a mistake of the server. This one still fits the arrays where counts are kept.
MOST_TOKENS = 2**40

_NAMES = {
    "input": "prompttokens inputtokens prompttokencount inputtokencount promptevalcount numprompttokens numinputtokens "
    "tokensevaluated",
    "output": "completiontokens outputtokens completiontokencount outputtokencount evalcount numcompletiontokens "
    "numoutputtokens numgeneratedtokens generatedtokens tokenspredicted responsetokencount candidatestokencount",
    "cached": "cachedtokens cachedtokencount promptcachehittokens cachereadinputtokens cachereadinputtokencount "
    "cacheread cachedinputtokens cachedprompttokens cachedcontenttokencount numcachedtokens",
    "reasoning": "reasoningtokens reasoningtokencount reasoningoutputtokens reasoning thinkingtokens thoughttokens "
    "thoughtstokencount",
    "total": "totaltokens totaltokencount",
    "missed": "promptcachemisstokens",
    "created": "cachecreationinputtokens cachewriteinputtokens cachewriteinputtokencount",
    "tokens": "numtokens",
}
_FIELDS = {name: field for field, names in _NAMES.items() for name in names.split()}
# These are parts of other counts and may stand one object deeper, as in `prompt_tokens_details`.
_PARTS = frozenset({"cached", "reasoning"})
# Input beside cached tokens of this name is without them, if it is not called the prompt's.
_APART = frozenset({"cachereadinputtokens", "cachereadinputtokencount"})
# Objects in which servers put their usage.
_PLACES = frozenset({"message", "delta", "response", "meta", "metadata"})
_MOST_LEVELS = 6
# Reasoning is counted past the end by up to the length of a draft (SGLang with speculative decoding).
_DRAFT_TOKENS = 16
# As many names of an object as a line of a report has room for.
_MOST_NAMES = 8
_LONGEST_UNKNOWN = 40


class Usage(NamedTuple):
    """The server's own count of tokens; `None` for counts that it does not report."""

    input: int | None = None
    output: int | None = None
    cached: int | None = None
    reasoning: int | None = None
    total: int | None = None
    surplus: int | None = None  # tokens of the total that are neither input nor output nor reasoning
    fault: str | None = None  # a count that cannot be, in words
    unknown: str | None = None  # the names in an object that does not count the output

    @property
    def generated(self) -> int | None:
        """All output tokens, including reasoning.

        Most servers include reasoning in `output`, some do not. It is added only where the total shows that it was not
        included, or without a total its number.
        """
        if self.output is None or self.input is None or not self.reasoning:
            return self.output
        separate = self.total == self.input + self.output + self.reasoning
        separate = separate or (not self.total and self.reasoning > self.output + _DRAFT_TOKENS)
        return self.output + self.reasoning if separate else self.output


_NOTHING = Usage()


def usage_in(document: dict[str, Any], levels: int = _MOST_LEVELS) -> Usage | None:
    """The usage in a frame, a choice or a message, in whichever object it is; `None` if there is none."""
    usage = document.get("usage")
    if isinstance(usage, dict):
        given, output, total = usage.get("prompt_tokens"), usage.get("completion_tokens"), usage.get("total_tokens")
        # Some servers report usage with every event, and then mostly just this.
        if len(usage) == 3 and type(given) is int and type(output) is int and type(total) is int:  # noqa: SIM102
            if given >= 0 and output >= 0 and given + output == total <= MOST_TOKENS:
                return Usage(given, output, None, None, total)
        if (found := read_usage(usage)) is not None:
            return found
    elif usage:
        return Usage(unknown=json_text(usage)[:_LONGEST_UNKNOWN])
    for name, value in document.items():
        if isinstance(value, dict) and value and name != "usage":
            if "usage" in name.lower():
                found = read_usage(value)
            else:
                is_place = levels > 0 and (name in _PLACES or name.startswith("x_"))
                found = usage_in(value, levels - 1) if is_place else None
            if found is not None:
                return found
    # Ollama's counts are not in an object of their own, and proxies of it leave them where they are.
    counts = {name: value for name, value in document.items() if name in {"prompt_eval_count", "eval_count"}}
    return read_usage(counts) if counts else None


def read_usage(usage: dict[str, Any], *, is_inner: bool = False) -> Usage | None:
    """The counts in a usage object, or in an object in it; `None` if nothing is filled in."""
    entries = [(name, field, usage[name]) for name, field in _fields_of(tuple(usage))]
    for details in usage.values():
        if details and isinstance(details, dict):
            entries += [(name, field, details[name]) for name, field in _fields_of(tuple(details), parts=True)]
    counts: dict[str, int] = {}
    fault, apart, has_thoughts, has_prompt = None, 0, False, False
    for name, field, value in entries:
        if value is None:
            continue
        number = value if type(value) is int and 0 <= value <= MOST_TOKENS else count(value)
        if number is None:
            fault = fault or (f"{name} is {value!s:.24}" if _is_number(value) else None)
            continue
        # One count may stand there under several names, and as a zero under those that this server does not fill.
        counts[field] = max(counts[field], number) if field in counts else number
        if field == "cached" and _plain(name) in _APART:
            apart += number
        elif field == "reasoning":
            has_thoughts = has_thoughts or _plain(name) == "thoughtstokencount"
        elif field == "input":
            has_prompt = has_prompt or "prompt" in name

    given, output, reasoning = counts.get("input"), counts.get("output", counts.get("tokens")), counts.get("reasoning")
    total, cached, created = counts.get("total"), counts.get("cached"), counts.get("created", 0)
    if has_thoughts:
        output = output or 0  # of the answer, which is missing as long as there are only thoughts
        total = total or (given or 0) + output + (reasoning or 0)
    if given is None and "missed" in counts:
        given = counts["missed"] + (cached or 0)
    elif given is not None and not has_prompt:
        given += 0 if total == given + (output or 0) else apart + created

    surplus = None
    if total and given is not None and output is not None:
        surplus = total - given - output
        if surplus < 0:
            fault = fault or f"the total is {total} tokens, the prompt {given} and the output {output}"
        elif not surplus and (reasoning or 0) > output + _DRAFT_TOKENS:
            fault = fault or f"the output is {output} tokens, the reasoning in it {reasoning}"
        if surplus <= 0 or surplus in {reasoning, cached, created, apart + created}:
            surplus = None
    found = Usage(given, output, cached, reasoning, total, surplus, fault)
    is_named = output is not None or any(field in {"output", "tokens"} for _, field, _ in entries)
    if is_named or is_inner or fault is not None:
        return found if found != _NOTHING else None
    for inner in usage.values():  # Cohere's has one object for the tokens, and one for those that are billed
        within = read_usage(inner, is_inner=True) if isinstance(inner, dict) else None
        if within is not None and within.output is not None:
            return within
    if all(value in (None, "", {}, []) for value in usage.values()):
        return None
    return found._replace(unknown=", ".join(list(usage)[:_MOST_NAMES]) + (", …" if len(usage) > _MOST_NAMES else ""))


@lru_cache(maxsize=1024)
def _plain(name: str) -> str:
    return name.replace("_", "").replace("-", "").lower()


@lru_cache(maxsize=256)
def _fields_of(names: tuple[str, ...], *, parts: bool = False) -> tuple[tuple[str, str], ...]:
    """Those of the names in an object that are a count, or a part of one, each with the field that it fills."""
    fields = ((name, _FIELDS.get(_plain(name), "")) for name in names)
    return tuple((name, field) for name, field in fields if (field in _PARTS if parts else field))


def count(value: object) -> int | None:
    """A plausible number of tokens, or `None`; some servers write it as a float or as text."""
    if isinstance(value, str):
        value = int(value) if value.isascii() and value.isdigit() and len(value) < 20 else None
    elif isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if type(value) is int and 0 <= value <= MOST_TOKENS else None


def _is_number(value: object) -> bool:
    """Whether a value is meant as a number."""
    if isinstance(value, str):
        return value.lstrip("+-").replace(".", "", 1).isdigit()
    return isinstance(value, int | float) and not isinstance(value, bool)
