"""The formats of traces, by name: a setting has them as its choices, so this module imports next to nothing."""

from __future__ import annotations

from typing import NamedTuple

from loadbench.core.units import NS_PER_S

NS_PER_MS = 1_000_000
# Tokens of a prompt that one id of a Mooncake trace stands for.
BLOCK_TOKENS = 512


class TraceFormat(NamedTuple):
    """A format; its columns as people write them, the unit of a time that is a number, and the tokens of a block."""

    title: str
    at: str
    input: str
    output: str
    unit_ns: int
    block_tokens: int = BLOCK_TOKENS


LENGTHS = ("timestamp", "input_length", "output_length")
FORMATS = {
    "mooncake": TraceFormat("Mooncake", *LENGTHS, unit_ns=NS_PER_MS),
    "bailian": TraceFormat("Qwen-Bailian", *LENGTHS, unit_ns=NS_PER_S, block_tokens=16),
    "azure": TraceFormat("Azure", "TIMESTAMP", "ContextTokens", "GeneratedTokens", unit_ns=NS_PER_S),
    "burstgpt": TraceFormat("BurstGPT", "Timestamp", "Request tokens", "Response tokens", unit_ns=NS_PER_S),
    "guidellm": TraceFormat("guidellm", *LENGTHS, unit_ns=NS_PER_S),
    "aiperf": TraceFormat("aiperf", *LENGTHS, unit_ns=NS_PER_MS),
    "loadbench": TraceFormat("loadbench", "due_ns", "input_tokens", "output_tokens", unit_ns=1),
}
AUTO = "auto"
