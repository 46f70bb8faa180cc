"""What every request of a search says about other loads, by how many others it met.

With n requests in flight the server completes μ(n) per second, and a request that meets n others misses its bound with
the probability q(n). Both are counted from all requests of all probes, whatever their load: a light load meets many in
flight now and then, and a heavy one few. N users who think for Z on average send (N − n)/Z per second, an open loop its
rate; the steady state of this birth-death process says how many a request meets at any load, and so how many miss.

This holds where lengths are exponential, or where the server shares itself evenly
(`loadbench.analyze.capacity.finite_source`). Fixed lengths make queues shorter, and lockstep has no such state at all.
So the model only says where the border is to be expected, with an error of its own (`_ERROR`), and how steep the share
falls there; the hits and misses at the loads themselves decide (`loadbench.analyze.capacity.border`).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    Values = np.ndarray[Any, np.dtype[np.float64]]

# The border by the model against the true one, as a standard deviation of the logarithm: fixed lengths and 4 slots make
# the model too low by 0.1 to 0.15; where it is exact this costs little.
_ERROR = 0.13
# A state that was met rarely is taken to be like the one below it, with the weight of this many requests.
_SMOOTH = 5.0
# A request that meets as many others at a higher load meets more of them later: the model's share falls too slowly. No
# queue of a usable server falls off more slowly than this.
_LEAST_STEEP = 2.5
# Fewer responses do not show how fast the server completes them.
_FEWEST_ENDED = 40
# Fewer misses say nothing about which states miss.
_FEWEST_MISSES = 8


class Expected(NamedTuple):
    """Where the model expects the border: the logarithm of the load and its standard deviation, and the steepness."""

    log_m: float
    deviation: float
    steepness: float


class InFlightStates:
    """Counts by the number of requests in flight: of arrivals that met so many others, their misses of each objective,
    seconds with so many in flight, and responses that ended then."""

    def __init__(self, objectives: int) -> None:
        self.met = np.zeros(1)
        self.missed = np.zeros((objectives, 1))
        self.seconds = np.zeros(1)
        self.ended = np.zeros(1)

    def reach(self, n: int) -> None:
        """Make room for n in flight."""
        if (more := n + 1 - len(self.met)) > 0:
            self.met, self.seconds, self.ended = (np.pad(a, (0, more)) for a in (self.met, self.seconds, self.ended))
            self.missed = np.pad(self.missed, ((0, 0), (0, more)))

    def most_per_s(self) -> tuple[float, float] | None:
        """The completion rate with at least n in flight, and its relative error, where more in flight raise it no
        further: for the least n whose rate is as high as the highest, within that one's error."""
        ended, seconds = (np.cumsum(counts[::-1])[::-1] for counts in (self.ended, self.seconds))
        enough = (ended >= _FEWEST_ENDED) & (seconds > 0)
        if not enough.any():
            return None
        rates, errors = ended[enough] / seconds[enough], 1 / np.sqrt(ended[enough])
        at = int((rates >= rates.max() * (1 - errors[rates.argmax()])).argmax())
        return float(rates[at]), float(errors[at])

    def add(self, other: InFlightStates) -> None:
        """Add another probe's counts."""
        n = len(other.met)
        self.reach(n - 1)
        self.met[:n] += other.met
        self.missed[:, :n] += other.missed
        self.seconds[:n] += other.seconds
        self.ended[:n] += other.ended


def expected_border(
    states: InFlightStates, place: int, p0: float, log_loads: Values, *, think_s: float | None
) -> Expected | None:
    """Where an objective's border is expected among these loads, with users who think, or by rate (`None`). `None`
    where too little was seen, or the model has no border."""
    if states.missed[place].sum() < _FEWEST_MISSES or states.ended.sum() < 5 * _FEWEST_MISSES:
        return None
    most = len(states.met)
    rates, missing = np.zeros(most), np.zeros(most)
    rate = share = 0.0
    for n in range(most):
        if n:
            weight = _SMOOTH if rate else 0.0
            seconds = states.seconds[n] + (weight / rate if rate else 0.0)
            rate = (states.ended[n] + weight) / seconds if seconds else 0.0
        share = max(share, (states.missed[place, n] + _SMOOTH * share) / (states.met[n] + _SMOOTH))
        rates[n], missing[n] = rate, share
    if (rates[1:] <= 0).any() or most < 2:
        return None
    # Beyond what was seen, the last state stands for all further ones.
    further = 3 * most
    rates = np.append(rates[1:], np.full(further, rates[-1]))
    missing = np.append(missing, np.full(further, missing[-1]))
    loads, others = np.exp(log_loads)[:, None], np.arange(len(rates))[None, :]
    arriving = (
        np.broadcast_to(loads, (len(log_loads), len(rates))) if think_s is None else (loads - 1 - others) / think_s
    )
    with np.errstate(divide="ignore"):
        steps = np.log(np.maximum(arriving, 0)) - np.log(rates)
    logs = np.concatenate([np.zeros((len(log_loads), 1)), np.cumsum(steps, axis=1)], axis=1)
    weights = np.exp(logs - logs.max(axis=1, keepdims=True))
    missed = (weights * missing).sum(axis=1) / weights.sum(axis=1)
    above = np.flatnonzero(missed > 1 - p0)
    if not len(above) or above[0] == 0:
        return None
    at = int(above[0])
    logit = np.log(np.clip(missed, 1e-9, 1 - 1e-9) / (1 - np.clip(missed, 1e-9, 1 - 1e-9)))
    first, last = max(0, at - 8), min(len(logit) - 1, at + 8)
    steepness = float((logit[last] - logit[first]) / (log_loads[last] - log_loads[first]))
    if not 0.5 < steepness < 100:
        return None
    steepness = max(steepness, _LEAST_STEEP)
    noise = 2 / states.ended.sum() + 8 / (steepness * steepness * states.missed[place].sum())
    return Expected(float(log_loads[at]), math.sqrt(_ERROR * _ERROR + float(noise)), steepness)
