"""The selection: what counts, what it comes to, and when it cannot tell."""

from __future__ import annotations

import dataclasses
import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadbench.analyze.quality.selection import WEIGHTS, Candidate, CandidateFigure, candidates, select
from loadbench.core.errors import BadInput
from loadbench.plan.load import Closed
from loadbench.report.selection import selection_notes
from loadbench.results.quality import Quality, Rating
from loadbench.results.run import ModelFacts, ModelStatus, Reason, Verdict
from loadbench.results.telemetry import Gauge, Telemetry
from tests.building import a_level, a_run

ONES = dict.fromkeys(WEIGHTS, 1.0)


def a_candidate(name: str, **figures: float | tuple[float, float, float]) -> Candidate:
    """A model; a figure is a value, or (low, value, high)."""
    made = {
        key: CandidateFigure(told[1], (told[0], told[2])) if isinstance(told, tuple) else CandidateFigure(told)
        for key, told in figures.items()
    }
    return Candidate(name=name, load="users=1", figures=made)


def test_score_is_the_weighted_mean_of_what_is_normalised_to_the_best():
    """Half as fast is 0.5, the best 1, quality (score − 1) / 4."""
    small = a_candidate("small", latency=1.0, quality=3.0)
    large = a_candidate("large", latency=2.0, quality=5.0)
    selection = select([small, large], ONES | {"speed": 3.0})
    scores = {one.candidate.name: one.score for one in selection.ranked}
    assert scores == {"small": pytest.approx((3 * 1 + 0.5) / 4), "large": pytest.approx((3 * 0.5 + 1) / 4)}
    assert selection.ranked[0].candidate.name == "small"
    assert select([small, large], ONES | {"quality": 3.0}).ranked[0].candidate.name == "large"


def test_more_is_better_for_throughput():
    """The faster one is 1, half the throughput 0.5."""
    selection = select([a_candidate("a", throughput=50.0), a_candidate("b", throughput=100.0)], ONES)
    assert [(one.candidate.name, one.score) for one in selection.ranked] == [("b", 1.0), ("a", 0.5)]


def test_what_is_not_known_of_every_model_does_not_count():
    """It is named, with those that lack it, and no model wins by it."""
    selection = select([a_candidate("a", latency=2.0, disk=1.0), a_candidate("b", latency=1.0)], ONES)
    assert selection.weights == {"latency": 1.0}
    assert selection.missing["disk"] == ("b",)
    assert selection.missing["memory"] == ("a", "b")
    assert selection.ranked[0].candidate.name == "b"


def test_close_scores_are_a_tie_by_their_intervals():
    """Within the doubt of both no winner is named; with the doubt gone there is one."""
    wide = [a_candidate("a", latency=(0.8, 1.0, 1.25)), a_candidate("b", latency=(0.9, 1.1, 1.3))]
    assert select(wide, ONES).tied == ("b",)
    narrow = [a_candidate("a", latency=(0.99, 1.0, 1.01)), a_candidate("b", latency=(1.09, 1.1, 1.11))]
    assert select(narrow, ONES).tied == ()


def test_recommendation_of_too_few_samples_says_that_it_may_be_chance():
    """Speeds without an interval are no proof, however far apart; a size is what it is.

    Seen to fail: of two runs of three requests each, of one model, one was recommended over the other.
    """
    few = select([a_candidate("a", latency=1.0, disk=1.0), a_candidate("b", latency=2.0, disk=1.0)], ONES)
    assert (few.unproven, few.no_interval) == (("latency",), ("latency", "disk"))
    assert "this may be chance" in selection_notes(few)[0]
    many = [a_candidate(name, latency=(at - 0.1, at, at + 0.1), disk=1.0) for name, at in (("a", 1.0), ("b", 2.0))]
    assert "chance" not in selection_notes(select(many, ONES))[0]


def test_doubt_adds_as_independent_doubts_do():
    """√Σ(w h)², with h that of a ratio for less, half the interval for more; figures without one are named."""
    one = a_candidate("a", latency=(0.8, 1.0, 1.25), throughput=(90.0, 100.0, 110.0), disk=3.0)
    selection = select([one], ONES | {"resources": 1.0})
    h_latency, h_throughput = math.log(1.25 / 0.8) / 2, 0.1
    assert selection.ranked[0].margin == pytest.approx(math.hypot(h_latency / 4, h_throughput / 4))
    assert selection.no_interval == ("disk",)


def test_dominated_is_no_better_in_anything_and_surely_worse_in_something():
    """Worse beyond both intervals marks it; worse within them does not; better in one thing saves it."""
    best = a_candidate("best", latency=(0.9, 1.0, 1.1), disk=1.0)
    surely = a_candidate("surely", latency=(1.9, 2.0, 2.1), disk=1.0)
    perhaps = a_candidate("perhaps", latency=(1.0, 1.05, 1.2), disk=1.0)
    smaller = a_candidate("smaller", latency=(1.9, 2.0, 2.1), disk=0.5)
    ranked = select([best, surely, perhaps, smaller], ONES).ranked
    dominated = {one.candidate.name: one.dominated_by for one in ranked}
    assert dominated["surely"] == "best"
    assert (dominated["best"], dominated["perhaps"], dominated["smaller"]) == ("", "", "")


@given(st.lists(st.tuples(st.floats(0.01, 100), st.floats(1, 5)), min_size=2, max_size=6))
def test_first_is_never_dominated(values):
    """Whoever is dominated has at least one above it: the recommendation is on the Pareto front."""
    found = [a_candidate(f"m{n}", latency=latency, quality=score) for n, (latency, score) in enumerate(values)]
    ranked = select(found, ONES).ranked
    top = [one for one in ranked if one.score == ranked[0].score]
    assert any(not one.dominated_by for one in top)
    assert all(0 <= one.score <= 1 + 1e-12 for one in ranked)


def test_without_anything_to_choose_by_it_says_so():
    """No measured model, or no dimension that all have."""
    with pytest.raises(BadInput, match="no model of these runs was measured"):
        select([Candidate(name="a", failed="gone")], ONES)
    with pytest.raises(BadInput, match="no dimension"):
        select([a_candidate("a", disk=1.0), a_candidate("b", latency=1.0)], ONES)
    with pytest.raises(BadInput, match="no dimension"):
        select([a_candidate("a", disk=1.0)], ONES | {"disk": 0.0})


def test_every_dimension_is_taken_from_where_it_is_known():
    """Speeds from the level, memory from its telemetry, quality from the raters, size and licence from the file."""
    level = msgspec.structs.replace(
        a_level(),
        telemetry=Telemetry(gauges={"process_rss_bytes": Gauge(mean=5e8, min=4e8, max=6e8, last=5e8, readings=9)}),
    )
    known = ModelFacts(size_bytes=528_000_000, license="MIT", load_cold_s=9.0, load_warm_s=2.0)
    run = msgspec.structs.replace(a_run(level), models=[ModelStatus("m", "ok", known=known, load_s=3.0)])
    quality = Quality(ratings=[Rating(model="m", prompt=0, facet="brevity", score=4, rater="ann", answer_hash="aa")])
    (one,) = candidates([(run, quality)])
    values = {name: figure.value for name, figure in one.figures.items()}
    assert values == {
        "latency": level.metrics["e2e_s"].p50,
        "ttft": level.metrics["ttft_s"].p50,
        "throughput": level.throughput.output_tokens_per_s,
        "memory": 6e8,
        "quality": 4.0,
        "disk": 528_000_000,
        "load": 3.0,
    }
    assert (one.license, one.load_warm_s, one.rater) == ("MIT", 2.0, "ann")
    assert one.figures["latency"].interval == level.metrics["e2e_s"].interval["p50"]


def test_models_are_compared_at_the_lightest_common_load():
    """Or at the one that is asked for; one that was not measured there is told."""
    one = [msgspec.structs.replace(a_level(load=Closed(users)), model="a") for users in (1, 2, 4)]
    two = [msgspec.structs.replace(a_level(load=Closed(users)), model="b") for users in (2, 4)]
    models = [ModelStatus("a", "ok"), ModelStatus("b", "ok")]
    run = msgspec.structs.replace(a_run(*one, *two), models=models)
    assert [found.load for found in candidates([(run, Quality())])] == ["users=2", "users=2"]
    first, second = candidates([(run, Quality())], at="users=1")
    assert (first.load, second.failed) == ("users=1", "was not measured at users=1")
    with pytest.raises(BadInput, match="--at users=9"):
        candidates([(run, Quality())], at="users=9")


def test_the_lightest_load_is_the_least_and_not_the_first():
    """Levels may have been measured from the highest down."""
    levels = [a_level(load=Closed(users)) for users in (16, 2, 10)]
    (found,) = candidates([(a_run(*levels), Quality())])
    assert found.load == "users=2"


def test_speed_counts_once_and_the_best_quality_beats_the_worst():
    """Three figures of one speed are one group.

    Seen to fail: a model rated 1 of 5 on everything was recommended over one rated 5 of 5, for it was faster.
    """
    fast = a_candidate("fast", latency=0.1, ttft=0.01, throughput=1000.0, memory=1e8, disk=1e8, load=0.1, quality=1.0)
    good = a_candidate("good", latency=9.0, ttft=1.0, throughput=10.0, memory=9e9, disk=9e9, load=90.0, quality=5.0)
    selection = select([fast, good], WEIGHTS)
    assert selection.ranked[0].candidate.name == "good"
    speed = sum(selection.weights[name] for name in ("latency", "ttft", "throughput"))
    assert (speed, selection.weights["quality"]) == (pytest.approx(0.25), pytest.approx(0.5))
    assert selection.weights["latency"] == pytest.approx(0.25 / 3)
    alone = select([a_candidate("a", ttft=1.0, quality=3.0), a_candidate("b", ttft=2.0, quality=3.0)], WEIGHTS)
    assert alone.weights == {"ttft": pytest.approx(1 / 3), "quality": pytest.approx(2 / 3)}


def test_quality_can_be_a_floor():
    """Models below it, or without a rating, are shown and not ranked."""
    poor, fair = a_candidate("poor", latency=1.0, quality=2.0), a_candidate("fair", latency=2.0, quality=4.0)
    selection = select([poor, fair, a_candidate("new", latency=0.5)], WEIGHTS, min_quality=3.0)
    assert [one.candidate.name for one in selection.ranked] == ["fair"]
    assert {one.name: one.excluded for one in selection.excluded} == {
        "poor": "rated 2.00, and --min-quality is 3",
        "new": "not rated, and --min-quality is 3",
    }
    none = select([poor], WEIGHTS, min_quality=3.0)
    assert (none.ranked, none.missing) == ((), {})
    assert selection_notes(none)[0].startswith("no recommendation")


def test_a_measurement_at_fault_is_not_ranked():
    """Seen to fail: INVALID runs were recommended, and a model without any response scored 1.00."""
    fault = Verdict("INVALID", [Reason("late_start", "requests were sent late", "")])
    few = Verdict("INCONCLUSIVE", [Reason("too_few_answers", "3 responses are too few", "")])
    sound, invalid, short = (
        msgspec.structs.replace(a_level(), verdict=verdict, model=model)
        for verdict, model in ((Verdict("VALID"), "sound"), (fault, "invalid"), (few, "short"))
    )
    silent = msgspec.structs.replace(a_level(), outcomes={"refused": 9}, metrics={}, model="silent")
    models = [ModelStatus(level.model, "ok") for level in (sound, invalid, short, silent)]
    run = msgspec.structs.replace(a_run(sound, invalid, short, silent), models=models)
    selection = select(candidates([(run, Quality())]), WEIGHTS)
    assert {one.candidate.name: one.candidate.caveat for one in selection.ranked} == {
        "sound": "",
        "short": "INCONCLUSIVE: 3 responses are too few (too_few_answers)",
    }
    (excluded,) = selection.excluded
    assert (excluded.name, excluded.excluded) == ("invalid", "INVALID: requests were sent late (late_start)")
    assert [(one.name, one.failed) for one in selection.failed] == [("silent", "no request succeeded")]


def test_runs_of_other_work_are_refused():
    """Seen to fail: 64 tokens were ranked against 24, and other prompts against each other."""
    runs = [a_run(), a_run()]
    runs = [
        msgspec.structs.replace(run, name=f"run{n}", scenario=run.scenario | {"work": {"max_tokens": n}})
        for n, run in zip((64, 24), runs, strict=True)
    ]
    with pytest.raises(BadInput, match=r"did different work.*work\.max_tokens \(64 and 24\)"):
        candidates([(run, Quality()) for run in runs])


def test_responses_of_other_lengths_leave_out_the_whole_time():
    """A model that says less is no faster; its first token and its tokens/s still count."""
    short = dataclasses.replace(a_candidate("short", latency=1.0, ttft=0.2), response_tokens=20.0)
    long = dataclasses.replace(a_candidate("long", latency=2.0, ttft=0.1), response_tokens=60.0)
    selection = select([short, long], WEIGHTS)
    assert (selection.ranked[0].candidate.name, selection.weights) == ("long", {"ttft": 1.0})
    assert any("20 to 60 output tokens" in note for note in selection_notes(selection))
    alike = [dataclasses.replace(one, response_tokens=20.0) for one in (short, long)]
    assert "latency" in select(alike, WEIGHTS).weights


def test_runs_of_one_model_are_one_candidate_and_names_tell_them_apart():
    """On the CPU and on the GPU it is two candidates; repeats of one run are one, with the figures of both.

    Seen to fail: two runs of one model were shown as two candidates, and one was recommended over the other.
    """
    runs = [msgspec.structs.replace(a_run(), name=name) for name in ("cpu", "gpu")]
    assert [one.name for one in candidates([(run, Quality()) for run in runs])] == ["m (cpu)", "m (gpu)"]
    times = ("2026-01-01T12:00:00.000Z", "2026-01-01T13:00:00.000Z")
    first, second = (msgspec.structs.replace(a_run(), name="sweep", started_at=time) for time in times)
    (level,) = second.levels
    throughput = msgspec.structs.replace(
        level.throughput,
        output_tokens_per_s=4 * level.throughput.output_tokens_per_s,
        interval={"output_tokens_per_s": (1.0, 1e6)},
    )
    second = msgspec.structs.replace(second, levels=[msgspec.structs.replace(level, throughput=throughput)])
    (one,) = candidates([(first, Quality()), (second, Quality())])
    assert (one.name, one.runs) == ("m", 2)
    pooled = one.figures["throughput"]
    assert pooled.value == pytest.approx(2 * level.throughput.output_tokens_per_s)
    assert pooled.interval is None or pooled.interval == (1.0, 1e6)
    with pytest.raises(BadInput, match="this run was given twice"):
        candidates([(first, Quality())] * 2)


def test_memory_counts_where_it_is_a_models_own():
    """Of several models in one run it is shown, and left out: what the first left in the process counts for the second.

    Seen to fail: the model that was measured first won by it.
    """
    gauge = Gauge(mean=5e8, min=4e8, max=6e8, last=5e8, readings=9)
    level = msgspec.structs.replace(
        a_level(), telemetry=Telemetry(gauges={"process_rss_bytes": gauge}), verdict=Verdict("VALID")
    )
    runs = [msgspec.structs.replace(a_run(level), name=name) for name in ("a", "b")]
    assert "memory" in select(candidates([(run, Quality()) for run in runs]), ONES).weights
    levels = [msgspec.structs.replace(level, model=model) for model in ("a", "b")]
    both = msgspec.structs.replace(a_run(*levels), models=[ModelStatus(model, "ok") for model in ("a", "b")])
    found = candidates([(both, Quality())])
    assert [one.figures["memory"].value for one in found] == [6e8, 6e8]
    selection = select(found, ONES)
    assert "memory" not in selection.weights
    assert any(
        "memory is the server process's and may include earlier models" in note for note in selection_notes(selection)
    )
    assert not any("not known" in note and "memory" in note for note in selection_notes(selection))


def test_facts_are_found_by_the_name_that_was_asked_for():
    """A file of aliases says of a model what it says, though the server calls it otherwise."""
    models = [ModelStatus("m", "ok", asked="small", load_warm_s=1.5)]
    run = msgspec.structs.replace(a_run(), models=models)
    (one,) = candidates([(run, Quality())], facts={"small": ModelFacts(license="MIT", load_warm_s=9.0)})
    assert (one.license, one.load_warm_s) == ("MIT", 1.5)
