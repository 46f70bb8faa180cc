"""`telemetry.jsonl`: one line per reading of the machine and of the server's page, as they came.

{"at_ns": ns since the run's start, "host_cpu_share": 0.42, "process_cpu_s_total": 12.5, …}
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import orjson

from loadbench.core.errors import BadInput
from loadbench.results.append_log import AppendLog

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


class ReadingLog:
    """Appends lines to the file, which the first reading creates.

    Readings that cannot be written are lost: nothing depends on them, and other files report a full disk.
    """

    def __init__(self, path: Path, *, origin_ns: int) -> None:
        self._path = path
        self._origin_ns = origin_ns
        self._log: AppendLog | None = None

    def add(self, at_ns: int, values: Mapping[str, float]) -> None:
        """Add one reading, which is written soon."""
        # Whole numbers are written without their point.
        short = {name: int(value) if value.is_integer() else value for name, value in values.items()}
        with contextlib.suppress(OSError, BadInput):
            self._log = self._log or AppendLog(self._path)
            self._log.add(orjson.dumps({"at_ns": at_ns - self._origin_ns, **short}, option=orjson.OPT_APPEND_NEWLINE))

    def flush(self) -> None:
        """Write the readings that are still in memory."""
        if self._log is not None:
            with contextlib.suppress(OSError):
                self._log.flush()

    def close(self) -> None:
        """Write them, and close the file."""
        if self._log is not None:
            self._log.close()
