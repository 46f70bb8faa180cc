"""The word for a figure follows from the interval next to it, in every row; two views of one figure say the same."""

from __future__ import annotations

import json
import math
import random
import shutil
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from loadbench.analyze.compare.compare import compare
from loadbench.analyze.compare.figure_data import SPEED_OF
from loadbench.analyze.compare.in_folder import comparison_in
from loadbench.analyze.compare.undecided import word_of
from loadbench.plan.objective import FAILURES, RATES
from loadbench.report.compare import compare_document, ends_text
from loadbench.results.compare import PREFILL
from loadbench.results.run import to_json
from loadbench.results.run_list import FoundRun
from loadbench.results.run_summary import summary_of
from tests.analyze.comparing import a_side, figures, lucky

RESULTS = Path(__file__).parents[3] / "results"
SAVED = sorted(path.parent for path in RESULTS.glob("*/compare.json"))


def a_comparison(seed):
    """Two sides by chance: 1 to 12 runs of 3 loads, in pairs or not, more or less noisy, some with an odd run."""
    chance = random.Random(seed)
    runs, noise, odd = chance.choice((1, 2, 3, 6, 8, 12)), chance.choice((0.01, 0.1, 0.4)), chance.random() < 0.3

    def side(times, name):
        levels = [
            [
                figures(
                    users,
                    tokens=100
                    * times
                    * math.exp(chance.gauss(0, noise))
                    * (0.2 if odd and chance.random() < 0.1 else 1),
                    ttft=math.exp(chance.gauss(0, noise)) / times,
                )
                for users in (1, 2, 4)
            ]
            for _ in range(runs)
        ]
        return a_side(*levels, name=name)

    paired = chance.random() < 0.5
    return compare(side(1, "one"), side(chance.choice((1, 1.05, 1.3, 3)), "other"), paired=paired)


def said_by(row):
    """The decision that a reader makes from the interval."""
    same = 0 if row.metric == FAILURES else 1
    if row.ends is None or row.ends[0] <= same <= row.ends[1]:
        return "~"
    return "faster" if (row.ends[0] > same) == (row.metric in {*RATES, *SPEED_OF}) else "slower"


def check(comparison):
    """Words follow from intervals and notes, speeds are inverse times; returns the words."""
    rows = {(row.level, row.metric): row for row in (*comparison.comparisons, *comparison.overall, *comparison.speed)}
    for row in rows.values():
        assert row.decision == said_by(row)
        if row.decision == "~":
            wide = row.ends is None or (row.metric != FAILURES and (row.ends[0] <= 0.5 or row.ends[1] >= 2))
            assert word_of(row) == ("undecided" if wide or row.note else "no difference")
        if row.metric in SPEED_OF:
            time = rows[row.level, SPEED_OF[row.metric]]
            assert row.ratio == pytest.approx(1 / time.ratio)
            assert (row.ends is None) == (time.ends is None)
            if row.ends is not None:
                low, high = (math.inf if not end else 1 / end for end in reversed(time.ends))
                assert row.ends == pytest.approx((low, high))
            assert word_of(row) == word_of(time)
    return {word_of(row) for row in rows.values()}


def test_every_word_follows_from_the_interval_next_to_it():
    """Of 60 comparisons by chance, with all four words among them."""
    words = set().union(*(check(a_comparison(seed)) for seed in range(60)))
    assert words == {"faster", "slower", "no difference", "undecided"}


@pytest.mark.parametrize("folder", SAVED, ids=lambda folder: folder.name)
def test_saved_comparisons_say_what_their_intervals_do(folder):
    """Also those that older versions saved, by other rules."""
    check(comparison_in(folder))


def test_a_sentence_has_the_interval_of_the_table():
    """For one load that of its row, for all of them that of the row over all; the mean over some is called that."""
    found = compare(lucky({1: 100, 2: 200, 4: 300}), lucky({1: 100, 2: 300, 4: 450}, name="other"), paired=True)
    assert " on average at users=2 and above" in found.conclusion
    every = compare(lucky({1: 100, 2: 200}), lucky({1: 150, 2: 300}, ttft=1.2, name="other"))
    for metric in ("output_tokens_per_s", "ttft_p50"):
        (row,) = (row for row in every.overall if row.metric == metric)
        low, high = (f"{end:#.3g}" for end in row.interval)
        assert f"({low}-{high})" in every.conclusion


def test_the_mean_over_the_loads_says_which_pairs_it_is_of():
    """A pair counts for it only if it counts at every load, so it may lie outside of the loads."""
    a, b = lucky({1: 100, 4: 300}), lucky({1: 110, 4: 330}, name="other")
    short = [msgspec.structs.replace(a[0], levels=a[0].levels[:1]), *a[1:]]
    (note,) = (line for line in compare_document(compare(short, b, paired=True)).blocks[-1].lines if line[:4] == "all:")
    assert note.startswith("all: the geometric mean over the loads, of the 5 of 6 pairs of runs that count at every")
    (note,) = (line for line in compare_document(compare(a, b, paired=True)).blocks[-1].lines if line[:4] == "all:")
    assert "pairs of runs that count" not in note


def test_prompts_of_one_length_make_prefill_the_inverse_of_ttft():
    """Servers may count a token more of the same prompt; only other tokenizers, far more of them, change the speed."""
    a, b = lucky({1: 30}), lucky({1: 30}, ttft=0.5)

    def with_input(runs, times, model):
        def more(level):
            tokens = msgspec.structs.replace(level.tokens, input=round(level.tokens.input * times))
            return msgspec.structs.replace(level, tokens=tokens, model=model)

        return [msgspec.structs.replace(run, levels=[more(level) for level in run.levels]) for run in runs]

    same = a[0].levels[0].model
    for times, model, ratio in ((1.0, same, 2.0), (1.015, same, 2.0), (1.5, "another", 3.0)):
        (prefill,) = (
            row for row in compare(a, with_input(b, times, model), paired=True).speed if row.metric == PREFILL
        )
        assert prefill.ratio == pytest.approx(ratio, rel=1e-3)


def test_a_comparison_of_an_older_version_is_computed_again_and_says_so(tmp_path):
    """Never the old words next to new intervals; one that is decided alike is shown as it was saved."""
    folder = next(one for one in SAVED if one.name.endswith("-restarted"))
    assert "recomputed" not in {caveat.code for caveat in comparison_in(folder).caveats}
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    saved = json.loads((copy / "compare.json").read_bytes())
    for row in saved["comparisons"]:
        row["decision"] = "~"
    (copy / "compare.json").write_text(json.dumps(saved))
    found = comparison_in(copy)
    assert found.comparisons == comparison_in(folder).comparisons
    (caveat,) = (caveat for caveat in found.caveats if caveat.code == "recomputed")
    assert caveat.message.startswith("compare.json is of an older version, whose rules have other figures in ")


def test_an_end_near_1_shows_its_side():
    """1.000 would look as if the interval included 1."""
    assert ends_text((1.00004, 1.2)) == ["1.00004", "1.200"]
    assert ends_text((0.9, 0.99996)) == ["0.900", "0.99996"]
    assert ends_text((1.0, 1.0)) == ["1.000", "1.000"]


def test_the_list_of_runs_says_which_comparisons_have_older_rules(tmp_path):
    """Its words may differ from those of the report, which decides again."""
    folder = next(one for one in SAVED if one.name.endswith("-against-itself"))
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    assert summary_of(FoundRun(copy, datetime.now(UTC), copy.name)).conclusion.startswith(
        "by older rules, no difference"
    )
    (copy / "compare.json").write_bytes(to_json(comparison_in(folder)))
    assert summary_of(FoundRun(copy, datetime.now(UTC), copy.name)).conclusion.startswith(
        "no difference shown in output tokens/s"
    )
    assert comparison_in(copy) == comparison_in(folder)
