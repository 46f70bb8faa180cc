"""Users who give up: how they are written, and who they are."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadbench.plan.abandonment import Abandonment, Patience
from loadbench.plan.distribution import Constant, Uniform
from loadbench.plan.setting_types import ABANDON

S = 1_000_000_000


@pytest.mark.parametrize(
    ("written", "share", "mean_ns", "first_token", "shown"),
    [
        ("5%@2s", 0.05, 2 * S, False, "5%@2s"),
        ("0.05@2s", 0.05, 2 * S, False, "5%@2s"),
        (" 5 % @ 2s ", 0.05, 2 * S, False, "5%@2s"),
        ("100%@250ms", 1.0, S // 4, False, "100%@250ms"),
        ("12.5%@FIRST:1m", 0.125, 60 * S, True, "12.5%@first:1m"),
        ("5%@first:uniform:1s,3s", 0.05, 2 * S, True, "5%@first:uniform:1s,3s"),
        ("30%@lognormal:4s,0.5", 0.3, 4 * S, False, "30%@lognormal:4s,0.5"),
    ],
)
def test_a_share_and_a_patience_are_read_and_shown(written, share, mean_ns, first_token, shown):
    """As people write them; what is shown reads as the same."""
    read = ABANDON.read(written)
    assert (read.share, read.wait.mean, read.first_token) == (share, mean_ns, first_token)
    assert ABANDON.show(read) == shown
    assert ABANDON.read(shown) == read


@pytest.mark.parametrize(
    ("written", "part"),
    [
        ("0%@2s", "leave it out if nobody gives up"),
        ("0@2s", "leave it out if nobody gives up"),
        ("101%@2s", "up to 100%"),
        ("-5%@2s", "above 0%"),
        ("nan%@2s", "above 0%"),
        ("5@2s", "as in 5%@2s"),
        ("@2s", "before the @"),
        ("5%", "5%@2s or 5%@first:2s"),
        ("5%@first:", "5%@2s or 5%@first:2s"),
        ("5%@", "5%@2s or 5%@first:2s"),
        ("2s", "5%@2s or 5%@first:2s"),
        ("5%@2", "with its unit"),
        ("5%@-2s", "not a duration"),
        ("5%@0s", "above zero"),
        ("5%@uniform:0s,0s", "above zero"),
        ("5%@first", "not a duration"),
        ("5%@2s@3s", "not a duration"),
        ("5%@lognormal:2s", "lognormal:MEAN,SIGMA"),
        (5, "text"),
        (True, "text"),
        ("", "text"),
    ],
)
def test_what_makes_no_sense_is_refused_with_what_is_wanted(written, part):
    """One sentence, with an example."""
    with pytest.raises(ValueError, match=re.escape(part)):
        ABANDON.read(written)


@given(st.text(max_size=12))
def test_no_text_does_anything_else(text):
    """It is read, or refused."""
    try:
        read = ABANDON.read(text)
    except ValueError:
        return
    assert 0 < read.share <= 1
    assert ABANDON.read(ABANDON.show(read)) == read


@given(share=st.floats(0.001, 1), key=st.text(max_size=5), number=st.integers(0, 10**9), first=st.booleans())
def test_who_gives_up_depends_on_level_and_number_alone(share, key, number, first):
    """The same request always has the same user; with a larger share that user is impatient too."""
    users = Abandonment(share, Uniform(S, 2 * S), first)
    patience = users.patience(key, number)
    assert patience == users.patience(key, number)
    if patience is not None:
        assert S <= patience.within_ns <= 2 * S
        assert patience.first_token is first
        assert Abandonment(1.0, Uniform(S, 2 * S), first).patience(key, number) == patience


@pytest.mark.parametrize("share", [0.05, 0.5, 0.9])
def test_the_share_is_that_of_many_requests(share):
    """Within four standard deviations, in each of several levels, whose users are others."""
    users, count = Abandonment(share, Constant(S)), 4000
    chosen = []
    for key in ("0/m/0", "0/m/1", "1/m/0"):
        chosen.append({number for number in range(count) if users.patience(key, number) is not None})
        assert abs(len(chosen[-1]) - share * count) < 4 * (share * (1 - share) * count) ** 0.5
    assert chosen[0] != chosen[1] != chosen[2]


def test_all_and_almost_none():
    """100 % are all; and nobody has a patience of 0 ns, with which a request could not begin."""
    assert all(Abandonment(1.0, Constant(S)).patience("k", number) == Patience(S) for number in range(100))
    assert Abandonment(1.0, Constant(0.2)).patience("k", 0) == Patience(1)
