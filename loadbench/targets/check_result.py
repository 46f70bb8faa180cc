"""The results of `loadbench doctor`: one line for each check, with what was found and what to do."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

SCHEMA: Final = "loadbench.doctor/1"

Status = Literal["ok", "warn", "fail", "skip"]


class Check(msgspec.Struct, frozen=True):
    """The result of one check."""

    name: str
    status: Status
    message: str
    advice: str = ""


class CheckReport(msgspec.Struct, frozen=True, kw_only=True):
    """All results, as `doctor --json` prints them."""

    schema: Literal["loadbench.doctor/1"] = SCHEMA
    checks: list[Check]
    simulated: bool = False

    @property
    def healthy(self) -> bool:
        """Whether no check failed."""
        return all(check.status != "fail" for check in self.checks)


def skipped(*names: str) -> list[Check]:
    """The checks that an earlier failure makes pointless."""
    return [Check(name, "skip", "because an earlier check failed") for name in names]
