"""Which values lie far from their fellows, by a rule that is named where it is used.

The rule is the modified z-score of Iglewicz and Hoaglin (*How to Detect and Handle Outliers*, 1993): with the median m
and the median absolute deviation MAD,

    M = 0.6745 · (x − m) / MAD        an outlier where |M| > 3.5

0.6745 makes the MAD of normal values their standard deviation, and 3.5 is the authors' bound, found for samples of 10
to 40. Where more than half the values are the same the MAD is 0, and the mean absolute deviation stands in for it:
M = (x − m) / (1.253314 · MeanAD), as IBM SPSS does. Below five values nothing can be said: a median of so few moves
with each of them.

An outlier is named and never left out of a figure: a slow answer is an answer.
"""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

BOUND = 3.5
MIN_VALUES = 5
# Below this many the authors have not tried their bound.
TESTED_FROM = 10
RULE = f"modified z-score above {BOUND:g} (Iglewicz and Hoaglin)"
_NORMAL_MAD = 0.6745
_NORMAL_MEAN_AD = 1.253314


def modified_z(values: Sequence[float]) -> list[float]:
    """The score of each value; all 0 where there are too few to tell, or all are the same."""
    if len(values) < MIN_VALUES:
        return [0.0] * len(values)
    middle = statistics.median(values)
    away = [abs(value - middle) for value in values]
    mad, mean_ad = statistics.median(away), statistics.fmean(away)
    unit = mad / _NORMAL_MAD if mad > 0 else _NORMAL_MEAN_AD * mean_ad
    return [(value - middle) / unit if unit > 0 else 0.0 for value in values]


def outliers(values: Sequence[float]) -> list[tuple[int, float]]:
    """(position, score) of each outlier, in order."""
    return [(place, score) for place, score in enumerate(modified_z(values)) if abs(score) > BOUND]
