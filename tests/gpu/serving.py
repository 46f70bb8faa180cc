"""Start `tests.gpu.serve` and other processes that hold the GPU, and end them."""

from __future__ import annotations

import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]


@contextmanager
def started(module: str, *options: str, log: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A process of one of our modules that prints `READY …` once it is, and what follows; it ends with its input."""
    with (
        log.open("ab") as errors,
        subprocess.Popen(
            [sys.executable, "-m", module, *options],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        ) as process,
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            word, _, rest = process.stdout.readline().strip().partition(" ")
            if word != "READY":
                raise RuntimeError(f"{module} did not start:\n{log.read_text('utf-8', 'replace')[-3000:]}")
            yield process, rest
        finally:
            process.stdin.close()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
