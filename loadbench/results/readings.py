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
    """Appends lines to the file, which is made with the first of them."""

    def __init__(self, path: Path, *, origin_ns: int) -> None:
        self._path = path
        self._origin_ns = origin_ns
        self._lines: list[bytes] = []
        self._bytes = 0

    def add(self, at_ns: int, values: Mapping[str, float]) -> None:
        """Keep one reading; it is written some at a time."""
        record = {"at_ns": at_ns - self._origin_ns, **{name: _short(value) for name, value in values.items()}}
        self._lines.append(orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE))
        self._bytes += len(self._lines[-1])
        if self._bytes > _BUFFER_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write what was kept. A full disk loses these lines, as little else depends on them, and says so elsewhere."""
        lines, self._lines, self._bytes = self._lines, [], 0
        if lines:
            with contextlib.suppress(OSError), self._path.open("ab") as file:
                file.write(b"".join(lines))


def _short(value: float) -> float | int:
    """A whole number without its point."""
    return int(value) if value.is_integer() else value
