"""The command line in this process: as its users have it, without the second that a new process takes to start.

What depends on the process itself (signals, broken pipes, encodings) is tested with `tests.cli.running`.
"""

from __future__ import annotations

import gc
import io
import os
import subprocess
import sys
from contextlib import chdir
from typing import TYPE_CHECKING
from unittest import mock

from loadbench.cli import main
from loadbench.plan.data_sets import read_data_set_once
from loadbench.plan.trace_files import read_trace
from tests.cli.running import UNWRAPPED, environment

if TYPE_CHECKING:
    from pathlib import Path


def typed(*arguments: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run it to its end in this folder; what it printed, and its exit code."""
    out, errors = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2))
    # Both remember by a path, which may be another file in another folder.
    read_data_set_once.cache_clear()
    read_trace.cache_clear()
    # A level has the collector walk everything: not the thousands of tests too, which a command does not have.
    gc.freeze()
    try:
        with (
            chdir(cwd),
            mock.patch.dict(os.environ, environment(**UNWRAPPED | variables), clear=True),
            mock.patch.multiple(sys, argv=["loadbench", *arguments], stdout=out, stderr=errors),
        ):
            main()
            code = 0
    except SystemExit as end:
        code = int(end.code or 0)
    finally:
        gc.collect()  # the end of a process would let go of its run
        gc.unfreeze()
    return subprocess.CompletedProcess(
        arguments, code, *(stream.buffer.getvalue().decode() for stream in (out, errors))
    )
