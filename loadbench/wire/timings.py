"""The server's own times of a request, where an answer has them, usually in its last frame.

    llama.cpp   "timings": {"cache_n": 0, "prompt_n": 30, "prompt_ms": 4.8, "predicted_n": 24, "predicted_ms": 4.7, …}
    vLLM        "metrics": {"queue_time_ms": …, "time_to_first_token_ms": …, "generation_time_ms": …}
                with --enable-per-request-metrics; its first token counts from when the request was scheduled
    Ollama      "prompt_eval_count", "prompt_eval_duration", "eval_count", "eval_duration" in ns, beside `done`

llama.cpp's `predicted_ms` begins at the first token. Of an answer of one token it is the time of nothing (1 µs, at a
rate of 0 or 1,000,000 tokens/s), and is left out.
"""

from __future__ import annotations

from typing import Any

from loadbench.record.timings import Timings

_NS_PER_MS = 1e6
# No request takes a month, and no answer has so many tokens: what is above is a slip of the server.
_MOST_NS = 30 * 24 * 3600 * 10**9
_MOST_TOKENS = 2**40


def timings_in(document: dict[str, Any]) -> Timings | None:
    """Those of one frame; `None` where it has none that can be believed."""
    told = document.get("timings")
    if isinstance(told, dict):
        return _some(_llamacpp(told))
    told = document.get("metrics")
    if isinstance(told, dict):
        return _some(_vllm(told))
    return None


def ollama_timings(document: dict[str, Any]) -> Timings | None:
    """Those of Ollama's last object."""
    made = _count(document.get("eval_count"))
    return _some(
        Timings(
            prefill_ns=_ns(document.get("prompt_eval_duration"), 1),
            decode_ns=_ns(document.get("eval_duration"), 1) if made and made > 1 else None,
            prompt_tokens=_count(document.get("prompt_eval_count")),
            output_tokens=made,
        )
    )


def _llamacpp(told: dict[str, Any]) -> Timings:
    made = _count(told.get("predicted_n"))
    return Timings(
        prefill_ns=_ns(told.get("prompt_ms"), _NS_PER_MS),
        decode_ns=_ns(told.get("predicted_ms"), _NS_PER_MS) if made and made > 1 else None,
        prompt_tokens=_count(told.get("prompt_n")),
        output_tokens=made,
        cached_tokens=_count(told.get("cache_n")),
    )


def _vllm(told: dict[str, Any]) -> Timings:
    return Timings(
        queue_ns=_ns(told.get("queue_time_ms"), _NS_PER_MS),
        prefill_ns=_ns(told.get("time_to_first_token_ms"), _NS_PER_MS),
        decode_ns=_ns(told.get("generation_time_ms"), _NS_PER_MS),
    )


def _some(told: Timings) -> Timings | None:
    """Without a single time there is nothing to tell."""
    return None if told.queue_ns is None and told.prefill_ns is None and told.decode_ns is None else told


def _ns(value: object, scale: float) -> int | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= _MOST_NS / scale:
        return None
    return round(value * scale)


def _count(value: object) -> int | None:
    return value if type(value) is int and 0 <= value <= _MOST_TOKENS else None
