"""Reads in a server's words which fields of a request it refuses by name, and which name it wants instead.

Servers say it in many ways: OpenAI's "Unsupported parameter: 'max_tokens'", the validators of Python (pydantic), Go,
Rust, Java and JavaScript, gateways that quote them. All of them put the field's name next to words that refuse it.
A name elsewhere in the text, as in an echo of the request, means nothing; nor does a value that is out of range.
"""

from __future__ import annotations

import re
from functools import cache, partial
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

# The names that limit the output tokens have one meaning.
TOKEN_LIMITS = (
    "max_tokens",
    "max_completion_tokens",
    "max_output_tokens",
    "max_new_tokens",
    "max_tokens_to_sample",
    "num_predict",
    "n_predict",
)


class Refusal(NamedTuple):
    """A field that a server refuses, by its path in the body: `seed`, or `options.seed`.

    `instead` is the name that the server proposes. With `by_value` only the value was refused.
    """

    field: str
    instead: str | None = None
    by_value: bool = False


# They are large, and few servers refuse a field: each is compiled when it is needed.
_compiled = cache(re.compile)
_QUOTE = r"""(?:\\?['"`‘’“”])"""  # with the backslash of a quoted quotation
_NAME = r"[A-Za-z_](?:[\w.\[\]/-]*[\w\]])?"
_NOUN = (
    r"(?:(?:request|body|query|keyword|json|sampling|inference)[ _])*"
    r"(?:parameters?|params?|arguments?|args?|fields?|keys?|keywords?|propert(?:y|ies)|names?|options?|inputs?"
    r"|attributes?|members?)(?:\(s\))?(?!\w)"
)
_GIVEN = (
    r"(?:\ (?:supplied|given|provided|received|found|named?|in\ (?:the\ )?(?:request|object|body|payload)(?:\ body)?))?"
)
_BEFORE = partial(
    _compiled,
    rf"""(?:
      (?P<value> unsupported\ value | only\ (?:supports|accepts|allows) (?:\ the\ default)? (?:\ value\ of)? )
    | (?P<doubtful> (?:invalid|illegal|bad) \ {_NOUN} {_GIVEN} )
    | extra \ (?:inputs|fields) (?:\ are)? \ not \ (?:permitted|allowed) \W{{1,3}} (?:field|key)
    | (?: un (?:supported|recogni[sz]ed|known|expected|permitted) | not\ supported | extra (?:neous)? | disallowed
        | forbidden | deprecated | undefined ) \ {_NOUN} {_GIVEN}
    | {_NOUN} (?: \ (?:is|are) )? \ (?: not\ (?:supported|allowed|permitted|accepted|recogni[sz]ed|used)
        | un(?:supported|recogni[sz]ed|known|expected) )
      (?: \ (?:on|by|for|with|in) (?:\ (?:this|the))? (?:\ \w+)? )?
    | (?:does\ not|doesn't|do\ not|don't|cannot|can't) \ (?:support|accept|allow|recogni[sz]e|take|use)
      (?:\ the)? (?: \ {_NOUN} )?
    | no \ (?:such\ )? {_NOUN} (?: \ (?:named|called) )?
    | additional_?property
    | 不支持 (?:的)? (?:参数|字段)
    )""",
    re.IGNORECASE | re.VERBOSE,
)
# One name of a list that follows such words.
_LISTED = partial(_compiled, rf"(?:[\s,:=()\[\]{{]|{_QUOTE}|and\b|body\s*->)+({_NAME})")
_VALUE = partial(_compiled, rf"{_QUOTE}*\s*=\s*[\d.]")
# The names of a list before its last one.
_LIST_BEFORE = partial(
    _compiled, rf"(?:{_QUOTE}?{_NAME}{_QUOTE}?(?:,\s*(?:and\s+|or\s+)?|\s+(?:and|or)\s+){_QUOTE}?)+$"
)
# Of a value that the field may not have: the field itself is accepted.
_RANGE = partial(
    _compiled,
    r"[^.;]{0,60}?\b(?:must|should|expected|between|range|at least|at most|(?:less|greater|larger|smaller) than"
    r"|minimum|maximum|exceeds?)\b",
    re.IGNORECASE,
)
_AFTER = partial(
    _compiled,
    rf"""(?P<name>{_NAME}) (?:{_QUOTE}|[)\]])* (?P<equals>\s*=\s*[\w.]+)? \s* [:,–—-]? \s*
    (?: (?:this\ |the\ )? \(?{_NOUN}\)? \s+ )? (?:
      (?P<value>
        does\ not\ support \ (?=[\d'"`(]|the\ value|values?\b) | only\ supports \b
      | (?:only\ )? (?:the\ )? default \ [^.]* \ (?:is|are)\ supported
      | only \ \S+ \ (?:is|are)\ (?:allowed|supported) | (?<=\d) \s* (?:is|are)\ (?:allowed|supported)
      | must\ be \ (?: (?:exactly\ |equal\ to\ |set\ to\ )? 1 (?:\.0*)? (?!\.?\d) | strictly\ positive
          | greater\ than\ 0 | >\ ?0 )
      )
    | (?: (?:is|are|was|were|has\ been|have\ been|can|may|should|must|will) (?:\s+|(?=n't)) )? (?: currently\ | yet\ )?
      (?: not | n't | no\ longer ) \ (?:currently\ |yet\ )? (?:be\ )?
      (?: supported | permitted | allowed (?!\ to\b) | accepted | recogni[sz]ed | available | implemented | expected
        | known | set\b | specified | provided | used | given\b | passed
        | an?\ (?:valid|supported|known|recogni[sz]ed|allowed) \ {_NOUN} )
    | (?: is | are | was | were | has\ been ) \s+ (?: currently\ | an?\ )?
      (?: un (?:supported|recogni[sz]ed|known|expected) | deprecated | forbidden | disallowed | prohibited | removed
        | (?:invalid|illegal)\ {_NOUN} | only\ (?:supported|available|allowed) )
    | cannot\ be \ (?:set|used|specified|provided|given|passed|combined)
    | must\ be \ (?:null|omitted|unset|absent|removed)
    | extra \ (?:inputs|fields) (?:\ are)? \ not \ (?:permitted|allowed)
    | (?: unexpected | unknown | unrecogni[sz]ed | unsupported | invalid ) \ {_NOUN}
    | could\ not\ be\ mapped
    | 不被?支持 | 不受支持
    )""",
    re.IGNORECASE | re.VERBOSE,
)
# JSON Schema of Python: "('seed', 'stop' were unexpected)".
_UNEXPECTED = partial(_compiled, r"\(([^()]{1,200}?) (?:was|were) unexpected\)", re.IGNORECASE)
# Pydantic's own records, where a server prints them instead of their message.
_FORBIDDEN = partial(
    _compiled, rf"""extra_forbidden{_QUOTE}, *{_QUOTE}loc{_QUOTE}: *[(\[]([^)\]]*)[)\]]""", re.IGNORECASE
)
_INSTEAD = partial(
    _compiled,
    rf"""(?: (?:use|using|try|set|provide|send|specify|prefer) \s+ (?:the\ )? (?:{_NOUN}\ )? {_QUOTE}? (?P<a>{_NAME})
        {_QUOTE}? (?:\ {_NOUN})? ,? \s+ instead
    | (?:did\ you\ mean|use) :? \s+ {_QUOTE} (?P<b>{_NAME}) {_QUOTE}
    | did\ you\ mean :? \s+ (?P<c>{_NAME})
    | (?:replaced|superseded) \s+ (?:by|with) \s+ {_QUOTE}? (?P<d>{_NAME})
    | (?:renamed|changed) \s+ (?:to|as) \s+ {_QUOTE}? (?P<e>{_NAME})
    | in\ favou?r\ of \s+ {_QUOTE}? (?P<f>{_NAME})
    )""",
    re.IGNORECASE | re.VERBOSE,
)
# Details of failures are shorter. The patterns may look at a character as often as the text is long.
_MOST_WORDS = 2000
# Words of a name that say nothing of its meaning.
_EMPTY_WORDS = frozenset({"max", "min", "num", "the", "of", "to"})


def refusals(words: str, sent: Mapping[str, object]) -> list[Refusal]:
    """The fields of the body `sent` that these words refuse, each once; those refused for their value come last."""
    words = words[:_MOST_WORDS]
    found: dict[str, bool] = {}
    for field, by_value in sorted(_refused(words, sent), key=lambda item: item[1]):
        found.setdefault(field, by_value)
    proposals = [name for match in _INSTEAD().finditer(words) for name in match.groups() if name]
    return [
        Refusal(field, next((name for name in proposals if is_alternative(field, name, sent)), None), by_value)
        for field, by_value in found.items()
    ]


def _refused(words: str, sent: Mapping[str, object]) -> Iterator[tuple[str, bool]]:
    """(each field whose name stands next to words of refusal, whether only its value is refused)."""
    for match in _BEFORE().finditer(words):
        at = match.end()
        while (listed := _LISTED().match(words, at)) and (field := _path(listed[1], sent)):
            at = listed.end()
            if match["doubtful"] and _RANGE().match(words, at):
                break
            yield field, match["value"] is not None or _VALUE().match(words, at) is not None
    named = []
    for match in _AFTER().finditer(words):
        # "'temperature', 'top_p' and 'seed' are not supported": all of them.
        several = _LIST_BEFORE().search(words, 0, match.start()) if " are " in match[0] else None
        names = [*re.findall(_NAME, several[0] if several else ""), match["name"]]
        named += [(name, match["value"] is not None or match["equals"] is not None) for name in names]
    for match in (*_UNEXPECTED().finditer(words), *_FORBIDDEN().finditer(words)):
        named += [(name, False) for name in re.findall(_NAME, match[1])]
    for name, by_value in named:
        if field := _path(name, sent):
            yield field, by_value


def _path(name: str, sent: Mapping[str, object]) -> str | None:
    """The field of the body that a name means: the first part that was sent, in any spelling."""
    parts = [re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", part).lower() for part in re.split(r"[.\[\]/]+|-(?=>)", name)]
    parts = [part.replace("-", "_") for part in parts if part]
    options = sent.get("options")
    inner = {str(key) for key in options} if isinstance(options, dict) else set()
    for part in parts:
        if part in inner:
            return f"options.{part}"
        if part in sent and not (part == "options" and inner & set(parts)):
            return part
    return None


def is_alternative(field: str, name: str, sent: Mapping[str, object]) -> bool:
    """Whether `name` may be the same field under another name: it is new, and shares a word that means something."""
    if name in sent or name == field or not re.fullmatch(r"[a-z][a-z0-9_]{1,40}", name):
        return False
    if field in TOKEN_LIMITS or name in TOKEN_LIMITS:
        return field in TOKEN_LIMITS and name in TOKEN_LIMITS
    return bool(_meanings(field) & _meanings(name))


def _meanings(name: str) -> set[str]:
    return {part.rstrip("s") for part in name.lower().split("_") if len(part) > 2} - _EMPTY_WORDS
