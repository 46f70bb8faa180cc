"""loadbench with a leak: `python -m tests.soak.leaking BYTES ...` keeps so many bytes of each request for ever."""

from __future__ import annotations

import runpy
import sys
from functools import partialmethod

from loadbench.record.recorder import Recorder

_KEPT: list[bytes] = []
_add = Recorder.add


def _leak(recorder: Recorder, size: int, sample: object) -> None:
    # What an object and its place in the list take besides its bytes.
    _KEPT.append(bytes(max(0, size - sys.getsizeof(b"") - 8)))
    _add(recorder, sample)  # type: ignore[arg-type]


if __name__ == "__main__":
    Recorder.add = partialmethod(_leak, int(sys.argv.pop(1)))  # type: ignore[method-assign,assignment]
    runpy.run_module("loadbench", run_name="__main__")
