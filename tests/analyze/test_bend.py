"""Where throughput stops growing."""

from __future__ import annotations

import msgspec
import pytest

from loadbench.analyze.bend import bend
from tests.building import a_level


def with_rates(*rates: float) -> list:
    """Levels with these output tokens/s."""
    level = a_level()
    return [
        msgspec.structs.replace(level, throughput=msgspec.structs.replace(level.throughput, output_tokens_per_s=rate))
        for rate in rates
    ]


@pytest.mark.parametrize(
    ("rates", "at"),
    [
        ([100.0, 200.0, 300.0, 301.0], 2),  # flat from the third on
        ([100.0, 200.0, 400.0, 800.0], None),  # still grows
        ([100.0, 200.0, 150.0], 1),  # falls again
        ([100.0, 100.0, 100.0], 0),  # never grew
        ([100.0, 200.0, 205.0, 215.0], 2),  # within 5 % of the most
        ([100.0], None),  # one level tells nothing
        ([], None),
        ([0.0, 0.0], None),  # nothing was made
    ],
)
def test_bend_is_the_first_within_five_percent_of_the_most(rates, at):
    """The least load that no higher one beats by more than the worthwhile gain; none while it still grows."""
    assert bend(with_rates(*rates)) == at
