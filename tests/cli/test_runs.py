"""`loadbench runs`, and the names of runs that every command takes."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from loadbench.core.errors import BadInput
from loadbench.plan.load import Closed
from loadbench.report.render_text import render_text
from loadbench.report.runs import result_of, runs_document
from loadbench.results.folder import RunFolder, read_run
from loadbench.results.requests import RequestLog
from loadbench.results.run import ModelStatus, Reason, Verdict, to_json
from loadbench.results.run_list import FoundRun, find_run, names_of_runs, runs_in
from loadbench.results.run_summary import CapacityFound, Peak, RunSummary, summary_of
from tests.building import a_level, a_run
from tests.cli.typed import typed

HOSTILE = "\x1b[31m<script>|`$(id)`\u202e"


def keep(results: Path, folder: str, **over: object) -> Path:
    """A run in a folder of this name, with some of its fields replaced."""
    path = results / folder
    path.mkdir(parents=True)
    name = folder.partition("-")[2]
    (path / "run.json").write_bytes(to_json(msgspec.structs.replace(a_run(a_level(load=Closed(2))), name=name, **over)))
    return path


@pytest.fixture
def kept(tmp_path):
    """Three runs, two of one name, and a file and a folder that are none."""
    for folder in ("20260101T000000Z-night", "20260102T000000Z-day", "20260103T000000Z-night"):
        keep(tmp_path / "results", folder)
    (tmp_path / "results" / "notes.txt").write_text("mine")
    (tmp_path / "results" / "photos").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("text", "folder"),
    [
        ("last", "20260103T000000Z-night"),
        ("last~1", "20260102T000000Z-day"),
        ("night", "20260103T000000Z-night"),
        ("night~1", "20260101T000000Z-night"),
        ("20260102", "20260102T000000Z-day"),
        ("results/20260102T000000Z-day", "20260102T000000Z-day"),
    ],
)
def test_run_is_named(kept, monkeypatch, text, folder):
    """`last`, a run's name, steps back from them, a unique beginning, and a path name a run."""
    monkeypatch.chdir(kept)
    assert find_run(text, Path("results")) == Path("results") / folder


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("2026", "3 runs in results begin like this"),
        ("nihgt", "did you mean night?"),
        ("last~3", "results has only 3 runs in all"),
        ("night~2", "results has only 2 runs of the name night"),
    ],
)
def test_unknown_run_is_refused(kept, monkeypatch, text, words):
    """A word that names no run, or several, is refused with what would."""
    monkeypatch.chdir(kept)
    with pytest.raises(BadInput) as raised:
        find_run(text, Path("results"))
    assert words in str(raised.value)


def test_path_in_another_folder_is_looked_up_there(kept):
    """`DIR/last` is the last run in DIR."""
    assert find_run(str(kept / "results" / "last"), Path("nowhere")).name == "20260103T000000Z-night"


def test_links_are_no_runs(kept):
    """A link in the folder of results leads elsewhere, and is not listed."""
    (kept / "results" / "20260104T000000Z-link").symlink_to(kept, target_is_directory=True)
    assert len(runs_in(kept / "results")) == 3


def test_names_are_completed(kept):
    """The beginning of a word is completed by `last`, names and folders, each once."""
    assert list(names_of_runs("n", kept / "results")) == ["night"]
    assert list(names_of_runs("l", kept / "results")) == ["last"]


@pytest.mark.parametrize("arguments", [["report", "last"], ["select", "last"], ["compare", "last~2", "night"]])
def test_commands_take_names_of_runs(kept, arguments):
    """What takes a run takes its name."""
    done = typed(*arguments, cwd=kept)
    assert "no such" not in done.stderr.lower()
    assert done.stdout


def test_list_has_newest_first(kept):
    """The list begins with the newest run, and shows the peak and the verdicts."""
    done = typed("runs", cwd=kept)
    lines = [line for line in done.stdout.splitlines() if line.startswith("2026")]
    assert [line.split()[0][:8] for line in lines] == ["20260103", "20260102", "20260101"]
    assert "tok/s at users=2" in lines[0]
    assert "VALID" in lines[0]


def test_list_says_that_a_higher_load_is_invalid():
    """The throughput that it shows may not be the most."""
    peak = Peak(output_tokens_per_s=773.0, load="users=8", model="m", invalid_above=["users=16"])
    run = RunSummary(run="r", path="r", name="r", started_at="", state="complete", models=["m"], peak=peak)
    assert result_of(run) == "773 tok/s at users=8, users=16 INVALID"


@pytest.mark.parametrize(
    ("status", "shown"),
    [
        ("found", "plan with 71 users (likely; best estimate 84)"),
        ("at_least", "at least 84 users"),
        ("inconclusive", "not certain (best estimate 84 users)"),
    ],
)
def test_list_says_what_to_plan_with(status, shown):
    """As the search itself does: the low end of the range; a lower bound where the limit was not reached. Its probes
    have no verdicts."""
    found = CapacityFound(model="m", status=status, users=84, interval=(71, 97), strength="likely")
    of_probes = {"verdicts": {"INVALID": 6}, "command": "capacity", "capacity": [found]}
    run = RunSummary(run="r", path="r", name="r", started_at="", state="complete", models=["m"], **of_probes)
    assert result_of(run) == shown
    assert "INVALID" not in render_text(runs_document([run], results="results", left_out=0))


def test_two_searches_that_are_not_done_are_listed_as_a_comparison(tmp_path):
    """From the first on."""
    keep(tmp_path / "results" / "20260101T000000Z-compare", "a")
    (run,) = json.loads(typed("runs", "--json", cwd=tmp_path).stdout)["runs"]
    assert (run["command"], run["state"], run["models"]) == ("compare", "interrupted", ["m"])


def test_list_says_that_no_level_counts():
    """Something was measured."""
    run = RunSummary(run="r", path="r", name="r", started_at="", state="complete", verdicts={"INVALID": 2})
    assert result_of(run) == "no level counts (2 INVALID)"
    assert result_of(msgspec.structs.replace(run, verdicts={})) == "nothing measured"


@pytest.mark.parametrize("width", [60, 80, 120])
def test_list_gives_the_result_the_space(width):
    """It is what one looks for: before it is broken into many lines, verdicts, models and commands are left out; and
    its sentence ends where one of its parts does."""
    said = "B is 14.4x (12.3-16.9) as fast as A in output tokens/s at 2 loads; B's TTFT p50 is 0.143x (0.121-0.169) A's"
    counts = {"INCONCLUSIVE": 6, "INVALID": 3, "VALID": 9}
    of_run = {"conclusion": said, "command": "compare", "verdicts": counts, "models": ["llama-325m-cuda-gpu"]}
    run = RunSummary(run="20261128T044037Z-night", path="", name="", started_at="", state="complete", **of_run)
    text = render_text(runs_document([run], results="results", left_out=0), width=width)
    assert all(word in text for word in said.partition(";")[0].split())
    assert len(text.split("not shown")[0].strip().splitlines()) <= 7
    assert "TTFT" not in text


def test_list_has_no_figure_of_a_level_that_does_not_count(tmp_path):
    """As in the report, whose first sentence says that no level is sound."""
    few = Verdict("INCONCLUSIVE", [Reason("too_few_answers", "", "")])
    level = msgspec.structs.replace(a_level(load=Closed(2)), verdict=few)
    path = keep(tmp_path, "20260101T000000Z-short", levels=[level])
    summary = summary_of(FoundRun(path, datetime(2026, 1, 1, tzinfo=UTC), "short"))
    assert result_of(summary) == "no level counts (1 INCONCLUSIVE)"
    invalid = msgspec.structs.replace(level, verdict=Verdict("INVALID"))
    path = keep(tmp_path, "20260102T000000Z-busy", levels=[invalid, invalid])
    summary = summary_of(FoundRun(path, datetime(2026, 1, 2, tzinfo=UTC), "busy"))
    assert result_of(summary) == "no level counts (2 INVALID)"


@pytest.mark.parametrize(
    ("flags", "days"),
    [
        (["--name", "night"], ["20260103", "20260101"]),
        (["--name", "d*"], ["20260102"]),
        (["--since", "2026-01-02T00:00:00+00:00"], ["20260103", "20260102"]),
        (["--model", "M"], ["20260103", "20260102", "20260101"]),
        (["--model", "other"], []),
        (["--verdict", "invalid"], []),
        (["--label", "gpu"], ["20260102"]),
        (["--label", "gpu=4090"], ["20260102"]),
        (["--label", "gpu=none"], []),
        (["--command", "capacity"], []),
    ],
)
def test_list_is_filtered(kept, flags, days):
    """Each filter keeps the runs that fit."""
    assert typed("runs", "label", "day", "gpu=4090", cwd=kept).returncode == 0
    done = typed("runs", *flags, "--json", cwd=kept)
    assert [run["run"][:8] for run in json.loads(done.stdout)["runs"]] == days


def test_damaged_folder_is_listed(kept):
    """A folder whose file cannot be read is listed as damaged, with the reason; an empty one as empty."""
    (kept / "results" / "20260102T000000Z-day" / "run.json").write_text('{"schema": "loadb')
    (kept / "results" / "20260105T000000Z-dead").mkdir()
    runs = {run["name"]: run for run in json.loads(typed("runs", "--json", cwd=kept).stdout)["runs"]}
    assert runs["day"]["state"] == "damaged"
    assert "run.json" in runs["day"]["problem"]
    assert runs["dead"]["state"] == "empty"


def test_models_that_cannot_be_searched_are_named(tmp_path):
    """A search all of whose models failed is complete, and says so; it was not interrupted."""
    path = tmp_path / "results" / "20260101T000000Z-capacity"
    path.mkdir(parents=True)
    search = {"schema": "loadbench.capacities/1", "folders": {"a": "a"}, "failed": {"a": "not listed"}}
    (path / "capacities.json").write_text(json.dumps(search))
    (run,) = json.loads(typed("runs", "--json", cwd=tmp_path).stdout)["runs"]
    assert (run["state"], run["conclusion"]) == ("complete", "a: cannot be searched")


def test_hostile_texts_are_inert(kept):
    """What a run says is printed without control characters."""
    path = keep(kept / "results", "20260106T000000Z-x", models=[ModelStatus(HOSTILE, "ok")])
    (path / "labels.json").write_text(json.dumps({"schema": "loadbench.labels/1", "labels": {"k": HOSTILE}}))
    done = typed("runs", cwd=kept)
    assert "\x1b" not in done.stdout
    assert "\u202e" not in done.stdout
    assert "<script>" in done.stdout


def test_long_list_is_short_by_default(tmp_path):
    """Twenty runs are shown, and how many older ones there are; --all shows them."""
    content = to_json(a_run())
    for number in range(30):
        path = tmp_path / "results" / f"202601{number + 1:02}T000000Z-sweep"
        path.mkdir(parents=True)
        (path / "run.json").write_bytes(content)
    short, whole = (typed("runs", *flags, cwd=tmp_path).stdout for flags in ([], ["--all"]))
    assert "10 older runs not shown" in short
    assert [text.count("Z-sweep") for text in (short, whole)] == [20, 30]


def test_labels_do_not_touch_the_run(kept):
    """Labels are added, changed and taken away beside run.json, which stays as it is."""
    path = kept / "results" / "20260103T000000Z-night"
    before = (path / "run.json").read_bytes()
    typed("runs", "label", "last", "gpu=4090", "note=first try", cwd=kept)
    done = typed("runs", "label", "last", "gpu=", "note=second", cwd=kept)
    assert done.stdout == "note=second\n"
    assert (path / "run.json").read_bytes() == before
    assert read_run(path).name == "night"


@pytest.mark.parametrize("label", ["gpu", "=4090", "a b=c", "k=\x1b", "-k=v"])
def test_wrong_label_is_refused(kept, label):
    """What is no KEY=VALUE is refused, and nothing is written."""
    done = typed("runs", "label", "last", "--", label, cwd=kept)
    assert done.returncode == 2
    assert not (kept / "results" / "20260103T000000Z-night" / "labels.json").exists()


def test_runs_are_deleted_with_consent(kept):
    """--yes deletes the runs that are named, whole, and no others."""
    typed("runs", "label", "night", "gpu=4090", cwd=kept)
    done = typed("runs", "delete", "last", "night~1", "--yes", cwd=kept)
    assert done.returncode == 0
    assert "2 runs" in done.stderr
    left = sorted(entry.name for entry in (kept / "results").iterdir())
    assert left == ["20260102T000000Z-day", "notes.txt", "photos"]


def test_nothing_is_deleted_without_consent(kept):
    """Where nobody can be asked, what would go is shown, and nothing is deleted."""
    done = typed("runs", "delete", "last", cwd=kept)
    assert done.returncode == 2
    assert "20260103T000000Z-night" in done.stderr
    assert "--yes" in done.stderr
    assert len(runs_in(kept / "results")) == 3


def own_file(path: Path) -> None:
    """Somebody's own notes."""
    (path / "thesis.docx").write_text("mine")


def link_inside(path: Path) -> None:
    """A link that leads out."""
    (path / "report.md").symlink_to(path.parent / "notes.txt")


def no_run(path: Path) -> None:
    """The file of the run is somewhere else."""
    (path / "run.json").rename(path / "other.json")


@pytest.mark.parametrize("change", [own_file, link_inside, no_run])
def test_other_folders_are_not_deleted(kept, change):
    """A folder with files that loadbench did not write, with links, or without a run stays, and so do all others."""
    path = kept / "results" / "20260103T000000Z-night"
    change(path)
    done = typed("runs", "delete", "day", str(path), "--yes", cwd=kept)
    assert done.returncode == 2
    assert path.is_dir()
    assert (kept / "results" / "20260102T000000Z-day").is_dir()


def test_link_is_not_deleted(kept):
    """A link to a run is refused, and what it leads to stays."""
    link = kept / "results" / "link"
    link.symlink_to(kept / "results" / "20260103T000000Z-night", target_is_directory=True)
    done = typed("runs", "delete", str(link), "--yes", cwd=kept)
    assert done.returncode == 2
    assert link.is_symlink()
    assert (kept / "results" / "20260103T000000Z-night" / "run.json").is_file()


def test_run_under_way_is_not_deleted(kept):
    """A run whose log another part of loadbench has open is listed as running, and not deleted."""
    path = keep(kept / "results", "20260107T000000Z-now", complete=False)
    log = RequestLog(RunFolder(path), origin_ns=0, prompts=[], keep_texts=False)
    try:
        runs = json.loads(typed("runs", "--json", cwd=kept).stdout)["runs"]
        done = typed("runs", "delete", "now", "--yes", cwd=kept)
    finally:
        log.close()
    assert runs[0]["state"] == "running"
    assert done.returncode == 2
    assert "is writing this run" in done.stderr
    assert Path(path).exists()
    assert typed("runs", "--json", cwd=kept).stdout.count('"interrupted"') == 1


def test_run_says_its_command(tmp_path):
    """A run keeps the command that measured it."""
    typed("sweep", "--users", "1", "--requests", "1", "--warm-up", "0s", "--quiet", cwd=tmp_path)
    (run,) = json.loads(typed("runs", "--json", cwd=tmp_path).stdout)["runs"]
    assert run["command"] == "sweep"
