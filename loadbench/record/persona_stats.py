"""Who asked, and how far into a conversation: the measured requests of a level by persona and by turn."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from loadbench.record.histogram import Histogram
from loadbench.record.outcome import Outcome

if TYPE_CHECKING:
    from loadbench.record.sample import Sample

# What is told of each persona apart; response times count from when a request was due.
FIGURES: Final = ("ttft_response", "e2e_response", "tpot")


@dataclass(slots=True)
class Cohort:
    """The measured requests of one persona; histograms are of those that ended ok, in ns."""

    requests: int = 0
    ok: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    histograms: dict[str, Histogram] = field(default_factory=lambda: {name: Histogram() for name in FIGURES})

    def add(self, sample: Sample) -> None:
        """One request more."""
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
class PersonaStats:
    """Those of a level. Warm requests are those whose beginning had been asked before, and should be cached."""

    personas: dict[str, Cohort] = field(default_factory=dict)
    turns: dict[int, int] = field(default_factory=dict)  # measured requests by turn
    warm: int = 0  # ok ones that are warm
    warm_cached: int = 0  # of these, those of which the server said that something was cached
    warm_input_tokens: int = 0
    warm_cached_tokens: int = 0

    def add(self, sample: Sample, *, cached: bool) -> None:
        """One measured request more, and whether so much of it was cached that it counts as such."""
        request = sample.request
        if request.persona is not None:
            self.personas.setdefault(request.persona, Cohort()).add(sample)
        if request.turn is not None:
            self.turns[request.turn] = self.turns.get(request.turn, 0) + 1
        if request.warm and sample.outcome is Outcome.OK:
            self.warm += 1
            self.warm_cached += cached
            if sample.cached_tokens is not None and sample.input_tokens is not None:
                self.warm_input_tokens += sample.input_tokens
                self.warm_cached_tokens += sample.cached_tokens
