"""Prompts: the same for the same seed, never twice in a run, and as long as was asked."""

from __future__ import annotations

import random

import pytest

from loadbench.plan.distribution import Constant, Uniform
from loadbench.plan.prompts import (
    BLOCK,
    WORDS,
    Calibration,
    Prompt,
    TextPrompts,
    WordPrompts,
    calibration_texts,
    fit_calibration,
)


def _words(source: WordPrompts | TextPrompts, number: int) -> list[str]:
    return source.next(number, None).text.split()


@pytest.mark.parametrize(
    "source",
    [
        lambda seed, level: TextPrompts([Prompt("Why?"), Prompt("How?")], Uniform(1, 99), seed=seed, level=level),
        lambda seed, level: WordPrompts(Uniform(50, 900), Uniform(1, 99), seed=seed, level=level),
    ],
    ids=["texts", "words"],
)
def test_prompts_depend_on_seed_level_and_number_alone(source: object) -> None:
    """Asked in any order, by any user, a number gives the same prompt; another seed or level gives another."""
    one, two = source(1, "a"), source(1, "a")  # type: ignore[operator]
    forward = [one.next(number, None) for number in range(50)]
    backward = [two.next(number, 50 - number) for number in reversed(range(50))]
    assert forward == backward[::-1]
    for other in (source(2, "a"), source(1, "b")):  # type: ignore[operator]
        assert not {prompt.text for prompt in forward} & {other.next(number, None).text for number in range(50)}


def test_h1_every_text_begins_with_a_nonce_of_its_own() -> None:
    """10,000 requests over two levels begin with 10,000 different words, and then ask the texts in turn."""
    levels = [TextPrompts([Prompt("Why is it so?"), Prompt("How?")], level=level) for level in "ab"]
    texts = [level.next(number, None).text for level in levels for number in range(5_000)]
    assert len({text.split()[0] for text in texts}) == 10_000
    assert [text.split(maxsplit=1)[1] for text in texts[:3]] == ["Why is it so?", "How?", "Why is it so?"]


def test_texts_that_need_not_be_unique_stay_as_they_are() -> None:
    """Without uniqueness the text is asked as it was written, each time."""
    source = TextPrompts([Prompt("  Why? ", 7)], unique=False)
    assert [source.next(number, None) for number in range(2)] == [Prompt("  Why? ", 7, position=0)] * 2


def test_a_text_keeps_its_own_limit_and_the_others_draw_theirs() -> None:
    """A prompt's own output limit comes before the drawn one."""
    source = TextPrompts([Prompt("Why?", 7), Prompt("How?")], Constant(64))
    assert [source.next(number, None).output_tokens for number in range(3)] == [7, 64, 7]


def test_there_is_something_to_ask() -> None:
    """No prompts is a mistake."""
    with pytest.raises(ValueError, match="no prompt"):
        TextPrompts([])


def test_h1_no_two_of_10_000_prompts_share_their_first_16_words() -> None:
    """Over two levels of 5000 requests each, the first block's order is never the same twice."""
    levels = [WordPrompts(Constant(20), level=level) for level in "ab"]
    assert len({tuple(_words(level, number)[:16]) for level in levels for number in range(5_000)}) == 10_000


def test_h1_neighbours_differ_within_two_words_and_240_requests_within_their_first_two() -> None:
    """In a row of 240 requests the first two words differ for each, in 3360 the first three."""
    source = WordPrompts(Constant(20))
    starts = [_words(source, number) for number in range(1000, 4360)]
    assert len({tuple(words[:3]) for words in starts}) == 3360
    assert all(len({tuple(words[:2]) for words in starts[at : at + 240]}) == 240 for at in range(0, 3120, 240))


def test_every_block_holds_each_word_once() -> None:
    """The count of each word, and with it the length in any vocabulary, does not depend on the order."""
    source = WordPrompts(Constant(400))
    for number in range(20):
        words = _words(source, number)
        blocks = [words[at : at + BLOCK] for at in range(0, 400, BLOCK)]
        assert all(sorted(block) == sorted(WORDS) for block in blocks)
    assert len({*WORDS}) == BLOCK == 16


@pytest.mark.parametrize("length", [1, 5, 15, 16, 17, 128, 129, 143, 145, 1000])
def test_a_prompt_has_the_asked_number_of_words(length: int) -> None:
    """Whole blocks, a part of one, or less than one; no word of a part comes twice."""
    words = _words(WordPrompts(Constant(length)), 3)
    assert len(words) == length
    rest = words[length - length % BLOCK :]
    assert len(set(rest)) == len(rest)


def test_lengths_follow_the_calibration() -> None:
    """In a vocabulary of 17 tokens per 16 words, within 30 tokens of template, prompts come out as asked."""
    source = WordPrompts(Uniform(100, 2000), calibration=Calibration(17 / 16, 30))

    def count(text: str) -> int:
        return 30 + sum(2 if word == "with" else 1 for word in text.split())

    for number in range(200):
        prompt = source.next(number, None)
        assert prompt.target_tokens is not None
        assert abs(count(prompt.text) - prompt.target_tokens) <= 1
        assert 100 <= prompt.target_tokens <= 2000


def test_h2_only_a_calibrated_source_says_what_length_it_asked_for() -> None:
    """A guess is not compared with what the server counts."""
    assert WordPrompts(Constant(50)).next(0, None).target_tokens is None
    assert WordPrompts(Constant(50), calibration=Calibration(1.0, 0)).next(0, None).target_tokens == 50


def test_a_prompt_shorter_than_its_template_still_has_a_word() -> None:
    """There is no prompt of no words; the asked length stays what was asked."""
    prompt = WordPrompts(Constant(10), calibration=Calibration(1.0, 30)).next(0, None)
    assert len(prompt.text.split()) == 1
    assert prompt.target_tokens == 10


def test_output_lengths_are_drawn_beside() -> None:
    """Each prompt has its own limit, 1 at least, or none where none was asked for."""
    source = WordPrompts(Constant(20), Uniform(0, 9))
    drawn = {source.next(number, None).output_tokens for number in range(300)}
    assert drawn == set(range(1, 10))
    assert WordPrompts(Constant(20)).next(0, None).output_tokens is None


def test_dealt_words_that_need_not_be_unique_begin_alike() -> None:
    """Without uniqueness the shorter prompt is the longer one's beginning, in every level."""
    short, long = (WordPrompts(Constant(length), level="a", unique=False) for length in (40, 160))
    assert _words(long, 2)[:40] == _words(short, 1)
    assert _words(short, 1) == _words(WordPrompts(Constant(40), level="b", unique=False), 9)


@pytest.mark.parametrize(("per_word", "overhead"), [(1.0, 0), (1.0, 37), (17 / 16, 9), (2.5, 1000), (0.5, 4)])
def test_calibration_finds_words_and_template(per_word: float, overhead: int) -> None:
    """From the two texts' lengths as the server counts them follow tokens per word and what it puts around."""
    texts = calibration_texts()
    assert [words for words, _ in texts] == [len(text.split()) for _, text in texts] == [32, 160]
    measured = [(words, round(overhead + per_word * words)) for words, _ in texts]
    assert fit_calibration(measured) == Calibration(per_word, overhead)


@pytest.mark.parametrize(
    ("measured", "reason"),
    [
        ([(32, 40), (160, 40)], "impossible"),
        ([(32, 160), (160, 40)], "impossible"),
        ([(32, 10), (160, 10_000)], "impossible"),
        ([(32, 5), (160, 160)], "fewer than"),
        ([(160, 160), (32, 32)], "must be longer"),
    ],
)
def test_a_calibration_that_cannot_be_is_refused(measured: list[tuple[int, int]], reason: str) -> None:
    """A server that counts something else does not calibrate."""
    with pytest.raises(ValueError, match=reason):
        fit_calibration(measured)


def test_a_source_calibrates_itself_as_far_as_the_server_tells() -> None:
    """Two lengths make a calibration; a silent server, nonsense, or given texts make none."""
    source = WordPrompts(Constant(100))
    assert [len(prompt.text.split()) for prompt in source.calibration_prompts()] == [32, 160]
    assert source.calibrate([40, 168]) == Calibration(1.0, 8)
    assert source.calibrate([40, None]) is source.calibrate([40, 40]) is None
    texts = TextPrompts([Prompt("Why?")])
    assert len(texts.calibration_prompts()) == 1
    assert texts.calibrate([5]) is None


def test_a_random_generator_elsewhere_does_not_matter() -> None:
    """The program's own random state has no part in the prompts."""
    source = WordPrompts(Uniform(20, 90))
    random.seed(1)
    first = source.next(5, None)
    random.seed(2)
    assert source.next(5, None) == first
