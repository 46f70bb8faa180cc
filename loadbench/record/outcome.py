"""How one request ended. Every request ends in exactly one of these, and none is dropped."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


class Outcome(StrEnum):
    """The end of one request, in the words of the result file."""

    OK = "ok"
    HTTP_ERROR = "http_error"  # a status other than 200
    STREAM_ERROR = "stream_error"  # an error event inside a 200
    TRUNCATED = "truncated"  # the stream ended without finish_reason and without [DONE]
    EMPTY = "empty"  # a clean end without one token
    PROTOCOL = "protocol"  # a frame that cannot be parsed, or a response that is not an event stream
    ENDLESS = "endless"  # many times longer than requested; the connection was closed
    REFUSED = "refused"  # no connection: refused, unknown host, TLS failure
    CLIENT_LIMIT = "client_limit"  # this machine had no socket, port or memory left for it
    RESET = "reset"  # the connection broke before the response was complete
    TIMEOUT_CONNECT = "timeout_connect"
    TIMEOUT_FIRST_TOKEN = "timeout_first_token"
    TIMEOUT_IDLE = "timeout_idle"
    TIMEOUT_TOTAL = "timeout_total"
    CANCELLED = "cancelled"  # cut by the user, or by a search that has measured enough
    ABANDONED = "abandoned"  # cut by the end of the drain
    GAVE_UP = "gave_up"  # its user lost patience and disconnected

    @property
    def left_out(self) -> bool:
        """Whether it says nothing about the server: cut before it could, or never sent."""
        return self in LEFT_OUT

    @property
    def failed(self) -> bool:
        """Whether the server, or the network, is to blame. One that the user cut, that was never sent, or whose user
        gave up, neither succeeded nor failed."""
        return self not in _NOT_FAILURES


LEFT_OUT = frozenset({Outcome.CANCELLED, Outcome.CLIENT_LIMIT})
_NOT_FAILURES = LEFT_OUT | {Outcome.OK, Outcome.GAVE_UP}


def failed_of(outcomes: Mapping[Outcome, int] | Mapping[str, int], missed: int = 0) -> tuple[int, int]:
    """(requests that failed, those that failed or succeeded); arrivals that were not sent (`missed`) failed as well."""
    failed = missed + sum(count for outcome, count in outcomes.items() if outcome not in _NOT_FAILURES)
    return failed, failed + outcomes.get(Outcome.OK, 0)


def without_hint(detail: str) -> str:
    """The detail of a failed connection without what to do about it, which a transport appends in parentheses."""
    return re.sub(r" \([^()]*\)$", "", detail)


class TokenSource(StrEnum):
    """Where the number of output tokens of a request comes from, best first."""

    USAGE = "usage"  # the server said so
    IDS = "ids"  # token ids or logprobs were counted
    EVENTS = "events"  # one token per event was assumed
    UNKNOWN = "unknown"
