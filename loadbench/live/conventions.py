"""Names and buckets of the metrics that a run exports while it goes on, by version of the conventions for them.

The names are those of OpenTelemetry's semantic conventions for generative AI, whose status is Development: they may
change. `OTEL_SEMCONV_STABILITY_OPT_IN=gen_ai_latest_experimental` chooses the newest here, as it does for other
programs. What these conventions do not have is named `loadbench.…`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping


class Instrument(NamedTuple):
    """A metric: its name and unit as OpenTelemetry writes them, and the upper bounds of its buckets."""

    name: str
    unit: str
    help: str
    bounds: tuple[float, ...] = ()


_CLIENT_S = tuple(round(0.01 * 2**power, 2) for power in range(14))  # 10 ms to 81.92 s
_TOKENS = tuple(float(4**power) for power in range(14))  # 1 to 67,108,864
_FIRST_TOKEN_S = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
_PER_TOKEN_S = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)

_V1_42 = {
    "duration": Instrument("gen_ai.client.operation.duration", "s", "From sending a request to its end.", _CLIENT_S),
    "first_chunk": Instrument(
        "gen_ai.client.operation.time_to_first_chunk", "s", "From sending a request to its first chunk.", _CLIENT_S
    ),
    "chunk_gap": Instrument(
        "gen_ai.client.operation.time_per_output_chunk", "s", "Between two chunks with tokens.", _CLIENT_S
    ),
    "input_tokens": Instrument("gen_ai.client.token.usage", "{token}", "Tokens of a request.", _TOKENS),
    "output_tokens": Instrument("gen_ai.client.token.usage", "{token}", "Tokens of a request.", _TOKENS),
    "server_duration": Instrument(
        "gen_ai.server.request.duration", "s", "The time of a request as its server reports it.", _CLIENT_S
    ),
    "server_first_token": Instrument(
        "gen_ai.server.time_to_first_token", "s", "Queue and prefill as the server reports them.", _FIRST_TOKEN_S
    ),
    "server_per_token": Instrument(
        "gen_ai.server.time_per_output_token", "s", "Decoding per token as the server reports it.", _PER_TOKEN_S
    ),
}
# Attributes that only one of two metrics of the same name has.
TOKEN_TYPES: Final[Mapping[str, str]] = {"input_tokens": "input", "output_tokens": "output"}
_LATEST = _V1_42 | {
    kind: Instrument(
        f"gen_ai.client.inference.operation.{kind}", "{token}", f"The {name} tokens of a request.", _TOKENS
    )
    for kind, name in TOKEN_TYPES.items()
}
CONVENTIONS: Final[Mapping[str, Mapping[str, Instrument]]] = {"1.42": _V1_42, "latest": _LATEST}

# Ours: what no convention has.
TTFT = Instrument("loadbench.time_to_first_token", "s", "From sending a request to its first token.", _FIRST_TOKEN_S)
REQUESTS = Instrument("loadbench.requests", "{request}", "Requests that ended, by outcome and phase of their level.")
TOKENS = Instrument("loadbench.output_tokens", "{token}", "Output tokens received, those of unfinished responses too.")
IN_FLIGHT = Instrument("loadbench.requests.in_flight", "{request}", "Requests sent that have not ended.")
LEVEL = Instrument("loadbench.level", "1", "The number of the level that is running, from 1.")
INFO = Instrument("loadbench.info", "1", "1; its attributes say which program measures, and whether it simulates.")


def conventions(environment: Mapping[str, str]) -> Mapping[str, Instrument]:
    """The instruments of the version that the environment chooses."""
    opted = environment.get("OTEL_SEMCONV_STABILITY_OPT_IN", "")
    latest = "gen_ai_latest_experimental" in {word.strip() for word in opted.split(",")}
    return CONVENTIONS["latest" if latest else "1.42"]
