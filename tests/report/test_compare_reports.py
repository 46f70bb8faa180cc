"""Comparisons as text, Markdown, JUnit and picture: kept as they are under tests/data/golden, to be read by people.

To write them anew, then look at the diff:    python -m tests.report.golden
"""

from __future__ import annotations

import re
from xml.etree import ElementTree as ET

import msgspec
import pytest

from loadbench.analyze.compare.compare import compare
from loadbench.plan.gate import parse_gate
from loadbench.report.compare_chart import compare_chart, comparison_charts, throughput_of_sides
from loadbench.report.document import Tiles
from loadbench.report.formats import render_comparison
from loadbench.report.junit import compare_junit, run_junit
from loadbench.report.pages import comparison_page
from loadbench.report.render_text import PLAIN_WIDTH
from loadbench.results.run import OutputEquality, Reason, RecordedPrompt, Verdict
from loadbench.results.telemetry import Gauge, Telemetry
from tests.analyze.comparing import LUCK, a_side, figures, lucky, resourced
from tests.report.golden import FOLDER, HOSTILE, bending, hostile, models, objectives, stopped

FORMATS = {
    "txt": lambda comparison: render_comparison(comparison, "text", width=PLAIN_WIDTH),
    "md": lambda comparison: render_comparison(comparison, "markdown"),
    "xml": compare_junit,
}
RULES = ["ttft_p95>5%", "output_tokens_per_s<-5%@users=8", "failures>1%", "ttft_p50>5%@users=16"]


def crossing():
    """B is slower at one user and faster from four on; its first token comes later."""
    a = lucky({1: 30, 2: 58, 4: 100, 8: 120}, name="before")
    b = lucky({1: 25, 2: 57.8, 4: 130, 8: 200}, ttft=1.1, name="after")
    return compare(a, b, gates=[parse_gate(rule) for rule in RULES])


def alone():
    """One run a side, one level of which is INVALID."""
    bad = msgspec.structs.replace(
        figures(2), verdict=Verdict("INVALID", [Reason("late", "the client was late", "use another")])
    )
    return compare(
        a_side([figures(1), figures(2)], name="before"),
        a_side([figures(1, tokens=142), bad], name="after"),
        gates=[parse_gate("ttft_p95>5%")],
    )


def foreign():
    """Names that a terminal, a page or XML might take for more than names."""
    sides = [
        [
            msgspec.structs.replace(
                run,
                name=HOSTILE,
                levels=[msgspec.structs.replace(level, model=HOSTILE, target=HOSTILE) for level in run.levels],
            )
            for run in lucky({1: rate}, name=HOSTILE)
        ]
        for rate in (100, 150)
    ]
    return compare(*sides, caveats=[Reason("x", HOSTILE, HOSTILE)])


def devices():
    """A processor and a board that is three times as fast on fewer joules and at a higher price; they were asked given
    prompts, and said the same to one of two.
    """
    sides = []
    for name, rate, joules, money, text in (("cpu", 20, 2.5, 1.2, "x"), ("gpu", 60, 1.1, 1.9, "y")):
        use = 0.9 if name == "gpu" else 0.0
        seen = Telemetry(gauges={"gpu0_use": Gauge(mean=use, min=use, max=use, last=use, readings=9)})
        runs = lucky({1: rate, 4: 2 * rate}, name=name)
        outputs = [
            OutputEquality(model=f"phi-{name}", prompt=place, answers=9, distinct=1, first_hash=said)
            for place, said in enumerate(("same", text))
        ]
        sides.append(
            [
                msgspec.structs.replace(
                    run,
                    environment={**run.environment, "telemetry": {"boards": [{"name": "NVIDIA L4"}]}},
                    prompts=[RecordedPrompt(index=0, hash="p0"), RecordedPrompt(index=1, hash="p1")],
                    outputs=outputs,
                    levels=[
                        msgspec.structs.replace(
                            resourced(level, joules=joules / luck, money=money / luck),
                            model=f"phi-{name}",
                            telemetry=seen,
                        )
                        for level in run.levels
                    ],
                )
                for run, luck in zip(runs, LUCK, strict=True)
            ]
        )
    return compare(*sides, paired=True, gates=[parse_gate("joules_per_output_token>5%")])


COMPARISONS = {
    "compare-crossing": crossing,
    "compare-alone": alone,
    "compare-devices": devices,
    "compare-foreign": foreign,
}
RUNS = {"bending": bending, "models": models, "objectives": objectives, "stopped": stopped, "hostile": hostile}


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("name", COMPARISONS)
def test_a_comparison_is_shown_as_it_is_kept(name, suffix):
    """Word for word."""
    kept = (FOLDER / f"{name}.{suffix}").read_text(encoding="utf-8")
    assert FORMATS[suffix](COMPARISONS[name]()) == kept


@pytest.mark.parametrize("name", RUNS)
def test_a_runs_objectives_are_shown_to_build_servers_as_they_are_kept(name):
    """Word for word."""
    assert run_junit(RUNS[name]()) == (FOLDER / f"{name}.xml").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", COMPARISONS)
def test_foreign_text_stays_text(name):
    """No escape sequence, no tag, no line of its own; and JUnit is XML."""
    comparison = COMPARISONS[name]()
    for text in (
        render_comparison(comparison, "text"),
        render_comparison(comparison, "markdown"),
        compare_junit(comparison),
    ):
        assert not re.search(r"[\x00-\x08\x0b-\x1f\u202e]", text)
    assert "<script>" not in render_comparison(comparison, "markdown").replace("\\<script\\>", "")
    assert "<script>" not in compare_chart(comparison)
    ET.fromstring(compare_chart(comparison))


def test_a_comparison_that_ended_early_is_not_green():
    """All of its gates pass, and the exit code is not 0: an error says why."""
    early = compare(*(lucky({1: 100}, name=name) for name in "ab"), paired=True, ended_early="B: the server is gone")
    root = ET.fromstring(compare_junit(early).encode())
    assert root.get("errors") == "1"
    (error,) = root.iter("error")
    assert error.get("message") == "ended early: B: the server is gone"
    assert "ended early: B: the server is gone; only the repeats before this" in render_comparison(early, "text")


def test_money_is_named_with_its_currency():
    """That of the prices."""
    text = render_comparison(devices(), "text", width=PLAIN_WIDTH)
    assert "EUR per 1M tok" in text
    assert " per 1M tok" not in text.replace("EUR per 1M tok", "")


def test_junit_counts_what_it_holds():
    """A test case a gate: failed ones, undecided ones as errors, with each level's change."""
    root = ET.fromstring(compare_junit(crossing()).encode())
    (suite,) = root
    cases = {case.get("name"): [one.tag for one in case] for case in suite.iter("testcase")}
    assert cases == {
        "ttft_p95>5%": ["failure"],
        "output_tokens_per_s<-5%@users=8": ["system-out"],
        "failures>1%": ["system-out"],
        "ttft_p50>5%@users=16": ["failure"],
    }
    for one in (root, suite):
        assert (one.get("tests"), one.get("failures"), one.get("errors")) == ("4", "2", "0")
    (undecided,) = ET.fromstring(compare_junit(alone()).encode()).iter("error")
    assert "may be drift of the machine" in undecided.get("message")


def test_junit_of_a_run_has_its_objectives_and_what_is_wrong_with_it():
    """Missed gates fail; what cannot be told, an INVALID level or a model that is not there is an error.

    What is no gate is skipped, because the exit code does not look at it either; `--undecided` counts as there.
    """
    run = objectives()
    all_gates = [
        msgspec.structs.replace(level, objectives=[msgspec.structs.replace(one, gate=True) for one in level.objectives])
        for level in run.levels
    ]
    seen = {}
    for undecided in (None, "pass", "fail"):
        gated = msgspec.structs.replace(run, levels=all_gates, scenario={"slo": {"undecided": undecided}})
        kinds = {
            (case.get("classname").split(".")[-1], case.get("name")): [
                one.tag for one in case if one.tag != "system-out"
            ]
            for case in ET.fromstring(run_junit(gated).encode()).iter("testcase")
        }
        assert kinds["users=1", "ttft_p50<150ms"] == []
        assert ["failure"] in kinds.values()
        seen[undecided] = sum(kind == ["error"] for kind in kinds.values())
    assert seen[None] > seen["pass"] == seen["fail"] == 0
    free = [
        msgspec.structs.replace(
            level, objectives=[msgspec.structs.replace(one, gate=False) for one in level.objectives]
        )
        for level in run.levels
    ]
    root = ET.fromstring(run_junit(msgspec.structs.replace(run, levels=free)).encode())
    assert [root.get("failures"), root.get("errors")] == ["0", "0"]
    assert sum(int(one.get("skipped")) for one in root) == len([*root.iter("skipped")]) > 0
    cases = ET.fromstring(run_junit(models()).encode()).iter("testcase")
    assert [case.get("name") for case in cases if case.get("classname") == "loadbench.models"] == ["gone"]


def test_junit_of_a_run_fails_for_gates_alone():
    """Levels have their verdict as properties; one that is INVALID is an error only where a gate depends on it."""
    run = objectives()
    invalid = msgspec.structs.replace(
        run.levels[0].verdict, status="INVALID", reasons=[Reason("late", "requests were late", "reduce the load")]
    )
    level = msgspec.structs.replace(run.levels[0], verdict=invalid)
    for gate, kinds in ((False, {"skipped", None}), (True, {"error"})):
        held = [msgspec.structs.replace(one, gate=gate) for one in level.objectives]
        one = msgspec.structs.replace(run, levels=[msgspec.structs.replace(level, objectives=held)])
        (suite,) = ET.fromstring(run_junit(one).encode())
        facts = {fact.get("name"): fact.get("value") for fact in suite.iter("property")}
        assert (facts["loadbench.verdict"], facts["loadbench.reasons"]) == ("INVALID", "late")
        seen = {next((part.tag for part in case if part.tag != "system-out"), None) for case in suite.iter("testcase")}
        assert seen <= kinds
        assert all("the level is INVALID: requests were late" in wrong.get("message") for wrong in suite.iter("error"))
    bare = msgspec.structs.replace(run, levels=[msgspec.structs.replace(level, objectives=[])])
    root = ET.fromstring(run_junit(bare).encode())
    assert (root.get("tests"), root.get("failures"), root.get("errors")) == ("1", "0", "0")
    assert "requests were late" in next(root.iter("skipped")).get("message")


def test_side_whose_certificate_was_not_verified_says_so():
    """That side, and no other."""
    comparison = crossing()
    comparison = msgspec.structs.replace(comparison, b=msgspec.structs.replace(comparison.b, insecure=True))
    lines = [line for line in render_comparison(comparison, "text").splitlines() if "(--insecure)" in line]
    assert [line.lstrip("- ")[:2] for line in lines] == ["B:"]


def test_charts_name_the_levels_that_they_leave_out():
    """An INVALID level is in none; one that is INVALID in some of several runs is in all, by the others."""
    left_out = "Not compared, and so in no chart: users=2 (INVALID on side "
    assert all(left_out in chart.note for chart in comparison_charts(alone()))
    a, b = lucky({1: 30, 2: 58}, name="before"), lucky({1: 31, 2: 57}, name="after")
    invalid = Verdict("INVALID", [Reason("late", "the client was late", "")])
    a[0] = msgspec.structs.replace(
        a[0], levels=[msgspec.structs.replace(level, verdict=invalid) for level in a[0].levels]
    )
    compared = compare(a, b)
    assert any(left.code == "invalid" for left in compared.left_out)
    assert not any("INVALID" in chart.note for chart in comparison_charts(compared))


def test_the_picture_shows_both_sides_and_where_they_cross():
    """Two lines with their bands, and the crossover."""
    picture = compare_chart(crossing())
    assert "crossover at 2." in picture
    assert "A m" in picture
    assert "B m" in picture


def test_legends_of_sides_say_what_tells_them_apart():
    """Of one model the letters alone say nothing; what fills a legend is left out."""
    known = {"a": ["--threads 1", "x" * 40, "1.2.3", "b"], "b": ["--threads 2"]}
    compared = crossing()
    sides = {name: msgspec.structs.replace(getattr(compared, name), apart=apart) for name, apart in known.items()}
    names = [one.name for one in throughput_of_sides(msgspec.structs.replace(compared, **sides)).series]
    assert names == ["A m: --threads 1, 1.2.3", "B m: --threads 2"]
    sides["b"] = msgspec.structs.replace(sides["b"], model="other")
    names = [one.name for one in throughput_of_sides(msgspec.structs.replace(compared, **sides)).series]
    assert names == ["A m", "B other"]


def test_the_page_has_the_crossovers_of_speed_and_energy():
    """Each is a tile of its own."""
    sides = [
        [
            msgspec.structs.replace(
                run,
                levels=[resourced(level, joules=joules[level.load.users] / luck, money=1.0) for level in run.levels],
            )
            for run, luck in zip(lucky(tokens, name=name), LUCK, strict=True)
        ]
        for name, tokens, joules in (
            ("a", {1: 20, 2: 20, 8: 20}, {1: 4.0, 2: 4.0, 8: 4.0}),
            ("b", {1: 10, 2: 40, 8: 80}, {1: 16.0, 2: 8.0, 8: 2.0}),
        )
    ]
    (tiles,) = (block for block in comparison_page(compare(*sides), *sides).blocks if isinstance(block, Tiles))
    shown = {name: value for name, value, _ in tiles.items}
    assert shown["crossover"].startswith("1.4")
    assert shown["crossover, energy"] in {"4 users", "3.99 users", "4.01 users"}


def test_the_page_of_one_model_is_titled_by_its_sides():
    """A comparison that measured both itself names them a and b, which says nothing without the model."""
    sides = lucky({1: 20}, name="a"), lucky({1: 40}, name="b")
    found = compare(*sides)
    assert comparison_page(found, *sides).title == f"Comparison of A and B, both {found.a.model}"
    named = msgspec.structs.replace(found, a=msgspec.structs.replace(found.a, name="before"))
    assert comparison_page(named, *sides).title == "Comparison of before and b"


def test_a_page_without_a_compared_figure_has_no_tile_of_differences():
    """ "0 of 0" would read as if there were none."""
    sides = lucky({1: 20}, name="a"), lucky({1: 40}, name="b")
    found = msgspec.structs.replace(compare(*sides), comparisons=[], overall=[], speed=[])
    (tiles,) = (block for block in comparison_page(found, *sides).blocks if isinstance(block, Tiles))
    assert "differences shown" not in {name for name, *_ in tiles.items}


def write() -> None:
    """Write the kept files again; `python -m tests.report.golden` does."""
    for comparison_name, build in COMPARISONS.items():
        for ending, show in FORMATS.items():
            (FOLDER / f"{comparison_name}.{ending}").write_text(show(build()), encoding="utf-8", newline="\n")
    for run_name, build_run in RUNS.items():
        (FOLDER / f"{run_name}.xml").write_text(run_junit(build_run()), encoding="utf-8", newline="\n")
