"""Which ends of a request are failures, and what share of the requests failed."""

from __future__ import annotations

import pytest

from loadbench.record.outcome import Outcome, failed_of

FAILURES = {
    *("http_error", "stream_error", "truncated", "empty", "protocol", "endless", "refused", "reset", "abandoned"),
    *("timeout_connect", "timeout_first_token", "timeout_idle", "timeout_total"),
}


@pytest.mark.parametrize("outcome", Outcome)
def test_a_failure_is_what_the_server_or_the_network_did(outcome):
    """A request that the user cut, that was never sent, or whose user gave up, is none."""
    assert outcome.failed is (outcome in FAILURES)
    assert outcome.left_out is (outcome in {"cancelled", "client_limit"})


@pytest.mark.parametrize("form", [Outcome, str], ids=["outcomes", "words of a result file"])
def test_the_share_of_failures_is_of_those_that_failed_or_succeeded(form):
    """Requests that neither failed nor succeeded are in no part of it; arrivals that were not sent failed."""
    counts = {form(name): count for name, count in {"ok": 7, "reset": 2, "empty": 1, "gave_up": 5}.items()}
    assert failed_of(counts) == (3, 10)
    assert failed_of(counts, missed=4) == (7, 14)
    assert failed_of({form("cancelled"): 3, form("client_limit"): 2}) == (0, 0)
