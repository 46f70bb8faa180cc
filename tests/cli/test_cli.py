"""The command line from outside: what it prints where, what it leaves behind, and how it ends."""

from __future__ import annotations

import csv
import io
import json
import os
import socket
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import jsonschema
import pytest

from loadbench.cli import COMMANDS
from loadbench.report.formats import schema_text
from loadbench.sim.process import SimProcess
from tests.cli.running import COMMAND, LIMIT_S, answering, environment, http, loadbench, started

SHORT = ("--duration", "1s", "--warm-up", "500ms", "--max-tokens", "8")
SHORTEST = ("--users", "1", "--duration", "100ms", "--warm-up", "0s", "--max-tokens", "2")


@pytest.fixture(scope="module")
def server():
    """A fast simulated server with two models."""
    with SimProcess(speed=20.0, models=("alpha", "beta")) as process:
        yield process.url


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """(a finished sweep of the embedded simulated server, its run folder)."""
    cwd = tmp_path_factory.mktemp("sweep")
    done = loadbench("sweep", "--users", "1,2", *SHORT, "--json", cwd=cwd)
    (folder,) = (cwd / "results").iterdir()
    return done, folder


def expected_exit(document: dict) -> int:
    """0, or 4 where a level is invalid: a busy machine makes it so, and the process must say so."""
    return 4 if any(level["verdict"]["status"] == "INVALID" for level in document["levels"]) else 0


# Help.


def test_help_lists_the_commands(tmp_path):
    """Each with what it is for, and the exit codes below."""
    done = loadbench("--help", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    for name in ("sweep", "report", "doctor", "serve"):
        assert f"\n  {name} " in done.stdout
    assert "130 interrupted" in done.stdout


# What measures or computes, and what takes a while of the standard library.
HEAVY = (
    "httpx numpy hdrh anyio msgspec jinja2 psutil asyncio ssl socket multiprocessing subprocess concurrent email http "
    "tempfile statistics hashlib"
)


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_imports_nothing_heavy(command, tmp_path):
    """It comes at once: nothing of what a command does is loaded for its help."""
    code = (
        "import sys\nfrom loadbench.cli import main\n"
        f"sys.argv[1:] = {[*command.split(), '--help']}\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        f"print(*sorted({{*{HEAVY!r}.split()}} & {{*sys.modules}}), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment(), capture_output=True, text=True, check=True
    )
    assert f"Usage: loadbench {command}".strip() in done.stdout
    assert done.stderr.strip() == ""


def test_sweep_needs_no_httpx(tmp_path):
    """Neither for the list of models nor for the pages of metrics: it takes a tenth of the time to start."""
    code = (
        "import sys\nfrom loadbench.cli import main\n"
        "sys.argv[1:] = 'sweep --users 1 --requests 1 --warm-up 0s --max-tokens 2 --quiet'.split()\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print(*{'httpx', 'httpcore', 'loadbench.targets.scrape'} & set(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment(), capture_output=True, text=True, check=True
    )
    assert done.stderr.split("\n")[-2] == "loadbench.targets.scrape"


def test_sweep_help_shows_the_settings_by_heading(tmp_path):
    """Each flag with its default; users also under its other name."""
    done = loadbench("sweep", "--help", cwd=tmp_path)
    assert done.returncode == 0
    for text in (
        "Server:",
        "Request:",
        "Load:",
        "Data:",
        "Limits:",
        "Output:",
        "--concurrency",
        "--warm-up",
        "[default: 1,2,4,8,16]",
    ):
        assert text in done.stdout
    for text in ("Objectives:", "[default: 1%]", "lognormal:MEAN,SIGMA"):
        assert text in done.stdout


def test_help_of_a_command_has_its_own_texts(tmp_path):
    """A replay lasts as long as its trace, whatever the default of a sweep is."""
    shown = " ".join(loadbench("replay", "--help", cwd=tmp_path).stdout.split())
    assert "--duration TIME Stop the replay after this time. Default: the whole trace. --warm-up" in shown


def test_version(tmp_path):
    """Name and number."""
    assert loadbench("--version", cwd=tmp_path).stdout.startswith("loadbench")


def test_shell_completion_knows_the_commands(tmp_path):
    """The shell asks and is told."""
    variables = {"_LOADBENCH_COMPLETE": "bash_complete", "COMP_WORDS": "loadbench sw", "COMP_CWORD": "1"}
    done = loadbench(cwd=tmp_path, **variables)
    assert (done.returncode, done.stdout) == (0, "plain,sweep\n")


# Dry run.


def test_dry_run_sends_nothing_and_leaves_nothing(tmp_path):
    """The plan with each setting's origin; the named server is never connected to, and no folder is made."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        done = loadbench(
            "sweep", "--url", url, "--users", "1,3", "--dry-run", "--verbose", cwd=tmp_path, LOADBENCH_DURATION="3s"
        )
        listening.setblocking(False)
        with pytest.raises(BlockingIOError):
            listening.accept()
    assert (done.returncode, done.stderr) == (0, "")
    for text in ("users=3", "flag --users", "environment LOADBENCH_DURATION", url):
        assert text in done.stdout
    assert list(tmp_path.iterdir()) == []


# A sweep.


def test_json_is_all_there_is_on_stdout(sweep):
    """Valid by the schema, said to be simulated, complete, with both levels in order; people read stderr."""
    done, _ = sweep
    document = json.loads(done.stdout)
    jsonschema.Draft202012Validator(json.loads(schema_text())).validate(document)
    assert document["simulated"] is True
    assert document["complete"] is True
    assert [level["load"]["users"] for level in document["levels"]] == [1, 2]
    assert all(level["outcomes"].get("ok", 0) > 0 for level in document["levels"])
    assert "[2/2]" in done.stderr
    assert "saved in" in done.stderr


def test_exit_code_says_what_the_verdicts_say(sweep):
    """0, or 4 where a level inside is invalid."""
    done, _ = sweep
    assert done.returncode == expected_exit(json.loads(done.stdout))


def test_run_folder_holds_the_four_files(sweep):
    """The result that was printed, the requests one by one, the histograms and the report; no draft is left."""
    done, folder = sweep
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["histograms.hlog", "report.md", "requests.jsonl", "run.json"]
    assert (folder / "run.json").read_text(encoding="utf-8") == done.stdout
    lines = [json.loads(line) for line in (folder / "requests.jsonl").read_text(encoding="utf-8").splitlines()]
    for position, level in enumerate(json.loads(done.stdout)["levels"]):
        measured = [line for line in lines if line["level"] == position and line["phase"] == "measured"]
        assert len(measured) == sum(level["outcomes"].values())
    assert "simulated" in (folder / "report.md").read_text(encoding="utf-8")


def test_second_model_is_measured_though_the_first_is_missing(server, tmp_path):
    """The missing one is marked with its reason and makes the exit code 6; the other has its level."""
    done = loadbench("sweep", "--url", server, "--model", "gamma", "--model", "beta", *SHORTEST, "--json", cwd=tmp_path)
    document = json.loads(done.stdout)
    statuses = {status["model"]: status for status in document["models"]}
    assert statuses["gamma"]["status"] == "failed"
    assert "has no model 'gamma'" in statuses["gamma"]["reason"]
    assert statuses["beta"]["status"] == "ok"
    assert [level["model"] for level in document["levels"]] == ["beta"]
    assert (document["simulated"], document["complete"]) == (False, True)
    assert done.returncode == 6
    assert "[1/2]" in done.stderr


def test_text_report_ends_a_sweep_and_quiet_is_quiet(server, tmp_path):
    """Without --json the report is on stdout; with --quiet nothing is on stderr."""
    done = loadbench("sweep", "--url", server, "--model", "alpha", *SHORTEST, "--quiet", cwd=tmp_path)
    assert "model alpha" in done.stdout
    assert done.stderr == ""


def test_progress_that_nobody_reads_does_not_end_the_measurement(server, tmp_path):
    """The reader of stderr leaves at once; the run is complete all the same."""
    process = started("sweep", "--url", server, "--model", "alpha", *SHORTEST, "--json", cwd=tmp_path)
    process.stderr.close()
    printed = process.stdout.read()
    process.stdout.close()
    document = json.loads(printed)
    assert document["complete"] is True
    assert process.wait(LIMIT_S) == expected_exit(document)


# Report.


@pytest.mark.parametrize("form", ["text", "markdown", "csv", "json"])
def test_report_shows_the_run_again(sweep, form, tmp_path):
    """In each format, from the folder as from its run.json, to stdout as to a file; simulated in all of them."""
    done, folder = sweep
    shown = loadbench("report", str(folder), "--format", form, cwd=tmp_path)
    kept = loadbench("report", str(folder / "run.json"), "--format", form, "--out", "kept", cwd=tmp_path)
    assert (shown.returncode, shown.stderr, kept.returncode, kept.stdout) == (0, "", 0, "")
    assert (tmp_path / "kept").read_text(encoding="utf-8") == shown.stdout
    match form:
        case "json":
            assert shown.stdout == done.stdout
        case "csv":
            rows = list(csv.DictReader(io.StringIO(shown.stdout)))
            assert [row["users"] for row in rows] == ["1", "2"]
            assert {row["simulated"] for row in rows} == {"True"}
        case _:
            assert "simulated" in shown.stdout.splitlines()[0]
            assert "users=2" in shown.stdout


def test_report_prints_the_schema(tmp_path):
    """The one that ships, with no run named."""
    done = loadbench("report", "--schema", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, schema_text())


def test_report_in_an_encoding_that_lacks_its_signs(sweep, tmp_path):
    """What cannot be shown becomes a question mark; data keeps its encoding."""
    _, folder = sweep
    done = loadbench("report", str(folder), cwd=tmp_path, PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (0, "")
    assert "simulated" in done.stdout


@pytest.mark.skipif(sys.platform == "win32", reason="a closed pipe is another error there")
def test_reader_who_leaves_is_no_error(sweep, tmp_path):
    """As with `| head -1`: no traceback, no message, exit code 0."""
    _, folder = sweep
    reads, writes = os.pipe()
    os.close(reads)
    done = subprocess.run(
        [*COMMAND, "report", str(folder), "--format", "json"],
        cwd=tmp_path,
        env=environment(),
        stdout=writes,
        stderr=subprocess.PIPE,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    os.close(writes)
    assert (done.returncode, done.stderr) == (0, "")


# Doctor and serve.


def test_serve_listens_nowhere_by_an_empty_host(tmp_path):
    """An empty one, as an unset variable leaves it, would be every address of this machine."""
    done = loadbench("serve", "--host", "", "--port", "0", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "--host: is empty" in done.stderr


def test_doctor_finds_the_simulated_server_well(tmp_path):
    """It says what it checked, and that it is not a real one."""
    done = loadbench("doctor", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "this is the simulated server" in done.stdout
    assert "ok      endpoint" in done.stdout


def test_doctor_tells_programs_too(server, tmp_path):
    """JSON on stdout, by the names of its contract; a model that is not there is a failure and exit code 6."""
    done = loadbench("doctor", "--json", "--url", server, "--model", "alpha", "--model", "gamma", cwd=tmp_path)
    document = json.loads(done.stdout)
    assert document["schema"] == "loadbench.doctor/1"
    assert document["simulated"] is False
    checks = {(check["name"], check["status"]) for check in document["checks"]}
    assert {("endpoint", "ok"), ("models", "warn"), ("response alpha", "ok"), ("response gamma", "fail")} <= checks
    assert all(set(check) == {"name", "status", "message", "advice"} for check in document["checks"])
    assert done.returncode == 6


def test_doctor_names_proxies_and_uses_none(server, tmp_path):
    """Not their addresses, which may have a password."""
    done = loadbench("doctor", "--url", server, "--model=alpha", cwd=tmp_path, https_proxy="http://me:pw-of-mine@h:1")
    assert done.returncode == 0, done.stdout
    assert "HTTPS_PROXY not used: requests go straight to the server" in done.stdout
    assert "pw-of-mine" not in done.stdout + done.stderr


def test_doctor_skips_what_a_failure_makes_pointless(tmp_path):
    """No server: the endpoint fails, with advice; models and probe are skipped; the machine is still looked at."""
    done = loadbench("doctor", "--url", refused_url(), "--json", cwd=tmp_path)
    checks = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
    assert checks["endpoint"]["status"] == "fail"
    assert checks["endpoint"]["advice"]
    assert checks["models"]["status"] == checks["response"]["status"] == "skip"
    assert checks["clock"]["status"] in {"ok", "warn"}
    assert done.returncode == 6


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGTERM")
def test_serve_says_ready_and_ends_on_sigterm(tmp_path):
    """READY and the URL once it listens; exit code 0 when told to stop."""
    process = started("serve", "--port", "0", "--model", "mine", cwd=tmp_path)
    word, url = process.stdout.readline().split()
    doctor = loadbench("doctor", "--url", url, cwd=tmp_path)
    process.terminate()
    out, err = process.communicate(timeout=LIMIT_S)
    assert (word, process.returncode, out, err) == ("READY", 0, "", "")
    assert (doctor.returncode, "response mine" in doctor.stdout) == (0, True)


def test_serve_lists_its_profiles(tmp_path):
    """Each with what it stands for."""
    done = loadbench("serve", "--list", cwd=tmp_path)
    assert done.returncode == 0
    assert "slot-server  " in done.stdout


# Bad input: one clear message, no traceback, the right exit code.


def assert_refused(done: subprocess.CompletedProcess, *words: str, code: int = 2) -> None:
    """One message for people, with these words in it, and nothing on stdout."""
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert sum(line.lower().startswith("error: ") for line in done.stderr.splitlines()) == 1
    for word in words:
        assert word in done.stderr


def refused_url() -> str:
    """The URL of a port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return f"http://127.0.0.1:{taken.getsockname()[1]}"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--users", "0"], ["--users", "at least 1"]),
        (["--users", "-1"], ["--users", "at least 1"]),
        (["--users", "1,,2"], ["--users", "single commas"]),
        (["--users", "many"], ["--users", "'many'"]),
        (["--users", "2", "--rate", "1"], ["exclude each other"]),
        (["--duration", "5"], ["--duration", "with its unit", "30s"]),
        (["--duration", "5 parsecs"], ["--duration", "'parsecs'"]),
        (["--prompts", "nowhere.jsonl"], ["nowhere.jsonl", "No such file"]),
        (["--prompts", "empty.jsonl"], ["empty.jsonl", "no prompt"]),
        (["--prompts", "bytes.jsonl"], ["bytes.jsonl"]),
        (["--profile", "nosuch"], ["nosuch", "slot-server"]),
        (["--profile", "nosuch", "--dry-run"], ["nosuch", "slot-server"]),
        (["--url", "127.0.0.1:8080"], ["--url", "http://127.0.0.1:8080/v1"]),
        (["--userz", "1"], ["--userz", "--users"]),
        (["--out", "empty.jsonl"], ["empty.jsonl", "is a file, not a folder"]),
        (["--name", "..."], ["--name", "cannot be a folder name"]),
        (["nowhere.toml"], ["nowhere.toml", "No such file"]),
        (["unknown.toml"], ["unknown.toml:3", "load.userz", "did you mean users"]),
        (["wrong.toml"], ["wrong.toml:2", "load.users", "'many'"]),
        (["broken.json"], ["broken.json:1", "not JSON"]),
    ],
    ids=lambda value: " ".join(value) if value and value[0].startswith("-") else None,
)
def test_bad_command_line_or_scenario(arguments, words, tmp_path):
    """The message names the place, what was found, and what is wanted."""
    (tmp_path / "empty.jsonl").write_text("")
    (tmp_path / "bytes.jsonl").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "unknown.toml").write_text("# How fast is it?\n[load]\nuserz = 3\n")
    (tmp_path / "wrong.toml").write_text("[load]\nusers = ['many']\n")
    (tmp_path / "broken.json").write_text("{'load'")
    assert_refused(loadbench("sweep", *arguments, cwd=tmp_path), *words)


def test_unknown_environment_variable(tmp_path):
    """A setting that would silently be ignored is worse than none."""
    done = loadbench("sweep", "--dry-run", cwd=tmp_path, LOADBENCH_USERZ="3")
    assert_refused(done, "LOADBENCH_USERZ", "LOADBENCH_USERS")


def test_api_key_variable_that_is_not_set(server, tmp_path):
    """It is named, before any request is made without the key."""
    done = loadbench("sweep", "--url", server, "--api-key-env", "MY_KEY", cwd=tmp_path)
    assert_refused(done, "MY_KEY", "is not set")


def test_run_that_exists_is_not_written_over(server, tmp_path):
    """Another run of this second and name keeps its folder, and this one has its own."""
    now = datetime.now(UTC)
    for second in range(int(LIMIT_S)):
        (tmp_path / "results" / f"{now + timedelta(seconds=second):%Y%m%dT%H%M%SZ}-mine").mkdir(parents=True)
    done = loadbench("sweep", "--url", server, "--model", "alpha", *SHORTEST, "--name", "mine", cwd=tmp_path)
    (mine,) = [path for path in (tmp_path / "results").iterdir() if any(path.iterdir())]
    assert mine.name.endswith("-mine-2")
    assert f"saved in {mine.relative_to(tmp_path)}" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["report"], ["no run given", "loadbench report last"]),
        (["report", "nowhere"], ["nowhere", "no such run"]),
        (["report", "."], ["run.json", "No such file"]),
        (["report", "hello.json"], ["hello.json", "not a loadbench result"]),
        (["report", "--schema", "--out", "."], ["--out ."]),
        (["serve", "--profile", "nosuch"], ["nosuch", "slot-server"]),
        (["doctor", "--profile", "nosuch"], ["nosuch", "slot-server"]),
        (["swep"], ["swep"]),
    ],
    ids=" ".join,
)
def test_other_commands_refuse_as_clearly(arguments, words, tmp_path):
    """What is missing or wrong, and what to give."""
    (tmp_path / "hello.json").write_text("hello")
    assert_refused(loadbench(*arguments, cwd=tmp_path), *words)


# A server that cannot be used: exit code 6.


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://nosuch.invalid", ["nosuch.invalid", "no such host"]),
        ("refused", ["connection refused", "is the server running"]),
        ("tls", ["does not speak TLS", "http://"]),
    ],
)
def test_server_that_cannot_be_reached(url, words, server, tmp_path):
    """The cause is told as it is, with what to do."""
    given = {"refused": refused_url(), "tls": server.replace("http:", "https:")}.get(url, url)
    assert_refused(loadbench("sweep", "--url", given, cwd=tmp_path), *words, code=6)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("answer", "arguments", "words"),
    [
        (http("404 Not Found", "nothing here"), (), ["no list of models", "--url", "--model"]),
        (http("429 Too Many", "slow down"), (), ["no list of models (HTTP 429", "limits requests", "--model"]),
        (http("503 Not Ready", "busy"), (), ["no list of models (HTTP 503", "takes no more requests, or is not ready"]),
        (http("404 Not Found", "nothing here"), ("--model", "m"), ["404", "path of --url"]),
        (http("200 OK", "<html>hello</html>", kind="text/html"), (), ["not an OpenAI-compatible server", "HTML"]),
        (http("401 Unauthorized", '{"error": {"message": "no key"}}'), (), ["401", "no key", "LOADBENCH_API_KEY"]),
        (http("302 Found", ""), (), ["302", "redirect"]),
        (b"220 mail.example ESMTP\r\n", (), ["no valid HTTP response"]),
        (b"", (), ["http://127.0.0.1:"]),
    ],
    ids=["404 everywhere", "429", "503", "404 for a model", "HTML", "no key", "redirect", "no HTTP", "nothing"],
)
def test_server_that_is_no_such_server(answer, arguments, words, tmp_path):
    """It is told by what the server said."""
    with answering(answer) as url:
        assert_refused(loadbench("sweep", "--url", url, *arguments, *SHORTEST, cwd=tmp_path), *words, code=6)


def test_unknown_model_lists_those_there_are(server, tmp_path):
    """And names the nearest."""
    done = loadbench("sweep", "--url", server, "--model", "alfa", cwd=tmp_path)
    assert_refused(done, "has no model 'alfa'", "did you mean 'alpha'", "it lists alpha, beta", code=6)


def test_several_models_and_none_chosen(server, tmp_path):
    """Which one is meant is the user's to say."""
    assert_refused(loadbench("sweep", "--url", server, cwd=tmp_path), "several models", "alpha, beta")
