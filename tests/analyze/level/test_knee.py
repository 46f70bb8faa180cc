"""Where throughput stops growing."""

from __future__ import annotations

import msgspec
import pytest

from loadbench.analyze.level.knee import knee
from loadbench.results.run import LevelResult, Throughput
from tests.building import a_level


def with_rate(rate: float, *, reach: float | None = None) -> LevelResult:
    """A level with these output tokens/s, give or take `reach`."""
    throughput = Throughput(
        requests_per_s=1.0,
        output_tokens_per_s=rate,
        total_tokens_per_s=rate,
        interval={"output_tokens_per_s": None if reach is None else (rate - reach, rate + reach)},
    )
    return msgspec.structs.replace(a_level(), throughput=throughput)


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
    assert knee([with_rate(rate) for rate in rates]) == at


@pytest.mark.parametrize(("reach", "at"), [(5.0, None), (20.0, 1)])
def test_gain_within_the_doubt_is_none(reach, at):
    """Where a level may well make as much as the most, growth beyond it is not sure any more."""
    levels = [with_rate(rate, reach=reach) for rate in (100.0, 200.0, 220.0)]
    assert knee(levels) == at
