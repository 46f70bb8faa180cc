"""How one request ended. Every request ends in exactly one of these, and none is dropped."""

from __future__ import annotations

from enum import StrEnum


class Outcome(StrEnum):
    """The end of one request, in the words of the result file."""

    OK = "ok"
    HTTP_ERROR = "http_error"  # a status other than 200
    STREAM_ERROR = "stream_error"  # an error event inside a 200
    TRUNCATED = "truncated"  # the stream ended without finish_reason and without [DONE]
    EMPTY = "empty"  # a clean end without one token
    PROTOCOL = "protocol"  # a frame that cannot be parsed, or a response that is not an event stream
    REFUSED = "refused"  # no connection: refused, unknown host, TLS failure
    RESET = "reset"  # the connection broke before the response was complete
    TIMEOUT_CONNECT = "timeout_connect"
    TIMEOUT_FIRST_TOKEN = "timeout_first_token"
    TIMEOUT_IDLE = "timeout_idle"
    TIMEOUT_TOTAL = "timeout_total"
    CANCELLED = "cancelled"  # cut by the user, or by a search that has measured enough
    ABANDONED = "abandoned"  # cut by the end of the drain
    GAVE_UP = "gave_up"  # its user lost patience and disconnected

    @property
    def failed(self) -> bool:
        """Whether the server, or the network, is to blame: neither a success nor cut on purpose."""
        return self not in _NOT_FAILURES


_NOT_FAILURES = frozenset({Outcome.OK, Outcome.CANCELLED, Outcome.ABANDONED, Outcome.GAVE_UP})


class TokenSource(StrEnum):
    """Where the number of output tokens of a request comes from, best first."""

    USAGE = "usage"  # the server said so
    IDS = "ids"  # token ids or logprobs were counted
    EVENTS = "events"  # one token per event was assumed
    UNKNOWN = "unknown"
