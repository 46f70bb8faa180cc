"""`loadbench capacity` as its users have it: the plan, the answer, the folder, what is refused, and going on."""

from __future__ import annotations

import dataclasses
import io
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest

from loadbench.analyze.capacity.answer import conclude, needed
from loadbench.analyze.capacity.curve import fit_of_all_objectives
from loadbench.analyze.capacity.search_evidence import SearchEvidence
from loadbench.client.client import Client, Endpoint
from loadbench.core.errors import BadInput, ExitCode, WorkersEnded
from loadbench.core.virtual import VirtualClock, run_virtual
from loadbench.live.progress import Progress
from loadbench.plan.conditions import conditions
from loadbench.plan.search import Purpose, Standing
from loadbench.plan.sources import resolve
from loadbench.report.capacity import capacity_document
from loadbench.report.capacity_plan import capacity_plan_document
from loadbench.report.formats import render
from loadbench.report.render_markdown import render_markdown
from loadbench.report.render_text import render_text
from loadbench.results.capacity import Capacity, CapacityAnswer, HitShare, ProbeResult, read_capacity
from loadbench.results.folder import read_run
from loadbench.results.run import to_json
from loadbench.session.capacity import CapacityWriter, Resumed, exit_code_of
from loadbench.session.setup import Session
from loadbench.session.telemetry import RunTelemetry
from loadbench.targets.prepare import Prepared
from loadbench.targets.target import Target
from tests.cli.running import interrupted, loadbench, started
from tests.coverage.capacity import PATIENT, a_scenario
from tests.coverage.servers import S, Slots
from tests.engine.no_health import NoHealth

if TYPE_CHECKING:
    from loadbench.plan.scenario import Scenario


SCENARIO = a_scenario("ttft_p95<1s", think_s=20.0, budget=3600 * S)


class Undisturbed(RunTelemetry):
    """What else runs on this machine says nothing about a server in virtual time."""

    def level_begins(self) -> None:
        pass


class Virtual(Session):
    """A session in virtual time, whose server is a transport."""

    def client(self, model: str) -> Client:
        return Client(
            Endpoint(base_url=self.target.base_url, model=model), self.transport, clock=self.clock, timeouts=PATIENT
        )

    def health(self) -> NoHealth:
        return NoHealth()

    async def counters(self) -> None:
        return None


def kept_search(
    cwd: Path, scenario: Scenario = SCENARIO, *, resume: Path | None = None, watch=None, watch_rung=None, first=None
) -> CapacityWriter:
    """A search of four slots in virtual time, kept as the command keeps one; `watch` is called after each probe, and
    `first` before all."""
    resumed = None if resume is None else Resumed.read_all(resume, scenario)[""]
    scenario = replace(scenario, report=replace(scenario.report, out=cwd, name="capacity"))
    progress = Progress(io.StringIO(), levels=1, quiet=True, live=False)

    async def main() -> CapacityWriter:
        clock = VirtualClock()
        target = Target(base_url="http://scripted/v1")
        session = Virtual(
            scenario=scenario,
            prepared=Prepared(scenario=scenario, target=target, models=("m",)),
            clock=clock,
            transport=Slots(4, 2.0, seed=2, first_s=0.05 if scenario.measures_curve else 0.0),
            telemetry=Undisturbed(scenario, target, clock=clock, say=progress.say),
            environment={},
            servers=(),
        )
        terms = conditions(scenario)
        with CapacityWriter(session, progress, model="m", scenario=scenario, terms=terms, resumed=resumed) as writer:
            if watch is not None:
                inner = writer.probe_ended
                writer.probe_ended = lambda *given, **named: watch(writer, inner(*given, **named))  # type: ignore[method-assign]
            if watch_rung is not None:
                climbed = writer.step_ended
                writer.step_ended = lambda *given, **named: watch_rung(writer, climbed(*given, **named))  # type: ignore[method-assign]
            if first is not None:
                first(writer)
            await writer.probe(is_kept=False)
            writer.conclude()
        return writer

    return run_virtual(main)


def test_the_folder_holds_the_search_and_its_probes_as_levels(tmp_path):
    """capacity.json, capacity.md, and a run.json of which each probe is a level: what a report can show."""
    session = kept_search(tmp_path)
    folder = session.folder.path
    kept, run = read_capacity(folder), read_run(folder)
    assert kept == session.capacity
    assert [probe.level for probe in kept.probes] == list(range(len(run.levels)))
    assert [probe.users for probe in kept.probes] == [level.load.users for level in run.levels]
    assert kept.answer.likely_high is not None
    assert kept.answer.limit == kept.explanation.kind
    assert kept.spent_s <= 3600 + 31
    assert render(run, "text")
    shown = render_text(capacity_document(kept))
    assert kept.conclusion in shown
    assert all(f"users={probe.users} " in shown for probe in kept.probes)
    assert (folder / "capacity.md").read_text(encoding="utf-8") == render_markdown(capacity_document(kept))


def test_a_resumed_search_keeps_its_earlier_answer(tmp_path):
    """Killed as it begins again, or stopped before its first new probe: answer and probes are those of before."""
    before = read_capacity(kept_search(tmp_path).folder.path)
    assert before.answer is not None
    folder = Path(before.run)

    def kill(_: CapacityWriter) -> None:
        raise BadInput("as a kill would")

    with pytest.raises(BadInput, match="as a kill would"):
        kept_search(tmp_path, resume=folder, first=kill)
    killed = read_capacity(folder)
    assert (killed.complete, killed.conclusion) == (False, before.conclusion)
    assert (killed.answer, killed.probes, killed.verification) == (before.answer, before.probes, before.verification)

    writer = kept_search(tmp_path, resume=folder, first=lambda writer: writer.search.stop())
    stopped = read_capacity(folder)
    assert (stopped.answer, stopped.probes, stopped.status) == (before.answer, before.probes, "interrupted")
    assert before.conclusion in stopped.conclusion
    assert writer.exit_code() == ExitCode.INTERRUPTED
    assert kept_search(tmp_path, resume=folder).capacity.status == before.status


def test_a_search_that_was_stopped_goes_on(tmp_path):
    """Stopped after five probes it can be read; resumed, it keeps these and adds to them, and counts their time."""

    def stop_after_five(session, found):
        if len(session.capacity.probes) == 5:
            assert len(read_capacity(session.folder.path).probes) == 5
            session.search.stop()
        return found

    first = kept_search(tmp_path, watch=stop_after_five).capacity
    folder = Path(first.run)
    assert (first.status, len(first.probes)) == ("interrupted", 5)
    assert not read_run(folder).complete

    second = kept_search(tmp_path, resume=folder).capacity
    assert second.probes[:5] == first.probes
    assert len(second.probes) > 5
    # What requests met in flight is known from before, too.
    before, after = np.array(first.in_flight.met), np.array(second.in_flight.met)
    assert before.sum() > 0
    assert (after[: len(before)] >= before).all()
    assert second.spent_s > first.spent_s
    assert second.first_answer_s == first.first_answer_s
    assert len(read_run(folder).levels) == len(second.probes)
    assert read_run(folder).complete


def test_a_search_without_workers_says_what_ended_it(tmp_path):
    """Its page and capacity.json say so too, and not only the message and the exit code; resumed, it goes on."""

    def end_after_two(writer: CapacityWriter, found):
        if len(writer.capacity.probes) == 2:
            raise WorkersEnded("every worker has ended")
        return found

    writer = kept_search(tmp_path, watch=end_after_two)
    kept = read_capacity(writer.folder.path)
    assert (kept.status, kept.complete, len(kept.probes)) == ("interrupted", False, 2)
    assert kept.conclusion.startswith("Every worker ended. ")
    assert kept.conclusion in render_text(capacity_document(kept))
    assert writer.exit_code() == ExitCode.INVALID

    def end_at_once(writer: CapacityWriter) -> None:
        async def run() -> None:
            raise WorkersEnded("every worker has ended")

        writer.search.run = run  # type: ignore[method-assign]

    again = kept_search(tmp_path, resume=Path(kept.run), first=end_at_once).capacity.conclusion
    assert again == f"Every worker ended before another probe ended. Until then: {kept.conclusion}"


def test_a_search_goes_on_under_the_same_conditions_only(tmp_path):
    """Another objective is another question: refused by name (I5). More time is not."""
    kept_search(tmp_path, watch=lambda session, found: session.search.stop() or found)
    (folder,) = tmp_path.iterdir()
    other = a_scenario("ttft_p95<2s", think_s=20.0, budget=3600 * S)
    with pytest.raises(BadInput, match=r"slo.objectives was \['ttft_p95<1s'\] and is \['ttft_p95<2s'\]"):
        Resumed.read_all(folder, other)
    longer = a_scenario("ttft_p95<1s", think_s=20.0, budget=7200 * S)
    assert Resumed.read_all(folder, longer)[""].earlier(Standing()).spent_ns > 0


def test_a_search_that_was_too_short_says_what_an_answer_takes(climbed):
    """More for a wider range, and more for a proof; with the budget to resume with."""
    evidence = SearchEvidence(CLIMBING.objectives, climbed.search.search.grid, confidence=0.95)
    evidence.probes = [a_probe(requests=400)]
    so_far = Capacity(status="inconclusive", objectives=[], model="m", budget_s=600.0, spent_s=600.0, run="runs/x")
    wide, wider = (
        CapacityAnswer(users=20, low=None, high=None, likely_low=10, likely_high=high, confidence=0.95)
        for high in (20, 40)
    )
    search = climbed.search.search
    least, more = needed(wide, so_far, evidence, search), needed(wider, so_far, evidence, search)
    proof = needed(wide, msgspec.structs.replace(so_far, require="proven"), evidence, search)
    assert 400 < least.requests < more.requests
    assert least.requests < proof.requests
    assert least.seconds == pytest.approx(600 * least.requests / 400, rel=0.01)
    shown = render_text(capacity_document(msgspec.structs.replace(so_far, conclusion="Too short.", needed=least)))
    assert f"about {least.requests} more requests" in shown
    assert "--resume runs/x --budget " in shown


def test_a_search_by_other_rates_cannot_go_on(tmp_path):
    """The steps between rates were others in older versions: a message, and no probe at a load that nobody meant."""
    scenario = resolve(
        flags={"objectives": ["ttft_p95<1s"], "by": "rate", "at_most": "50"}, environment={}, command="capacity"
    )
    probe = msgspec.structs.replace(a_probe(), users=msgspec.UNSET, rate_per_s=2.183, at=16)
    kept = Capacity(status="interrupted", objectives=[], model="m", budget_s=60.0, probes=[probe])
    kept = msgspec.structs.replace(kept, conditions=conditions(scenario))
    (tmp_path / "capacity.json").write_bytes(to_json(kept))
    with pytest.raises(BadInput, match="an older version of loadbench measured other loads"):
        Resumed.read_all(tmp_path, scenario)


CLIMBING = a_scenario("ttft_p95<1050ms", think_s=20.0, budget=7200 * S, curve=True)
TRUTH = 23  # M/M/4//N of 2 s of work and 20 s of thinking: so many wait longer than 1 s in no more than 5 % of cases


@pytest.fixture(scope="module")
def climbed(tmp_path_factory) -> CapacityWriter:
    """A search that begins with a ladder."""
    return kept_search(tmp_path_factory.mktemp("climbed"), CLIMBING)


def test_a_ladder_predicts_the_answer_and_says_what_is_in_the_way(climbed):
    """From levels without thinking: the true number lies within the prediction, and four slots are seen as four."""
    found = climbed.capacity
    fit = fit_of_all_objectives(found.prediction, 20.0)
    assert fit.low <= TRUTH <= fit.high
    assert [one.think_s for one in found.prediction.fits if not one.rule] == [10.0, 20.0, 40.0, 80.0]
    assert found.explanation.kind == found.answer.limit == "slots"
    assert found.explanation.slots.low <= 4 <= found.explanation.slots.high
    assert found.explanation.slots.high - found.explanation.slots.low < 1.5


def test_a_ladder_takes_less_than_a_quarter_and_proves_nothing(climbed):
    """It ends within its share but for a drain, the search within the budget; its levels are no probes."""
    found, run = climbed.capacity, read_run(climbed.folder.path)
    assert sum(one.took_s for one in found.curve) <= 7200 / 4 + 31
    assert found.spent_s <= 7200 + 31
    assert [one.level for one in found.curve] == list(range(len(found.curve)))
    assert [run.levels[one.level].load.users for one in found.curve] == [one.users for one in found.curve]
    assert all(run.levels[one.level].load.think is None for one in found.curve)
    assert [one.level for one in found.probes] == list(range(len(found.curve), len(run.levels)))
    assert found.probes[0].users == fit_of_all_objectives(found.prediction, 20.0).users


def test_three_ways_to_the_answer_stand_side_by_side(climbed):
    """Predicted, searched and verified: in the text, in Markdown, and in JSON."""
    found = climbed.capacity
    (rule,) = found.verification.predicted
    shares = found.verification.predicted[rule], found.verification.expected[rule]
    assert all(0.9 < one < 1 for one in shares)
    for shown in (render_text(capacity_document(found)), render_markdown(capacity_document(found))):
        goal = f"requests with TTFT < {rule.split('<')[1]} (95 % needed) at users={found.verification.amount:g}"
        (row,) = [line for line in shown.splitlines() if goal in line.replace("\\", "")]
        assert [f"{100 * one:.3g} %" in row for one in shares] == [True, True]
        assert "predicted (queueing model)" in shown
        assert f"scaled from the estimated {found.answer.users}" in shown


def test_a_report_of_the_run_begins_with_the_answer(climbed):
    """`loadbench report` shows what was found before the levels; for programs nothing is put in front."""
    folder = climbed.folder.path
    shown = loadbench("report", str(folder), cwd=folder.parent).stdout
    assert shown.startswith(render_text(capacity_document(climbed.capacity)))
    assert render(read_run(folder), "text") in shown
    assert loadbench("report", str(folder), "--format", "json", cwd=folder.parent).stdout.startswith("{")


@pytest.mark.parametrize("lowest", [False, True])
def test_an_abort_rule_that_ended_a_load_is_the_reason(climbed, lowest):
    """It is named, and no objective is said to be missed or to be the bottleneck; also where nothing else was tried."""
    search, why = climbed.search.search, "failures>20%: it was 30 %"
    failed = min(probe.at for probe in climbed.capacity.probes if probe.leaning < 0)
    if lowest:
        grid, standing = dataclasses.replace(search.grid, lowest=failed), search.standing._replace(failed=failed)
        search = dataclasses.replace(search, grid=grid, standing=standing)
    account = SearchEvidence(CLIMBING.objectives, search.grid, confidence=0.95)
    account.probes = [
        msgspec.structs.replace(probe, aborted=why) if probe.at == failed else probe
        for probe in climbed.capacity.probes
        if probe.purpose is not Purpose.VERIFY
    ]
    told = conclude(account, search, CLIMBING, climbed.run.levels, so_far=climbed.capacity)
    assert told.explanation.sentence == f"not known: an abort rule ended users={failed} ({why})"
    assert (told.status == "none") == lowest
    assert "misses" not in told.conclusion
    assert (told.conclusion == f"An abort rule ended even users={failed} ({why}).") == lowest


def test_a_verification_that_surely_differs_is_not_a_found_answer(climbed):
    """Expected to be within the bound nearly always, and measured to be so in every fifth case: exit code 5."""
    found = next(probe for probe in reversed(climbed.capacity.probes) if probe.purpose is Purpose.VERIFY)
    (rule,) = found.attainment
    bad = HitShare(share=0.2, asked=0.95, requests=200, hits=40, effective=200.0)
    account = SearchEvidence(CLIMBING.objectives, climbed.search.search.grid, confidence=0.95)
    others = [probe for probe in climbed.capacity.probes if probe is not found]
    account.probes = [*others, msgspec.structs.replace(found, attainment={rule: bad}, leaning=-99.0, requests=200)]
    told = conclude(account, climbed.search.search, CLIMBING, climbed.run.levels, so_far=climbed.capacity)
    assert told.verification.agrees is False
    assert told.status == "inconclusive"
    (contradiction,) = told.contradictions
    assert contradiction == f"the verification at {found.label} contradicts the search"
    assert told.conclusion.startswith(f"Inconclusive: {contradiction}. ")
    assert "best estimate" not in told.conclusion
    shown = render_text(capacity_document(told))
    assert shown.count("contradicts the search") == 1
    assert f"or performance drops sharply near {found.label}" in shown
    assert exit_code_of(told) == 5


def test_a_verification_of_a_few_requests_says_nothing(climbed):
    """Neither that it agrees nor that it contradicts."""
    found = next(probe for probe in reversed(climbed.capacity.probes) if probe.purpose is Purpose.VERIFY)
    account = SearchEvidence(CLIMBING.objectives, climbed.search.search.grid, confidence=0.95)
    others = [probe for probe in climbed.capacity.probes if probe is not found]
    account.probes = [*others, msgspec.structs.replace(found, requests=3, leaning=-99.0)]
    told = conclude(account, climbed.search.search, CLIMBING, climbed.run.levels, so_far=climbed.capacity)
    assert (told.verification.agrees, told.contradictions, told.answer.strength == "likely") == (None, [], False)
    assert "requests at this load were too few to tell" in render_text(capacity_document(told), width=200)


def test_a_limit_that_was_not_reached_asks_for_higher_loads(climbed):
    """With the prediction, and without advice on a bottleneck."""
    answer = msgspec.structs.replace(climbed.capacity.answer, users=20, low=20, high=None)
    found = msgspec.structs.replace(climbed.capacity, status="at_least", answer=answer)
    shown = render_text(capacity_document(found))
    fit = fit_of_all_objectives(found.prediction, 20.0)
    assert f"a higher --at-most. The queueing model predicts {fit.users} users ({fit.low} to" in shown
    assert "To raise the limit" not in shown


def test_levels_of_a_search_show_their_think_time_and_no_decisions(climbed):
    """Rows of the throughput curve say so; the search decides, not each level. In Markdown there is one main title."""
    run = read_run(climbed.folder.path)
    shown = render(run, "text")
    assert shown.count(", no think time ") == len(climbed.capacity.curve)
    assert "objective ttft" not in shown
    ran = loadbench("report", climbed.capacity.run, "--format", "markdown", cwd=climbed.folder.path.parent)
    assert [line[:2] for line in ran.stdout.splitlines() if line.startswith("#")] == ["# ", "##", "##"]


@pytest.mark.parametrize(
    ("rule", "requests"), [("ttft_p95<50ms", 2), ("ttft_p50<50ms", 7), ("ttft_p95<1s", None), ("failures<1%", None)]
)
def test_a_bound_that_one_request_alone_misses_ends_the_search_at_once(rule, requests, tmp_path):
    """As many requests as make it sure: no probe follows, and the answer says why. Otherwise the search goes on."""
    scenario = a_scenario(rule, think_s=20.0, budget=3600 * S, curve=True)
    writer = kept_search(tmp_path, scenario, watch_rung=lambda session, step: session.search.stop() or step)
    found = writer.capacity
    assert (found.status == "none") == (requests is not None)
    if requests is not None:
        assert (found.probes, exit_code_of(found), found.spent_s < 60) == ([], 3, True)
        assert f"misses {rule}: of {requests} requests in turn, none was faster than" in found.conclusion
        assert found.conclusion in render_text(capacity_document(found))


def test_a_likely_answer_is_enough_unless_a_proven_one_is_required():
    """Exit code 0 for both by default, and 5 for a likely one with --require proven."""
    for strength in ("likely", "proven"):
        answer = CapacityAnswer(users=8, low=8, high=9, confidence=0.95, strength=strength)
        found = Capacity(status="found", objectives=[], model="m", budget_s=60.0, answer=answer)
        assert exit_code_of(found) == 0
        strict = msgspec.structs.replace(found, require="proven")
        assert exit_code_of(strict) == (0 if strength == "proven" else 5)
        assert exit_code_of(strict, undecided="pass") == 0
        assert exit_code_of(strict, undecided="fail") == (0 if strength == "proven" else 3)


def test_a_search_without_an_answer_counts_as_it_is_said_to():
    """5, or 0 or 3 by --undecided; what it does not excuse stays: the client's limit, and Ctrl-C."""
    found = Capacity(status="inconclusive", objectives=[], model="m", budget_s=60.0)
    assert [exit_code_of(found, undecided=word) for word in (None, "pass", "fail")] == [5, 0, 3]
    for status, code in (("client", 4), ("interrupted", 130), ("none", 3)):
        other = msgspec.structs.replace(found, status=status)
        assert exit_code_of(other, undecided="pass") == code


@pytest.mark.slow
def test_a_ladder_is_not_climbed_twice(tmp_path):
    """Stopped at a rung, and again after the first probe: what was measured is kept, and the rest is added."""

    def stop(session, found):
        session.search.stop()
        return found

    def stop_at_third_rung(session, step):
        if len(session.capacity.curve) == 3:
            shown = (session.folder.path / "capacity.md").read_text(encoding="utf-8")
            assert "Under way: 3 loads without think time" in shown
            session.search.stop()
        return step

    first = kept_search(tmp_path, CLIMBING, watch_rung=stop_at_third_rung).capacity
    assert (first.status, [one.users for one in first.curve]) == ("interrupted", [1, 2, 4])
    second = kept_search(tmp_path, CLIMBING, resume=Path(first.run), watch=stop).capacity
    assert second.curve[:3] == first.curve
    assert len({one.users for one in second.curve}) == len(second.curve) > 3
    third = kept_search(tmp_path, CLIMBING, resume=Path(first.run), watch=stop).capacity
    assert third.curve == second.curve
    assert len(third.probes) == 2


@pytest.mark.parametrize(
    "scenario",
    [
        a_scenario("ttft_p95<1s", think_s=20.0, curve=False),
        a_scenario("ttft_p95<1s", curve=True),
        a_scenario("ttft_p95<1s", by="rate", curve=True),
    ],
    ids=["--no-curve", "no thinking", "by rate"],
)
def test_where_there_is_no_ladder(scenario):
    """Not where it was declined, and not where levels with thinking are not what is searched."""
    assert not scenario.measures_curve
    assert "without think time" not in render_text(capacity_plan_document(scenario))
    assert "without think time" in render_text(capacity_plan_document(CLIMBING))


def a_probe(**over: Any) -> ProbeResult:
    """A test of eight users that passed."""
    probe = ProbeResult(
        users=8,
        decision="PASS",
        attainment={},
        requests=90,
        purpose=Purpose.TEST,
        level=0,
        at=8,
        leaning=9.0,
        window_s=9.0,
    )
    return msgspec.structs.replace(probe, **over)


def test_what_is_known_is_told_while_a_search_is_under_way():
    """The heading of a search without a conclusion names what is proven so far, or that nothing is."""
    probe = a_probe()
    known = Capacity(status="inconclusive", objectives=[], model="m", probes=[probe], budget_s=600.0, spent_s=60.0)
    assert "users=8 is proven to pass, no load is proven to fail" in render_text(capacity_document(known))
    assert "no loads" in render_text(capacity_document(msgspec.structs.replace(known, probes=[])))


def test_notes_are_shown_only_where_they_apply():
    """The effective n, repeat tests and phases are explained if the table has them."""
    share = HitShare(share=1.0, asked=0.95, requests=90, hits=90, effective=90.0)
    probe = a_probe(attainment={"ttft_p95<1s": share})
    known = Capacity(status="inconclusive", objectives=["ttft_p95<1s"], model="m", probes=[probe], budget_s=600.0)
    shown = render_text(capacity_document(known))
    assert "ttft_p95<1s: requests with TTFT < 1s (95 % needed)" in shown
    for words in ("effective n", "repeat test", "bracketing briefly measures", "verification"):
        assert words not in shown
    dependent = {"ttft_p95<1s": msgspec.structs.replace(share, effective=9.0)}
    probes = [probe, msgspec.structs.replace(probe, purpose=Purpose.REPEAT, attainment=dependent)]
    shown = render_text(capacity_document(msgspec.structs.replace(known, probes=probes)))
    assert "effective n: requests influence each other" in shown
    assert "repeat test briefly measures an end again, and is decided by its own requests alone" in shown


def test_users_who_gave_up_are_shown_with_the_answer():
    """They were part of the load and were not served, so a reader must see how many they are; else nothing is said."""
    probe = a_probe(requests=200, gave_up=50)
    larger = msgspec.structs.replace(probe, users=16, at=16, decision="FAIL", gave_up=190, requests=300)
    answer = CapacityAnswer(users=8, low=8, high=15, confidence=0.95, limit="unknown")
    known = Capacity(status="found", objectives=[], model="m", probes=[probe, larger], budget_s=60.0, answer=answer)
    shown = render_text(capacity_document(known))
    assert "gave up" in shown
    assert "not served: 25 % of the requests at users=8; the objectives hold for users who wait" in shown
    patient = [msgspec.structs.replace(one, gave_up=0) for one in known.probes]
    assert "gave up" not in render_text(capacity_document(msgspec.structs.replace(known, probes=patient)))


def test_a_stored_search_of_an_older_version_is_shown():
    """Its sentences stay as they were stored, and the tables have today's words."""
    kept = read_capacity(Path("tests/data/older"))
    shown = render_text(capacity_document(kept))
    assert shown.startswith(f"Capacity of model m25\n\n{kept.conclusion}\n")
    assert "200 users need 8 such servers with at most 26 users each (80 % of the proven 33)" in shown


def the_folder(cwd: Path) -> Path:
    (folder,) = (cwd / "runs").iterdir()
    return folder


def test_ctrl_c_keeps_what_was_found(tmp_path):
    """Interrupted, it ends with 130 and leaves a search that can be read; a rung that was cut short is none of it."""
    process = started(
        "capacity",
        "--slo",
        "ttft_p95<1s",
        "--think",
        "2s",
        "--budget",
        "10m",
        "--out",
        "runs",
        "--no-live",
        cwd=tmp_path,
    )
    out = interrupted(process)
    assert process.returncode == 130
    kept = read_capacity(the_folder(tmp_path))
    assert (kept.status, kept.curve) == ("interrupted", [])
    assert len(read_run(the_folder(tmp_path)).levels) == 1
    assert "Stopped" in out


def test_dry_run_plans_and_sends_nothing(tmp_path):
    """The plan names target, objectives, budget and what a proof takes; no folder is made."""
    ran = loadbench(
        "capacity", "--slo", "failures<1%", "--url", "http://127.0.0.1:9", "--dry-run", "--verbose", cwd=tmp_path
    )
    assert ran.returncode == 0
    assert "at most 20m" in ran.stdout
    assert "at least about 735 requests for failures<1%, and 5 per user" in ran.stdout
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "needs an objective"),
        (("--slo", "requests_per_s>2"), "throughput rises with the load"),
        (("--slo", "ttft_mean<1s"), "use a percentile"),
        (("--slo", "ttft_p95<1s@users=4"), "chooses the loads itself"),
        (("--slo", "ttft_p95<1s", "--confidence", "100%"), "a confidence from 50% to 99.99%"),
        (("--slo", "ttft_p95<1s", "--at-most", "0.5"), "0.5 is no number of users"),
        (("--slo", "ttft_p95<1s", "--headroom", "100%"), "--headroom: found '100%', want less than 100%"),
        (("--slo", "ttft_p95<1s", "--resume", "nowhere"), "no such run"),
    ],
)
def test_what_cannot_be_searched_is_refused(arguments, said, tmp_path):
    """Each in one message that says what is wrong, with exit code 2 and before anything is sent."""
    ran = loadbench("capacity", *arguments, cwd=tmp_path)
    assert ran.returncode == 2
    assert said in ran.stderr
    assert "Traceback" not in ran.stderr


def test_search_has_no_rules_of_one_level():
    """Neither objectives nor rules to abort, because it chooses its loads itself."""
    for key in ("objectives", "abort_on"):
        sign = "<" if key == "objectives" else ">"
        flags = {"objectives": ["ttft_p95<1s"], key: [f"failures{sign}20%"]}
        resolve(flags=flags, environment={}, command="capacity")
        with pytest.raises(BadInput, match=f"failures{sign}20%@users=4: the search chooses the loads itself"):
            resolve(flags=flags | {key: [f"failures{sign}20%@users=4"]}, environment={}, command="capacity")


def test_capacity_json_reads_back_and_damage_is_told(tmp_path):
    """What is written is read the same; a torn file is named, not a traceback."""
    capacity = Capacity(status="none", objectives=["ttft_p95<1s"], model="m", budget_s=60.0)
    (tmp_path / "capacity.json").write_bytes(to_json(capacity))
    assert read_capacity(tmp_path) == capacity
    (tmp_path / "capacity.json").write_bytes(to_json(capacity)[:40])
    with pytest.raises(BadInput, match="not a capacity search"):
        read_capacity(tmp_path)
