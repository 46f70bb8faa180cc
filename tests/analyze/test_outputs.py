"""Whether answers are the same: between rounds, and under load."""

from __future__ import annotations

from loadbench.analyze.level.outputs import outputs
from tests.analyze.asked import a_failed_request, a_request


def test_equal_answers_are_equal():
    """All to one prompt with one digest, whatever the level."""
    requests = [a_request(n, level=level, answer_hash="aa") for level in (0, 1) for n in range(4)]
    (one,) = outputs(requests, ["m", "m"])
    assert one.equal
    assert (one.model, one.prompt, one.answers, one.distinct, one.first_difference) == ("m", 0, 8, 1, None)


def test_first_that_differs_is_named_by_level_and_number():
    """The reference is the first request of the first level, in whatever order they ended."""
    requests = [a_request(n, level=1, answer_hash="bb" if n in {2, 5} else "aa") for n in (7, 5, 2, 0)]
    requests += [a_request(n, answer_hash="aa") for n in (1, 0)]
    (one,) = outputs(requests, ["m", "m"])
    assert not one.equal
    assert (one.answers, one.distinct, one.first_difference) == (6, 2, (1, 2))


def test_prompts_and_models_are_compared_by_themselves():
    """Different prompts and models may well answer differently."""
    requests = [
        a_request(n, level=level, prompt_index=prompt, answer_hash=f"{level}{prompt}")
        for level in (0, 1)
        for prompt in (0, 1)
        for n in (0, 1)
    ]
    found = outputs(requests, ["small", "large"])
    assert [(one.model, one.prompt, one.equal) for one in found] == [
        ("small", 0, True),
        ("small", 1, True),
        ("large", 0, True),
        ("large", 1, True),
    ]


def test_what_did_not_end_well_is_not_compared():
    """Half an answer is no other answer; without digests nothing is said."""
    requests = [a_request(0, answer_hash="aa"), a_failed_request(1, answer_hash="a")]
    assert outputs(requests, ["m"])[0].answers == 1
    assert outputs([a_request(0)], ["m"]) == []


def test_level_that_was_never_summed_up_is_left_out():
    """A run that was killed has requests of it, and no model to put them to."""
    requests = [a_request(n, level=level, answer_hash="aa") for level in (0, 1) for n in range(2)]
    (one,) = outputs(requests, ["m"])
    assert one.answers == 2
