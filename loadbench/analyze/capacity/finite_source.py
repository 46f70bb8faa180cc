"""The finite source model: how many requests N users who think have in flight.

Each of N users thinks for a mean time Z, sends a request, and waits for the response. With n requests in flight, the
other N − n users send new ones at the rate (N − n)/Z, and the server completes them at the rate μ(n). μ(n) is measured:
it is the throughput of a closed loop of n users without think time. This is a birth-death process, the finite source or
machine-repair model, and its steady state is

    p_N(n)  ∝  Π_{i=1..n} ((N − i + 1) / Z) / μ(i)          X = Σ p_N(n) μ(n)          R = N/X − Z

(Kleinrock, *Queueing Systems* I, 3.8; R by the interactive response time law, Denning and Buzen, 1978). Where the
server shares itself evenly among all requests in flight, this holds for any distribution of response lengths and think
times, by their means alone (Baskett, Chandy, Muntz and Palacios, 1975). A new request finds the others as if its user
were not one of them, so p_{N−1} (the arrival theorem: Sevcik and Mitrani, Lavenberg and Reiser, 1981).

Only μ(1) … μ(M) are known. The ratios of p among states up to M do not depend on what lies beyond, so results
conditional on at most M requests in flight are certain. The probability of more than M assumes μ(n) = μ(M) for n > M
and is reported separately. The weights beyond M are Poisson terms, and only those that matter are summed, so a hundred
thousand users cost no more than a hundred. Everything is computed in logarithms.

Arrays have a row for each of several cases that are computed together: resamples of the same measurement.
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

# Beyond twelve standard deviations of a Poisson distribution less than 1e-30 is left.
_REACH = 12


class InFlight(NamedTuple):
    """The distribution of n: `beyond` is the probability of n > M; `within` holds p(0), p(1), … given n ≤ M."""

    within: Floats  # rows × states
    beyond: Floats  # rows


def rates_through(users: Sequence[int], per_s: Floats) -> Floats:
    """μ(1) … μ(M) by linear interpolation between the levels (`users`, ascending) and 0; `per_s` is rows × levels."""
    return per_s @ between((0, *users))[:, 1:].T


def between(users: Sequence[int]) -> Floats:
    """M × levels: the weight of each level at n = 1 … M by linear interpolation; below the first level it is 1."""
    knots, wanted = np.asarray(users, np.float64), np.arange(1, users[-1] + 1)
    return np.stack([np.interp(wanted, knots, unit) for unit in np.eye(len(knots))], axis=1)


def met_on_arrival(users: Ints, rates: Floats, think_s: float) -> InFlight:
    """How many others a new request finds in flight: 0 … M − 1, or more. `users` is a number for each row."""
    if think_s == 0:
        return _all_in_flight(users - 1, rates.shape[1])
    logs, tail = _log_weights(users - 1, rates, think_s)
    return _normalized(logs[:, :-1], np.logaddexp(logs[:, -1], tail))


def in_flight(users: Ints, rates: Floats, think_s: float) -> InFlight:
    """How many requests are in flight at any time: 0 … M, or more."""
    if think_s == 0:
        return _all_in_flight(users, rates.shape[1] + 1)
    return _normalized(*_log_weights(users, rates, think_s))


def throughput(users: Ints, rates: Floats, think_s: float) -> Floats:
    """Requests per second, for each row."""
    state = in_flight(users, rates, think_s)
    inside = (state.within[:, 1:] * rates).sum(axis=1)
    total: Floats = (1 - state.beyond) * inside + state.beyond * rates[:, -1]
    return total


def response_s(users: Ints, per_s: Floats, think_s: float) -> Floats:
    """The mean response time in seconds, by the interactive response time law."""
    return users / per_s - think_s


def _all_in_flight(count: Ints, states: int) -> InFlight:
    """Without think time all users are in flight; beyond M the last known state stands in as the nearest."""
    within = np.zeros((len(count), states))
    within[np.arange(len(count)), np.minimum(count, states - 1)] = 1.0
    return InFlight(within, (count >= states).astype(np.float64))


def _normalized(logs: Floats, beyond: Floats) -> InFlight:
    top = logs.max(axis=1, keepdims=True)
    weights = np.exp(logs - top)
    total = weights.sum(axis=1)
    # Far beyond M the ratio overflows a float; the share is then 1.
    ratio = np.exp(np.minimum(beyond - top[:, 0] - np.log(total), 700.0))
    return InFlight(weights / total[:, None], ratio / (1 + ratio))


def _log_weights(users: Ints, rates: Floats, think_s: float) -> tuple[Floats, Floats]:
    """The log weights of 0 … M in flight and of all states beyond M; −inf where there are not enough users.

    With J = N − n still thinking and a = Z μ(M), the weights beyond M are a^J/J! for J < N − M, scaled to meet the
    weight at M.
    """
    rows, most = rates.shape
    thinking = users[:, None] - np.arange(most)
    with np.errstate(divide="ignore"):
        steps = np.log(np.maximum(thinking, 0)) - np.log(think_s * rates)
    logs = np.concatenate([np.zeros((rows, 1)), np.cumsum(steps, axis=1)], axis=1)
    tail = np.full(rows, -np.inf)
    for row in np.flatnonzero(users > most).tolist():
        thinkers, mean = int(users[row]) - most, float(think_s * rates[row, -1])
        tail[row] = logs[row, -1] + _log_poisson_sum(thinkers - 1, mean) - _log_term(thinkers, mean)
    return logs, tail


def _log_term(count: int, mean: float) -> float:
    return count * math.log(mean) - math.lgamma(count + 1)


def _log_poisson_sum(last: int, mean: float) -> float:
    """log Σ_{J=0..last} mean^J/J!, over the J that matter."""
    reach = math.ceil(_REACH * math.sqrt(mean)) + 40
    high = min(last, math.ceil(mean) + reach)
    low = max(0, min(high, math.floor(mean)) - reach)
    steps = math.log(mean) - np.log(np.arange(low + 1, high + 1))
    logs = _log_term(low, mean) + np.concatenate(([0.0], np.cumsum(steps)))
    top = float(logs.max())
    return top + math.log(float(np.exp(logs - top).sum()))
