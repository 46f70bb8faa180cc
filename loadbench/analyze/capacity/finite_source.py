"""Users who think: how many of them have a request in flight, where what the server does with so many is known.

Each of N users thinks for a time of mean Z, asks, and waits for the answer. With n requests in flight the N − n others
bring a new one at the rate (N − n)/Z, and the server ends them at the rate μ(n), which was measured: it is the
throughput of a closed loop of n users who do not think. That is a birth-death process, the finite source or
machine-repair model, and in the long run

    p_N(n)  ∝  Π_{i=1..n} ((N − i + 1) / Z) / μ(i)          X = Σ p_N(n) μ(n)          R = N/X − Z

(Kleinrock, *Queueing Systems* I, 3.8; R by the interactive response time law, Denning and Buzen, 1978). Where the
server divides itself evenly among all that are in flight this holds whatever the lengths of answers and pauses, by
their means alone (Baskett, Chandy, Muntz and Palacios, 1975). Who asks finds the others as if he were not one of them,
so p_{N−1} (the arrival theorem: Sevcik and Mitrani, Lavenberg and Reiser, 1981).

Only μ(1) … μ(M) are known. The p of states up to M stand in the same relation to each other whatever lies beyond, so
what is said *given* no more than M is certain; how much lies beyond rests on μ(n) = μ(M) for n > M, and is told apart.
There the weights are those of a Poisson distribution over the thinking, and are summed where they matter only: a
hundred thousand users cost no more than a hundred. All is in logarithms.

Arrays have a row for each of several cases that are worked out together: resamples of the same measurement.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Floats: TypeAlias = NDArray[np.float64]
    Ints: TypeAlias = NDArray[np.integer[Any]]

# Beyond twelve deviations of a Poisson distribution less than 1e-30 is left.
_REACH = 12


class InFlight(NamedTuple):
    """How often n are in flight: `within` of each row is of n = 0, 1, … given that it is none of `beyond`."""

    within: Floats  # rows × states
    beyond: Floats  # rows


def rates_through(users: Sequence[int], per_s: Floats) -> Floats:
    """μ(1) … μ(M), by straight lines between the levels (`users`, ascending) and from 0; `per_s` is rows × levels."""
    return per_s @ _between((0, *users))[:, 1:].T


def between(users: Sequence[int]) -> Floats:
    """M × levels: what of each level makes n = 1 … M, by straight lines; below the first it is the first."""
    return _between(users)


def _between(users: Sequence[int]) -> Floats:
    knots, wanted = np.asarray(users, np.float64), np.arange(1, users[-1] + 1)
    return np.stack([np.interp(wanted, knots, unit) for unit in np.eye(len(knots))], axis=1)


def met_on_arrival(users: Ints, rates: Floats, think_s: float) -> InFlight:
    """What one of so many `users` (a number for each row) finds when he asks: 0 … M − 1 others, or more."""
    if think_s == 0:
        return _always(users - 1, rates.shape[1])
    logs, tail = _log_weights(users - 1, rates, think_s)
    return _shares(logs[:, :-1], np.logaddexp(logs[:, -1], tail))


def in_flight(users: Ints, rates: Floats, think_s: float) -> InFlight:
    """How many are in flight at any time: 0 … M, or more."""
    if think_s == 0:
        return _always(users, rates.shape[1] + 1)
    return _shares(*_log_weights(users, rates, think_s))


def throughput(users: Ints, rates: Floats, think_s: float) -> Floats:
    """Requests per second, of each row."""
    state = in_flight(users, rates, think_s)
    inside = (state.within[:, 1:] * rates).sum(axis=1)
    total: Floats = (1 - state.beyond) * inside + state.beyond * rates[:, -1]
    return total


def response_s(users: Ints, per_s: Floats, think_s: float) -> Floats:
    """The mean time from asking to the answer's end, by the interactive response time law."""
    return users / per_s - think_s


def _always(count: Ints, states: int) -> InFlight:
    """Without a pause all are in flight; of what is beyond, the last state stands for what is known: the nearest."""
    within = np.zeros((len(count), states))
    within[np.arange(len(count)), np.minimum(count, states - 1)] = 1.0
    return InFlight(within, (count >= states).astype(np.float64))


def _shares(logs: Floats, beyond: Floats) -> InFlight:
    top = logs.max(axis=1, keepdims=True)
    weights = np.exp(logs - top)
    total = weights.sum(axis=1)
    # Of what lies far beyond, no float holds the ratio; the share is then 1.
    ratio = np.exp(np.minimum(beyond - top[:, 0] - np.log(total), 700.0))
    return InFlight(weights / total[:, None], ratio / (1 + ratio))


def _log_weights(users: Ints, rates: Floats, think_s: float) -> tuple[Floats, Floats]:
    """The logarithms of the weights of 0 … M in flight, and of all that is more; −inf where there are not so many."""
    rows, most = rates.shape
    thinking = users[:, None] - np.arange(most)
    with np.errstate(divide="ignore"):
        steps = np.log(np.maximum(thinking, 0)) - np.log(think_s * rates)
    logs = np.concatenate([np.zeros((rows, 1)), np.cumsum(steps, axis=1)], axis=1)
    return logs, _log_tail(users - most, think_s * rates[:, -1], logs[:, -1])


def _log_tail(left: Ints, offered: Floats, at_most: Floats) -> Floats:
    """log Σ of the weights beyond M, where `left` still think: a^J/J! for J < left, joined to the weight at M."""
    tail = np.full(len(left), -np.inf)
    for row in np.flatnonzero(left > 0).tolist():
        thinkers, mean = int(left[row]), float(offered[row])
        tail[row] = at_most[row] + _log_poisson(thinkers - 1, mean) - _log_term(thinkers, mean)
    return tail


def _log_term(count: int, mean: float) -> float:
    return count * math.log(mean) - math.lgamma(count + 1)


def _log_poisson(last: int, mean: float) -> float:
    """log Σ_{J=0..last} mean^J/J!, over those J that matter."""
    reach = math.ceil(_REACH * math.sqrt(mean)) + 40
    high = min(last, math.ceil(mean) + reach)
    low = max(0, min(high, math.floor(mean)) - reach)
    steps = math.log(mean) - np.log(np.arange(low + 1, high + 1))
    logs = _log_term(low, mean) + np.concatenate(([0.0], np.cumsum(steps)))
    top = float(logs.max())
    return top + math.log(float(np.exp(logs - top).sum()))
