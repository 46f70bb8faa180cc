"""What the server's usage says against what its events showed: of one response, and counted over a level."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class UsageCheck(NamedTuple):
    """What is wrong or missing in the usage of one response; by default nothing is."""

    # Output tokens that no event showed, as far as that is proven; `None`: some, and their number is unknown.
    hidden: int | None = 0
    has_surplus: bool = False  # the total counts tokens that are neither prompt nor output
    has_few: bool = False  # fewer tokens than events
    ignores_limit: bool = False  # the response was visibly longer than requested
    fault: str = ""  # why it cannot be true
    unknown: str = ""  # the names in a usage without a count of the output


PLAUSIBLE = UsageCheck()


@dataclass(slots=True)
class UsageStats:
    """Responses by what is wrong with their usage; `fault` and `unknown` are those of the first."""

    hidden: int = 0
    surplus: int = 0
    few: int = 0
    limit_ignored: int = 0
    faults: int = 0
    fault: str = ""
    not_understood: int = 0
    unknown: str = ""

    def add(self, check: UsageCheck) -> None:
        """Add one response."""
        if check is PLAUSIBLE:
            return
        self.hidden += check.hidden != 0
        self.surplus += check.has_surplus
        self.few += check.has_few
        self.limit_ignored += check.ignores_limit
        self.faults += bool(check.fault)
        self.fault = self.fault or check.fault
        self.not_understood += bool(check.unknown)
        self.unknown = self.unknown or check.unknown
