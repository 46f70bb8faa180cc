"""The workshop's figures, right; and its faulty ones, as it has them."""

from __future__ import annotations

import statistics

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadbench.analyze.level.workshop_stats import model_rounds, nearest_rank
from loadbench.results.run import ModelFacts, ModelStatus, RecordedPrompt
from tests.analyze.asked import a_failed_request, a_request
from tests.building import a_run

# Three rounds of a slow model: extrapolated, their p95 is 221 s, half a minute above the slowest.
SLOW = (133.7, 154.9, 191.8)


def a_bench(*, models=None, requests: int = 3, prompts: int = 1):
    """A run of the benchmark, its one level that of `m`."""
    run = a_run()
    asked = [RecordedPrompt(index=index, hash=f"{index:08x}") for index in range(prompts)]
    return msgspec.structs.replace(
        run, scenario={"load": {"requests": requests}}, prompts=asked, models=models or run.models
    )


def test_p95_is_never_above_the_maximum_and_theirs_is():
    """Nearest rank takes a value that was seen; `statistics.quantiles` goes beyond it."""
    (one,) = model_rounds(a_bench(), [a_request(n, e2e_s=latency) for n, latency in enumerate(SLOW)])
    assert one.latency_p95 == pytest.approx(191.8)
    assert one.legacy_p95 == pytest.approx(statistics.quantiles(SLOW, n=20)[-1])
    assert one.legacy_p95 > max(SLOW)


@given(st.lists(st.floats(0.001, 1000), min_size=1, max_size=50), st.floats(0.01, 1))
def test_nearest_rank_is_a_value_that_enough_are_not_above(values, p):
    """It is one of the values, at least the share p of all are at or below it, and no smaller one does it."""
    found = nearest_rank(values, p)
    assert found in values
    assert sum(value <= found for value in values) >= p * len(values) - 1e-9
    smaller = [value for value in values if value < found]
    assert not smaller or len(smaller) < p * len(values)


def test_speed_counts_output_tokens_alone_and_theirs_the_prompt_too():
    """16 tokens in 5.3 s are 3 tokens/s, whatever the prompt's 3,014 make of it."""
    (one,) = model_rounds(a_bench(requests=1), [a_request(0, e2e_s=5.3, tokens=16, input_tokens=3014)])
    assert one.tokens_per_s == pytest.approx(16 / 5.3)
    assert one.legacy_tokens_per_s == pytest.approx(3030 / 5.3)


def test_figures_are_means_over_the_answered_rounds():
    """Latency, first token and speed; a failed round is counted and in none of them."""
    requests = [a_request(0, e2e_s=1, ttft_s=0.2), a_request(1, e2e_s=2, ttft_s=0.4), a_failed_request(2)]
    (one,) = model_rounds(a_bench(), requests)
    assert (one.latency_avg, one.first_token_avg) == (pytest.approx(1.5), pytest.approx(0.3))
    assert one.tokens_per_s == pytest.approx((10 / 1 + 10 / 2) / 2)
    assert (one.rounds, one.requested, one.ok, one.status) == (3, 3, 2, "ok")


def test_rounds_are_of_each_prompt():
    """Twelve requests of four prompts are three rounds."""
    (one,) = model_rounds(a_bench(requests=12, prompts=4), [a_request(n, prompt_index=n % 4) for n in range(12)])
    assert (one.rounds, one.requested, one.ok) == (3, 12, 12)


def test_failed_models_stay_with_their_reason():
    """One that could not be tested, and one of which no request was answered."""
    models = [ModelStatus("m", "ok"), ModelStatus("gone", "failed", "has no model 'gone'")]
    first, second = model_rounds(a_bench(models=models), [a_failed_request(n) for n in range(3)])
    assert (first.status, first.reason, first.latency_avg, first.latency_p95) == (
        "failed",
        "no request got a response",
        None,
        None,
    )
    assert (second.status, second.reason, second.rounds) == ("failed", "has no model 'gone'", 3)


def test_a_model_goes_by_the_name_that_it_was_asked_for_by():
    """The workshop's alias, where the server has a longer name; that of a models.json wins over both."""
    known = ModelFacts(alias="small", capabilities=[])
    models = [
        ModelStatus("m-generic-cpu:1", "ok", asked="m"),
        ModelStatus("n-generic-cpu:1", "ok", known=known, asked="n"),
    ]
    assert [one.alias for one in model_rounds(a_bench(models=models), [])] == ["m", "small"]


def test_models_that_a_stopped_run_did_not_come_to_are_named():
    """They have no figures and a status of their own; those that go by another name than asked are not named twice."""
    run = a_bench(models=[ModelStatus("m", "ok", asked="alias-of-m")])
    run = msgspec.structs.replace(run, scenario={**run.scenario, "target": {"model": ["alias-of-m", "late"]}})
    _, late = model_rounds(run, [a_request(0)])
    assert (late.model, late.status, late.reason) == ("late", "not_run", "the run was stopped before it")


def test_alias_is_that_of_the_file():
    """A model goes by the name that its file gives it."""
    models = [ModelStatus("m", "ok", known=ModelFacts(alias="small"))]
    (one,) = model_rounds(a_bench(models=models), [a_request(0)])
    assert (one.alias, one.model) == ("small", "m")


def test_unknown_counts_have_no_speed():
    """Where the server told no tokens there is no figure, and no guess at one."""
    (one,) = model_rounds(a_bench(), [a_request(0, output_tokens=None)])
    assert (one.tokens_per_s, one.legacy_tokens_per_s, one.output_tokens) == (None, None, ())
