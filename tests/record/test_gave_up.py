"""Users who gave up, and the tokens of all requests: sums with which the server's counter is compared."""

from __future__ import annotations

from dataclasses import asdict, replace

import pytest

from loadbench.plan.abandonment import Patience
from loadbench.plan.load import Phase
from loadbench.record.gave_up import GaveUpStats
from loadbench.record.outcome import Outcome, TokenSource
from tests.building import S, a_failure, a_sample

LEFT = {"outcome": Outcome.GAVE_UP, "output_tokens": 4, "max_tokens": 30, "token_source": TokenSource.EVENTS}
MEASURED_LEFT = {"gave_up": 1, "received": 4, "all_received": 4, "left": 1, "left_received": 4, "left_limit": 30}


def impatient(sample):
    """The same request, of a user who would give up."""
    return replace(sample, request=replace(sample.request, patience=Patience(S)))


@pytest.mark.parametrize(
    ("sample", "sums"),
    [
        (a_sample(max_tokens=20), {"all_received": 11, "ok": 1, "ok_received": 11, "ok_events": 11, "ok_limit": 20}),
        (
            impatient(a_sample(output_tokens=None, token_source=TokenSource.UNKNOWN, phase=Phase.MEASURED)),
            {"impatient": 1, "ok": 1, "ok_events": 11, "ok_limit": 100, "ok_uncounted": 1},
        ),
        (
            impatient(a_sample(token_source=TokenSource.IDS, phase=Phase.WARM_UP)),
            {"all_received": 11, "ok": 1, "ok_received": 11, "ok_events": 11, "ok_limit": 100},
        ),
        (impatient(a_sample(**LEFT)), {"impatient": 1, "left_assumed": 4, **MEASURED_LEFT}),
        (impatient(a_sample(**LEFT | {"token_source": TokenSource.USAGE})), {"impatient": 1, **MEASURED_LEFT}),
        (
            impatient(a_sample(**LEFT, phase=Phase.COOL_DOWN)),
            {"all_received": 4, "left": 1, "left_received": 4, "left_assumed": 4, "left_limit": 30},
        ),
        (
            impatient(a_failure(Outcome.GAVE_UP)),
            {"impatient": 1, "gave_up": 1, "before_first_token": 1, "left": 1, "left_limit": 100},
        ),
        # It gave up before it was sent.
        (
            replace(impatient(a_failure(Outcome.GAVE_UP)), sent_ns=None),
            {"impatient": 1, "gave_up": 1, "before_first_token": 1},
        ),
        (a_failure(Outcome.RESET, output_tokens=2), {"all_received": 2, "cut": 1}),
        (replace(a_failure(Outcome.REFUSED), sent_ns=None), {}),
    ],
)
def test_a_request_counts_where_it_belongs(sample, sums):
    """Measured ones by themselves; of all requests what was received, and what might have been."""
    stats = GaveUpStats()
    for times in (1, 2):
        stats.add(sample)
        found = {name: value for name, value in asdict(stats).items() if value}
        assert found == {name: times * value for name, value in sums.items()}
