"""What a run that is continued has to know of the levels before."""

from __future__ import annotations

import msgspec
import pytest

from loadbench.core.errors import BadInput
from loadbench.engine.sweep import LastLevel
from loadbench.plan.load import Closed
from loadbench.plan.sources import resolve
from loadbench.session.resume import earlier_levels
from tests.building import a_level, a_run


def levels(*measured: tuple[str, int]):
    """A run of these models at these users."""
    one = a_level()
    of = [
        msgspec.structs.replace(one, model=model, load=msgspec.structs.replace(one.load, users=users))
        for model, users in measured
    ]
    return a_run(*of, complete=False)


def test_a_model_without_further_loads_is_complete():
    """Counts and last levels are by model, whatever the order in which they came: one that had failed came later."""
    run = levels(("a", 1), ("a", 2), ("c", 1), ("b", 1))
    earlier = earlier_levels(run, resolve(flags={"users": "1,2"}, environment={}), ["a", "b", "c"])
    assert (earlier.counts, earlier.complete) == ({"a": 2, "b": 1, "c": 1}, {"a"})
    assert earlier.last["a"] == LastLevel(round(run.levels[0].metrics["e2e_response_s"].p95 * 1e9), Closed(2))
    assert earlier.spent_ns == 4 * 100 * 10**9


def test_levels_that_a_sweep_found_itself():
    """The one between two doublings is in no list of loads; whether a model needs more, the levels say."""
    run = levels(("a", 1), ("a", 2), ("a", 4), ("a", 8), ("a", 6))
    earlier = earlier_levels(run, resolve(flags={"users": "auto"}, environment={}), ["a"])
    assert (earlier.last["a"].load, earlier.complete) == (Closed(6), set())


def test_other_models_are_refused():
    """Levels of a model that is not measured any more would be taken for those of this run."""
    with pytest.raises(BadInput, match="of other models: a, b"):
        earlier_levels(levels(("a", 1), ("b", 1)), resolve(flags={"users": "1,2"}, environment={}), ["a"])
