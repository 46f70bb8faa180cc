"""A killed run's last level is put together again from its requests, as it was measured."""

from __future__ import annotations

import msgspec
import orjson
import pytest

from loadbench.analyze.level.rebuild import run_in
from loadbench.analyze.level.summary import load_result
from loadbench.plan.arrivals import parse_arrivals
from loadbench.plan.load import Closed, Open, Phase
from loadbench.record.outcome import Outcome
from loadbench.report.formats import render
from loadbench.results.append_log import AppendLog
from loadbench.results.folder import RunFolder
from loadbench.results.requests import line, read_requests
from loadbench.results.run import UnderWay, to_json
from tests import recompute
from tests.building import MS, S, a_failure, a_level, a_run, a_sample

POISSON = parse_arrivals("poisson")


def round_robin(users: int, count: int, *, until: int | None = None):
    """Users without think time, whose responses take 300 ms; the first of each is a warm-up."""
    for number in range(count):
        due_ns = number // users * 300 * MS
        phase = Phase.WARM_UP if number < users else Phase.MEASURED
        yield a_sample(number, due_ns=due_ns, user=number % users, phase=phase)


def killed(folder, samples, *, load=None, levels=(), number=0, **over):
    """A run folder as a kill leaves it: these requests are of a level that is not in run.json."""
    run = a_run(*levels, complete=False) if levels else msgspec.structs.replace(a_run(complete=False), levels=[])
    under_way = None if load is None else UnderWay(model="m", load=load_result(load))
    run = msgspec.structs.replace(run, under_way=under_way, **over)
    (folder / "run.json").write_bytes(to_json(run))
    lines = [line(one, level=number, origin_ns=0, model="m", url="http://h/v1") for one in samples]
    (folder / "requests.jsonl").write_bytes(b"".join(lines))
    return folder


def test_level_is_that_of_its_requests(tmp_path):
    """Every figure follows from the requests, by a script that knows nothing of loadbench; and it is marked."""
    samples = [*round_robin(2, 40), a_failure(Outcome.RESET, number=41, due_ns=6 * S, user=1)]
    run = run_in(killed(tmp_path, samples, load=Closed(2)))
    (level,) = run.levels
    assert (level.model, level.target, level.load.label) == ("m", "http://h/v1", "users=2")
    assert level.outcomes == {"ok": 38, "reset": 1}
    requests = [orjson.loads(text) for text in (tmp_path / "requests.jsonl").read_bytes().splitlines()]
    differences = recompute.level_differences(orjson.loads(to_json(level)), requests)
    # Its last requests were due after its window closed.
    assert [one for one in differences if not one.startswith("offered_per_s")] == []
    assert (level.interrupted, run.complete, level.verdict.status) == (True, False, "INVALID")
    assert "interrupted" in {reason.code for reason in level.verdict.reasons}
    assert "rebuilt" in {caveat.code for caveat in level.caveats}


def test_window_ends_where_requests_may_be_missing(tmp_path):
    """One of the two users had a request in flight from 3 s on: its tokens are unknown, so the window ends there."""
    samples = [one for one in round_robin(2, 40) if one.request.user == 0 or one.due_ns < 3 * S]
    (level,) = run_in(killed(tmp_path, samples, load=Closed(2))).levels
    assert level.window_ns == (300 * MS, 3 * S)
    # Two users, 11 tokens every 300 ms; a token at the window's opening itself would count before it.
    assert level.throughput.output_tokens_per_s == pytest.approx(2 * 11 / 0.3, rel=0.02)
    assert level.outcomes == {"ok": 19 + 9}
    # What was due in it, from 0.3 to 2.7 s.
    assert level.offered_per_s == level.achieved_per_s == pytest.approx(2 * 9 / 2.7)


def test_window_of_a_rate_ends_at_the_first_missing_request(tmp_path):
    """Requests of an open loop are numbered by their due times: all before the first gap are known."""
    samples = [a_sample(number, due_ns=number * 100 * MS) for number in range(50) if number != 30]
    (level,) = run_in(killed(tmp_path, samples, load=Open(10.0, POISSON))).levels
    assert level.window_ns == (0, 29 * 100 * MS + 1)
    assert (level.load.label, level.load.arrivals, level.outcomes) == ("rate=10", "poisson", {"ok": 49})


def test_a_warm_up_begins_with_its_first_request(tmp_path):
    """100 s into the run, and 0.1 s before the window: shorter than a response, as its reason says."""
    samples = [a_sample(0, due_ns=100 * S, user=0, phase=Phase.WARM_UP)]
    samples += [a_sample(n, due_ns=100 * S + n * 100 * MS, user=n % 2) for n in range(1, 40)]
    (level,) = run_in(killed(tmp_path, samples, load=Closed(2))).levels
    assert "short_warm_up" in {reason.code for reason in level.verdict.reasons}
    assert "the warm-up of 100ms" in next(one.message for one in level.verdict.reasons if one.code == "short_warm_up")


def test_models_of_a_mix_and_servers_keep_their_figures(tmp_path):
    """By the names in the lines, where there are several."""
    folder = killed(tmp_path, round_robin(2, 40), load=Closed(2))
    (level,) = run_in(folder).levels
    assert (level.by_model, level.by_server, level.targets) == ({}, {}, [])
    rows = (folder / "requests.jsonl").read_bytes().splitlines(keepends=True)
    rows[1::2] = [row.replace(b'"m"', b'"n"').replace(b"http://h/v1", b"http://i/v1") for row in rows[1::2]]
    (folder / "requests.jsonl").write_bytes(b"".join(rows))
    (level,) = run_in(folder).levels
    for groups, names in ((level.by_model, ["m", "n"]), (level.by_server, ["http://h/v1", "http://i/v1"])):
        assert {name: group.ok for name, group in groups.items()} == dict.fromkeys(names, 19)
    assert (level.target, level.targets) == ("http://h/v1", ["http://h/v1", "http://i/v1"])


def test_whole_levels_stay_and_only_the_rest_is_rebuilt(tmp_path):
    """A level that run.json has is not touched; the one after it follows."""
    whole = a_level()
    run = run_in(killed(tmp_path, round_robin(1, 9), levels=[whole], number=1, load=Closed(1)))
    assert run.levels[0] == whole
    assert [level.outcomes for level in run.levels[1:]] == [{"ok": 8}]


@pytest.mark.parametrize("lines", [0, 1, 3])
def test_few_lines_and_half_a_line(tmp_path, lines):
    """Whatever is left is shown; a torn last line is no request."""
    folder = killed(tmp_path, round_robin(3, lines), load=Closed(3))
    with (folder / "requests.jsonl").open("ab") as file:
        file.write(b'{"level": 0, "pha')
    run = run_in(folder)
    assert [sum(level.outcomes.values()) for level in run.levels] == [0] * (lines > 0)


@pytest.mark.parametrize(("samples", "label"), [(round_robin(3, 30), "users=3"), (None, "rate=10")])
def test_without_a_result_the_requests_say_what_they_can(tmp_path, samples, label):
    """No run.json: name and time from the folder, the load as it is seen, nothing invented."""
    samples = samples or [a_sample(number, due_ns=number * 100 * MS) for number in range(30)]
    folder = tmp_path / "20260102T030405Z-trial"
    folder.mkdir()
    (killed(folder, samples) / "run.json").unlink()
    run = run_in(folder)
    assert (run.name, run.started_at, run.complete) == ("trial", "2026-01-02T03:04:05Z", False)
    (level,) = run.levels
    assert level.load.label == label
    assert level.outcomes["ok"] in {27, 30}
    assert "there is no run.json" in render(run, "text")
    assert "which was counted" in next(one.message for one in level.caveats if one.code == "rebuilt")


def test_objectives_are_decided_where_they_were_set(tmp_path):
    """The scenario's objectives hold for the rebuilt level too."""
    scenario = {"slo": {"objectives": ["ttft_p50<1s", "e2e_p99<2s@users=9"]}}
    (level,) = run_in(killed(tmp_path, round_robin(2, 60), load=Closed(2), scenario=scenario)).levels
    assert [(one.rule, one.value is not None) for one in level.objectives] == [("ttft_p50<1s", True)]


def test_a_run_that_goes_on_is_no_killed_one(tmp_path):
    """The log of a run that is still measured is locked, and the level says that it is running."""
    folder = killed(tmp_path, round_robin(2, 40), load=Closed(2))
    with AppendLog(RunFolder(folder), "requests.jsonl") as log:
        log.open()
        (level,) = run_in(folder).levels
    assert any("still running" in reason.message for reason in level.verdict.reasons)


def test_damaged_requests_cost_no_report(tmp_path, caplog):
    """Lines that are none, as a disk leaves them, are counted and left out. Where tokens do not fit the events of a
    request, the level cannot be put together, and those before it are shown."""
    folder = killed(tmp_path, list(round_robin(1, 25)), load=Closed(1))
    log = folder / "requests.jsonl"
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join([*lines[:4], b"\0" * 500 + b"\n", lines[4][:50] + b"\n", *lines[5:]]))
    (level,) = run_in(folder).levels
    assert "2 damaged lines of it are left out" in next(one.message for one in level.caveats if one.code == "rebuilt")
    assert list(read_requests(log))  # as a report of its users does, which says it no second time
    assert caplog.text.count("2 damaged lines left out, from line 5 on") == 1
    assert sum(level.outcomes.values()) in {23, 24}
    log.write_bytes(b"".join(lines).replace(b"[1,1,1,1,1,1,1,1,1,1,1]", b"[1,1]", 9))
    assert run_in(folder).levels == []
    assert "a request is damaged" in caplog.text
    log.write_bytes(b"junk\n" * 9)
    assert run_in(folder).levels == []
    assert "line 1: not a request" in caplog.text
