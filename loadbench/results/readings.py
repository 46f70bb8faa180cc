"""`telemetry.jsonl`: one line per reading of the machine and of the server's page, as they came.

{"at_ns": ns since the run's start, "host_cpu_share": 0.42, "process_cpu_s_total": 12.5, …}
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson

from loadbench.results.append_log import AppendLog
from loadbench.results.folder import open_plain

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from loadbench.results.folder import RunFolder


# A reading has some dozens of values.
_LONGEST_LINE = 1 << 20


class ReadingLog(AppendLog):
    """Appends lines to the file of the run, which the first reading creates."""

    def __init__(self, folder: RunFolder, *, origin_ns: int) -> None:
        super().__init__(folder, "telemetry.jsonl")
        self._origin_ns = origin_ns

    def add_reading(self, at_ns: int, values: Mapping[str, float]) -> None:
        """Add one reading, which is written soon."""
        # Whole numbers are written without their point.
        short = {name: int(value) if value.is_integer() else value for name, value in values.items()}
        self.add(orjson.dumps({"at_ns": at_ns - self._origin_ns, **short}, option=orjson.OPT_APPEND_NEWLINE))


def read_readings(path: Path) -> Iterator[dict[str, float]]:
    """The readings of a file, in its order, each with its `at_ns`; lines that are damaged are left out."""
    with open_plain(path) as file:
        for text in iter(lambda: file.readline(_LONGEST_LINE), b""):
            try:
                reading = orjson.loads(text)
            except orjson.JSONDecodeError:
                continue
            if isinstance(reading, dict) and isinstance(reading.get("at_ns"), int):
                yield {
                    name: value
                    for name, value in reading.items()
                    if isinstance(value, int | float) and not isinstance(value, bool)
                }
