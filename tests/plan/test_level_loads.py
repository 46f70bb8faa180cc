"""`--users auto`: which loads it may have, how the plan shows it, and where it has no meaning."""

from __future__ import annotations

import pytest

from loadbench.core.errors import BadInput
from loadbench.plan.sources import resolve
from loadbench.report.plan import plan_document
from loadbench.report.render_text import render_text
from loadbench.session.setup import check


def test_auto_is_one_value_for_flag_variable_and_file(tmp_path):
    """It doubles up to 256, and is recorded as it was written."""
    file = tmp_path / "s.toml"
    file.write_text('[load]\nusers = "auto"\n')
    given = [{"flags": {"users": "auto"}}, {"environment": {"LOADBENCH_USERS": "AUTO"}}, {"file": file}]
    for source in given:
        scenario = resolve(**{"flags": {}, "environment": {}, **source})
        assert scenario.finds_levels
        assert scenario.load.users == (1, 2, 4, 8, 16, 32, 64, 128, 256)
        assert scenario.effective()["load"]["users"] == "auto"


def test_the_plan_says_what_it_will_do():
    """Which levels there will be is not known beforehand."""
    text = render_text(plan_document(resolve(flags={"users": "auto"}, environment={})), width=200)
    assert "the users double until throughput has stopped growing, up to 256" in text
    assert "at most 9 levels" in text
    assert "each level lasts 10s, or longer until every user has had 3 responses and there are 20" in text


@pytest.mark.parametrize("users", ["auto,4", "4,auto", "automatic"])
def test_auto_stands_alone(users):
    """With other values it would not be clear what is measured."""
    with pytest.raises(BadInput, match="--users"):
        resolve(flags={"users": users}, environment={})


def test_a_comparison_has_its_levels_beforehand():
    """Both sides have the same loads."""
    with pytest.raises(BadInput, match="must be known beforehand"):
        resolve(flags={"users": "auto"}, environment={}, command="compare")


def test_a_total_that_is_too_short_is_refused():
    """Five levels cannot take five seconds; given lengths make the total idle."""
    with pytest.raises(BadInput, match="--max-total 5s: the 5 levels take 1m at least"):
        check(resolve(flags={"max_total": "5s"}, environment={}), {})
    with pytest.raises(BadInput, match="the length of each level is given"):
        resolve(flags={"max_total": "5m", "duration": "10s"}, environment={})
