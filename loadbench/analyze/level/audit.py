"""The self-audit of a level: what is counted in two ways comes to the same.

Each identity holds for whatever a server does, so that one which fails is a fault of loadbench.

*Little's law.* Requests in flight, averaged over a window of length T, are the rate of completions times the mean
residence, but for the window's edges. For every request r let i(r) be what of its way lies inside. The area below the
number in flight is `Σ i(r)`; completions times residence is `Σ way(r)` over those that ended inside. The two differ by
what the ended had of their way before the window (at most all of it), and by what those not ended have inside: no more
than the sum of both parts, which is known, over T. A request counts as in flight from when it was made, somewhat before
it is sent: what lies between due and sent is added to the allowance.

*Tokens.* Those of all measured answers, less what came outside the window, and with what the others brought inside, are
those of the window. *Slices* have them all, but for one that an answer may lose by rounding where its tokens had to be
shared out. *Gaps* are what is between first and last token, to the nanosecond. *TPOT* weighted by its tokens is the ITL
weighted by its own, which rounds to the nanosecond. *Peak*: a closed loop has at most one request for each user.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadbench.plan.load import Closed
from loadbench.results.run import Audit

if TYPE_CHECKING:
    from collections.abc import Iterator

    from loadbench.plan.load import Load
    from loadbench.record.recorder import LevelRecording

# Sums of floats of this many digits are exact.
_ROUNDING = 1e-9


def audit(recording: LevelRecording, load: Load) -> list[Audit]:
    """Every identity that the level has both sides of."""
    if recording.lost_workers or recording.window_s <= 0:
        return []
    return [*_little(recording), *_tokens(recording), *_gaps(recording), *_tpot(recording), *_peak(recording, load)]


def _compared(name: str, measured: float, expected: float, *, within: float = 0.0) -> Audit:
    allowed = within + _ROUNDING * max(1.0, abs(measured), abs(expected))
    return Audit(name, float(measured), float(expected), float(within), abs(measured - expected) <= allowed)


def _little(recording: LevelRecording) -> Iterator[Audit]:
    books, window_ns = recording.books, recording.window[1] - recording.window[0]
    per_ns = books.ended / window_ns
    residence_ns = books.residence_ns / books.ended if books.ended else 0.0
    edge = (books.edge_ns + books.unsent_ns) / window_ns
    yield _compared("little", books.swept_ns / window_ns, per_ns * residence_ns, within=edge)


def _tokens(recording: LevelRecording) -> Iterator[Audit]:
    books, inside = recording.books, recording.production.output_tokens
    yield _compared("tokens", inside, recording.output_tokens - books.outside_tokens + books.foreign_tokens)
    yield _compared("slices", books.sliced_tokens, inside, within=books.shared_out)


def _gaps(recording: LevelRecording) -> Iterator[Audit]:
    first, last, gaps = (recording.histograms[name] for name in ("ttft", "e2e", "event_gap"))
    if first.clipped or last.clipped or gaps.clipped:
        return
    between_ns = last.sum - first.sum
    yield Audit("gaps", between_ns / 1e9, gaps.sum / 1e9, 0.0, between_ns == gaps.sum)


def _tpot(recording: LevelRecording) -> Iterator[Audit]:
    """Only where both speak of the same requests."""
    books, itl_ns = recording.books, recording.histograms["itl"].mean
    if itl_ns is None or books.unpaced or not books.paced_tokens or recording.histograms["itl"].clipped:
        return
    yield _compared("tpot", books.paced_ns / books.paced_tokens / 1e9, itl_ns / 1e9, within=0.5e-9)


def _peak(recording: LevelRecording, load: Load) -> Iterator[Audit]:
    if isinstance(load, Closed):
        peak = recording.in_flight_peak
        yield Audit("peak", float(peak), float(load.users), 0.0, peak <= load.users)
