"""Results of other tools as runs: each value where its definition is, and no verdict that nobody can give."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import jsonschema
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadbench.analyze.imports.read import imported_run
from loadbench.core.errors import BadInput
from loadbench.record.histogram import Histogram
from loadbench.results.folder import read_run
from tests.cli.typed import typed
from tests.foreign_results import aiperf, aiperf_records, guidellm, serving
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
    for content in (serving(), serving(detailed=False), guidellm(), aiperf()):
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


def test_aiperf_with_its_requests_makes_histograms(write):
    """The lines beside the summary are read with it, without the warm-up, and in the order of their starts."""
    lines = aiperf_records(failed=2, warmup=3)
    write("\n".join(map(json.dumps, lines)), "profile_export.jsonl")
    run = imported_run([write(aiperf(), "profile_export_aiperf.json")], name="a")
    (level,) = run.levels
    assert (run.imported.tool, run.imported.version, run.started_at) == ("aiperf", "0.13.0", "2026-11-05T12:34:56.250Z")
    assert run.imported.files.keys() == {"profile_export_aiperf.json", "profile_export.jsonl"}
    assert (level.load.label, level.target, level.model) == ("users=4", "http://127.0.0.1:8000", "qwen")
    assert level.outcomes == {"ok": 40, "failed": 2}
    assert (level.metrics["ttft_s"].count, level.metrics["event_gap_s"].count) == (40, 400)
    assert level.metrics["ttft_s"].p50 == pytest.approx(0.2, rel=1e-3)
    assert level.metrics["e2e_s"].p50 == pytest.approx(0.3, rel=1e-3)
    assert level.metrics["tpot_classic_s"].p50 == pytest.approx(0.1 / 19, rel=1e-3)
    assert (level.metrics["tpot_s"], level.metrics["itl_s"]) == (None, None)
    assert (level.tokens.input, level.tokens.output, level.throughput.output_tokens_per_s) == (4000, 800, 64.0)
    assert (level.concurrency.mean, level.concurrency.peak) == (3.2, 4)
    assert {figure.name: figure.metric for figure in run.imported.figures}["inter_chunk_latency"] == "event_gap_s"
    assert run.imported.missing == []


def test_aiperf_alone_has_what_its_file_has(write):
    """A summary has no histograms; the lines alone have no server and no load. What is missing is named."""
    (level,) = imported_run([write(aiperf(), "prefix.json")], name="a").levels
    assert not any(level.metrics.values())
    lines = "\n".join(map(json.dumps, aiperf_records()))
    run = imported_run([write(lines, "other.jsonl")], name="a")
    (level,) = run.levels
    assert (level.metrics["ttft_s"].count, level.window_s, level.load.label) == (40, 12.0, "users=1")
    assert (level.tokens.output, level.throughput.requests_per_s) == (800, pytest.approx(40 / 12))
    assert run.started_at == "2026-11-05T12:34:56.250Z"
    assert "profile_export_aiperf.json has them" in run.imported.missing[0]
    write(lines, "prefix.jsonl")
    both = [write(aiperf(), "prefix.json"), write(aiperf(users=8), "next.json"), write(lines, "next.jsonl")]
    levels = imported_run(both, name="a").levels
    assert [level.load.label for level in levels] == ["users=4", "users=8"]
    assert all(level.metrics["ttft_s"].count == 40 for level in levels)


@pytest.mark.parametrize(
    ("config", "label", "arrivals"),
    [
        ({"phases": [{"name": "profiling", "type": "poisson", "rate": 2.5}]}, "rate=2.5", "poisson"),
        ({"phases": [{"kind": "profiling", "type": "constant", "rate": 3}]}, "rate=3", "constant"),
        ({"phases": [{"name": "profiling", "type": "gamma", "rate": 3, "smoothness": 4.0}]}, "rate=3", "gamma:0.5"),
        ({"loadgen": {"request_rate": 7.0, "request_rate_mode": "poisson"}}, "rate=7", "poisson"),
        ({"loadgen": {"concurrency": 6}}, "users=6", None),
        ({}, "users=4", None),
        ({"phases": "?", "loadgen": []}, "users=4", None),
    ],
)
def test_loads_of_aiperf(write, config, label, arrivals):
    """In the words of newer and older versions; where nothing says it, the most requests in flight."""
    (level,) = imported_run([write(aiperf(input_config=config))], name="a").levels
    assert (level.load.label, getattr(level.load, "arrivals", None)) == (label, arrivals)


ABSURD = ["1e999", "-1", "true", '"4"', "1e300", "-1e999", "[]", "9" * 400]


@pytest.mark.parametrize("value", ABSURD)
@pytest.mark.parametrize(
    ("content", "old", "key"),
    [
        (serving(), '"duration": 12.5', "duration"),
        (serving(), '"completed": 40', "completed"),
        (serving(), '"total_output_tokens": 800', "total_output_tokens"),
        (serving(), '"request_throughput": 3.2', "request_throughput"),
        (serving(), '"mean_itl_ms": 10.0', "mean_itl_ms"),
        (serving(), '"max_concurrency": 4', "max_concurrency"),
        (serving(), '"output_lens": [20, ', "output_lens"),
        (serving(), '"itls": [[0.01, ', "itls"),
        (guidellm(), '"duration": 30.0', "duration"),
        (guidellm(), '"successful": 60', "requests_made"),
        (guidellm(), '"request_latency": {"successful": {"mean": 3.84', "request_latency"),
        (guidellm(), '"start_time": 1786678148.25', "start_time"),
        (aiperf(), '"request_count": {"unit": "requests", "avg": 40.0', "request_count"),
        (aiperf(), '"request_latency": {"unit": "ms", "avg": 300.0', "request_latency"),
        (aiperf(), '"benchmark_duration": {"unit": "sec", "avg": 12.5', "benchmark_duration"),
        (aiperf_records(1)[0], '"request_start_ns": 1793882096250000000', "request_start_ns"),
        (aiperf_records(1)[0], '"time_to_first_token": {"value": 200.0', "time_to_first_token"),
    ],
)
def test_a_value_that_no_measurement_has_is_refused(write, content, old, key, value):
    """Infinite, negative, true, a text, an array: one line with the file and the key, and nothing is saved."""
    text = json.dumps(content)
    assert text.count(old) == 1
    head = old.rstrip(", ").rpartition("[" if "[" in old else " ")[0]
    path = write(text.replace(old, f"{head}{'[' if '[' in old else ' '}{value}{', ' * old.endswith(' ')}"))
    with pytest.raises(BadInput) as raised:
        imported_run([path], name="x")
    assert raised.value.message.startswith(f"{path}")
    assert "\n" not in raised.value.message
    assert len(raised.value.message) < 500 + len(str(path))
    assert key in raised.value.message or "is too large" in raised.value.message
    done = typed("import", path.name, cwd=path.parent)
    assert (done.returncode, [entry.name for entry in path.parent.iterdir()]) == (2, [path.name])


def changed(name: str, **points: float) -> dict[str, Any]:
    """A report of guidellm with other points of one figure."""
    content = guidellm()
    content["benchmarks"][0]["metrics"][name]["successful"] |= points
    return content


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (serving(completed=41), "completed is 41, and the details have 40 requests without an error"),
        (serving(errors=["x", *[""] * 39]), "completed is 40, and the details have 39"),
        (serving(ttfts=[0.2] * 39), "its details have different lengths: ttfts 39"),
        (serving(request_rate=-2.0), "request_rate"),
        (serving(request_rate="-2"), "a rate of -2 requests per second"),
        (serving(request_rate="nan"), "a rate of nan requests per second"),
        (serving(date="50000101-120000"), "is not the time of a measurement"),
        (guidellm(start_time=1.5e12), "start_time"),
        (guidellm(start_time=-1.0), "start_time"),
        (aiperf(start_time="9999-01-01T00:00:00"), "is not the time of a measurement"),
        (aiperf(start_time="50000-01-01T00:00:00"), "Invalid isoformat string"),
        (aiperf(start_time="1950-01-01T00:00:00Z"), "is not the time of a measurement"),
        (aiperf(request_latency={"unit": "parsecs", "avg": 3.0}), "'parsecs' is not a unit of time"),
        (aiperf(request_latency={"unit": "ms", "avg": 3.0, "p50": 5.0, "p90": 4.0}), "the p50 of request_latency is 5"),
        (
            aiperf(request_latency={"unit": "ms", "avg": 9.0, "min": 1.0, "max": 5.0}),
            "the mean of request_latency is 9",
        ),
        (aiperf(request_latency={"unit": "ms", "avg": 0.5, "min": 1.0}), "request_latency is 0.5, and its min is 1"),
        (aiperf(request_throughput={"unit": "requests/sec", "avg": 9.0}), "request_throughput is 9 per second, and"),
        (aiperf(total_token_throughput={"unit": "tokens/sec", "avg": 0.0}), "total_token_throughput is 0 per second"),
        (serving(median_ttft_ms=900.0), "the median of TTFT is 900, and its p99 is"),
        (serving(request_throughput=5.0), "request_throughput is 5 per second, and 40 in 12.5 s are 3.2"),
        (serving(total_token_throughput=0.0), "all tokens is 0 per second, and the output tokens alone are 64"),
        (changed("request_latency", mean=9.0), "the mean of request_latency is"),
        (changed("request_latency", max=2.0**53), "the max of request_latency is 9.0072e+15 s, longer than any"),
        (changed("time_to_first_token_ms", max=1e11), "the max of time_to_first_token_ms is 1e+11 ms, longer than any"),
        (changed("tokens_per_second", mean=0.0, min=0.0), "tokens_per_second is 0 per second"),
        (changed("requests_per_second", mean=20.0, max=20.0), "requests_per_second is 20 per second, and 60 in 30 s"),
        (aiperf(request_count={"unit": "requests", "avg": 1.5}), "request_count is 1.5, which is no count"),
        (aiperf(benchmark_duration=None), "how long it measured is not there"),
        (aiperf(input_config={"loadgen": {"concurrency": -3}}), "a concurrency of -3"),
    ],
)
def test_values_that_contradict_each_other_are_refused(write, content, words):
    """And times at which nobody measured."""
    path = write(content)
    with pytest.raises(BadInput) as raised:
        imported_run([path], name="x")
    assert raised.value.message.startswith(f"{path}: a damaged result: ")
    assert words in raised.value.message


def test_same_result_twice_is_refused(write):
    """By its content: the same path, a copy, and a line that was appended twice."""
    first, copy = write(serving(), "a.json"), write(serving(), "b.json")
    for paths in ([first, first], [first, copy]):
        with pytest.raises(BadInput, match=f"{paths[1].name}: the same result as .*a.json"):
            imported_run(paths, name="x")
    lines = [json.dumps(one) for one in (serving(), serving(users=8), serving())]
    with pytest.raises(BadInput, match=r"lines.jsonl, line 3: the same result as .*lines.jsonl, line 1"):
        imported_run([write("\n".join(lines), "lines.jsonl")], name="x")


def test_rates_that_guidellm_has_not_are_computed(write):
    """From its counts: a level that made tokens has no rate of 0."""
    content = guidellm()
    for name in ("requests_per_second", "output_tokens_per_second", "tokens_per_second"):
        del content["benchmarks"][0]["metrics"][name]
    throughput = imported_run([write(content)], name="x").levels[0].throughput
    assert (throughput.requests_per_s, throughput.output_tokens_per_s, throughput.total_tokens_per_s) == (2, 128, 384)


def test_aiperf_with_requests_of_another_run_is_refused(write):
    """The number that ended ok is not that of the summary; a line that is wrong is named."""
    summary = write(aiperf(), "profile_export_aiperf.json")
    write("\n".join(map(json.dumps, aiperf_records(39))), "profile_export.jsonl")
    with pytest.raises(BadInput, match="request_count is 40, and 39 requests ended without an error"):
        imported_run([summary], name="x")
    lines = aiperf_records()
    lines[7]["metadata"]["request_end_ns"] -= 10**9
    write("\n".join(map(json.dumps, lines)), "profile_export.jsonl")
    with pytest.raises(
        BadInput, match=r"profile_export\.jsonl, line 8: a damaged result: the request ends before it begins"
    ):
        imported_run([summary], name="x")


@pytest.mark.parametrize("content", [serving(model_id="q\ud800n", base_url="\udc00"), aiperf(aiperf_version="\udfff")])
def test_half_of_a_surrogate_pair_is_replaced(write, content):
    """It cannot be written; what is saved is read again."""
    path = write(content)
    done = typed("import", path.name, "--out", "out", cwd=path.parent)
    assert done.returncode == 0, done.stderr
    (folder,) = (path.parent / "out").iterdir()
    assert "\ufffd" in (folder / "run.json").read_text(encoding="utf-8")
    assert read_run(folder).imported is not None


def test_counts_with_a_point_are_counts(write):
    """Tools that compute with floats write them so."""
    (level,) = imported_run([write(serving(completed=40.0, total_output_tokens=800.0))], name="x").levels
    assert (level.outcomes, level.tokens.output) == ({"ok": 40}, 800)


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
    content = data.draw(st.sampled_from([serving(requests=3), guidellm(), aiperf(), aiperf_records(1)[0]]))
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
