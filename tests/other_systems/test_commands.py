"""Every command does its work on a system that lacks what Windows lacks, or macOS: real processes, as users start them.

`sitecustomize.py` says how the system is made to look. No part of this was ever run on such a system.
"""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import jsonschema
import pytest

from loadbench.cli import COMMANDS
from loadbench.cli.measuring import FORMATS
from loadbench.report.formats import schema_text
from tests.cli.judge import judging
from tests.cli.running import COMMAND, LIMIT_S, environment
from tests.cli.test_score import rate
from tests.core.test_guard import until, with_mark

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="makes Linux look like other systems"),
    pytest.mark.slow,
]
HERE = Path(__file__).parent
SMALL = HERE.parent / "session" / "small_server.py"
# A number of requests: in a second of a busy machine none may become due.
SHORT = ("--requests=6", "--warm-up=200ms", "--max-tokens=8")
# A measurement of a second on a busy machine may be invalid, or prove too little.
MEASURED = {0, 4, 5}
# Windows has no such name for a file.
MODEL = "qwen2.5:3b"
# `sitecustomize.py` has this signal stand for Ctrl-Break; macOS has no such key.
CTRL_BREAK = {"win32": signal.SIGUSR1, "darwin": signal.SIGINT}


class There:
    """A folder on such a system."""

    def __init__(self, system: str, folder: Path) -> None:
        self.system, self.folder = system, folder
        # A pipe or file has the code page of the system, which lacks most of what reports are written with.
        self.encoding = "cp1252" if system == "win32" else "utf-8"
        programs = folder / "programs"
        programs.mkdir()
        # In a console of Windows this is text of its OEM code page, here with an ü.
        (programs / "powercfg").write_bytes(b"#!/bin/sh\nprintf 'Energieschema: f\\201r alle\\n'\n")
        (programs / "powercfg").chmod(0o755)
        self.variables = environment(
            PYTHON_OTHER_SYSTEM=system,
            PYTHONPATH=os.pathsep.join([str(HERE), str(HERE.parents[1])]),
            PATH=os.pathsep.join([str(programs), os.environ["PATH"]]),
        )

    def started(self, *arguments: str, encoding: str = "") -> subprocess.Popen[bytes]:
        """The command, in a process of its own."""
        return subprocess.Popen(
            [*COMMAND, *arguments],
            cwd=self.folder,
            env={**self.variables, "PYTHONIOENCODING": encoding or self.encoding},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def run(self, *arguments: str, codes: set[int] = frozenset({0}), encoding: str = "") -> str:
        """What a command prints that ends with one of these codes."""
        with self.started(*arguments, encoding=encoding) as process:
            try:
                streams = process.communicate(None, LIMIT_S)
            finally:
                process.kill()
        # What programs read is UTF-8 everywhere.
        out = streams[0].decode("utf-8" if encoding or "--json" in arguments else self.encoding)
        err = streams[1].decode("utf-8" if encoding else self.encoding)
        assert process.returncode in codes, f"{arguments}: {process.returncode}\n{out}\n{err}"
        assert "Traceback" not in out + err, err
        assert "Warning" not in err, err
        assert "\r\r\n" not in out + err
        return out.replace("\r\n", "\n")

    def measured(self, *arguments: str) -> tuple[Path, dict]:
        """(folder, run.json) of what a command has measured: whole, and honest about its timestamps."""
        out = self.run(*arguments, "--quiet", "--json", codes=MEASURED)
        folder = max((self.folder / "results").iterdir(), key=lambda path: path.stat().st_mtime_ns)
        return folder, json.loads(out)

    @contextmanager
    def serving(self, *arguments: str) -> Iterator[str]:
        """The URL of `loadbench serve`, which Ctrl-Break ends."""
        with self.started("serve", "--port=0", *arguments) as process:
            try:
                assert process.stdout is not None
                words = process.stdout.readline().decode().split()
                assert words[:1] == ["READY"], process.communicate(None, LIMIT_S)
                yield words[1]
                process.send_signal(CTRL_BREAK[self.system])
                _, err = process.communicate(None, LIMIT_S)
            finally:
                process.kill()
        assert (process.returncode, b"Traceback" in err) == (0, False), err


def check_run(folder: Path, run: dict, *, levels: int) -> None:
    """All that is in a folder of a run is whole, and says that stamps are taken at the read."""
    jsonschema.Draft202012Validator(json.loads(schema_text())).validate(run)
    assert json.loads((folder / "run.json").read_text(encoding="utf-8")) == run
    assert len(run["levels"]) == levels
    assert run["environment"]["stamp_source"] == "user"
    for level in run["levels"]:
        assert set(level["outcomes"]) == {"ok"}
        assert level["client"]["stamp_source"] == "user"
    lines = (folder / "requests.jsonl").read_bytes()
    assert b"\r" not in lines
    done = [json.loads(line) for line in lines.splitlines()]
    assert sum(line["phase"] == "measured" for line in done) >= sum(level["outcomes"]["ok"] for level in run["levels"])
    assert {"histograms.hlog", "report.md"} <= {path.name for path in folder.iterdir()}
    assert "timestamps: user" in (folder / "report.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module", params=["win32", "darwin"])
def there(request, tmp_path_factory) -> There:
    """Each system, with a folder for all of its tests."""
    return There(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def server(there) -> Iterator[str]:
    """The simulated server on that system, with a model of such a name."""
    with there.serving(f"--model={MODEL}", "--model=judge-1") as url:
        yield url


@pytest.fixture(scope="module")
def saved(there, server) -> Path:
    """The folder of a run."""
    prompts = there.folder / "prompts.txt"
    prompts.write_text("Was heißt „Fluß“?\nName a colour.\n", encoding="utf-8")
    folder, run = there.measured(
        "sweep", f"--url={server}", f"--model={MODEL}", "--users=1,2", "--prompts=prompts.txt", "--keep-texts", *SHORT
    )
    check_run(folder, run, levels=2)
    return folder


def sweep(there: There, saved: Path) -> None:
    """With worker processes, and with the machine's telemetry, which is sampled in another."""
    folder, run = there.measured("sweep", "--users=2", "--workers=2", "--telemetry=on", *SHORT)
    check_run(folder, run, levels=1)
    assert run["environment"]["workers"] == 2


def replay(there: There, saved: Path) -> None:
    """The run's own requests, at their times."""
    check_run(*there.measured("replay", str(saved), "--limit=5"), levels=1)


def capacity(there: There, saved: Path) -> None:
    """One or two users are quickly found to be within an objective that is easily met."""
    search = ("--slo=ttft_p90<5s", "--at-most=2", "--warm-up=10ms", "--max-tokens=4", "--budget=4s")
    assert json.loads(there.run("capacity", *search, "--json", codes=MEASURED))["answer"]


def report(there: There, saved: Path) -> None:
    """In each format into a file, which is UTF-8 with plain ends of lines; and on a stream of ASCII."""
    # Files are written in the same way on macOS as on Linux.
    for form in FORMATS if there.system == "win32" else ("markdown",):
        place = there.folder / f"report-{form}"
        there.run("report", str(saved), f"--format={form}", f"--out={place}")
        files = [place] if place.is_file() else list(place.iterdir())
        assert files
        for file in files:
            assert file.read_bytes().decode()
            assert b"\r\r" not in file.read_bytes()
            assert b"\r" not in file.read_bytes() or form == "csv"
    rows = list(csv.DictReader(there.run("report", str(saved), "--format=csv").splitlines()))
    assert [row["users"] for row in rows] == ["1", "2"]
    # To a stream of ASCII, click writes UTF-8.
    assert "±" in there.run("report", str(saved), encoding="ascii")


def compare(there: There, saved: Path) -> None:
    """Two simulated servers, measured; and two saved runs."""
    sides = ("profile=slot-server", "profile=slot-server", "--same", "--repeats=2", "--settle=0s")
    there.run("compare", *sides, "--users=1", "--json", "--quiet", *SHORT, codes=MEASURED)
    assert "users=2" in there.run("compare", str(saved), str(saved), codes=MEASURED)


def models(there: There, saved: Path) -> None:
    """Those of the simulated server."""
    assert json.loads(there.run("models", "--json"))


def doctor(there: There, saved: Path) -> None:
    """The system's own words are read in its own code page; what it lacks is skipped and said."""
    out = there.run("doctor")
    if there.system == "win32":
        assert "Energieschema: für alle" in out
        assert re.search(r"skip +open files +this system has no limit", out)


def workshop(there: There, saved: Path) -> None:
    """With its files."""
    there.run("workshop", "--rounds=1", "--max-tokens=3", "--quiet", codes=MEASURED)
    folder = max((there.folder / "results").glob("*-workshop"))
    assert {f"benchmark_report.{kind}" for kind in ("json", "md", "csv")} <= {path.name for path in folder.iterdir()}
    assert b"\r" not in (folder / "benchmark_report.md").read_bytes()


def score(there: There, saved: Path) -> None:
    """By a person, whose editor has left its marks in the form; by a second model."""
    there.run("score", "stub", str(saved))
    form = saved / "annotation.json"
    document = json.loads(form.read_text(encoding="utf-8"))
    for answer in document["answers"]:
        answer["scores"] = dict.fromkeys(answer["scores"], 3)
    text = json.dumps({**document, "rater": "ann"}, indent=2, ensure_ascii=False)
    form.write_text(text, encoding="utf-8-sig", newline="\r\n")
    there.run("score", "read", str(form))
    with judging(lambda prompt, _: rate(prompt)) as (url, _):
        there.run("score", "judge", str(saved), "--judge-model=judge-1", f"--judge-url={url}")
    quality = json.loads((saved / "quality.json").read_text(encoding="utf-8"))
    assert {rating["rater"] for rating in quality["ratings"]} == {"ann", "judge judge-1"}


def select(there: There, saved: Path) -> None:
    """The table has the only model."""
    assert MODEL in there.run("select", str(saved), codes=MEASURED)


def selfcheck(there: There, saved: Path) -> None:
    """It knows by which clock it stamps."""
    found = json.loads(there.run("selfcheck", "--users=2", "--budget=2s", "--json", codes=MEASURED))
    assert found["stamp_source"] == "user"


def serve(there: There, saved: Path) -> None:
    """Until it is stopped."""
    with there.serving("--model=mine") as url:
        assert "mine" in there.run("models", f"--url={url}")


def plot(there: There, saved: Path) -> None:
    """A chart of the saved run, as a file with plain ends of lines."""
    assert "throughput" in there.run("plot", str(saved))
    there.run("plot", str(saved), "--chart=throughput", "--out=chart.svg")
    assert b"\r" not in (there.folder / "chart.svg").read_bytes()


def scenarios(there: There, saved: Path) -> None:
    """Listed and copied; a copy can be planned."""
    assert "chat" in there.run("scenarios")
    there.run("scenarios", "copy", "--all", "--to=copied")
    assert b"\r" not in (there.folder / "copied" / "chat.toml").read_bytes()
    assert "planned" in there.run("sweep", "copied/chat.toml", "--dry-run")


def init(there: There, saved: Path) -> None:
    """A file with plain ends of lines that can be planned."""
    there.run("init", "mine.toml", "--use=chat", "--yes")
    assert b"\r" not in (there.folder / "mine.toml").read_bytes()
    assert "planned" in there.run("sweep", "mine.toml", "--dry-run")


def runs(there: There, saved: Path) -> None:
    """Listed and labelled."""
    there.run("runs", "label", saved.name, "board=a")
    assert saved.name in there.run("runs", "--label=board=a")


def try_(there: There, saved: Path) -> None:
    """One request to the simulated server."""
    assert "TTFT" in there.run("try", "--max-tokens=4")


def import_(there: There, saved: Path) -> None:
    """The result of another tool, which is a run like any other then."""
    rates = {"request_throughput": 2.0, "output_throughput": 8.0, "duration": 5.0, "completed": 10}
    result = {"date": "20261101-120000", "model_id": "m", "num_prompts": 10, "max_concurrency": 2, **rates}
    result |= {"total_input_tokens": 10, "total_output_tokens": 40, "endpoint_type": "openai-chat", "backend": "vllm"}
    for name in ("ttft", "tpot", "itl", "e2el"):
        result |= dict.fromkeys((f"mean_{name}_ms", f"median_{name}_ms", f"std_{name}_ms", f"p99_{name}_ms"), 5.0)
    (there.folder / "vllm.json").write_text(json.dumps(result), encoding="utf-8")
    there.run("import", "vllm.json", "--name=imported", codes=MEASURED)
    assert "vllm" in there.run("report", "imported", codes=MEASURED).lower()


def explain(there: There, saved: Path) -> None:
    """A word."""
    assert "first token" in there.run("explain", "ttft")


def schema(there: There, saved: Path) -> None:
    """Of a document."""
    assert json.loads(there.run("schema", "run"))


def config(there: There, saved: Path) -> None:
    """What a command line sets."""
    assert "users" in there.run("config", "sweep", "--users=3")


def completion(there: There, saved: Path) -> None:
    """What a shell reads."""
    assert "loadbench" in there.run("completion", "bash")


WORK = (
    config,
    completion,
    runs,
    try_,
    import_,
    explain,
    schema,
    init,
    sweep,
    replay,
    capacity,
    report,
    compare,
    models,
    doctor,
    workshop,
    score,
    select,
    selfcheck,
    serve,
    scenarios,
    plot,
)


def test_no_command_is_forgotten():
    """Each that there is has its work here."""
    assert sorted(work.__name__.rstrip("_") for work in WORK) == sorted(COMMANDS)


@pytest.mark.parametrize("work", WORK, ids=lambda work: work.__name__)
def test_command(work: Callable[[There, Path], None], there, saved):
    """It does its work, without a traceback."""
    work(there, saved)


def test_ctrl_break_ends_a_run_in_order(there):
    """As Ctrl-C does: what was measured is kept, no process is left."""
    process = there.started("sweep", "--users=1,2", "--workers=2", "--warm-up=0s", "--duration=30s", "--name=stopped")
    try:
        for line in process.stderr:
            if b"begins" in line:
                break
        time.sleep(1)
        process.send_signal(CTRL_BREAK[there.system])
        _, err = process.communicate(None, LIMIT_S)
    finally:
        process.kill()
    assert (process.returncode, b"Traceback" in err) == (130, False), err
    (folder,) = (there.folder / "results").glob("*-stopped")
    assert "users=1" in there.run("report", str(folder))


def test_file_that_somebody_reads_is_replaced_when_it_is_free(there):
    """Windows refuses to replace it until then. The run does not go on in another place for that."""
    process = there.started("sweep", "--users=1,2", "--warm-up=0s", "--duration=500ms", "--name=read")
    try:
        while not (files := list((there.folder / "results").glob("*-read/run.json"))):
            time.sleep(0.01)
        for _ in range(5):
            # This process is the command's parent: what it has open counts.
            with files[0].open("rb"):
                time.sleep(0.5)
            time.sleep(0.1)
        _, err = process.communicate(None, LIMIT_S)
    finally:
        process.kill()
    assert process.returncode in MEASURED, err
    assert len(json.loads(files[0].read_text(encoding="utf-8"))["levels"]) == 2, err


def test_run_that_is_going_on_is_not_continued(there):
    """Two processes would write one file."""
    process = there.started("sweep", "--users=1", "--warm-up=0s", "--duration=60s", "--name=going-on")
    try:
        while not (files := list((there.folder / "results").glob("*-going-on/requests.jsonl"))):
            time.sleep(0.01)
        with there.started("sweep", f"--resume={files[0].parent}") as second:
            out, err = second.communicate(None, LIMIT_S)
    finally:
        process.kill()
        process.communicate()
    assert second.returncode == 2, (out, err)
    assert b"another loadbench is" in err


def test_a_server_is_started_and_ended(there):
    """Its log is in the run folder, and neither the end of a run, nor Ctrl-C or Ctrl-Break, nor a kill leaves it."""
    mark = f"mark-{uuid4().hex}"
    command = f"--server-cmd={sys.executable} {SMALL} --mark {mark} --prints hello --port {{port}}"
    folder, run = there.measured("sweep", command, "--users=1,2", *SHORT)
    check_run(folder, run, levels=2)
    assert (folder / "server.log").read_text(encoding="utf-8").startswith("hello")
    assert run["server_start"]["ready_s"] > 0
    assert with_mark(mark) == []
    for end in (CTRL_BREAK[there.system], signal.SIGKILL):
        with there.started("sweep", command, "--users=1", "--duration=300s", "--no-live") as process:
            assert process.stderr is not None
            until(lambda lines=process.stderr: b"begins" in lines.readline())
            assert len(with_mark(mark)) > 1
            process.send_signal(end)
            process.communicate(None, LIMIT_S)
        until(lambda: with_mark(mark) == [])
