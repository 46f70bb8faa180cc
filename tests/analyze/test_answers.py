"""Whether two sides answered the same to the same prompts."""

from __future__ import annotations

import msgspec
import pytest

from loadbench.analyze.compare.compare import compare
from loadbench.report.compare_text import compare_text
from loadbench.results.run import OutputEquality, RecordedPrompt
from tests.analyze.comparing import lucky


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
        (side("xy"), "answers: both sides said the same to 2 prompts"),
        (side("xz"), "answers: the same to 1 of 2 prompts, another text than A's is B's to 1: "),
        (side("yx", prompts=("p1", "p0")), "answers: both sides said the same to 2 prompts"),
        (
            side("xy", distinct=2),
            "answers: the same to 0 of 2 prompts, to 2 a side does not always say the same itself",
        ),
        (side("x", prompts=("p0",)), "answers: both sides said the same to 1 prompt"),
    ],
)
def test_equal_texts_are_told_and_others_too(b, said):
    """Prompts go by their digests, wherever they stand in a list; what a side varies by itself is told apart."""
    assert f"\n{said}" in compare_text(compare(side("xy"), b))


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
