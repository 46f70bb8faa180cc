"""Prompts have the requested length by the server's count, however its words differ in their tokens."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadbench.plan.distribution import Constant, Uniform
from loadbench.plan.prompts import BLOCK, WORDS, Calibration, WordPrompts, calibration_texts, fit_calibration

uneven = st.lists(st.integers(1, 4), min_size=BLOCK, max_size=BLOCK).map(
    lambda sizes: dict(zip(WORDS, sizes, strict=True))
)


def count(text: str, sizes: dict[str, int], template: int) -> int:
    """The tokens of a text for a server with this vocabulary."""
    return template + sum(sizes[word] for word in text.split())


def calibrated(sizes: dict[str, int], template: int) -> Calibration:
    """By the two first prompts."""
    return fit_calibration([(words, count(text, sizes, template)) for words, text in calibration_texts()])


@given(sizes=uneven, template=st.integers(0, 40), words=st.integers(BLOCK, 400), seed=st.integers(0, 99))
def test_prompts_with_as_many_words_have_as_many_tokens(sizes, template, words, seed):
    """Whatever the vocabulary, from one block of words on; and no two are equal."""
    source = WordPrompts(Constant(words), calibration=Calibration(1.0, 0), seed=seed)
    texts = [source.next(number, None).text for number in range(20)]
    assert len({count(text, sizes, template) for text in texts}) == 1
    assert len(set(texts)) == 20
    assert {len(text.split()) for text in texts} == {words}


@given(sizes=uneven, template=st.integers(0, 40), tokens=st.integers(100, 3000))
def test_known_lengths_bring_a_prompt_nearer(sizes, template, tokens):
    """As the first requests of a model do: at most three prompts, and the nearest of them is as near as words allow."""
    calibration = calibrated(sizes, template)
    for _ in range(3):
        text = WordPrompts(Constant(tokens), calibration=calibration).next(0, None).text
        words = len(text.split())
        if words in dict(calibration.known):
            break
        calibration = calibration._replace(known=(*calibration.known, (words, count(text, sizes, template))))
    prompts = WordPrompts(Constant(tokens), calibration=calibration, level="another")
    lengths = {count(prompts.next(number, None).text, sizes, template) for number in range(10)}
    # A word has four tokens at most.
    assert len(lengths) == 1
    assert abs(lengths.pop() - tokens) <= 4


def test_without_known_lengths_the_calibration_stays_a_line():
    """A reported length changes only prompts of about that length."""
    line = Calibration(2.0, 10)
    assert [line.words(tokens) for tokens in (5, 10, 110)] == [1, 1, 50]
    assert [line.tokens(words) for words in (1, 50)] == [12, 110]
    known = line._replace(known=((50, 116),))
    assert (known.words(116), known.words(110), known.tokens(50)) == (50, 47, 116)


@pytest.mark.parametrize("words", [1, 5, 15])
def test_short_prompts_still_differ(words):
    """A prompt of less than a block is the beginning of its order."""
    source = WordPrompts(Constant(words), calibration=Calibration(1.0, 0))
    texts = {source.next(number, None).text for number in range(12)}
    assert len(texts) == 12


def test_drawn_lengths_are_right_on_average():
    """Of words that differ in their tokens, by less than a percent."""
    sizes = dict(zip(WORDS, random.Random(1).choices([1, 2, 3, 4], k=BLOCK), strict=True))
    source = WordPrompts(Uniform(100, 1000), calibration=calibrated(sizes, 9))
    prompts = [source.next(number, None) for number in range(400)]
    ratio = sum(count(prompt.text, sizes, 9) for prompt in prompts) / sum(prompt.target_tokens for prompt in prompts)
    assert abs(ratio - 1) < 0.01
