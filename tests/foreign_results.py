"""Results as other load testers write them, in round numbers."""

from __future__ import annotations

import math
from typing import Any


def serving(*, users: int = 4, requests: int = 40, detailed: bool = True, **over: Any) -> dict[str, Any]:
    """A result as `vllm bench serve` writes it: each response has 11 frames, 10 ms apart, of 20 tokens."""
    ttfts = [0.05 * users + 0.001 * (number % 7) for number in range(requests)]
    made: dict[str, Any] = {
        "date": "20261105-123456",
        "backend": "openai-chat",
        "model_id": "qwen",
        "num_prompts": requests,
        "request_rate": "inf",
        "burstiness": 1.0,
        "max_concurrency": users,
        "duration": 12.5,
        "completed": requests,
        "failed": 0,
        "total_input_tokens": 100 * requests,
        "total_output_tokens": 20 * requests,
        "request_throughput": requests / 12.5,
        "output_throughput": 20 * requests / 12.5,
        "total_token_throughput": 120 * requests / 12.5,
        "mean_ttft_ms": 1e3 * math.fsum(ttfts) / requests,
        "median_ttft_ms": 1e3 * sorted(ttfts)[requests // 2],
        "p99_ttft_ms": 1e3 * max(ttfts),
        "mean_tpot_ms": 100 / 19,
        "mean_itl_ms": 10.0,
    }
    if detailed:
        made |= {
            "input_lens": [100] * requests,
            "output_lens": [20] * requests,
            "ttfts": ttfts,
            "itls": [[0.01] * 10] * requests,
            "errors": [""] * requests,
        }
    return made | over


def guidellm(**over: Any) -> dict[str, Any]:
    """A report of guidellm with one benchmark of eight concurrent streams."""

    def summary(value: float) -> dict[str, Any]:
        points = {"p001": value, "p50": value, "p90": value, "p95": value, "p99": value, "p999": value}
        figures = {"mean": value, "median": value, "min": value, "max": value, "count": 60, "total_sum": 60 * value}
        return {"successful": {**figures, "percentiles": points}, "total": {**figures, "percentiles": points}}

    benchmark = {
        "type_": "generative_benchmark",
        "config": {
            "strategy": {"type_": "concurrent", "streams": 8},
            "backend": {"target": "http://127.0.0.1:8000", "model": "qwen"},
        },
        "scheduler_metrics": {"requests_made": {"successful": 60, "errored": 2, "incomplete": 1, "total": 63}},
        "metrics": {
            "requests_per_second": summary(2.0),
            "output_tokens_per_second": summary(128.0),
            "tokens_per_second": summary(384.0),
            "request_concurrency": summary(8.0),
            "prompt_token_count": summary(128.0),
            "output_token_count": summary(64.0),
            "time_to_first_token_ms": summary(250.0),
            "time_per_output_token_ms": summary(60.0),
            "inter_token_latency_ms": summary(57.0),
            "request_latency": summary(3.84),
        },
        "start_time": 1786678148.25,
        "duration": 30.0,
    }
    return {"metadata": {"version": 2, "guidellm_version": "0.7.3"}, "config": {}, "benchmarks": [benchmark | over]}


def aiperf(*, users: int = 4, requests: int = 40, **over: Any) -> dict[str, Any]:
    """The summary of aiperf 0.13: each response has 11 frames, 10 ms apart, of 20 tokens."""

    def record(value: float, unit: str = "ms") -> dict[str, Any]:
        points = dict.fromkeys(
            ("avg", "min", "max", "p1", "p5", "p10", "p25", "p50", "p75", "p90", "p95", "p99"), value
        )
        return {"unit": unit, **points, "std": 0.0, "count": requests, "sum": requests * value}

    made: dict[str, Any] = {
        "schema_version": "1.4",
        "aiperf_version": "0.13.0",
        "benchmark_id": "65da376e6c1d",
        "request_throughput": {"unit": "requests/sec", "avg": requests / 12.5},
        "request_latency": record(300.0),
        "request_count": {"unit": "requests", "avg": float(requests)},
        "time_to_first_token": record(200.0),
        "inter_token_latency": record(100 / 19),
        "inter_chunk_latency": record(10.0),
        "output_token_throughput": {"unit": "tokens/sec", "avg": 20 * requests / 12.5},
        "total_token_throughput": {"unit": "tokens/sec", "avg": 120 * requests / 12.5},
        "benchmark_duration": {"unit": "sec", "avg": 12.5},
        "total_isl": {"unit": "tokens", "avg": 100.0 * requests},
        "total_osl": {"unit": "tokens", "avg": 20.0 * requests},
        "effective_concurrency": {"unit": "requests", "avg": 3.2, "p50": 4.0, "p99": 4.0, "min": 0.0, "max": 4.0},
        "input_config": {
            "models": {"items": [{"name": "qwen"}]},
            "endpoint": {"urls": ["http://127.0.0.1:8000"], "type": "chat", "streaming": True},
            "phases": [
                {"name": "warmup", "kind": "warmup", "type": "concurrency", "requests": 3, "concurrency": 1},
                {"name": "profiling", "kind": "profiling", "type": "concurrency", "concurrency": users},
            ],
        },
        "run_info": {"benchmark_id": "65da376e6c1d", "trial": 0},
        "was_cancelled": False,
        "error_summary": [],
        "start_time": "2026-11-05T12:34:56.250000",
        "end_time": "2026-11-05T12:35:08.750000",
    }
    return made | over


def aiperf_records(requests: int = 40, *, failed: int = 0, warmup: int = 0) -> list[dict[str, Any]]:
    """The lines of its requests, the last first: those of the warm-up, those that end ok, and those that fail."""

    def line(number: int, phase: str, metrics: dict[str, Any], error: dict[str, Any] | None) -> dict[str, Any]:
        begin_ns = 1_793_882_096_250_000_000 + number * 300_000_000
        return {
            "metadata": {
                "session_num": number,
                "request_start_ns": begin_ns,
                "request_end_ns": begin_ns + 300_000_000,
                "worker_id": "worker_1",
                "benchmark_phase": phase,
                "was_cancelled": False,
            },
            "metrics": metrics,
            "error": error,
        }

    measured = {
        "request_latency": {"value": 300.0, "unit": "ms"},
        "time_to_first_token": {"value": 200.0, "unit": "ms"},
        "inter_token_latency": {"value": 100 / 19, "unit": "ms"},
        "inter_chunk_latency": {"value": [10.0] * 10, "unit": "ms"},
        "input_sequence_length": {"value": 100, "unit": "tokens"},
        "output_sequence_length": {"value": 20, "unit": "tokens"},
    }
    error = {"code": 500, "type": "HTTPError", "message": "no"}
    lines = [line(number, "warmup", measured, None) for number in range(warmup)]
    lines += [line(warmup + number, "profiling", measured, None) for number in range(requests)]
    lines += [line(warmup + requests + number, "profiling", {}, error) for number in range(failed)]
    return lines[::-1]
