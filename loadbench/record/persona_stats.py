"""What the measured requests of one persona came to, and what a prefix cache did for those that repeat a beginning."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from loadbench.record.histogram import Histogram
from loadbench.record.outcome import Outcome

if TYPE_CHECKING:
    from loadbench.record.sample import Sample

# The figures that are kept by persona; response times count from when a request was due.
FIGURES: Final = ("ttft_response", "e2e_response", "tpot")


@dataclass(slots=True)
class PersonaStats:
    """The measured requests of one persona; histograms are of those that ended ok, in ns."""

    requests: int = 0
    ok: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    histograms: dict[str, Histogram] = field(default_factory=lambda: {name: Histogram() for name in FIGURES})

    def add(self, sample: Sample) -> None:
        """Add one request."""
        self.requests += 1
        if sample.outcome is not Outcome.OK:
            return
        self.ok += 1
        self.input_tokens += sample.input_tokens or 0
        self.output_tokens += sample.output_tokens or 0
        times = (sample.since_due(sample.first_token_ns), sample.since_due(sample.last_token_ns), sample.tpot())
        for name, time_ns in zip(FIGURES, times, strict=True):
            if time_ns is not None:
                self.histograms[name].record(round(time_ns))


@dataclass(slots=True)
class PrefixCacheStats:
    """Warm requests: measured ones that ended ok and whose beginning had been sent before, so it should be cached."""

    requests: int = 0
    cached: int = 0  # requests for which the server reported that more than a template was cached
    input_tokens: int = 0  # of requests for which the server reported both numbers
    cached_tokens: int = 0

    def add(self, sample: Sample, *, is_cached: bool) -> None:
        """Add one request."""
        self.requests += 1
        self.cached += is_cached
        if sample.cached_tokens is not None and sample.input_tokens is not None:
            self.input_tokens += sample.input_tokens
            self.cached_tokens += sample.cached_tokens
