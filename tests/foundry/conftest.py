"""The real Foundry Local service, for those who ask for it: `pytest -m foundry`.

It takes an SDK of 275 MB, so it is no part of a run that does not ask. The Python that has it (`pip install
foundry-local-sdk==2.2.1`) is named by LOADBENCH_FOUNDRY_PYTHON; else one is made in the cache, once.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import venv
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
SDK = "foundry-local-sdk==2.2.1"
ARCHIVE = ROOT / "tests" / "data" / "foundry_model" / "nano.tar.gz"
# The service asks for its catalogue four times before it takes the file instead, and pip has a lot to fetch.
_STARTS_S, _GOODBYE_S, _INSTALLS_S = 60, 10, 900


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the real service out, unless it is asked for."""
    if "foundry" in (config.option.markexpr or ""):
        return
    skip = pytest.mark.skip(reason="the real Foundry Local service is tested by: pytest -m foundry")
    for item in items:
        if item.get_closest_marker("foundry"):
            item.add_marker(skip)


@pytest.fixture(scope="session")
def foundry_python() -> str:
    """A Python that has the SDK."""
    named = os.environ.get("LOADBENCH_FOUNDRY_PYTHON")
    if named:
        return named
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "loadbench" / SDK.replace("==", "-")
    python = cache / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    if not python.exists():
        venv.create(cache, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", SDK], check=True, timeout=_INSTALLS_S)
    return str(python)


@pytest.fixture(scope="session")
def foundry_service(foundry_python: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of the real service, with two models of which none is loaded: `nano` and `mini`, the same one."""
    folder = tmp_path_factory.mktemp("foundry")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    with real_service(foundry_python, folder, nano=folder / "nano", mini=folder / "nano") as url:
        yield url


@contextmanager
def real_service(python: str, folder: Path, **models: Path) -> Iterator[str]:
    """The service as a process, which ends when its standard input does."""
    named = [f"{name}={path}" for name, path in models.items()]
    command = [python, str(ROOT / "tests" / "foundry" / "serve.py"), str(folder), *named]
    log = folder / "service.log"
    with (
        log.open("ab") as errors,
        subprocess.Popen(
            command, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True
        ) as service,
    ):
        assert service.stdin is not None
        assert service.stdout is not None
        ready = service.stdout.readline()
        if not ready.startswith("{"):
            pytest.fail(f"Foundry Local did not start:\n{log.read_text(errors='replace')[-2000:]}", pytrace=False)
        yield json.loads(ready)["url"]
        service.stdin.close()
        try:
            service.wait(_GOODBYE_S)
        except subprocess.TimeoutExpired:
            service.kill()
