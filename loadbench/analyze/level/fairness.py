"""Whether the users of a closed level were served equally.

Jain's index of x_1 … x_n is (Σx)² / (n Σx²): 1 where all are equal, 1/n where one has everything, and k/n where k of n
share evenly (Jain, Chiu and Hawe, *A quantitative measure of fairness and discrimination for resource allocation in
shared computer systems*, DEC-TR-301, 1984). It is computed over the users' numbers of completed requests and over their
mean TTFTs.

Chance alone makes users differ, so the index of few requests is lower than that of the server. Its interval comes from
the bias-correcting bootstrap, 2J − J* (Davison and Hinkley, *Bootstrap Methods and their Application*, 1997, 5.2): for
throughput, time stretches are resampled, the same for all users; for TTFT, each user's requests.

A user is starved with *fewer than half the completed requests of the median user* (so few that, if half the median were
the user's due, chance would give them to any user once in a thousand levels at most), or with a *mean TTFT above twice
the median user's*, by more than its standard error explains at the same probability.
"""

from __future__ import annotations

import math
from statistics import NormalDist, median
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from loadbench.results.prediction import Fairness, StarvedUser

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from loadbench.results.requests import RequestRecord
    from loadbench.results.run import Interval

    Floats: TypeAlias = NDArray[np.float64]

_RESAMPLES = 500
_STRETCHES = 20
# With fewer requests per user, on average, the index is more about chance than about the server.
_MIN_PER_USER = 5
_RARE = 1e-3
_FEW_COMPLETED = "fewer than half the completed requests of the median user"
_LONG_TTFT = "mean TTFT above twice the median user's"


def fairness(rows: Iterable[RequestRecord], *, seed: int = 0) -> list[Fairness]:
    """The fairness of each closed level among these requests, in order; open levels have no users and are left out."""
    by_level: dict[int, dict[int, list[RequestRecord]]] = {}
    for row in rows:
        if row.user is not None:
            requests = by_level.setdefault(row.level, {}).setdefault(row.user, [])
            # Requests outside the window only show that the user exists.
            if row.phase == "measured":
                requests.append(row)
    return [_fairness(number, by_level[number], np.random.default_rng(seed)) for number in sorted(by_level)]


def jain(shares: Floats) -> Floats:
    """Jain's index over the last axis; 1 where all shares are 0."""
    squares = (shares**2).sum(axis=-1) * shares.shape[-1]
    index: Floats = np.where(squares > 0, shares.sum(axis=-1) ** 2 / np.where(squares > 0, squares, 1.0), 1.0)
    return index


def _fairness(number: int, by_user: dict[int, list[RequestRecord]], rng: np.random.Generator) -> Fairness:
    users = sorted(by_user)
    completed = [[row for row in by_user[user] if row.outcome == "ok"] for user in users]
    ttfts = [np.array([_ttft_s(row) for row in rows if row.first_token_ns is not None]) for rows in completed]
    total = sum(map(len, completed))
    with_ttft = [values for values in ttfts if len(values)]
    note = ""
    if len(users) < 2:
        note = "fairness needs at least two users"
    elif total < _MIN_PER_USER * len(users):
        note = (
            f"too few completed requests ({total} of {len(users)} users): at least {_MIN_PER_USER} per user are needed"
        )

    throughput_interval = ttft_interval = None
    if not note:
        # Resample time stretches, each with what every user completed in it.
        ends = [np.array([row.end_ns for row in rows], np.float64) for rows in completed]
        all_ends = np.concatenate(ends)
        edges = np.linspace(all_ends.min(), all_ends.max(), _STRETCHES + 1)
        counts = np.stack([np.histogram(user_ends, edges)[0] for user_ends in ends]).astype(np.float64)
        drawn = counts[:, rng.integers(0, _STRETCHES, (_RESAMPLES, _STRETCHES))].sum(axis=2).T
        throughput_interval = _interval(counts.sum(axis=1), drawn)
    if not note and len(with_ttft) > 1:
        # Resample each user's requests.
        means = [ttft[rng.integers(0, len(ttft), (_RESAMPLES, len(ttft)))].mean(axis=1) for ttft in with_ttft]
        ttft_interval = _interval(np.array([ttft.mean() for ttft in with_ttft]), np.stack(means, axis=1))
    return Fairness(
        level=number,
        users=len(users),
        answers=total,
        throughput=float(jain(np.array([len(rows) for rows in completed], np.float64))) if total else None,
        throughput_interval=throughput_interval,
        ttft=float(jain(np.array([ttft.mean() for ttft in with_ttft]))) if with_ttft else None,
        ttft_interval=ttft_interval,
        starved=[] if note else _starved(users, [len(rows) for rows in completed], ttfts),
        note=note,
    )


def _ttft_s(row: RequestRecord) -> float:
    begin_ns = row.due_ns if row.sent_ns is None else row.sent_ns
    return ((row.first_token_ns or begin_ns) - begin_ns) / 1e9


def _interval(shares: Floats, drawn: Floats) -> Interval:
    """95 % interval of the index of `shares`: the resampled indices mirrored about it, within the index's range."""
    index = float(jain(shares))
    low, high = np.quantile(jain(drawn), [0.025, 0.975]).tolist()
    return max(1 / len(shares), min(index, 2 * index - high)), min(1.0, max(index, 2 * index - low))


def _starved(users: Sequence[int], completed: Sequence[int], ttfts: Sequence[Floats]) -> list[StarvedUser]:
    due = median(completed) / 2
    usual_s = median([float(ttft.mean()) for ttft in ttfts if len(ttft)] or [math.inf])
    rare = _RARE / len(users)
    deviations = NormalDist().inv_cdf(1 - rare)
    starved = []
    for user, count, ttft in zip(users, completed, ttfts, strict=True):
        mean_s = float(ttft.mean()) if len(ttft) else None
        rule = ""
        # The probability of so few or fewer completed requests, if they were Poisson with this mean.
        chances = (math.exp(k * math.log(due) - due - math.lgamma(k + 1)) for k in range(count + 1))
        if count < due and sum(chances) <= rare:
            rule = _FEW_COMPLETED
        elif mean_s is not None and len(ttft) >= _MIN_PER_USER:
            error_s = float(ttft.std(ddof=1)) / math.sqrt(len(ttft))
            rule = _LONG_TTFT if mean_s - deviations * error_s > 2 * usual_s else ""
        if rule:
            starved.append(StarvedUser(user=user, answers=count, mean_ttft_s=mean_s, rule=rule))
    return starved
