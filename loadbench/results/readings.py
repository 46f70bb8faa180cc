"""`telemetry.jsonl`: one line per reading of the machine and of the server's page, as they came.

{"at_ns": ns since the run's start, "host_cpu_share": 0.42, "process_cpu_s_total": 12.5, …}
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson

from loadbench.results.append_log import AppendLog

if TYPE_CHECKING:
    from collections.abc import Mapping

    from loadbench.results.folder import RunFolder


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
