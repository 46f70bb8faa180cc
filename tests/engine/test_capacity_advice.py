"""What a search without an answer advises is enough: followed from many states, in virtual time."""

from __future__ import annotations

from functools import partial

import msgspec
import pytest

from loadbench.analyze.capacity.answer import needed
from loadbench.core.units import parse_duration
from loadbench.report.capacity import next_budget
from loadbench.results.capacity import Capacity
from tests.coverage.capacity import CASES, S, searched

SHARING, BATCHING = CASES[2], CASES[8]


def as_saved(found, budget_s: float) -> Capacity:
    """The search as `capacity.json` would have it."""
    so_far = Capacity(
        status="inconclusive",
        objectives=[],
        model="m",
        budget_s=budget_s,
        spent_s=found.spent_s,
        first_answer_s=1.0,
        probes=list(found.evidence.probes),
        in_flight=found.evidence.in_flight,
    )
    return msgspec.structs.replace(so_far, needed=needed(found.answer, so_far, found.evidence, found.search))


def decided(found) -> bool:
    """Whether it has an answer: likely or proven, or that the highest or the lowest load decides."""
    return found.search.settled or (found.answer is not None and found.answer.strength != "estimate")


@pytest.mark.slow
@pytest.mark.parametrize("reaches", [0.5, 10.0])
def test_who_follows_the_advice_has_an_answer(reaches):
    """From searches that ran out of time at a tenth or a third of it, with and without a limit below --at-most: the
    --budget that is named decides at least nine in ten."""
    followed = []
    for case in (SHARING, BATCHING):
        for seed in range(5):
            for share in (0.1, 0.3):
                budget_s, most = round(share * case.budget_s), max(1.0, round(reaches * case.truth()))
                server = partial(case.server, seed=seed + 1)
                first = searched(case.scenario(seed, budget=budget_s * S, at_most=most), server)
                if decided(first):
                    continue
                before = as_saved(first, budget_s)
                budget_ns = parse_duration(next_budget(before))
                server = partial(case.server, seed=seed + 1001)
                then = searched(case.scenario(seed, budget=budget_ns, at_most=most), server, before=before)
                followed.append(decided(then))
    assert len(followed) >= 8
    assert sum(followed) >= 0.9 * len(followed)
