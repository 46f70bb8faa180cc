"""The facets by which an answer is rated: those of the rubric, and those of its prompt.

A *rating* is an opinion on a scale from 1 to 5, by a person or a model. A *check* is a fact: an expected word or
pattern is in the answer, or it is not. A passed check does not show that the answer is right; a failed one shows that
something is missing.

Every answer is rated by the rubric's three facets, coherence, factuality and brevity, and by those of its prompt. The
prompt file has a prompt's facets, as texts or as objects:

    {"prompt": "What is RAG?", "facets": ["retrieval", {"facet": "names a store", "expect": ["index", "database"]},
                                          {"facet": "says when", "pattern": "20[0-9]{2}"}]}

A text is a facet that expects itself. `expect` has words, any of which passes the check, as a whole word. `pattern` is
a regular expression. Both ignore case. A facet with neither is rated but not checked.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from loadbench.core.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Sequence

LOWEST, HIGHEST = 1, 5
# The facets of the workshop's comparison of models.
RUBRIC = {
    "coherence": "it is well formed, follows on, and answers what was asked",
    "factuality": "what it says is true, and nothing in it is made up",
    "brevity": "it says what is needed and no more",
}
_HINT = 'write a text, or an object with "facet" and perhaps "expect" or "pattern"'


@dataclass(frozen=True, slots=True)
class Facet:
    """One facet; `expect` are its words, any of which passes the check, and `pattern` is a regular expression."""

    name: str
    expect: tuple[str, ...] = ()
    pattern: str = ""

    @property
    def checked(self) -> bool:
        """Whether it can be checked: it expects a word or a pattern."""
        return bool(self.expect or self.pattern)

    def matches(self, answer: str) -> bool:
        """Whether the answer contains an expected word or the pattern; raises `ValueError` for a facet with neither."""
        if not self.checked:
            raise ValueError(f"{self.name!r} expects nothing")
        words = [rf"(?<!\w){re.escape(word)}(?!\w)" for word in self.expect]
        patterns = [*words, *([self.pattern] if self.pattern else [])]
        return any(re.search(pattern, answer, re.IGNORECASE) for pattern in patterns)


def read_facets(value: object, place: str) -> tuple[Facet, ...]:
    """The facets of one prompt from the value in its file; `place` is the prompt's place there.

    Raises `BadInput` with the place and a hint.
    """
    if value is None:
        return ()
    if not isinstance(value, list):
        raise BadInput(f"{place} has facets that are not an array", hint="write them as an array of texts or objects")
    facets = tuple(_facet(item, f"{place}, facet {number}") for number, item in enumerate(value, 1))
    names = [facet.name for facet in facets]
    duplicate = next((name for name in names if names.count(name) > 1 or name in RUBRIC), None)
    if duplicate is not None:
        reason = "is in the rubric of every prompt" if duplicate in RUBRIC else "occurs twice"
        raise BadInput(f"{place}: the facet {duplicate!r} {reason}", hint="give each facet a different name")
    return facets


def _facet(item: object, place: str) -> Facet:
    if isinstance(item, str) and item.strip():
        return Facet(item.strip(), (item.strip(),))
    if not isinstance(item, dict):
        raise BadInput(f"{place} is neither a text nor an object", hint=_HINT)
    name = item.get("facet", item.get("name"))
    if not isinstance(name, str) or not name.strip():
        raise BadInput(f"{place} has no name", hint=_HINT)
    words, pattern = item.get("expect"), item.get("pattern")
    words = [] if words is None else [words] if isinstance(words, str) else words
    if not isinstance(words, list) or not all(isinstance(word, str) and word.strip() for word in words):
        raise BadInput(f'{place} has an "expect" that is not words', hint="write a word, or an array of words")
    if pattern is not None:
        if not isinstance(pattern, str) or not pattern:
            raise BadInput(f"{place} has a pattern that is not a text", hint="write a regular expression, or omit it")
        try:
            re.compile(pattern)
        except (re.error, RecursionError, OverflowError) as error:
            raise BadInput(
                f"{place}: the pattern is not a regular expression: {error}", hint="fix the pattern"
            ) from None
    return Facet(name.strip(), tuple(word.strip() for word in words), pattern or "")


def facet_names(facets: Sequence[Facet]) -> tuple[str, ...]:
    """The facets that rate an answer to a prompt with these facets: those of the rubric first, then its own."""
    return (*RUBRIC, *(facet.name for facet in facets))
