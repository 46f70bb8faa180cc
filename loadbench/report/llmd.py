"""The benchmark report of llm-d, version 0.2.1: one document for each level, which is a stage there.

Its readers refuse fields that they do not know, so all that is in no field of theirs is in `scenario.load.native`: the
verdict, the intervals and the settings. Statistics have the units of the report; latencies are in seconds.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import msgspec

from loadbench.core.text import printable, printable_json
from loadbench.core.units import NS_PER_S
from loadbench.record.histogram import Histogram
from loadbench.record.outcome import Outcome, failed_of
from loadbench.report.values import reason_text
from loadbench.results.folder import slug
from loadbench.results.run import ClosedLoad

if TYPE_CHECKING:
    from loadbench.results.run import LevelResult, Metric, Run

VERSION: Final = "0.2.1"
# Its names of latencies, ours, and the unit that it allows.
_LATENCIES = {
    "time_to_first_token": ("ttft_s", "s"),
    "normalized_time_per_output_token": ("e2e_per_token_s", "s/token"),
    "time_per_output_token": ("tpot_classic_s", "s/token"),
    "inter_token_latency": ("itl_s", "s/token"),
    "request_latency": ("e2e_s", "s"),
}
_QUANTILES = {"p50": "p50", "p90": "p90", "p95": "p95", "p99": "p99", "p999": "p99p9"}
_FROM_HISTOGRAM = {"p0p1": 0.1, "p1": 1, "p5": 5, "p10": 10, "p25": 25, "p75": 75}
# Its names of what a server reports, ours, and the unit.
_GAUGES = {
    "running_requests": ("server_running", "count"),
    "waiting_requests": ("server_queued", "count"),
    "kv_cache_usage": ("server_kv_use", "fraction"),
}


def llmd(run: Run, *, prefix: str = "") -> dict[str, str]:
    """By file name, the report of each level as JSON, which is YAML too. `prefix` tells the run from others."""
    reports = {}
    for stage, level in enumerate(run.levels):
        name = slug(f"benchmark_report_v{VERSION}-{prefix}{stage}-{level.load.label}-{level.model}")
        raw = msgspec.json.encode(_report(run, stage, level, prefix))
        reports[f"{name}.json"] = printable_json(msgspec.json.format(raw, indent=2)).decode() + "\n"
    return reports


def _report(run: Run, stage: int, level: LevelResult, prefix: str) -> dict[str, Any]:
    requests = level.tokens
    known_input, ok = level.outcomes.get("ok", 0) - requests.unknown_input, level.outcomes.get("ok", 0)
    failed, _ = failed_of(level.outcomes)
    about: dict[str, Any] = {
        "uid": f"{slug(run.name)}-{re.sub(r'[^0-9TZ]', '', run.started_at)}-{prefix}{stage}",
        "eid": f"{slug(run.name)}-{re.sub(r'[^0-9TZ]', '', run.started_at)}",
        "description": printable("; ".join(text for text in (run.question, _verdict(level)) if text)),
        "keywords": [f"verdict:{level.verdict.status}", *(["simulated"] if run.simulated else [])],
    }
    try:
        started = datetime.fromisoformat(run.started_at)
        opens_ns, closes_ns = level.window_ns or (None, None)
        if opens_ns is not None and closes_ns is not None:
            moments = [started + timedelta(microseconds=at_ns // 1000) for at_ns in (opens_ns, closes_ns)]
            start, end = (moment.isoformat().replace("+00:00", "Z") for moment in moments)
            about["time"] = {"start": start, "end": end, "duration": f"PT{(closes_ns - opens_ns) / NS_PER_S:.6g}S"}
    except ValueError:
        pass  # a damaged time is no time

    lengths = {
        "input_length": requests.input / known_input if known_input > 0 else None,
        "output_length": requests.output / ok if ok else None,
    }
    aggregate = {
        "requests": {
            "total": sum(level.outcomes.values()),
            "failures": failed,
            "incomplete": sum(level.outcomes.get(each, 0) for each in (Outcome.CANCELLED, Outcome.GAVE_UP)),
            **{name: {"units": "count", "mean": mean} for name, mean in lengths.items() if mean is not None},
        },
        "latency": {
            name: _statistics(metric, unit)
            for name, (ours, unit) in _LATENCIES.items()
            if (metric := level.metrics.get(ours)) is not None
        },
        "throughput": {
            "input_token_rate": {
                "units": "tokens/s",
                "mean": level.throughput.total_tokens_per_s - level.throughput.output_tokens_per_s,
            },
            "output_token_rate": {"units": "tokens/s", "mean": level.throughput.output_tokens_per_s},
            "total_token_rate": {"units": "tokens/s", "mean": level.throughput.total_tokens_per_s},
            "request_rate": {"units": "queries/s", "mean": level.throughput.requests_per_s},
        },
    }
    report: dict[str, Any] = {
        "version": VERSION,
        "run": about,
        "results": {"request_performance": {"aggregate": aggregate}},
    }
    gauges = {} if level.telemetry is None else level.telemetry.gauges
    seen = {name: (gauges[ours], unit) for name, (ours, unit) in _GAUGES.items() if ours in gauges}
    if seen:
        resources = {
            name: {"units": unit, "mean": gauge.mean, "min": gauge.min, "max": gauge.max}
            for name, (gauge, unit) in seen.items()
        }
        component = {"component_label": printable(level.target), "aggregate": resources}
        report["results"]["observability"] = {"components": [component]}
    # The length of the prompts must be there; without it there can be no description of the load.
    if lengths["input_length"] is not None:
        workers = run.environment.get("workers")
        standardized: dict[str, Any] = {
            "tool": "loadbench",
            "tool_version": run.loadbench_version or "unknown",
            "parallelism": workers if isinstance(workers, int) and workers > 0 else 1,
            "source": "sampled" if run.prompts or run.data_set is not None else "random",
            "stage": stage,
            "input_seq_len": {"distribution": "other", "value": lengths["input_length"]},
            **({"multi_turn": {"enabled": True}} if len(level.turns) > 1 else {}),
        }
        if isinstance(level.load, ClosedLoad):
            standardized["concurrency"] = level.load.users
        else:
            standardized["rate_qps"] = level.load.rate_per_s
        config = {
            "model": level.model,
            "target": level.targets or level.target,
            "load": msgspec.to_builtins(level.load),
            "verdict": msgspec.to_builtins(level.verdict),
            "outcomes": level.outcomes,
            "intervals": {
                name: {"units": "s", **metric.interval} for name, metric in level.metrics.items() if metric is not None
            },
            "throughput_intervals": level.throughput.interval,
            "scenario": run.scenario,
        }
        load = {
            "metadata": {"cfg_id": run.content_hash or None, "description": printable(level.load.label)},
            "standardized": standardized,
            "native": {"config": config},
        }
        report["scenario"] = {"load": load}
    return report


def _verdict(level: LevelResult) -> str:
    reasons = [f"{reason_text(reason.message, reason.code)}; {reason.advice}" for reason in level.verdict.reasons]
    return f"{level.verdict.status}: {'. '.join(reasons)}" if reasons else level.verdict.status


def _statistics(metric: Metric, unit: str) -> dict[str, Any]:
    """Statistics of a latency: those of the result, and others from its histogram."""
    found: dict[str, Any] = {"units": unit, "mean": metric.mean, "min": metric.min, "max": metric.max}
    found |= {name: getattr(metric, ours) for ours, name in _QUANTILES.items()}
    if metric.hdr:
        histogram = Histogram.decode(metric.hdr)
        found["stddev"] = (histogram.stddev or 0) / NS_PER_S
        found |= {name: (histogram.percentile(p) or 0) / NS_PER_S for name, p in _FROM_HISTOGRAM.items()}
    return found
