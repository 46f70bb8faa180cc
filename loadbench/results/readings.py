"""`telemetry.jsonl`: one line per reading of the machine and of the server's page, as they came.

{"at_ns": ns since the run's start, "host_cpu_share": 0.42, "process_cpu_s_total": 12.5, …}
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import orjson

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_BUFFER_BYTES = 1 << 16


class ReadingLog:
    """Appends lines to the file, which the first write creates."""

    def __init__(self, path: Path, *, origin_ns: int) -> None:
        self._path = path
        self._origin_ns = origin_ns
        self._lines: list[bytes] = []
        self._bytes = 0

    def add(self, at_ns: int, values: Mapping[str, float]) -> None:
        """Add one reading to the buffer, which is written when it is full."""
        # Whole numbers are written without their point.
        short = {name: int(value) if value.is_integer() else value for name, value in values.items()}
        record = {"at_ns": at_ns - self._origin_ns, **short}
        self._lines.append(orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE))
        self._bytes += len(self._lines[-1])
        if self._bytes > _BUFFER_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write the buffer. On a full disk these lines are lost; nothing depends on them, and other files report it."""
        lines, self._lines, self._bytes = self._lines, [], 0
        if lines:
            with contextlib.suppress(OSError), self._path.open("ab") as file:
                file.write(b"".join(lines))
