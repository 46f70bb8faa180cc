"""What an answer is rated by: the rubric's facets, and what a prompt's own facets expect to find.

Two things are kept apart. A *rating* is an opinion on a scale from 1 to 5, a person's or a model's. A *check* is a
plain fact: an expected word or pattern stands in the answer, or it does not. A check says nothing of whether the answer
is right; that it is missing says that something was left out.

Every answer is rated by the rubric's three facets, coherence, factuality and brevity, and by those of its prompt. A
prompt's facets stand in the prompt file, as texts or as objects:

    {"prompt": "What is RAG?", "facets": ["retrieval", {"facet": "names a store", "expect": ["index", "database"]},
                                          {"facet": "says when", "pattern": "20[0-9]{2}"}]}

A text is a facet that expects itself. `expect` has words of which any will do, in whatever case, as whole words; a
`pattern` is a regular expression, in whatever case too. A facet with neither is rated and not checked.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from loadbench.core.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Sequence

LOWEST, HIGHEST = 1, 5
# Of the workshop's comparison of models.
RUBRIC = {
    "coherence": "it is well formed, follows on, and answers what was asked",
    "factuality": "what it says is true, and nothing in it is made up",
    "brevity": "it says what is needed and no more",
}
_HINT = 'write a text, or an object with "facet" and perhaps "expect" or "pattern"'


@dataclass(frozen=True, slots=True)
class Facet:
    """One thing that a prompt's answer is rated by; `expect` is any of its words, `pattern` a regular expression."""

    name: str
    expect: tuple[str, ...] = ()
    pattern: str = ""

    @property
    def checked(self) -> bool:
        """Whether there is anything to look for."""
        return bool(self.expect or self.pattern)

    def found_in(self, answer: str) -> bool:
        """Whether the answer has in it what is expected; raises `ValueError` for a facet without a check."""
        if not self.checked:
            raise ValueError(f"{self.name!r} expects nothing")
        words = [rf"(?<!\w){re.escape(word)}(?!\w)" for word in self.expect]
        patterns = [*words, *([self.pattern] if self.pattern else [])]
        return any(re.search(pattern, answer, re.IGNORECASE) for pattern in patterns)


def read_facets(found: object, place: str) -> tuple[Facet, ...]:
    """The facets of one prompt as its file has them; `place` is where that stands.

    Raises `BadInput` with the place and the remedy.
    """
    if found is None:
        return ()
    if not isinstance(found, list):
        raise BadInput(f"{place} has facets that are no array", hint="write them as an array of texts or objects")
    facets = tuple(_facet(item, f"{place}, facet {number}") for number, item in enumerate(found, 1))
    names = [facet.name for facet in facets]
    twice = next((name for name in names if names.count(name) > 1 or name in RUBRIC), None)
    if twice is not None:
        what = "is of every prompt's rubric" if twice in RUBRIC else "stands there twice"
        raise BadInput(f"{place}: the facet {twice!r} {what}", hint="give each facet a name of its own, once")
    return facets


def _facet(item: object, place: str) -> Facet:
    if isinstance(item, str) and item.strip():
        return Facet(item.strip(), (item.strip(),))
    if not isinstance(item, dict):
        raise BadInput(f"{place} is no text and no object", hint=_HINT)
    name = item.get("facet", item.get("name"))
    if not isinstance(name, str) or not name.strip():
        raise BadInput(f"{place} has no name", hint=_HINT)
    return Facet(name.strip(), _words(item.get("expect"), place), _pattern(item.get("pattern"), place))


def _words(found: object, place: str) -> tuple[str, ...]:
    words = [found] if isinstance(found, str) else found
    if words is None:
        return ()
    if not isinstance(words, list) or not all(isinstance(word, str) and word.strip() for word in words):
        raise BadInput(
            f'{place} has an "expect" of something else than words', hint="write a word, or an array of them"
        )
    return tuple(word.strip() for word in words)


def _pattern(found: object, place: str) -> str:
    if found is None:
        return ""
    if not isinstance(found, str) or not found:
        raise BadInput(f"{place} has a pattern that is no text", hint="write a regular expression, or leave it out")
    try:
        re.compile(found)
    except (re.error, RecursionError, OverflowError) as error:
        raise BadInput(f"{place} has a pattern that is no regular expression: {error}", hint="mend it there") from None
    return found


def facet_names(facets: Sequence[Facet]) -> tuple[str, ...]:
    """What an answer to a prompt with these facets is rated by: the rubric first, then its own."""
    return (*RUBRIC, *(facet.name for facet in facets))
