"""Outliers among a few values.

The rule is the modified z-score of Iglewicz and Hoaglin (*How to Detect and Handle Outliers*, 1993): with the median m
and the median absolute deviation MAD,

    M = 0.6745 · (x − m) / MAD        an outlier where |M| > 3.5

0.6745 makes the MAD of normal values their standard deviation, and 3.5 is the authors' bound, found for samples of 10
to 40. Where more than half the values are equal the MAD is 0, and the mean absolute deviation replaces it:
M = (x − m) / (1.253314 · MeanAD), as in IBM SPSS. Fewer than five values have no outliers: their median moves with each
of them.

An outlier is reported and never removed from a figure: a slow response is a response.
"""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

BOUND = 3.5
MIN_VALUES = 5
# The authors did not test their bound with fewer values.
TESTED_FROM = 10
RULE = f"modified z-score above {BOUND:g} (Iglewicz and Hoaglin)"
_NORMAL_MAD = 0.6745
_NORMAL_MEAN_AD = 1.253314


def modified_z(values: Sequence[float]) -> list[float]:
    """The score of each value; all 0 where there are too few values, or all are equal."""
    if len(values) < MIN_VALUES:
        return [0.0] * len(values)
    middle = statistics.median(values)
    deviations = [abs(value - middle) for value in values]
    mad, mean_ad = statistics.median(deviations), statistics.fmean(deviations)
    unit = mad / _NORMAL_MAD if mad > 0 else _NORMAL_MEAN_AD * mean_ad
    return [(value - middle) / unit if unit > 0 else 0.0 for value in values]


def outliers(values: Sequence[float]) -> list[tuple[int, float]]:
    """(index, score) of each outlier, in order."""
    return [(index, score) for index, score in enumerate(modified_z(values)) if abs(score) > BOUND]
