"""Whether the users of a closed level were served alike.

Jain's index of x_1 … x_n is (Σx)² / (n Σx²): 1 where all are equal, 1/n where one has everything, and k/n where k of n
share it evenly (Jain, Chiu and Hawe, *A quantitative measure of fairness and discrimination for resource allocation in
shared computer systems*, DEC-TR-301, 1984). It is taken of each user's answers per second and of his mean TTFT.

Chance alone makes users differ, and so the index of few answers lies below that of the server. Its interval is by the
bootstrap that takes the bias out, 2J − J* (Davison and Hinkley, *Bootstrap Methods and their Application*, 1997, 5.2):
of the answers by resampling stretches of time, the same for all users; of TTFT by resampling each user's answers.

Starved is who surely had *fewer than half the answers of the median user* (so few that chance gives them to one of all
users once in a thousand levels at most, were half the median his due), or whose *mean TTFT is above twice the median
user's*, by more than its standard error explains as rarely.
"""

from __future__ import annotations

import math
from statistics import NormalDist, median
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from loadbench.results.prediction import Fairness, Starved

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from loadbench.results.requests import RequestRecord
    from loadbench.results.run import Interval

    Floats: TypeAlias = NDArray[np.float64]

_MEASURED = "measured"
_OK = "ok"
_RESAMPLES = 500
_STRETCHES = 20
# Fewer answers of a user on average say more of chance than of the server.
_FEWEST_EACH = 5
_RARELY = 1e-3
_FEW_ANSWERS = "fewer than half the answers of the median user"
_LONG_WAIT = "mean TTFT above twice the median user's"


def fairness(rows: Iterable[RequestRecord], *, seed: int = 0) -> list[Fairness]:
    """Of each closed level among these requests, in their order; open levels have no users and are passed over."""
    by_level: dict[int, dict[int, list[RequestRecord]]] = {}
    for row in rows:
        if row.user is not None:
            asked = by_level.setdefault(row.level, {}).setdefault(row.user, [])
            # Of the others it is enough to know that the user was there.
            if row.phase == _MEASURED:
                asked.append(row)
    return [_level(number, by_level[number], np.random.default_rng(seed)) for number in sorted(by_level)]


def jain(shares: Floats) -> Floats:
    """Jain's index over the last axis; 1 where nobody has anything."""
    squares = (shares**2).sum(axis=-1) * shares.shape[-1]
    index: Floats = np.where(squares > 0, shares.sum(axis=-1) ** 2 / np.where(squares > 0, squares, 1.0), 1.0)
    return index


def _level(number: int, by_user: dict[int, list[RequestRecord]], rng: np.random.Generator) -> Fairness:
    users = sorted(by_user)
    answers = [[row for row in by_user[user] if row.outcome == _OK] for user in users]
    waits = [np.array([_ttft_s(row) for row in rows if row.first_token_ns is not None]) for rows in answers]
    total = sum(map(len, answers))
    few = _too_few(len(users), total)
    heard = [wait for wait in waits if len(wait)]
    return Fairness(
        level=number,
        users=len(users),
        answers=total,
        throughput=float(jain(np.array([len(rows) for rows in answers], np.float64))) if total else None,
        throughput_interval=None if few else _throughput_interval(answers, rng),
        ttft=float(jain(np.array([wait.mean() for wait in heard]))) if heard else None,
        ttft_interval=None if few or len(heard) < 2 else _ttft_interval(heard, rng),
        starved=[] if few else _starved(users, answers, waits),
        note=few,
    )


def _ttft_s(row: RequestRecord) -> float:
    begun = row.due_ns if row.sent_ns is None else row.sent_ns
    return ((row.first_token_ns or begun) - begun) / 1e9


def _too_few(users: int, answers: int) -> str:
    if users < 2:
        return "one user has nobody to be compared with"
    if answers < _FEWEST_EACH * users:
        return f"too few: {answers} answers of {users} users, and {_FEWEST_EACH} each are the least"
    return ""


def _throughput_interval(answers: Sequence[Sequence[RequestRecord]], rng: np.random.Generator) -> Interval:
    """Stretches of time are drawn anew, and with each what every user had in it."""
    ends = [np.array([row.end_ns for row in rows], np.float64) for rows in answers]
    every = np.concatenate(ends)
    edges = np.linspace(every.min(), every.max() + 1, _STRETCHES + 1)
    counts = np.stack([np.histogram(one, edges)[0] for one in ends]).astype(np.float64)
    drawn = rng.integers(0, _STRETCHES, (_RESAMPLES, _STRETCHES))
    return _interval(float(jain(counts.sum(axis=1))), jain(counts[:, drawn].sum(axis=2).T), len(answers))


def _ttft_interval(waits: Sequence[Floats], rng: np.random.Generator) -> Interval:
    """Each user's requests are drawn anew."""
    means = np.stack([wait[rng.integers(0, len(wait), (_RESAMPLES, len(wait)))].mean(axis=1) for wait in waits], axis=1)
    return _interval(float(jain(np.array([wait.mean() for wait in waits]))), jain(means), len(waits))


def _interval(index: float, drawn: Floats, users: int) -> Interval:
    """95 %, mirrored about what was seen, within what the index can be."""
    low, high = np.quantile(drawn, [0.025, 0.975]).tolist()
    return max(1 / users, min(index, 2 * index - high)), min(1.0, max(index, 2 * index - low))


def _starved(
    users: Sequence[int], answers: Sequence[Sequence[RequestRecord]], waits: Sequence[Floats]
) -> list[Starved]:
    due = median(len(rows) for rows in answers) / 2
    usual = median(float(wait.mean()) for wait in waits if len(wait))
    rare = _RARELY / len(users)
    deviations = NormalDist().inv_cdf(1 - rare)
    found = []
    for user, rows, wait in zip(users, answers, waits, strict=True):
        mean = float(wait.mean()) if len(wait) else None
        rule = ""
        if len(rows) < due and _poisson_cdf(len(rows), due) <= rare:
            rule = _FEW_ANSWERS
        elif mean is not None and len(wait) >= _FEWEST_EACH:
            error = float(wait.std(ddof=1)) / math.sqrt(len(wait))
            rule = _LONG_WAIT if mean - deviations * error > 2 * usual else ""
        if rule:
            found.append(Starved(user=user, answers=len(rows), mean_ttft_s=mean, rule=rule))
    return found


def _poisson_cdf(count: int, mean: float) -> float:
    return sum(math.exp(k * math.log(mean) - mean - math.lgamma(k + 1)) for k in range(count + 1))
