"""Personas and mixes: who asks what is decided by weights, seed and number, and by nothing that takes time."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadbench.plan.distribution import Constant, Think
from loadbench.plan.load import Closed
from loadbench.plan.personas import PERSONAS, Cast, Persona
from loadbench.plan.prompt_source import prompt_source
from loadbench.plan.shares import parse_shares
from loadbench.plan.sources import resolve

S = 1_000_000_000
WEIGHTS = st.lists(st.floats(0.01, 100), min_size=1, max_size=5).map(tuple)


def cast(*weights: float) -> Cast:
    """So many nameless personas."""
    return Cast(tuple(Persona(name=str(index)) for index in range(len(weights))), weights)


def scenario(**flags):
    """The scenario of these flags."""
    return resolve(flags=flags, environment={})


@pytest.mark.parametrize(
    ("name", "asked", "answered", "think_s"),
    [("chat", 512, 256, 30), ("rag", 4096, 512, 30), ("summariser", 10000, 50, 0), ("code", 4500, 50, 3.5)],
)
def test_a_persona_draws_what_its_table_says(name, asked, answered, think_s):
    """Drawn lengths and pauses have the means of the sources, within 3 %; the summariser does not think."""
    persona, rng = PERSONAS[name], random.Random(1)
    drawn = [[part.sample(rng) for _ in range(4000)] for part in (persona.input_tokens, persona.output_tokens)]
    assert [sum(values) / 4000 for values in drawn] == pytest.approx([asked, answered], rel=0.03)
    assert (persona.think.mean / S if persona.think else 0) == think_s


def test_lengths_stay_inside_their_bounds():
    """RAG prompts reach from 2048 to 6144 tokens, summaries from 8000 to 12,000, with no heap at either end."""
    for name, low, high in (("rag", 2048, 6144), ("summariser", 8000, 12000)):
        rng = random.Random(2)
        drawn = [PERSONAS[name].input_tokens.sample(rng) for _ in range(4000)]
        assert low <= min(drawn) < max(drawn) <= high
        assert Counter(drawn).most_common(1)[0][1] == 1


@given(WEIGHTS, st.integers(1, 200))
def test_users_are_split_as_nearly_as_their_number_allows(weights, users):
    """Of the first n users each persona has its share, to less than one user for each of the others."""
    deal = cast(*weights)
    counts = Counter(deal.of_user(user) for user in range(users))
    for index, weight in enumerate(weights):
        assert abs(counts[index] - users * weight / sum(weights)) < len(weights)


def test_four_users_of_three_to_one_are_three_and_one():
    """The split of a small level is the one that was meant, and a larger level has the smaller one's users in it."""
    deal = cast(3, 1)
    assert [deal.of_user(user) for user in range(8)] == [0, 0, 1, 0] * 2


def test_arrivals_draw_their_persona_by_weight():
    """Of 8000 arrivals a quarter is the second persona's, to 4 standard deviations; another level draws otherwise."""
    deal = cast(3, 1)
    drawn = [deal.of_arrival(number, "0/m/0") for number in range(8000)]
    assert abs(sum(drawn) - 2000) < 4 * (8000 * 0.25 * 0.75) ** 0.5
    assert drawn == [deal.of_arrival(number, "0/m/0") for number in range(8000)]
    assert drawn != [deal.of_arrival(number, "0/m/1") for number in range(8000)]


def test_a_mix_asks_each_persona_in_its_own_lengths():
    """Prompts carry the name of who asks and are as long as his are; no two of them begin alike."""
    work = scenario(mix=("chat:1,code:1",)).work
    source = prompt_source(work, key="m/0", calibration=None)
    prompts = [source.next(number, number % 10) for number in range(400)]
    lengths = {name: [len(p.text.split()) for p in prompts if p.persona == name] for name in ("chat", "code")}
    assert max(lengths["chat"]) < 1100
    assert min(lengths["code"]) > 2900
    assert len(lengths["chat"]) == len(lengths["code"])
    assert len({" ".join(prompt.text.split()[:6]) for prompt in prompts}) == 400


def test_prompts_of_a_mix_are_those_of_the_seed():
    """Whoever asks for them, and in whatever order: number and user decide, and another seed changes all."""
    one, again, other = (
        prompt_source(scenario(mix=("chat,rag",), seed=seed).work, key="m/0", calibration=None)
        for seed in ("1", "1", "2")
    )
    forwards = [one.next(number, None) for number in range(30)]
    assert [again.next(number, None) for number in reversed(range(30))] == forwards[::-1]
    assert not {prompt.text for prompt in forwards} & {other.next(number, None).text for number in range(30)}


def test_what_is_said_outright_wins_over_the_persona():
    """Think time, lengths and the limit of answers, each given as a flag, stand in place of the persona's own."""
    load = scenario(persona="chat", users="2").loads[0]
    assert str(load.think) == "lognormal:30s,0.6"
    assert scenario(persona="chat", users="2", think="1s").loads[0].think == Constant(S)
    given = scenario(persona="chat", max_tokens="9").work
    assert (str(given.input_tokens), str(given.output_tokens)) == ("normal:512,128", "9")
    assert scenario(mix=("chat,rag",), max_tokens="9").work.cast.personas[1].output_tokens == Constant(9)
    assert scenario(persona="chat", prompt="Why?").work.input_tokens is None


def test_settings_tell_that_they_come_from_the_persona():
    """The record of what was in force says of each value whose it is."""
    made = scenario(persona="chat", output_tokens="9")
    assert str(made.origins["work.input_tokens"]) == str(made.origins["load.think"]) == "persona chat"
    assert str(made.origins["work.output_tokens"]) == "flag --output-tokens"
    assert made.effective()["personas"]["chat"]["think"] == "lognormal:30s,0.6"


def test_a_mix_thinks_each_in_its_own_time():
    """A user's pause is that of its persona; as one distribution it has the mean over all users."""
    (load,) = scenario(mix=("code:3,summariser:1",), users="4").loads
    assert isinstance(load, Closed)
    assert isinstance(load.think, Think)
    assert (str(load.think_of("code")), load.think_of("summariser")) == ("uniform:2s,5s", None)
    assert load.think.mean == 0.75 * 3.5 * S
    rng = random.Random(3)
    assert sum(load.think.sample(rng) for _ in range(4000)) / 4000 == pytest.approx(load.think.mean, rel=0.05)


def test_a_mix_without_thinkers_thinks_not():
    """Where nobody has a pause the load has none, as without personas."""
    assert scenario(mix=("summariser",), users="1").loads[0].think is None


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        *((text, "names no persona") for text in (":3", "a,,b", "")),
        *((text, "the weight") for text in ("a:x", "a:-1", "a:0", "a:nan", "a:1e9")),
    ],
)
def test_a_mix_that_cannot_be_is_refused(text, reason):
    """The message says what is missing."""
    with pytest.raises(ValueError, match=reason):
        parse_shares(text, separator=":", what="persona", example="chat:3")
