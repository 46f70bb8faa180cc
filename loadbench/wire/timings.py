"""The server's own times of a request, where a response has them, usually in its last frame.

    llama.cpp   "timings": {"cache_n": 0, "prompt_n": 30, "prompt_ms": 4.8, "predicted_n": 24, "predicted_ms": 4.7, …}
    vLLM        "metrics": {"queue_time_ms": …, "time_to_first_token_ms": …, "generation_time_ms": …}
                with --enable-per-request-metrics; the first token counts from when the request was scheduled
    Ollama      "prompt_eval_count", "prompt_eval_duration", "eval_count", "eval_duration" in ns, with `done`

llama.cpp's `predicted_ms` begins at the first token. For a response of one token it is meaningless (1 µs, at a rate of
0 or 1,000,000 tokens/s) and is left out.
"""

from __future__ import annotations

from typing import Any

from loadbench.record.timings import Timings
from loadbench.wire.usage import count

_NS_PER_MS = 1e6
# No request takes a month: higher values are a mistake of the server.
_MOST_NS = 30 * 24 * 3600 * 10**9


def timings_in(document: dict[str, Any]) -> Timings | None:
    """The times in one frame; `None` if it has none that are plausible."""
    fields = document.get("timings")
    if isinstance(fields, dict):
        tokens = count(fields.get("predicted_n"))
        return _if_any(
            Timings(
                prefill_ns=_ns(fields.get("prompt_ms"), _NS_PER_MS),
                decode_ns=_ns(fields.get("predicted_ms"), _NS_PER_MS) if tokens and tokens > 1 else None,
                prompt_tokens=count(fields.get("prompt_n")),
                output_tokens=tokens,
                cached_tokens=count(fields.get("cache_n")),
            )
        )
    fields = document.get("metrics")
    if isinstance(fields, dict):
        return _if_any(
            Timings(
                queue_ns=_ns(fields.get("queue_time_ms"), _NS_PER_MS),
                prefill_ns=_ns(fields.get("time_to_first_token_ms"), _NS_PER_MS),
                decode_ns=_ns(fields.get("generation_time_ms"), _NS_PER_MS),
            )
        )
    return None


def ollama_timings(document: dict[str, Any]) -> Timings | None:
    """The times in Ollama's last object; `None` if it has none that are plausible."""
    tokens = count(document.get("eval_count"))
    return _if_any(
        Timings(
            prefill_ns=_ns(document.get("prompt_eval_duration"), 1),
            decode_ns=_ns(document.get("eval_duration"), 1) if tokens and tokens > 1 else None,
            prompt_tokens=count(document.get("prompt_eval_count")),
            output_tokens=tokens,
        )
    )


def _if_any(timings: Timings) -> Timings | None:
    """The timings, or `None` if they have no time at all."""
    has_time = timings.queue_ns is not None or timings.prefill_ns is not None or timings.decode_ns is not None
    return timings if has_time else None


def _ns(value: object, scale: float) -> int | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= _MOST_NS / scale:
        return None
    return round(value * scale)
