"""The self-audit of a level: whatever is counted in two ways must agree.

Each identity holds whatever a server does, so a failed one is a bug in loadbench.

*little*, Little's law. The mean number of requests in flight over a window of length T equals the rate of completions
times the mean residence time, except at the window's edges. For every request r let i(r) be the part of its residence
inside the window. The area under the number in flight is `Σ i(r)`; completions times residence is the sum of the whole
residences of the requests that ended inside. The two differ by the residence before the window of those that ended
(at most all of it), and by the residence inside of those that did not end. The allowance is the sum of both parts over
T; both are known. A request counts as in flight from when it was created, slightly before it is sent: the time between
due and sent is added to the allowance.

*tokens*. The tokens of all measured responses, minus those outside the window, plus those that other requests received
inside it, are the tokens of the window.
*slices*. The time slices add up to the same tokens, except for one token that a response may lose by rounding where its
tokens had to be shared out over its events.
*gaps*. The gaps between events add up to the time from first to last token, to the nanosecond.
*tpot*. TPOT weighted by its tokens is ITL weighted by its own, which rounds to the nanosecond. It is left out where the
two are not about the same requests.
*peak*. A closed loop has at most one request in flight for each user.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadbench.plan.load import Closed
from loadbench.results.run import AuditCheck

if TYPE_CHECKING:
    from loadbench.plan.load import Load
    from loadbench.record.recorder import LevelRecording

# Sums of floats of this many digits are exact.
_ROUNDING = 1e-9


def audit(recording: LevelRecording, load: Load) -> list[AuditCheck]:
    """Every identity of which the level has both sides; empty for a level that is known to be incomplete."""
    if recording.lost_workers or recording.window_s <= 0:
        return []
    totals, window_ns = recording.audit_totals, recording.window[1] - recording.window[0]

    residence_ns = totals.residence_ns / totals.ended if totals.ended else 0.0
    edge = (totals.edge_ns + totals.unsent_ns) / window_ns
    checks = [_check("little", totals.swept_ns / window_ns, totals.ended / window_ns * residence_ns, within=edge)]

    inside = recording.production.output_tokens
    expected = recording.output_tokens - totals.outside_tokens + totals.foreign_tokens
    checks.append(_check("tokens", inside, expected))
    checks.append(_check("slices", totals.sliced_tokens, inside, within=totals.shared_out))

    first, last, gaps = (recording.histograms[name] for name in ("ttft", "e2e", "event_gap"))
    if not (first.clipped or last.clipped or gaps.clipped):
        between_ns = last.sum - first.sum
        checks.append(AuditCheck("gaps", between_ns / 1e9, gaps.sum / 1e9, 0.0, between_ns == gaps.sum))

    itl = recording.histograms["itl"]
    if itl.mean is not None and not itl.clipped and totals.paced_tokens and not totals.unpaced:
        tpot_s = totals.paced_ns / totals.paced_tokens / 1e9
        checks.append(_check("tpot", tpot_s, itl.mean / 1e9, within=0.5e-9))

    if isinstance(load, Closed):
        peak = recording.in_flight_peak
        checks.append(AuditCheck("peak", float(peak), float(load.users), 0.0, peak <= load.users))
    return checks


def _check(name: str, measured: float, expected: float, *, within: float = 0.0) -> AuditCheck:
    allowed = within + _ROUNDING * max(1.0, abs(measured), abs(expected))
    return AuditCheck(name, float(measured), float(expected), float(within), abs(measured - expected) <= allowed)
