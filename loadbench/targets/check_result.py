"""What a checkup finds: one line each, with what was seen and what to do."""

from __future__ import annotations

from typing import Literal

import msgspec

SCHEMA = "loadbench.doctor/1"

Status = Literal["ok", "warn", "fail", "skip"]


class Check(msgspec.Struct, frozen=True):
    """One finding."""

    name: str
    status: Status
    message: str
    advice: str = ""


class CheckReport(msgspec.Struct, frozen=True, kw_only=True):
    """All findings, as `doctor --json` prints them."""

    schema: str = SCHEMA
    checks: list[Check]

    @property
    def healthy(self) -> bool:
        """Whether nothing failed."""
        return all(check.status != "fail" for check in self.checks)


def skipped(*names: str) -> list[Check]:
    """Checks that an earlier one makes pointless."""
    return [Check(name, "skip", "not tried, since an earlier check failed") for name in names]
