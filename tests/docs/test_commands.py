"""Every command that the documents show is run here, as a reader would type it, or says why it is not.

The blocks of a page are run in their order, in one folder that has the scenarios, the examples and the saved runs of
the repository. How commands are shortened is in `tests/docs/shortened.py`, how blocks are marked in
`tests/docs/blocks.py`.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from loadbench.sim.process import SimProcess
from tests.cli.running import environment
from tests.docs.blocks import COMMANDS, DOCUMENTS, OTHERS, ROOT, blocks
from tests.docs.shortened import shortened

if TYPE_CHECKING:
    from pathlib import Path

# Many times what the longest takes on a machine that does nothing else.
LIMIT_S = 100
# The saved runs that are committed.
RUNS = re.findall(r"^!/results/([^/]+)/$", (ROOT / ".gitignore").read_text(encoding="utf-8"), re.MULTILINE)
SHIM = f'#!/bin/sh\nexec "{sys.executable}" "{ROOT / "tests" / "docs" / "shortened.py"}" "$@"\n'


@pytest.fixture(scope="module")
def simulated():
    """Quick servers: two with one model each, two with all models that the documents name."""
    texts = "\n".join(block.commands for document in DOCUMENTS for block in blocks(document) if block.is_run)
    models = set(re.findall(r"--(?:\w+-)?model[ =]([\w.:-]+)", texts))
    for mix in re.findall(r"--mix-models[ =]['\"](.*?)['\"]", texts):
        models |= set(re.findall(r"([^,=]+)=", mix))
    models.discard("all")
    models |= json.loads((ROOT / "docs" / "examples" / "models.json").read_bytes()).keys()
    # Their runs have it.
    models.add("llama-25m")
    with ExitStack() as servers:
        started = [
            servers.enter_context(SimProcess(speed=speed, models=names))
            for names in ((), sorted(models))
            for speed in (10, 5)
        ]
        yield " ".join(server.url for server in started)


def prepared(folder: Path, servers: str) -> dict[str, str]:
    """Fill a folder with what commands may use; the environment that they run in."""
    shutil.copytree(ROOT / "scenarios", folder / "scenarios")
    shutil.copytree(ROOT / "docs" / "examples", folder / "docs" / "examples")
    for name in RUNS:
        shutil.copytree(ROOT / "results" / name, folder / "results" / name)
    # The last two can be compared.
    (run_of_a_gpu,) = (name for name in RUNS if name.endswith("-gpu") and "against" not in name)
    for name in ("20261230T000000Z-once", "20261231T000000Z-again"):
        shutil.copytree(ROOT / "results" / run_of_a_gpu, folder / "results" / name)
    commands = folder / ".bin"
    commands.mkdir()
    (commands / "loadbench").write_text(SHIM, encoding="utf-8")
    (commands / "loadbench").chmod(0o755)
    (commands / "python").symlink_to(sys.executable)
    return environment(
        PATH=f"{commands}{os.pathsep}{os.environ['PATH']}",
        SIMULATED=servers,
        XDG_STATE_HOME=str(folder / ".state"),
        BROWSER="true",
    )


def run(commands: str, folder: Path, variables: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Type the commands into bash, which stops at the first that fails."""
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", commands],
        cwd=folder,
        env=variables,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        timeout=LIMIT_S,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(shutil.which("bash") is None or sys.platform == "win32", reason="the commands are those of bash")
@pytest.mark.parametrize(
    "document",
    [document for document in DOCUMENTS if any(block.is_run for block in blocks(document))],
    ids=lambda document: document.relative_to(ROOT).with_suffix("").as_posix().replace("/", "_").replace("-", "_"),
)
def test_commands_run(document, simulated, tmp_path):
    """Each block of a page does what it shows."""
    variables = prepared(tmp_path, simulated)
    for block in blocks(document):
        if block.file is not None:
            (tmp_path / block.file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / block.file).write_text(block.text, encoding="utf-8")
        elif block.is_run:
            done = run(block.commands, tmp_path, variables)
            assert done.returncode == 0, f"{block}:\n{block.commands}\n{done.stdout[-3000:]}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.relative_to(ROOT).as_posix())
def test_block_is_run_or_says_why(document):
    """The language says whether a block is commands; commands that no test runs have a reason."""
    for block in blocks(document):
        assert block.language in COMMANDS | OTHERS, f"{block}: what is {block.language!r}?"
        if block.language in COMMANDS:
            assert block.file is None, f"{block}: commands are no file"
            assert block.commands.strip(), f"{block}: there is no command"
    fences = sum(line.strip().startswith("```") for line in document.read_text(encoding="utf-8").splitlines())
    assert fences == 2 * len(blocks(document))


def test_command_that_fails_is_noticed(tmp_path):
    """A flag that does not exist ends a block, and so does a file that is missing."""
    variables = prepared(tmp_path, " ".join(["http://127.0.0.1:1"] * 4))
    assert run("loadbench explain ttft\n", tmp_path, variables).returncode == 0
    for line in (
        "loadbench explain --no-such-flag",
        "loadbench report nothing",
        "loadbench doctor --url http://127.0.0.1:8080",
    ):
        assert run(f"{line}\ntrue\n", tmp_path, variables).returncode != 0


def test_commands_are_shortened():
    """Servers are replaced in the order in which a command names them, times and counts whatever they were."""
    line = "compare http://127.0.0.1:8001/v1 http://10.0.0.2:8002 --duration 45s --think=lognormal:30s,0.6 --otlp http://127.0.0.1:4318"
    short = "compare A/v1 B --duration=100ms --think=10ms --otlp http://127.0.0.1:4318"
    assert shortened(line.split(), ["A", "B", "C", "D"]) == short.split()
    assert shortened(["try", "--url", "http://localhost:1", "--model", "m"], ["A", "B", "C", "D"])[2] == "C"
