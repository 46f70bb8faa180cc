"""Requests as they are read back, in round numbers."""

from __future__ import annotations

from loadbench.results.requests import RequestRecord

S = 1_000_000_000


def a_request(
    number: int = 0, *, e2e_s: float = 1.0, ttft_s: float = 0.1, tokens: int = 10, **over: object
) -> RequestRecord:
    """A measured answer to prompt 0, sent as it was due; any field can be overridden."""
    sent_ns = number * 10 * S
    fields: dict[str, object] = {
        "level": 0,
        "phase": "measured",
        "outcome": "ok",
        "number": number,
        "due_ns": sent_ns,
        "sent_ns": sent_ns,
        "connect_ns": None,
        "first_byte_ns": sent_ns + round(ttft_s * S),
        "first_token_ns": sent_ns + round(ttft_s * S),
        "first_visible_ns": sent_ns + round(ttft_s * S),
        "last_token_ns": sent_ns + round(e2e_s * S),
        "end_ns": sent_ns + round(e2e_s * S),
        "event_gaps_ns": [],
        "event_tokens": None,
        "output_tokens": tokens,
        "token_source": "usage",
        "input_tokens": 5,
        "asked_output_tokens": tokens,
        "prompt_index": 0,
        "prompt_hash": "00000000",
        **over,
    }
    return RequestRecord(**fields)


def a_failed_request(number: int = 0, **over: object) -> RequestRecord:
    """One that had no answer."""
    gone: dict[str, object] = dict.fromkeys(("first_byte_ns", "first_token_ns", "first_visible_ns", "last_token_ns"))
    return a_request(number, **{**gone, "outcome": "http_error", "output_tokens": None, "input_tokens": None, **over})
