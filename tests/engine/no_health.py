"""A load generator that is never late."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from loadbench.engine.health import Health
from loadbench.record.histogram import Histogram

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class NoHealth:
    """For virtual time, where nothing is ever late."""

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """Nothing to watch."""
        yield

    lag_ns = None

    def close(self) -> Health:
        """Nothing was seen."""
        return Health(stamp_source="virtual", loop_lag=Histogram(), gc_pauses=Histogram(), cpu_share=None)
