"""Where the border is likely to be, and where a proof is worth its time."""

from __future__ import annotations

import math

import pytest

from loadbench.analyze.capacity.border import FittedBorder, LoadPoint, aim, divergence, provable_share


def a_border(*points: LoadPoint, p0: float = 0.95) -> FittedBorder:
    return FittedBorder(points, p0, least=1, most=200)


def test_it_lies_between_what_passes_and_what_fails():
    """A hundred hits at 16 and as many misses at 32 leave it between."""
    border = a_border(LoadPoint(16, 100, 0), LoadPoint(32, 0, 100))
    assert 16 < border.median() < 32
    assert border.share(10) > 0.98
    assert border.share(60) < 0.1


def test_much_data_find_it():
    """Shares of a logistic curve with its border at 24, a thousand requests each, lead there within 3 %."""
    points = []
    for amount in (12, 18, 22, 26, 32):
        share = 1 / (1 + math.exp(-(math.log(19) - 5 * math.log(amount / 24))))
        points.append(LoadPoint(amount, 1000 * share, 1000 * (1 - share)))
    assert a_border(*points).median() == pytest.approx(24, rel=0.03)


def test_more_time_aims_nearer():
    """With a hundred times the requests, proofs are tried nearer to the border on both sides."""
    border = a_border(LoadPoint(16, 60, 0), LoadPoint(24, 38, 2), LoadPoint(40, 10, 10))
    short, long = ([(float(users), n) for users in range(1, 81)] for n in (150.0, 15_000.0))
    low, lower = (aim([border], loads[:22], evidence=6, passes=True) for loads in (long, short))
    high, higher = (aim([border], loads[23:], evidence=6, passes=False) for loads in (long, short))
    assert lower < low < high < higher


def test_without_time_for_any_proof_there_is_no_aim():
    """Ten requests prove no p95."""
    border = a_border(LoadPoint(16, 10, 0))
    assert aim([border], [(float(users), 10.0) for users in range(1, 20)], evidence=6, passes=True) is None


@pytest.mark.parametrize("above", [True, False])
def test_provable_share_is_where_each_request_tells_enough(above):
    """KL of the share found is what was asked for; more than any share tells has none."""
    share = provable_share(0.95, 0.02, above=above)
    assert divergence(share, 0.95) == pytest.approx(0.02, rel=1e-6)
    assert (share > 0.95) == above
    assert provable_share(0.95, 5.0, above=above) is None
