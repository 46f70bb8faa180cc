"""`--format llmd`: documents that llm-d's benchmark report v0.2.1 allows, with our figures in its units."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest

from loadbench.plan.load import Closed
from loadbench.record.outcome import Outcome
from loadbench.report.llmd import llmd
from loadbench.results.folder import read_run
from loadbench.results.telemetry import Gauge, Telemetry
from tests.building import S, a_failure, a_level, a_recording, a_run, a_sample
from tests.cli.running import loadbench
from tests.report.golden import RUNS

SAMPLE = Path("results/20261124T230344Z-llamacpp-25m-8slots").resolve()


# Its quantiles, in their order.
POINTS = ("p0p1", "p1", "p5", "p10", "p25", "p50", "p75", "p90", "p95", "p99", "p99p9", "max")


def of(required: str = "", **properties: Any) -> dict[str, Any]:
    """An object with these fields and no others, as the report has them."""
    return {"type": "object", "properties": properties, "required": required.split(), "additionalProperties": False}


def statistics(*units: str) -> dict[str, Any]:
    """A statistic: its unit and its mean are there."""
    return of(
        "units mean",
        units={"enum": list(units)},
        mean={"type": "number"},
        **{point: {"type": "number"} for point in ("mode", "stddev", "min", *POINTS)},
    )


TEXT, COUNT = {"type": "string"}, {"type": "integer", "minimum": 0}
SECONDS, PER_TOKEN = statistics("s", "ms"), statistics("s/token", "ms/token")
LENGTH = of(
    "distribution value",
    distribution={"enum": ["fixed", "gaussian", "uniform", "other"]},
    value={"type": "number", "minimum": 0},
)
# The documented fields of the report that loadbench fills in, with the units that it allows; written from its
# description, and no stricter.
REPORT = of(
    "version run results",
    version={"const": "0.2.1"},
    run=of(
        "uid",
        uid=TEXT,
        eid=TEXT,
        description=TEXT,
        keywords={"type": "array", "items": TEXT},
        time=of(
            start={"type": "string", "format": "date-time"},
            end={"type": "string", "format": "date-time"},
            duration={"type": "string", "pattern": r"^PT[0-9.]+S$"},
        ),
    ),
    scenario=of(
        load=of(
            "metadata standardized native",
            metadata=of(cfg_id={"type": ["string", "null"]}, description=TEXT),
            standardized=of(
                "tool tool_version source input_seq_len",
                tool=TEXT,
                tool_version=TEXT,
                parallelism={"type": "integer", "minimum": 1},
                source={"enum": ["random", "sampled", "unknown"]},
                stage=COUNT,
                input_seq_len=LENGTH,
                multi_turn=of(enabled={"type": "boolean"}),
                rate_qps={"type": "number", "exclusiveMinimum": 0},
                concurrency={"type": "integer", "minimum": 1},
            ),
            native=of(config={"type": "object"}),
        )
    ),
    results=of(
        request_performance=of(
            aggregate=of(
                requests=of(
                    "total",
                    total=COUNT,
                    failures=COUNT,
                    incomplete=COUNT,
                    input_length=statistics("count"),
                    output_length=statistics("count"),
                ),
                latency=of(
                    time_to_first_token=SECONDS,
                    normalized_time_per_output_token=PER_TOKEN,
                    time_per_output_token=PER_TOKEN,
                    inter_token_latency=PER_TOKEN,
                    request_latency=SECONDS,
                ),
                throughput=of(
                    input_token_rate=statistics("tokens/s"),
                    output_token_rate=statistics("tokens/s"),
                    total_token_rate=statistics("tokens/s"),
                    request_rate=statistics("queries/s"),
                ),
            )
        ),
        observability=of(
            components={
                "type": "array",
                "items": of(
                    "component_label",
                    component_label=TEXT,
                    aggregate=of(
                        running_requests=statistics("count"),
                        waiting_requests=statistics("count"),
                        kv_cache_usage=statistics("fraction", "percent"),
                    ),
                ),
            }
        ),
    ),
)


@pytest.mark.parametrize("name", RUNS)
def test_every_level_is_a_report_that_llmd_allows(name: str) -> None:
    """One a level, hostile and stopped runs among them."""
    run = RUNS[name]()
    reports = llmd(run)
    assert len(reports) == len(run.levels)
    for text in reports.values():
        jsonschema.validate(json.loads(text), REPORT)
        assert text.isprintable() or not any(ord(letter) < 32 and letter != "\n" for letter in text)


def test_figures_are_those_of_the_level() -> None:
    """Quantiles of the result, others of its histogram, in their order; the verdict and intervals are beside them."""
    run = read_run(SAMPLE)
    for stage, (text, level) in enumerate(zip(llmd(run).values(), run.levels, strict=True)):
        report = json.loads(text)
        aggregate = report["results"]["request_performance"]["aggregate"]
        ttft, ours = aggregate["latency"]["time_to_first_token"], level.metrics["ttft_s"]
        assert (ttft["p50"], ttft["p99p9"], ttft["mean"]) == (ours.p50, ours.p999, ours.mean)
        order = [ttft[name] for name in POINTS]
        assert order == sorted(order)
        assert aggregate["throughput"]["output_token_rate"]["mean"] == level.throughput.output_tokens_per_s
        assert aggregate["requests"]["output_length"]["mean"] == level.tokens.output / level.outcomes["ok"]
        load = report["scenario"]["load"]
        assert (load["standardized"]["stage"], load["standardized"]["concurrency"]) == (stage, level.load.users)
        assert load["native"]["config"]["verdict"]["status"] == level.verdict.status
        assert load["native"]["config"]["intervals"]["ttft_s"]["p50"] == list(ours.interval["p50"])
        assert f"verdict:{level.verdict.status}" in report["run"]["keywords"]


def test_what_the_server_reports_and_what_fails_is_there() -> None:
    """Failures, requests that the user cut, and the gauges of the server's own page."""
    samples = [a_sample(n, due_ns=n * S) for n in range(8)]
    samples += [a_failure(Outcome.RESET, number=8, due_ns=8 * S), a_failure(Outcome.CANCELLED, number=9, due_ns=9 * S)]
    gauge = Gauge(mean=3.0, min=0.0, max=4.0, last=1.0, readings=9)
    level = msgspec.structs.replace(
        a_level(recording=a_recording(samples), load=Closed(4)),
        telemetry=Telemetry(gauges={"server_running": gauge, "host_cpu_share": gauge}),
    )
    (text,) = llmd(a_run(level)).values()
    report = json.loads(text)
    jsonschema.validate(report, REPORT)
    requests = report["results"]["request_performance"]["aggregate"]["requests"]
    assert (requests["total"], requests["failures"], requests["incomplete"]) == (10, 1, 1)
    (component,) = report["results"]["observability"]["components"]
    assert component["aggregate"] == {"running_requests": {"units": "count", "mean": 3.0, "min": 0.0, "max": 4.0}}


def test_levels_are_files_or_a_stream(tmp_path: Path) -> None:
    """With `--out` a folder of JSON files, each a level; on stdout one after the other, as YAML has documents."""
    done = loadbench("report", str(SAMPLE), "--format", "llmd", "--out", "stages", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    files = sorted((tmp_path / "stages").iterdir())
    assert [json.loads(file.read_bytes())["scenario"]["load"]["standardized"]["stage"] for file in files] == [*range(6)]
    printed = loadbench("report", str(SAMPLE), "--format", "llmd", cwd=tmp_path).stdout
    assert [json.loads(part) for part in printed.split("---\n")] == [json.loads(file.read_bytes()) for file in files]
