"""Results of other tools as runs: each value where its definition is, and no verdict that nobody can give."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import jsonschema
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadbench.analyze.imports import imported_run
from loadbench.core.errors import BadInput
from loadbench.record.histogram import Histogram
from loadbench.results.folder import read_run
from tests.cli.typed import typed
from tests.foreign_results import guidellm, serving
from tests.report.golden import json_schema

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def write(tmp_path):
    """Write a result and return its path."""

    def written(content: object, name: str = "result.json") -> Path:
        path = tmp_path / name
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
        return path

    return written


def test_details_of_vllm_are_histograms(write):
    """Each value is counted, in the metric with its definition; frames are no tokens."""
    run = imported_run([write(serving())], name="v")
    (level,) = run.levels
    ttft = level.metrics["ttft_s"]
    assert (ttft.count, Histogram.decode(ttft.hdr).count) == (40, 40)
    assert ttft.min == pytest.approx(0.2, rel=1e-3)
    assert ttft.interval["p50"] is not None
    assert level.metrics["event_gap_s"].count == 400
    assert level.metrics["itl_s"] is None
    assert level.metrics["tpot_classic_s"].p50 == pytest.approx(0.1 / 19, rel=1e-3)
    assert level.metrics["tpot_s"] is None
    assert level.metrics["e2e_s"].p50 == pytest.approx(ttft.p50 + 0.1, rel=1e-2)
    assert (level.load.label, level.tokens.output, level.throughput.output_tokens_per_s) == ("users=4", 800, 64.0)
    assert level.concurrency.mean == pytest.approx(40 * level.metrics["e2e_s"].mean / 12.5, rel=1e-3)
    assert run.started_at == "2026-11-05T12:34:56.000Z"
    assert {figure.name: figure.metric for figure in run.imported.figures}["ITL"] == "event_gap_s"


def test_no_level_is_valid(write):
    """Nothing is known of the client, and the reason says so."""
    for content in (serving(), serving(detailed=False), guidellm()):
        (level,) = imported_run([write(content)], name="x").levels
        assert level.verdict.status == "INCONCLUSIVE"
        assert [reason.code for reason in level.verdict.reasons] == ["imported"]


def test_a_summary_has_no_metrics_that_it_does_not_have(write):
    """Three points are no distribution: they are kept as the tool wrote them, and what is missing is named."""
    run = imported_run([write(serving(detailed=False))], name="s")
    assert {name for name, metric in run.levels[0].metrics.items() if metric is not None} == set()
    (ttft,) = [figure for figure in run.imported.figures if figure.name == "TTFT"]
    assert (ttft.metric, ttft.unit) == (None, "ms")
    assert ttft.points.keys() == {"mean", "median", "p99"}
    assert "save-detailed" in run.imported.missing[0]


def test_loads_of_vllm(write):
    """A rate has arrivals by its burstiness; failures are counted, and their requests in no figure."""
    rated = serving(request_rate=2.5, burstiness=0.25, completed=39, failed=1, errors=["boom"] + [""] * 39)
    (level,) = imported_run([write(rated)], name="r").levels
    assert (level.load.rate_per_s, level.load.arrivals) == (2.5, "gamma:2")
    assert (level.outcomes, level.metrics["ttft_s"].count) == ({"ok": 39, "failed": 1}, 39)
    (burst,) = imported_run([write(serving(max_concurrency=None))], name="b").levels
    assert burst.load.label == "users=40"


def test_files_and_lines_are_levels(write):
    """In their order, of one run."""
    lines = "\n".join(json.dumps(serving(users=users)) for users in (1, 2)) + "\n"
    run = imported_run([write(lines, "a.jsonl"), write(serving(users=8), "b.json")], name="m")
    assert [level.load.label for level in run.levels] == ["users=1", "users=2", "users=8"]
    assert sorted({figure.level for figure in run.imported.figures}) == [0, 1, 2]
    assert run.imported.files.keys() == {"a.jsonl", "b.json"}


def test_sglang_has_its_own_names(write):
    """Its gaps are divided in some versions, so they are in no metric."""
    content = serving(input_throughput=320.0, mean_e2e_latency_ms=350.0, max_concurrency=2)
    run = imported_run([write(content)], name="g")
    assert run.imported.tool == "sglang bench_serving"
    assert run.levels[0].metrics["event_gap_s"] is None
    assert run.levels[0].metrics["ttft_s"] is not None


def test_guidellm_means_something_else_by_the_same_words(write):
    """Its TPOT includes TTFT, and its ITL is what others call TPOT."""
    run = imported_run([write(guidellm())], name="g")
    (level,) = run.levels
    assert level.metrics["tpot_classic_s"].p50 == pytest.approx(0.057)
    assert level.metrics["e2e_per_token_s"].p50 == pytest.approx(0.060)
    assert level.metrics["itl_s"] is None
    assert level.metrics["ttft_s"].interval["p50"] is None
    assert (level.load.label, level.outcomes) == ("users=8", {"ok": 60, "failed": 2, "cancelled": 1})
    assert (level.tokens.input, level.tokens.output) == (7680, 3840)
    meanings = {figure.name: figure.meaning for figure in run.imported.figures}
    assert "includes TTFT" in meanings["time_per_output_token_ms"]


def test_an_import_is_a_run_for_every_command(write, tmp_path):
    """Its folder has a run.json that the schema allows; a report, a comparison and the formats take it."""
    made = [write(serving(), "v.json"), write(serving(users=4, duration=12.0), "w.json"), write(guidellm(), "g.json")]
    for path in made:
        done = typed("import", path.name, "--out", "out", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert "no level is VALID" in done.stdout
    folders = {path.name.rpartition("-")[2]: path for path in (tmp_path / "out").iterdir()}
    for folder in folders.values():
        jsonschema.validate(json.loads((folder / "run.json").read_bytes()), json_schema())
        assert read_run(folder).imported is not None
        for form in ("text", "markdown", "csv", "json", "junit", "llmd", "html"):
            assert typed("report", str(folder), "--format", form, cwd=tmp_path).returncode == 0
    page = typed("report", str(folders["g"]), "--format", "html", cwd=tmp_path).stdout
    assert "measured by guidellm, not by loadbench" in page
    assert "it includes TTFT" in page
    assert "chosen by loadbench" not in page
    alike = typed("compare", str(folders["v"]), str(folders["w"]), cwd=tmp_path)
    assert "both sides were measured by vllm bench serve" in alike.stdout
    assert "TTFT p50" in alike.stdout
    other = typed("compare", str(folders["v"]), str(folders["g"]), cwd=tmp_path)
    assert "A was measured by vllm bench serve and B by guidellm" in other.stdout


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "not JSON"),
        ("[1]", "not a result that can be imported"),
        ({"schema": "loadbench.run/1"}, "not a result that can be imported"),
        (serving(duration=0), "a damaged result"),
        (serving(ttfts=[-1.0] * 40), "a damaged result"),
        (serving(completed="many"), "a damaged result"),
        (guidellm(duration=None), "a damaged result"),
        (guidellm(metrics={}), None),
    ],
)
def test_what_is_no_result_is_named(write, content, words):
    """One line, with the file; a benchmark without metrics has none."""
    path = write(content)
    if words is None:
        assert not any(imported_run([path], name="x").levels[0].metrics.values())
        return
    with pytest.raises(BadInput, match=words) as raised:
        imported_run([path], name="x")
    assert str(path) in raised.value.message


def test_results_of_two_tools_are_two_runs(write):
    """Their figures mean different things."""
    with pytest.raises(BadInput, match="guidellm and vllm"):
        imported_run([write(serving(), "v.json"), write(guidellm(), "g.json")], name="x")


_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=4,
)


@given(st.data())
def test_a_damaged_file_is_one_message(tmp_path_factory, data):
    """Whatever stands in place of a value: a run, or `BadInput`."""
    content = data.draw(st.sampled_from([serving(requests=3), guidellm()]))
    place: Any = content
    while True:
        key = data.draw(st.sampled_from(sorted(place))) if isinstance(place, dict) else 0
        if isinstance(place[key], (dict, list)) and place[key] and data.draw(st.booleans()):
            place = place[key]
            continue
        place[key] = data.draw(_values)
        break
    path = tmp_path_factory.mktemp("import") / "x.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    try:
        run = imported_run([path], name="x")
    except BadInput:
        return
    assert msgspec.json.encode(run)
