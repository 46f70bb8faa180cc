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
