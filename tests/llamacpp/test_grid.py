"""A grid of real engines: slots and threads are varied by the server's command, and one of the cells crashes."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path

import pytest

from tests.cli.running import loadbench

pytestmark = pytest.mark.engine

ROOT = Path(__file__).parents[2]
# Of so many requests, not of so much time, in which a machine that is busy otherwise may answer none.
SHORT = ("--users=1,4", "--requests=8", "--warm-up=0s", "--max-tokens=8", "--input-tokens=16", "--telemetry=off")


@pytest.mark.slow
@pytest.mark.usefixtures("llamacpp")
def test_six_engines_are_swept_and_the_one_that_crashes_is_kept(tmp_path: Path) -> None:
    """The cell with 8 slots and 2 threads is killed by itself; resumed, only that one is measured again."""
    from tests.llamacpp.tiny_gguf import write_tiny_gguf  # noqa: PLC0415 - needs what the fixture has looked for

    model = tmp_path / "tiny.gguf"
    write_tiny_gguf(model)
    script = tmp_path / "serve.sh"
    serve = f"{shlex.quote(sys.executable)} -m tests.llamacpp.serve {shlex.quote(str(model))}"
    # It ends with its input, which nothing closes before the guard ends them all.
    script.write_text(
        f"cd {shlex.quote(str(ROOT))}\n"
        f'[ "$2-$3" = 8-2 ] && [ ! -e {shlex.quote(str(tmp_path / "well"))} ] && exit 3\n'
        f"tail -f /dev/null | {serve} --port $1 --parallel $2 --threads $3 --ctx 16384\n"
    )
    command = shlex.join(["sh", str(script), "{port}", "{slots}", "{threads}"])
    grid = ("--vary=slots=1,4,8", "--vary=threads=1,2")
    ended = loadbench("sweep", "--server-cmd", command, *grid, *SHORT, cwd=tmp_path)
    assert "Traceback" not in ended.stderr
    (folder,) = (tmp_path / "results").iterdir()
    cells = json.loads((folder / "grid.json").read_text())["cells"]
    assert [cell["status"] for cell in cells] == ["complete"] * 5 + ["failed"], ended.stderr
    assert "the server ended with exit code 3 before it was ready" in cells[5]["error"]["message"]
    assert ended.returncode == 6
    answered = [
        level["outcomes"]
        for cell in cells[:5]
        for level in json.loads((folder / cell["folder"] / "run.json").read_text())["levels"]
    ]
    assert answered == [{"ok": 8}] * 10
    (tmp_path / "well").touch()
    again = loadbench("sweep", "--resume", str(folder), cwd=tmp_path)
    assert "resumed: 5 of 6 cells complete" in again.stderr
    cells = json.loads((folder / "grid.json").read_text())["cells"]
    assert {cell["status"] for cell in cells} == {"complete"}, again.stderr
