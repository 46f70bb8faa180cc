"""What `run.json` says of a run that another tool measured: the tool, its file, and its figures in its own words."""

from __future__ import annotations

import msgspec


class ForeignFigure(msgspec.Struct, frozen=True, kw_only=True):
    """A figure as the other tool wrote it, of the level with this index; `meaning` is its definition in that tool.

    `metric` is the metric of `run.json` that holds the same values, or null: they are then in no metric.
    """

    level: int
    name: str
    unit: str
    points: dict[str, float]
    meaning: str
    metric: str | None = None


class Imported(msgspec.Struct, frozen=True, kw_only=True):
    """Where a run comes from that loadbench did not measure. `files` are the imported files by name, with the SHA-256
    of each; `missing` says what they do not have."""

    tool: str
    version: str = ""
    files: dict[str, str]
    figures: list[ForeignFigure] = []
    missing: list[str] = []
