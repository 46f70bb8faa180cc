"""The figures of a group of requests in a level (those of one persona, of one model of a mix, to one of several
servers), and what a prefix cache did for requests that repeat a beginning."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from loadbench.record.failure_counts import count_word, count_words
from loadbench.record.figures import FIGURES
from loadbench.record.histogram import Histogram
from loadbench.record.joining import plus
from loadbench.record.outcome import Outcome
from loadbench.record.window_tally import Production

if TYPE_CHECKING:
    from loadbench.record.sample import Sample

# The figures that are kept by group.
GROUP_FIGURES: Final = ("ttft", "ttft_response", "e2e_response", "tpot")


@dataclass(slots=True)
class GroupStats:
    """The measured requests of one group. Tokens, `models` (the names that responses gave; "" for none) and histograms,
    in ns, are of those that ended ok; `produced` is what arrived inside the window, whichever phase it belongs to."""

    outcomes: Counter[Outcome] = field(default_factory=Counter)
    input_tokens: int = 0
    output_tokens: int = 0
    models: Counter[str] = field(default_factory=Counter)
    histograms: dict[str, Histogram] = field(default_factory=lambda: {name: Histogram() for name in GROUP_FIGURES})
    produced: Production = field(default_factory=Production)

    @property
    def requests(self) -> int:
        """All of them."""
        return self.outcomes.total()

    @property
    def ok(self) -> int:
        """Those that ended ok."""
        return self.outcomes[Outcome.OK]

    def add(self, sample: Sample) -> None:
        """Add one measured request."""
        self.outcomes[sample.outcome] += 1
        if sample.outcome is not Outcome.OK:
            return
        self.input_tokens += sample.input_tokens or 0
        self.output_tokens += sample.output_tokens or 0
        count_word(self.models, sample.model or "")
        for name, histogram in self.histograms.items():
            value_ns = FIGURES[name](sample)
            if value_ns is not None:
                histogram.record(round(value_ns))

    def absorb(self, other: GroupStats) -> None:
        """Add the requests of another part of the load."""
        self.outcomes.update(other.outcomes)
        self.input_tokens += other.input_tokens
        self.output_tokens += other.output_tokens
        count_words(self.models, other.models)
        plus(self.histograms, other.histograms)


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
