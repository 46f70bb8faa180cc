"""Every study of what the intervals, verdicts and answers hold, one after another: python -m tests.coverage [NUMBER]

One of them alone: python -m tests.coverage.NAME [NUMBER]. NUMBER is how many levels or seeds of each system it takes.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

if __name__ == "__main__":
    numbers = sys.argv[1:]
    for path in sorted(Path(__file__).parent.glob("*.py")):
        if path.stem != "__main__" and '__name__ == "__main__"' in path.read_text(encoding="utf-8"):
            print(f"\n## {path.stem}\n", flush=True)  # noqa: T201 - what it is for
            sys.argv = [str(path), *numbers]
            runpy.run_module(f"tests.coverage.{path.stem}", run_name="__main__", alter_sys=True)
