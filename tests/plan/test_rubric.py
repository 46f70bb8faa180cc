"""Facets: what an answer is rated by, and what is looked for in it."""

from __future__ import annotations

import json

import pytest

from loadbench.core.errors import BadInput
from loadbench.plan.data_sets import read_data_set
from loadbench.plan.rubric import RUBRIC, Facet, facet_names, read_facets


@pytest.mark.parametrize(
    ("facet", "answer", "found"),
    [
        (Facet("x", ("retrieval",)), "First, Retrieval.", True),
        (Facet("x", ("retrieval",)), "retrievals", False),
        (Facet("x", ("vector index",)), "a vector index holds", True),
        (Facet("x", ("index", "database")), "in a database", True),
        (Facet("x", ("C++",)), "written in C++, mostly", True),
        (Facet("x", pattern=r"20\d\d"), "in 2024", True),
        (Facet("x", pattern=r"20\d\d"), "in 1999", False),
        (Facet("x", ("index",), r"20\d\d"), "in 2024", True),
        (Facet("x", ("(",)), "a ( b", True),
    ],
)
def test_expected_words_are_whole_and_any_of_them_will_do(facet, answer, found):
    """Case does not matter, signs are not a pattern, and a pattern does as well as a word."""
    assert facet.matches(answer) is found


def test_facet_without_a_check_is_not_looked_for():
    """It is rated, and nothing in the answer decides it."""
    facet = Facet("politeness")
    assert not facet.checked
    with pytest.raises(ValueError, match="politeness"):
        facet.matches("please")


def test_answers_are_rated_by_the_rubric_first():
    """The three facets of the workshop, then the prompt's own."""
    assert facet_names([Facet("x")]) == (*RUBRIC, "x")
    assert tuple(RUBRIC) == ("coherence", "factuality", "brevity")


@pytest.mark.parametrize(
    ("found", "says"),
    [
        ("retrieval", "facets that are not an array"),
        ([3], "facet 1 is neither a text nor an object"),
        ([{"expect": "x"}], "facet 1 has no name"),
        ([{"facet": "x", "expect": 3}], '"expect" that is not words'),
        ([{"facet": "x", "expect": [""]}], '"expect" that is not words'),
        ([{"facet": "x", "pattern": "("}], "not a regular expression"),
        ([{"facet": "x", "pattern": 3}], "pattern that is not a text"),
        (["x", "x"], "the facet 'x' occurs twice"),
        (["brevity"], "'brevity' is in the rubric of every prompt"),
    ],
)
def test_facets_that_cannot_be_are_told_with_their_place(found, says):
    """The prompt's place, the facet's number, and what is wrong."""
    with pytest.raises(BadInput) as raised:
        read_facets(found, "p.json, item 4")
    assert raised.value.message.startswith("p.json, item 4")
    assert says in raised.value.message


def test_prompts_bring_their_facets(tmp_path):
    """A prompt file has them under `facets`, or under the workshop's `expected_facets`."""
    path = tmp_path / "prompts.json"
    documents = ["a", {"prompt": "b", "facets": ["x"]}, {"prompt": "c", "expected_facets": [{"facet": "y"}]}]
    path.write_text(json.dumps(documents), encoding="utf-8")
    assert [prompt.facets for prompt in read_data_set(path).prompts] == [(), (Facet("x", ("x",)),), (Facet("y"),)]
