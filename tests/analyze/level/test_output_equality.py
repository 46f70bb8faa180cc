"""Whether the same prompt gets the same response: within a run, and on both sides of a comparison."""

from __future__ import annotations

import msgspec
import pytest

from loadbench.analyze.compare.compare import compare
from loadbench.analyze.level.output_equality import output_equality
from loadbench.report.formats import render_comparison
from loadbench.results.run import OutputEquality, RecordedPrompt
from tests.analyze.asked import a_failed_request, a_request
from tests.analyze.comparing import lucky


def test_equal_answers_are_equal():
    """All to one prompt with one digest, whatever the level."""
    requests = [a_request(n, level=level, answer_hash="aa") for level in (0, 1) for n in range(4)]
    (one,) = output_equality(requests, ["m", "m"])
    assert one.equal
    assert (one.model, one.prompt, one.answers, one.distinct, one.first_difference) == ("m", 0, 8, 1, None)


def test_first_that_differs_is_named_by_level_and_number():
    """The reference is the first request of the first level, in whatever order they ended."""
    requests = [a_request(n, level=1, answer_hash="bb" if n in {2, 5} else "aa") for n in (7, 5, 2, 0)]
    requests += [a_request(n, answer_hash="aa") for n in (1, 0)]
    (one,) = output_equality(requests, ["m", "m"])
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
    found = output_equality(requests, ["small", "large"])
    assert [(one.model, one.prompt, one.equal) for one in found] == [
        ("small", 0, True),
        ("small", 1, True),
        ("large", 0, True),
        ("large", 1, True),
    ]


def test_what_did_not_end_well_is_not_compared():
    """Half an answer is no other answer; without digests nothing is said."""
    requests = [a_request(0, answer_hash="aa"), a_failed_request(1, answer_hash="a")]
    assert output_equality(requests, ["m"])[0].answers == 1
    assert output_equality([a_request(0)], ["m"]) == []


def test_level_that_was_never_summed_up_is_left_out():
    """A run that was killed has requests of it, and no model to put them to."""
    requests = [a_request(n, level=level, answer_hash="aa") for level in (0, 1) for n in range(2)]
    (one,) = output_equality(requests, ["m"])
    assert one.answers == 2


def side(texts, *, prompts=("p0", "p1"), distinct=1, name="trial"):
    """Six deterministic runs, the first of whose answers to each prompt have these digests."""
    outputs = [
        OutputEquality(model="m", prompt=place, answers=9, distinct=distinct, first_hash=text)
        for place, text in enumerate(texts)
    ]
    asked = [RecordedPrompt(index=place, hash=text) for place, text in enumerate(prompts)]
    return [msgspec.structs.replace(run, prompts=asked, outputs=outputs) for run in lucky({1: 100}, name=name)]


@pytest.mark.parametrize(
    ("b", "said"),
    [
        (side("xy"), "response texts: equal on both sides for 2 prompts\n"),
        (side("xz"), "response texts: equal on both sides for 1 of 2 prompts, B's differs from A's for 1: "),
        (side("yx", prompts=("p1", "p0")), "response texts: equal on both sides for 2 prompts\n"),
        (
            side("xy", distinct=2),
            "response texts: equal on both sides for 0 of 2 prompts, a side differs from itself for 2",
        ),
        (side("x", prompts=("p0",)), "response texts: equal on both sides for 1 prompt\n"),
    ],
)
def test_equal_texts_are_told_and_others_too(b, said):
    """Prompts go by their digests, wherever they stand in a list; what a side varies by itself is told apart."""
    assert f"\n{said}" in render_comparison(compare(side("xy"), b), "text")


def test_runs_differ_among_themselves():
    """Six runs of a side, one of which said another thing."""
    b = side("xy", name="other")
    b[3] = side("xq")[3]
    found = compare(side("xy"), b).answers
    assert (found.prompts, found.equal, found.differing, found.unsteady) == (2, 1, [], ["p1"])


def test_nothing_is_told_of_what_is_not_known():
    """Other prompts, runs that kept no digests, or a model that is not the one compared."""
    assert compare(side("xy"), side("xy", prompts=("q0", "q1"))).answers is None
    assert compare(side("xy"), lucky({1: 100}, name="other")).answers is None
    assert compare(side("xy"), side((None, None))).answers is None


def test_models_of_a_mix_are_compared_with_themselves():
    """Two models answer one prompt differently, and that is no doubt about either."""
    texts = {"m": "aa", "n": "bb"}
    mixed = [a_request(number, model="mn"[number % 2], answer_hash=texts["mn"[number % 2]]) for number in range(6)]
    found = output_equality(mixed, ["m=1,n=1"])
    assert [(one.model, one.answers, one.distinct) for one in found] == [("m", 3, 1), ("n", 3, 1)]
