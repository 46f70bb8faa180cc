"""A judge's reply: what is taken for one, and what is not."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadbench.plan.judging import again_prompt, judge_prompt, read_reply

FACETS = ("coherence", "brevity")
GOOD = {"scores": {"coherence": 4, "brevity": 2}, "reason": "Clear, but long."}


@pytest.mark.parametrize(
    "text", [json.dumps(GOOD), f"```json\n{json.dumps(GOOD, indent=2)}\n```", f"Here it is: {json.dumps(GOOD)} Done."]
)
def test_reply_is_read_whatever_stands_around_it(text):
    """A fence or a word before and after do no harm."""
    reply = read_reply(text, FACETS)
    assert (reply.scores, reply.reason) == ({"coherence": 4, "brevity": 2}, "Clear, but long.")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no JSON object"),
        ("Coherence: 4, brevity: 2", "no JSON object"),
        ("} {", "no JSON object"),
        ('{"coherence": 4}', "not the requested JSON"),
        ('{"scores": {"coherence": 4}}', "other facets than the requested ones: see brevity"),
        ('{"scores": {"coherence": 4, "brevity": 2, "charm": 5}}', "see charm"),
        ('{"scores": {"coherence": 4, "brevity": 6}}', "brevity is 6, and not from 1 to 5"),
        ('{"scores": {"coherence": 0, "brevity": 3}}', "coherence is 0"),
        ('{"scores": {"coherence": 4.5, "brevity": 2}}', "not the requested JSON"),
        ('{"scores": {"coherence": "4", "brevity": 2}}', "not the requested JSON"),
        ('{"scores": {"coherence": null, "brevity": 2}}', "not the requested JSON"),
    ],
)
def test_what_is_no_rating_is_not_made_one(text, says):
    """Nothing is guessed: it is told what is wrong, so that the judge can be told."""
    with pytest.raises(ValueError, match=says):
        read_reply(text, FACETS)


@given(st.text())
def test_any_other_text_is_refused_with_a_reason(text):
    """Nothing that is not the object asked for is taken for it, and nothing breaks the reader."""
    with pytest.raises(ValueError, match=r"."):
        read_reply(text, FACETS)


def test_judge_is_asked_for_each_facet_in_order_and_shown_its_fault():
    """The question, the answer and every facet are in the prompt; the second one quotes what was wrong."""
    prompt = judge_prompt("What is RAG?", "It is.", ("coherence", 'names a "store"'))
    assert "What is RAG?" in prompt
    assert "It is." in prompt
    assert '"coherence": N, "names a \\"store\\"": N' in prompt
    again = again_prompt(prompt, "x" * 1000, "there is no JSON object in it")
    assert again.startswith(prompt)
    assert "there is no JSON object in it" in again
    assert "x" * 201 not in again
