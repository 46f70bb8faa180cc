"""Lists of models of any shape: what is a model, and which one may be meant."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadbench.targets.model_list import entries_of, generates_text, has_more

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["id", "name", "model", "data", "models", "type", "error", "x"]), inner)
    ),
    max_leaves=12,
)


@given(_JSON)
def test_any_document_is_a_list_of_named_entries_or_none(document):
    """Nothing is raised, and every entry has a name that is text."""
    entries = entries_of(document)
    has_more(document)
    for entry in entries or ():
        assert isinstance(entry["id"], str)
        assert entry["id"].strip()
        assert generates_text(entry) in {True, False}


@pytest.mark.parametrize(
    ("document", "names"),
    [
        ({"object": "list", "data": [{"id": "a"}, {"id": "b"}]}, ["a", "b"]),
        ({"items": [{"model_name": "a"}]}, ["a"]),
        ({"data": {"a": {"max": 1}, "b": {}}}, ["a", "b"]),
        ({"a": {"id": "x"}, "b": {}}, ["x", "b"]),
        ([], []),
        ({"data": []}, []),
        ([{"id": "a", "name": "A model"}], ["a"]),
        ([1, "b", None, True, 2.5], ["1", "b"]),
        ({}, None),
        ({"error": {"message": "x"}}, None),
        ({"detail": {"a": {}}}, None),
        ({"version": "1.0"}, None),
        ([None, True], None),
        ("a", None),
        (7, None),
        (None, None),
    ],
)
def test_entries(document, names):
    """By the first of their names that is one."""
    entries = entries_of(document)
    assert (None if entries is None else [entry["id"] for entry in entries]) == names


@pytest.mark.parametrize(
    ("entry", "generates"),
    [
        ({"id": "llama-3"}, True),
        ({"id": "a", "type": "llm"}, True),
        ({"id": "a", "type": "vlm"}, True),
        ({"id": "a", "task": "chat-completion"}, True),
        ({"id": "a", "capabilities": ["completion", "vision"]}, True),
        ({"id": "a", "capabilities": {"completion_chat": True, "embeddings": True}}, True),
        ({"id": "a", "labels": ["embeddings"]}, False),
        ({"id": "a", "type": "embeddings"}, False),
        ({"id": "a", "type": "image"}, False),
        ({"id": "a", "model_type": "rerank"}, False),
        ({"id": "a", "capabilities": ["embedding"]}, False),
        ({"id": "a", "supportedGenerationMethods": ["embedContent"]}, False),
        ({"id": "nomic-embed-text:latest"}, False),
        ({"id": "omni-moderation-latest"}, False),
        ({"id": "tts-1"}, False),
    ],
)
def test_models_that_generate_no_text_are_recognised(entry, generates):
    """By their kind, what they can do, and their name."""
    assert generates_text(entry) is generates


@pytest.mark.parametrize(
    ("document", "more"),
    [
        ({"data": [], "has_more": True}, True),
        ({"data": [], "has_more": False, "next": None}, False),
        ({"models": [], "nextPageToken": "x"}, True),
        ([], False),
    ],
)
def test_further_pages_are_noticed(document, more):
    """They are not fetched, so the list is not known to be complete."""
    assert has_more(document) is more
