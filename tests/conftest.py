"""What the whole suite shares: how properties are tried, and the real engine for those tests that ask for it.

The engine is llama.cpp's server with a model made on the spot.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# A busy machine is slow, and that says nothing of the code.
settings.register_profile("anywhere", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("anywhere")

ROOT = Path(__file__).parents[1]
_WANTED = ("gguf", "tokenizers", "xllamacpp")
# Set where the suite must not pass by leaving the engine out.
_REQUIRED = "LOADBENCH_TEST_NEEDS_ENGINE"
# Not for the commands that tests run: to them it would be a setting, and an unknown one.
_NEEDED = os.environ.pop(_REQUIRED, "") == "1"
# Killed if it has not gone by then.
_GOODBYE_S = 10


@pytest.fixture(scope="session")
def llamacpp(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., str]]:
    """`llamacpp(parallel=4, ctx=8192, …)`: the URL of a llama.cpp server, started at the first call with these options.

    Its options are those of `tests.llamacpp.serve`. Tests share a server, so they compare its counters with what they
    were before. Skips where the engine is not installed; fails there if LOADBENCH_TEST_NEEDS_ENGINE is 1.
    """
    _need_engine()
    from tests.llamacpp.tiny_gguf import write_tiny_gguf  # noqa: PLC0415 - needs what was just looked for

    folder = tmp_path_factory.mktemp("llamacpp")
    model = folder / "tiny.gguf"
    write_tiny_gguf(model)
    with ExitStack() as servers:

        @cache
        def start(**options: object) -> str:
            return servers.enter_context(_serving(model, log=folder / "server.log", **options))

        yield lambda **options: start(**{"parallel": 4, "threads": 1, **options})


def _need_engine() -> None:
    missing = [name for name in _WANTED if importlib.util.find_spec(name) is None]
    if not missing:
        return
    reason = f"no real engine here, {', '.join(missing)} missing: pip install -e '.[engine]' (Linux on x86-64)"
    if _NEEDED:
        pytest.fail(f"{_REQUIRED} is set, and there is {reason}", pytrace=False)
    pytest.skip(reason)


@contextmanager
def _serving(model: Path, *, log: Path, **options: object) -> Iterator[str]:
    """The server as a process, which ends when its standard input does."""
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    command = [sys.executable, "-m", "tests.llamacpp.serve", str(model), "--port=0", *flags]
    with (
        log.open("ab") as errors,
        subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True
        ) as server,
    ):
        assert server.stdin is not None
        assert server.stdout is not None
        ready = server.stdout.readline().split()
        if ready[:1] != ["READY"]:
            pytest.fail(f"llama.cpp did not start:\n{log.read_text(errors='replace')[-2000:]}", pytrace=False)
        yield ready[1]
        server.stdin.close()
        try:
            server.wait(_GOODBYE_S)
        except subprocess.TimeoutExpired:
            server.kill()
