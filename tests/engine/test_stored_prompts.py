"""Prompts in a file for workers: each comes back as it was."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadbench.engine.stored_prompts import StoredPrompts
from loadbench.plan.prompts import Prompt
from loadbench.plan.rubric import Facet

TEXTS = st.text(st.characters(codec="utf-8"))
MESSAGES = st.lists(st.fixed_dictionaries({"role": st.just("user"), "content": TEXTS}), max_size=3).map(tuple)
FIELDS = st.none() | st.dictionaries(
    TEXTS, st.none() | st.booleans() | st.integers(-9, 9) | st.lists(TEXTS), max_size=2
)
TURNS = st.builds(Prompt, text=TEXTS, messages=MESSAGES)
PROMPTS = st.builds(
    Prompt,
    text=TEXTS,
    output_tokens=st.none() | st.integers(1, 9),
    turns=st.none() | st.integers(2, 4),
    messages=MESSAGES,
    fields=FIELDS,
    extra=FIELDS,
    then=st.lists(TURNS, max_size=3).map(tuple),
)


@given(st.lists(PROMPTS, min_size=1, max_size=4))
def test_prompts_come_back_as_they_were(tmp_path_factory, prompts):
    """In any order, in another process, with their later turns."""
    path = tmp_path_factory.mktemp("stored") / "prompts"
    stored = pickle.loads(pickle.dumps(StoredPrompts.written(prompts, path)))
    assert len(stored) == len(prompts)
    assert [stored[at] for at in reversed(range(len(prompts)))] == prompts[::-1]
    assert list(stored) == prompts
    assert stored[1:] == prompts[1:]
    assert stored[-1] == prompts[-1]
    with pytest.raises(IndexError):
        stored[len(prompts)]


def test_only_this_user_reads_them_and_nobody_rates_by_them(tmp_path):
    """Facets stay in the main process."""
    stored = StoredPrompts.written([Prompt("Why?", facets=(Facet("x"),))], tmp_path / "prompts")
    assert (tmp_path / "prompts").stat().st_mode & 0o777 == 0o600
    assert stored[0] == Prompt("Why?")
