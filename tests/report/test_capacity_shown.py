"""What the report of a capacity search says of probes that a sweep would call INVALID or INCONCLUSIVE."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import msgspec
import pytest

from loadbench.analyze.capacity.fitted_curve import fitted_curve
from loadbench.analyze.capacity.fleet_size import fleet_size
from loadbench.analyze.capacity.search_evidence import SearchEvidence
from loadbench.analyze.level.load_makers import load_makers
from loadbench.analyze.level.rebuild import run_in
from loadbench.plan.objective import parse_objective
from loadbench.plan.search import Purpose, Users
from loadbench.report.capacities import capacities_document
from loadbench.report.capacity import answer_line, capacity_document, side_of, trust_lines
from loadbench.report.capacity_charts import capacity_charts
from loadbench.report.chart import class_of
from loadbench.report.document import Chart, Text, Tiles
from loadbench.report.page import run_blocks
from loadbench.report.pages import capacity_page
from loadbench.report.render_text import render_text
from loadbench.report.run import run_document
from loadbench.results.capacity import FILE, AtThinkTime, Capacities, Needed, read_capacity
from loadbench.results.prediction import PredictedCapacity
from loadbench.results.run import FailureCount, Reason, Verdict, to_json
from tests.building import a_run

FOLDER = next((Path(__file__).parents[2] / "results").glob("*-capacity-*"))


def with_reasons(places, *codes):
    """The saved search, and its levels of which those at these places have these reasons and the others none."""
    capacity, run = read_capacity(FOLDER), run_in(FOLDER)
    invalid = Verdict("INVALID", [Reason(code, f"because of {code}", f"against {code}") for code in codes])
    levels = [
        msgspec.structs.replace(level, verdict=invalid if place in places else Verdict("VALID"))
        for place, level in enumerate(run.levels)
    ]
    return capacity, msgspec.structs.replace(run, levels=levels)


@pytest.mark.parametrize(
    ("codes", "said"),
    [
        (("late_reads",), "loadbench was late in 1 of {all} probes, by too little to change a result"),
        (("cached_prompts",), "Something else is wrong with the measurement at {label}"),
        (("too_few_answers", "short_warm_up"), None),
    ],
)
def test_the_answer_says_whether_its_probes_can_be_believed(codes, said):
    """Late ones count where that changed nothing; short ones always; others may change the answer."""
    capacity = read_capacity(FOLDER)
    probe = capacity.probes[0]
    capacity, run = with_reasons({probe.level}, *codes)
    plain = render_text(capacity_document(capacity, run_in(FOLDER).levels))
    text = render_text(capacity_document(capacity, run.levels))
    if said is None:
        assert text == plain
    else:
        assert said.format(all=len(capacity.probes), label=probe.label) in " ".join(text.split())


def test_the_answer_names_what_did_not_count():
    """A level that is neither a probe nor a step of the curve, because the load generator was too slow."""
    capacity, run = with_reasons({read_capacity(FOLDER).probes[-1].level}, "late_start")
    fewer = msgspec.structs.replace(capacity, probes=capacity.probes[:-1])
    text = render_text(capacity_document(fewer, run.levels))
    assert f"Not counted, because loadbench was too slow: {capacity.probes[-1].label}." in text


def test_what_did_not_count_because_of_other_programs_is_not_blamed_on_loadbench():
    """The line has the words of the level's own reason."""
    capacity, run = with_reasons(set())
    kept = "other programs probably kept loadbench waiting"
    last = capacity.probes[-1]
    late = Verdict("INVALID", [Reason("late_start", f"{kept}: it sent requests late", "end them")])
    levels = [*run.levels]
    levels[last.level] = msgspec.structs.replace(levels[last.level], verdict=late)
    lines = trust_lines(msgspec.structs.replace(capacity, probes=capacity.probes[:-1]), levels)
    assert f"Not counted, because {kept}: {last.label}." in lines


def test_the_levels_of_a_search_have_no_verdict():
    """They are short on purpose, so advice to measure longer is no use; what the objectives cannot settle is shown."""
    _, run = with_reasons({0}, "too_few_answers", "late_reads", "cached_prompts")
    text, page = render_text(run_document(run)), str(run_blocks(run, None))
    for shown in (text, page):
        assert "against too_few_answers" not in shown
        assert "against late_reads" not in shown
        assert "against cached_prompts" in shown
    assert "INVALID" not in text
    assert "INVALID" in render_text(run_document(msgspec.structs.replace(run, scenario={})))


def test_requests_that_the_search_ended_are_no_failures():
    """They are counted in a note; in a sweep they stay where they were."""
    _, run = with_reasons(set())
    cut = FailureCount(outcome="cancelled", detail="cut before its end", count=3)
    first = msgspec.structs.replace(run.levels[0], failures=[cut], outcomes={"ok": 9, "cancelled": 3})
    others = [msgspec.structs.replace(level, failures=[], outcomes={"ok": 9}) for level in run.levels[1:]]
    run = msgspec.structs.replace(run, levels=[first, *others])
    text = render_text(run_document(run))
    assert "cut before its end" not in text
    assert "3 requests ended by the search once it knew enough; this is no failure" in text
    assert "cut before its end" not in str(run_blocks(run, None))
    assert "cut before its end" in render_text(run_document(msgspec.structs.replace(run, scenario={})))


# Answers whose ends are open, and what follows from them.


def answered(status="found", *, low=None, high=None, likely=(None, None), people=200, headroom=0.2, amount=100):
    """The saved search with such an answer, and the servers that so many people need."""
    capacity = read_capacity(FOLDER)
    strength = "proven" if status == "at_least" else "likely"
    ends = {"low": low, "high": high, "likely_low": likely[0], "likely_high": likely[1]}
    answer = msgspec.structs.replace(capacity.answer, users=amount, strength=strength, **ends)
    least, most = answer.range
    fleet = fleet_size(people, int(least or 0), headroom=headroom, capacity_high=None if most is None else int(most))
    scaled = [AtThinkTime(think_s=3.0, users=50, low=50 if least else None, high=None if most is None else 60)]
    return msgspec.structs.replace(capacity, status=status, answer=answer, devices=fleet, at_think_times=scaled)


def shown(capacity):
    return " ".join(render_text(capacity_document(capacity), width=400).split())


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        (
            {"likely": (70, 91)},
            (
                "200 users need 4 such servers with at most 56 users each (80 % of the likely 70); 3 would be enough "
                "if each can serve 91 (at most 72 each)."
            ),
        ),
        ({"likely": (70, 80), "headroom": 0.0}, "200 users need 3 such servers with at most 70 users each"),
        (
            {"status": "at_least", "low": 200},
            (
                "1 such server is enough for 200 users with nothing kept free. With 20 % kept free, 2 are enough (at "
                "most 160 users each: 80 % of the proven 200); whether fewer are is not known; a search with a higher "
                "--at-most can tell."
            ),
        ),
        (
            {"status": "at_least", "low": 200, "people": 150},
            "150 users need 1 such server, also with 20 % kept free (80 % of the proven 200).",
        ),
        (
            {"status": "at_least", "low": 200, "people": 900, "headroom": 0.0},
            "900 users need at most 5 such servers with at most 200 users each (100 % of the proven 200), and maybe",
        ),
        (
            {"status": "inconclusive", "low": 30, "likely": (20, None)},
            "7 such servers are enough for 200 users with nothing kept free. With 20 % kept free, 9 are enough",
        ),
        ({"status": "inconclusive"}, "Servers for 200 users: unknown, because no server is sure to serve"),
    ],
)
def test_the_number_of_servers_does_not_contradict_the_answer(facts, said):
    """Where the limit of one is not known, it is the most that are needed."""
    assert said in shown(answered(**facts))


@pytest.mark.parametrize("status", ["found", "at_least", "inconclusive", "client", "interrupted"])
@pytest.mark.parametrize("low", [None, 40])
@pytest.mark.parametrize("high", [None, 60])
@pytest.mark.parametrize("likely", [(None, None), (45, None), (None, 55), (45, 55)])
def test_no_open_end_is_shown_as_a_number(status, low, high, likely):
    """In all combinations of a status and known ends: the text, the page and its tiles can be made, and where nothing
    bounds the limit from above, no range ends."""
    if status == "at_least":
        low, high, likely = 40, None, (likely[0], None)
    capacity = answered(status, low=low, high=high, likely=likely, amount=50 if status != "at_least" else 40)
    text = shown(capacity)
    tiles = str(capacity_page(capacity, run_in(FOLDER), FOLDER).blocks[:4])
    for made in (text, tiles):
        assert "None" not in made.replace("None,", "")
        assert "nan" not in made
    if capacity.answer.range[1] is None:
        assert "50 to" not in text.partition("scaled")[2].partition("response time")[0]
    if status == "at_least":
        assert "50 or more" in text
        assert "scaled range" not in text
        assert "40 or more" in tiles or "40 users" in tiles


@pytest.mark.parametrize(
    ("fit", "said"),
    [
        ({"users": 18, "low": 15, "high": 30}, "fewer users than the search found: rely on the search"),
        ({"users": 140, "low": 120, "high": 150}, "more users than the search found: rely on the search"),
        ({"users": 80, "low": 60, "high": 85}, "the prediction and the search agree"),
        ({"users": 18, "low": 0, "high": None, "at_least": True}, "neither supports nor contradicts the search"),
        (
            {"users": 90, "low": 80, "high": None, "at_least": True},
            "the prediction does not contradict the search: it is only a lower bound, and not above the range",
        ),
        ({"users": 90, "low": 92, "high": None, "at_least": True}, "more users than the search found"),
    ],
)
def test_the_report_says_what_to_do_where_the_methods_disagree(fit, said):
    """The prediction and the search, by their ranges."""
    capacity = answered(likely=(70, 91), amount=81)
    think_s = capacity.answer.think_s
    fits = [one for one in capacity.prediction.fits if one.rule or one.think_s != think_s]
    prediction = msgspec.structs.replace(
        capacity.prediction, fits=[*fits, PredictedCapacity(**{"think_s": think_s, "at_least": False, **fit})]
    )
    assert said in shown(msgspec.structs.replace(capacity, prediction=prediction))


def test_a_search_without_a_limit_is_not_said_to_agree_with_a_prediction():
    """Its range has no upper end, so that it overlaps with every prediction that is not far below."""
    capacity = answered("at_least", low=40, likely=(45, None), amount=40)
    think_s = capacity.answer.think_s
    fits = [one for one in capacity.prediction.fits if one.think_s != think_s]
    known = PredictedCapacity(think_s=think_s, users=80, low=60, high=85, at_least=False)
    for fit, said in (
        (known, "the search gives only a lower bound, and it is not above the predicted range"),
        (msgspec.structs.replace(known, high=None, at_least=True), "both are only lower bounds"),
    ):
        prediction = msgspec.structs.replace(capacity.prediction, fits=[*fits, fit])
        text = shown(msgspec.structs.replace(capacity, prediction=prediction))
        assert f"the prediction does not contradict the search: {said}" in text
        assert "agree" not in text


@pytest.mark.parametrize(("status", "budget"), [("found", "22m"), ("inconclusive", "12m")])
def test_a_budget_that_is_advised_is_said_to_be_that_of_the_whole_search(status, budget):
    """What was spent before counts."""
    said = f"--budget {budget}` ({budget} is the total, of which 128 s are spent)"
    assert said in shown(answered(status, likely=(70, 91)))


@pytest.mark.parametrize(
    ("effective", "said"),
    [
        ((8.2, 41.0), "all 41 requests met every objective (for ttft_p90<500ms worth 8 independent ones)"),
        ((8.2, 8.4), "all 41 requests met every objective (worth 8 independent ones)"),
        ((0.7, 0.7), "all 41 requests met every objective (worth 1 independent one)"),
        ((40.5, 41.0), "all 41 requests met every objective. It was"),
    ],
)
def test_how_many_independent_requests_a_verification_is_worth_stands_beside_their_number(effective, said):
    """The interval is that of so many."""
    capacity = answered(likely=(70, 91))
    measured = {
        rule: msgspec.structs.replace(one, requests=41, hits=41, effective=n)
        for (rule, one), n in zip(capacity.verification.measured.items(), effective, strict=True)
    }
    verified = msgspec.structs.replace(capacity.verification, amount=69, agrees=True, measured=measured)
    assert said in shown(msgspec.structs.replace(capacity, verification=verified))


def test_what_disturbed_the_probes_and_what_it_did_stand_together():
    """Other programs, and that loadbench was late for it: two sentences, one after the other."""
    capacity, run = with_reasons({read_capacity(FOLDER).probes[0].level}, "late_reads")
    probes = [msgspec.structs.replace(capacity.probes[0], caveats=["other programs"]), *capacity.probes[1:]]
    lines = trust_lines(msgspec.structs.replace(capacity, probes=probes), run.levels)
    assert lines[0].startswith(
        f"Something else used this machine during the probe at {probes[0].label}, but no request"
    )
    assert lines[1].startswith("This probably made loadbench late in 1 of")


@pytest.mark.parametrize(
    ("disturbed", "said"),
    [
        ({71}, "the probe at users=71, but no request missed an objective there: the answer is no lower for that"),
        ({200}, "at users=200, but users=100, which nothing disturbed, misses an objective too: the answer is hardly"),
        ({100}, "the probe at users=100, which may have caused misses: the answer may be too low"),
        ({100, 119}, "the probes at users=119, 100, which may have caused misses"),
    ],
)
def test_a_disturbed_probe_is_named_with_what_follows_from_it(disturbed, said):
    """One that passed in all requests, or that lies above another one that misses, does not make the answer lower."""
    capacity = read_capacity(FOLDER)
    probes = [
        msgspec.structs.replace(probe, caveats=["other programs"] if probe.users in disturbed else [])
        for probe in capacity.probes
    ]
    assert said in " ".join(trust_lines(msgspec.structs.replace(capacity, probes=probes), ()))


def test_the_first_tile_is_the_number_to_plan_with():
    """Then the estimate; each has a note that can be read."""
    page = capacity_page(read_capacity(FOLDER), run_in(FOLDER), FOLDER)
    tiles = next(block for block in page.blocks if isinstance(block, Tiles)).items
    low, high = read_capacity(FOLDER).answer.range
    assert tiles[0] == ("plan with", f"at most {low:g} users", f"the limit is likely to be {low:g} to {high:g}")
    assert tiles[1][0] == "best estimate"
    assert all(note for _, _, note in tiles)


@pytest.mark.parametrize(
    ("facts", "line"),
    [
        ({"likely": (71, 97), "amount": 84}, "answer: plan with at most 71 users (likely 71 to 97; best estimate 84)"),
        (
            {"likely": (71, 97), "low": 60, "amount": 84},
            "answer: plan with at most 71 users (likely 71 to 97; proven 60 or more; best estimate 84)",
        ),
        ({"likely": (1, 2), "amount": 2}, "answer: plan with at most 1 user (likely 1 to 2; best estimate 2)"),
        (
            {"status": "inconclusive", "likely": (20, None), "amount": 30},
            "answer: not certain, inconclusive (likely 20 or more; best estimate 30)",
        ),
        ({"status": "at_least", "low": 200, "amount": 200}, "answer: at least 200 users, the highest load allowed"),
    ],
)
def test_the_last_line_of_a_search_has_the_number_to_plan_with(facts, line):
    """The same as its first sentence: the best estimate is as likely too high."""
    assert answer_line(answered(**facts)) == line


def test_the_number_to_plan_with_is_told_from_the_load_that_was_verified():
    """The low end moves with the requests of the verification."""
    capacity = answered(likely=(70, 91))
    capacity = msgspec.structs.replace(
        capacity, verification=msgspec.structs.replace(capacity.verification, amount=69, agrees=True)
    )
    moved = (
        "It was the low end then; its requests moved that to 70, which was not measured itself: 70 rests on the curve"
    )
    assert f"worth 8 independent ones). {moved}" in shown(capacity)
    same = msgspec.structs.replace(capacity.verification, amount=70)
    assert "It was the low end" not in shown(msgspec.structs.replace(capacity, verification=same))
    below = msgspec.structs.replace(capacity.verification, amount=95)
    assert "is less than" not in shown(msgspec.structs.replace(capacity, verification=below))
    for agrees, said in ((None, "were too few to tell"), (False, "that contradicts the curve")):
        other = msgspec.structs.replace(capacity.verification, agrees=agrees)
        assert said in shown(msgspec.structs.replace(capacity, verification=other))


def test_no_chart_speaks_of_a_model_that_is_not_drawn():
    """Without a prediction only the probes are drawn; their lines are not taken for the limit."""
    capacity, run = read_capacity(FOLDER), run_in(FOLDER)
    without = capacity_charts(msgspec.structs.replace(capacity, prediction=None), run)
    assert any("The model" in chart.note for chart in capacity_charts(capacity, run))
    assert not any("The model" in chart.note for chart in without)
    for charts in (without, capacity_charts(capacity, run)):
        joined = [chart for chart in charts if any(line.drawn == "line" for line in chart.series)]
        assert joined
        assert all("lines join the loads that were measured" in chart.note for chart in joined)


def test_a_prediction_that_says_nothing_is_in_no_chart():
    """As in the text, which says that there is none."""
    capacity, run = read_capacity(FOLDER), run_in(FOLDER)
    think_s = capacity.answer.think_s
    silent = PredictedCapacity(think_s=think_s, users=7, low=0, high=None, at_least=True)
    prediction = msgspec.structs.replace(capacity.prediction, fits=[silent])
    for one, drawn in ((capacity, True), (msgspec.structs.replace(capacity, prediction=prediction), False)):
        names = {line.name for chart in capacity_charts(one, run) for line in chart.series}
        assert any(name.startswith("predicted") for name in names) == drawn
        assert ("no prediction by the queueing model" in shown(one)) != drawn


# The fitted curve, and a load that passed above the one to plan with.


def passed_at(users, requests):
    """The saved search, with one more probe whose requests all met every objective, and the answer that follows."""
    capacity = read_capacity(FOLDER)
    alike = {
        rule: msgspec.structs.replace(one, share=1.0, hits=requests, requests=requests, effective=float(requests))
        for rule, one in capacity.probes[0].attainment.items()
    }
    facts = {"users": users, "at": users, "attainment": alike, "requests": requests, "purpose": Purpose.REFINE}
    more = msgspec.structs.replace(capacity.probes[0], **facts)
    capacity = msgspec.structs.replace(capacity, probes=[*capacity.probes, more])
    objectives, grid = [parse_objective(rule) for rule in capacity.objectives], Users(200)
    evidence = SearchEvidence(objectives, grid, confidence=0.95, think_s=capacity.answer.think_s)
    evidence.resume(capacity)
    standing = evidence.standing()
    ends = {"users": standing.estimate, "likely_low": float(standing.low), "likely_high": float(standing.high)}
    return msgspec.structs.replace(capacity, answer=msgspec.structs.replace(capacity.answer, **ends))


def test_the_curve_of_a_saved_search_is_that_of_its_answer():
    """Its chances are those of the range's ends, and its lower edge leaves the needed share at the low end."""
    capacity = read_capacity(FOLDER)
    curve, (low, high) = fitted_curve(capacity), capacity.answer.range
    assert curve.chance_below(low) <= 0.025 <= curve.chance_below(low + 1)
    assert curve.chance_below(high) <= 0.975 <= curve.chance_below(high + 1)
    assert 0.4 < curve.chance_below(capacity.answer.amount) < 0.6
    needed = capacity.probes[0].attainment["ttft_p90<500ms"].asked
    assert curve.share("ttft_p90<500ms", low).low >= needed > curve.share("ttft_p90<500ms", 1.05 * low).low
    # The curve that is drawn falls to the needed share at the best estimate.
    amount = capacity.answer.amount
    assert curve.share("ttft_p90<500ms", amount).share >= needed > curve.share("ttft_p90<500ms", amount + 1).share
    moved = msgspec.structs.replace(capacity.answer, likely_low=low - 5)
    assert fitted_curve(msgspec.structs.replace(capacity, answer=moved)) is None


def test_why_a_load_that_passed_is_not_the_one_to_plan_with():
    """How likely the limit is below it, and what a proof lacks; in text and page, next to the answer."""
    capacity = passed_at(82, 40)
    low = capacity.answer.range[0]
    assert low < 0.94 * 82
    text = shown(capacity)
    found = re.search(
        r"Why not 82 users, where all 40 requests met every objective\? .* the limit is below 82 with a probability of "
        rf"(\d+) %, and below {low:g} with (\d[.\d]*) %\. A proof takes one probe there of about (\d+) requests",
        text,
    )
    assert found
    assert float(found[2]) <= 2.5 < float(found[1])
    assert int(found[3]) >= 5 * 82
    assert text.index("Why not 82") < text.index("Users think")
    assert "Why not" not in shown(read_capacity(FOLDER))
    assert shown(passed_at(95, 40)).count("A longer probe there would most likely miss an objective.") == 1
    page = capacity_page(capacity, run_in(FOLDER), FOLDER)
    assert any("Why not 82 users" in line for block in page.blocks if isinstance(block, Text) for line in block.lines)


def test_the_page_draws_the_fitted_curve_with_its_range():
    """One for each objective, without the line between points that says nothing."""
    chart = next(one for one in capacity_charts(read_capacity(FOLDER), run_in(FOLDER)) if one.name == "objectives")
    curves = [line for line in chart.series if line.drawn == "curve"]
    assert [line.name for line in curves] == ["ttft_p90<500ms, fitted curve", "tpot_p90<60ms, fitted curve"]
    for line in curves:
        assert all(low <= y <= high for (_, y), (_, low, high) in zip(line.points, line.band, strict=True))
    assert not any(line.drawn == "line" for line in chart.series)
    assert {mark.text for mark in chart.down} == {"likely at least 70", "estimate 81", "likely at most 91"}


@pytest.mark.parametrize("left_out", [None, "leans to PASS", "leans to FAIL"])
def test_sides_have_the_same_colour_and_marker_in_each_search(left_out):
    """Whatever others there are; a table has a row for each probe and no other."""
    capacity = read_capacity(FOLDER)
    probes = [probe for probe in capacity.probes if side_of(probe) != left_out]
    probes = [msgspec.structs.replace(probes[0], decision="PASS"), *probes]
    charts = capacity_charts(msgspec.structs.replace(capacity, probes=probes), None)
    chart = next(one for one in charts if one.name == "search")
    looks = {"PASS": (8, "points"), "leans to PASS": (8, "rings"), "leans to FAIL": (1, "rings")}
    assert {line.name: (line.look, line.drawn) for line in chart.series}.items() <= looks.items()
    assert [class_of(line, 0) for line in chart.series if line.name == "PASS"] == ["2"]
    assert len(chart.table.rows) == len(probes)


def test_charts_of_loads_without_think_time_say_so():
    """They are beneath an answer about users who think; the distributions are those of the probes."""
    page = capacity_page(read_capacity(FOLDER), run_in(FOLDER), FOLDER)
    charts = {block.name: block for block in page.blocks if isinstance(block, Chart)}
    assert charts["throughput"].note.startswith("Loads without think time, up to 16 users, not those of the answer.")
    distribution = charts["ttft-distribution"]
    assert distribution.note.startswith("Probes, with users who think 6.00 s on average.")
    assert {line.name for line in distribution.series} >= {"users=69", "users=200"}


def test_a_missing_prediction_is_explained():
    """A table without its column says why: here only one load without think time counts."""
    capacity = read_capacity(FOLDER)
    assert "no prediction" not in shown(capacity)
    without = msgspec.structs.replace(capacity, prediction=None, curve=capacity.curve[:1])
    said = "no prediction by the queueing model: it needs 2 loads without think time, of which 1 could be counted"
    for one in (without, msgspec.structs.replace(without, verification=None)):
        assert shown(one).count(said) == 1
    assert "none could be counted" in shown(msgspec.structs.replace(without, curve=[]))


def test_a_remark_on_a_column_goes_with_it():
    """On a narrow terminal, which leaves out the columns of requests and phases."""
    document = capacity_document(read_capacity(FOLDER))
    narrow, wide = render_text(document, width=60), render_text(document, width=200)
    assert "not shown: requests" in narrow
    for remark in ("\nphase: ", "\nrequests: "):
        assert remark in wide
        assert remark not in narrow


def test_a_test_of_the_highest_load_is_not_called_a_proof():
    """It is measured also where no proof was asked for."""
    capacity = read_capacity(FOLDER)
    tested = [msgspec.structs.replace(capacity.probes[0], purpose=Purpose.TEST), *capacity.probes[1:]]
    tested = msgspec.structs.replace(capacity, probes=tested)
    assert "test measures the highest (or lowest) load allowed" in shown(tested)
    assert "until they are proven" in shown(msgspec.structs.replace(tested, require="proven"))


def test_a_search_is_not_asked_for_its_knee():
    """Neither while it is under way, nor with levels that do not count."""
    _, run = with_reasons(range(99), "late_reads")
    run = msgspec.structs.replace(run, complete=False)
    assert "cannot be determined" not in render_text(run_document(run))
    capacity = msgspec.structs.replace(read_capacity(FOLDER), conclusion="", probes=[], answer=None, verification=None)
    one = msgspec.structs.replace(capacity, curve=capacity.curve[:1], prediction=None, at_think_times=[])
    assert "Under way: 1 load without think time so far" in shown(one)


def test_a_chart_with_one_point_is_left_out():
    """Where the search could count one load without think time, its distributions stay, and say whose they are."""
    capacity, run = read_capacity(FOLDER), run_in(FOLDER)
    blocks = capacity_page(msgspec.structs.replace(capacity, curve=capacity.curve[:1]), run, FOLDER).blocks
    charts = [block for block in blocks if isinstance(block, Chart)]
    assert not [chart for chart in charts if chart.name in {"throughput", "trade-off", "ttft"}]
    distributions = [chart for chart in charts if chart.name.endswith("distribution")]
    assert distributions
    assert all(chart.legend for chart in distributions)


def test_the_command_that_goes_on_is_whole():
    """With the folder and a budget, twice the one before where nothing says how much is needed."""
    known = {"status": "inconclusive", "conclusion": "Inconclusive.", "run": "results/x y", "budget_s": 90.0}
    short = msgspec.structs.replace(read_capacity(FOLDER), **known, needed=None)
    command = "loadbench capacity --resume 'results/x y' --budget 3m"
    assert command in render_text(capacity_document(short), width=200)
    assert command not in render_text(capacity_document(short, resume="loadbench compare"), width=200)


def sum_of(text):
    """(requests needed, the factor, what it multiplies) of the advice on a search without an answer."""
    found = re.search(r"about (\d+) more requests, which take about \S+ \S+ \(([\d.]+) times the (\d+) ", text)
    assert found
    return int(found[1]), float(found[2]), int(found[3])


@pytest.mark.parametrize(("times", "proof"), [(0.5, None), (1.44, None), (4.5, None), (2.0, 40), (2.0, 1141)])
def test_what_is_still_needed_comes_with_its_sum(times, proof):
    """Less or more than there is, or the requests of a proof: the factor and what it multiplies give the number."""
    capacity = read_capacity(FOLDER)
    so_far = proof or sum(probe.requests for probe in capacity.probes)
    more = Needed(requests=round(times * so_far), seconds=90.0, proof=proof, per_s=None if proof is None else 6.2)
    short = {"status": "inconclusive", "conclusion": "Inconclusive.", "needed": more}
    text = shown(msgspec.structs.replace(capacity, **short))
    requests, factor, of = sum_of(text)
    assert (requests, of) == (more.requests, so_far)
    assert factor * of == pytest.approx(requests, rel=0.005)
    assert ("at 6.2 requests/s, the rest for warm-ups" in text) == (proof is not None)


def test_a_likely_answer_has_the_command_that_makes_it_surer():
    """With what is spent of its budget; not where the answer is proven, nor for a side of a comparison."""
    capacity = read_capacity(FOLDER)
    text = shown(capacity)
    command = f"loadbench capacity --resume {capacity.run} --require proven --budget 22m"
    assert text.count(command) == 1
    assert "(22m is the total, of which 128 s are spent)" in text
    spent = msgspec.structs.replace(capacity, spent_s=capacity.budget_s, run="a b")
    assert "--resume 'a b' --require proven --budget 60m" in shown(spent)
    assert "are left" not in shown(spent)
    assert "To make it surer" not in shown(answered("at_least", low=200, amount=200))
    assert "To make it surer" not in render_text(capacity_document(capacity, resume="loadbench compare"))


def test_a_higher_load_that_passed_is_not_the_one_to_plan_with():
    """Its risk is in the table, and the note says which risk the load to plan with may have."""
    text = shown(read_capacity(FOLDER))
    assert "users=71 passed, unproven 3.4 %" in text
    assert "plan with the highest load at which that is at most 2.5 %, also where a higher one passed" in text


def without_a_limit(**changes):
    """The saved search as if its probes had gone up to the highest load allowed, and none had missed anything."""
    capacity = answered("inconclusive", likely=(172, None), amount=200)
    most = max(capacity.probes, key=lambda probe: probe.amount)
    probes = [
        msgspec.structs.replace(
            probe, decision="UNDECIDED", leaning=2.0, users=200 if probe is most else probe.users, purpose=Purpose.TEST
        )
        for probe in capacity.probes
    ]
    facts = {"probes": probes, "verification": None, "conditions": {"capacity.at_most": 200.0}, **changes}
    return msgspec.structs.replace(capacity, **facts)


def test_a_load_that_nothing_exceeded_is_no_estimate():
    """Where no load favours a miss, text and page have what is known at least, and neither a best estimate, nor a
    bottleneck, nor advice on one; the way on is to a proof, or to a higher load."""
    capacity = without_a_limit()
    text = shown(capacity)
    tiles = next(
        block for block in capacity_page(capacity, run_in(FOLDER), FOLDER).blocks if isinstance(block, Tiles)
    ).items
    assert "scaled from at least 172" in text
    assert "At users=200, " in text
    assert "which are too few to exclude that less than 90 % would; up to 172, the curve fitted" in text
    assert "172 or more" in text
    assert "(estimated)" not in text
    assert "scaled range" not in text
    assert "To raise the limit" not in text
    assert "--at-most" in text
    assert tiles[0] == ("plan with", "not known yet", "no limit was found up to 200 users, the highest load allowed")
    assert "best estimate" not in {name for name, _, _ in tiles}
    assert ("bottleneck", "not reached") in {(name, value) for name, value, _ in tiles}
    line = answer_line(capacity)
    assert "no limit was found up to 200 users, the highest load allowed; likely 172 or more" in line
    assert "best estimate" not in line
    assert not any(chart.down for chart in capacity_charts(capacity, run_in(FOLDER)))
    short = without_a_limit(conditions={"capacity.at_most": 500.0})
    assert "200 users, the highest load measured" in answer_line(short)


@pytest.mark.parametrize("cell", ["users", "range", "rule"])
def test_a_prediction_that_says_nothing_is_not_shown(cell):
    """One of "some users or more", or of fewer than were served; its columns go where no row has another, and no
    objective is named that did not limit."""
    capacity = answered(likely=(70, 91), amount=81)
    think_s = capacity.answer.think_s
    nothing = {
        "users": PredictedCapacity(think_s=think_s, users=7, low=6, at_least=True),
        "range": PredictedCapacity(think_s=think_s, users=120, low=0, at_least=True),
        "rule": PredictedCapacity(think_s=think_s, users=120, low=90, at_least=True),
    }[cell]
    of_rule = msgspec.structs.replace(nothing, rule="failures<1%")
    prediction = msgspec.structs.replace(capacity.prediction, fits=[nothing, of_rule])
    text = shown(msgspec.structs.replace(capacity, prediction=prediction))
    assert "limited by" not in text
    assert ("predicted by a queueing model" in text) == (cell == "rule")
    assert ("no prediction by the queueing model" in text) == (cell != "rule")


def test_an_unclear_probe_says_how_many_requests_would_favour_a_side():
    """A load at which nothing missed is not one that favours neither."""
    capacity = read_capacity(FOLDER)
    probe = msgspec.structs.replace(capacity.probes[0], decision="UNDECIDED", leaning=0.4)
    text = shown(msgspec.structs.replace(capacity, probes=[probe, *capacity.probes[1:]]))
    asked = {"0.9": "10", "0.95": "20", "0.99": "100"}[f"{next(iter(probe.attainment.values())).asked:g}"]
    assert f"unclear: too few requests of this probe to favour a side; without a miss it takes {asked} for" in text


def test_an_older_search_without_a_limit_is_read_without_its_estimate(tmp_path):
    """It called the highest load allowed an estimate, and said that too little was needed."""
    said = "Inconclusive: the time was too short. Nothing is proven yet."
    older = without_a_limit(
        conclusion=f"{said} The best estimate is 200 users (likely range 172 or more).",
        needed=Needed(requests=1, seconds=1),
    )
    (tmp_path / FILE).write_bytes(to_json(older))
    read = read_capacity(tmp_path)
    assert read.conclusion == f"{said} No limit was found up to 200 users, the highest load allowed."
    assert read.needed is None


def test_the_points_of_a_prediction_are_told_apart():
    """They lie on a scale of powers, and would be a bar where they begin."""
    for chart in capacity_charts(read_capacity(FOLDER), run_in(FOLDER)):
        for series in chart.series:
            if series.name.startswith("predicted"):
                loads = [load for load, _ in series.points]
                gaps = [b - a for a, b in itertools.pairwise(loads[:-1])]
                assert min(gaps) >= loads[-1] / 25


def test_the_throughput_that_is_planned_with_is_told_from_higher_ones_of_short_probes():
    """A probe of some seconds may show more by chance; where none does, nothing is said."""
    capacity, run = read_capacity(FOLDER), run_in(FOLDER)
    said = "13.6 requests/s are planned with: those of users=16, the highest load without think time that counts"
    text = " ".join(render_text(capacity_document(capacity, run.levels), width=120).split())
    assert f"{said}. Probes show up to 15.1 (users=119, measured for 3.05 s, 95 % interval 10.3 to 19.8)" in text
    lower = [
        msgspec.structs.replace(level, throughput=msgspec.structs.replace(level.throughput, requests_per_s=13.0))
        if getattr(level.load, "think", None)
        else level
        for level in run.levels
    ]
    assert "planned with:" not in render_text(capacity_document(capacity, lower), width=1000)


def test_searches_say_which_workers_made_their_load():
    """Of one model, and once of several; of one process nothing is said."""
    about = {"host": "h", "workers": 2, "cluster": {"address": "local:2", "nodes": 2}}
    made = msgspec.structs.replace(a_run(), environment=about)
    search = msgspec.structs.replace(answered(), model="m")
    several = Capacities(folders={"m": "1", "n": "2"}, searches=[search])
    said = "load from 2 workers on 2 nodes of the Ray cluster local:2"
    texts = [
        render_text(capacity_document(search, made_by=load_makers(made)), width=300),
        render_text(capacities_document(several, {"m": made, "n": made}), width=300),
    ]
    assert [text.count(said) for text in texts] == [1, 1]
    assert "load from" not in render_text(capacities_document(several, {"m": a_run()}), width=300)
