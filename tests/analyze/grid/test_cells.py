"""What a grid concludes of its cells: the best one where that is sure, the front, prefill and decode."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest

from loadbench.analyze.grid.cells import ASSUMED_DRIFT, concluded
from loadbench.report.grid import with_conclusion
from loadbench.results.grid import VariedName
from loadbench.results.run import Reason, Verdict
from loadbench.results.telemetry import Gauge, MachineLoad, Telemetry
from tests.coverage.grids import a_cell_run, a_grid, measured, rates_of


def found(rates, half=0.01, **more):
    """The grid whose cells have these output tokens/s at 1, 4 and 16 users each."""
    runs = {at: a_cell_run(of_cell, [half * rate for rate in of_cell]) for at, of_cell in enumerate(rates)}
    return concluded(a_grid([str(at) for at in range(len(rates))], **more), runs)


@pytest.mark.parametrize("drift", [0.0, ASSUMED_DRIFT])
@pytest.mark.parametrize("cells", [2, 6])
def test_equal_cells_rarely_have_a_best(cells, drift):
    """Of 150 grids of equal cells at most 5 % name one."""
    rates = rates_of([1.0] * cells, grids=150, noise=0.02, drift=drift)
    assert rates.wrong <= 0.05
    assert rates.lost <= 0.05


def test_a_clearly_faster_cell_is_named_and_a_little_faster_one_is_not():
    """Twice as fast is the best in every grid; 3 % faster is not sure, and no other is ever named."""
    rng = np.random.default_rng(5)
    assert all(measured([1, 2, 1], rng, noise=0.02, drift=0.02).best[0].best == 2 for _ in range(20))
    assert rates_of([1.0, 1.0, 1.03], grids=60, noise=0.02, drift=0.02).wrong <= 0.05


def test_the_best_has_its_ratio_to_the_next_with_an_interval():
    """The interval excludes 1, and the sentence names cell, load and ratio."""
    grid = with_conclusion(found([(10, 30, 31), (20, 60, 62), (11, 33, 34)]))
    (best,) = grid.best
    low, high = best.ratio_interval
    assert (best.best, best.candidates) == (2, [2])
    assert best.ratio == pytest.approx(62 / 34)
    assert 1 < low < best.ratio < high
    assert grid.conclusion.startswith(
        "the best is cell 2, slots=1: 62.0 output tokens/s at users=16, 1.82 times the next"
    )
    assert [cell.figures[0].may_be_best for cell in grid.cells] == [False, True, False]


def test_cells_that_cannot_be_told_apart_are_named_fastest_first():
    """The third is out; of the others neither is sure."""
    grid = with_conclusion(found([(10, 30, 60), (10, 30, 62), (5, 15, 20)]))
    assert (grid.best[0].best, grid.best[0].candidates) == (None, [2, 1])
    assert "not sure which cell is the best: these 2 of 3 cells cannot be told apart: 2 (slots=1)" in grid.conclusion


def test_cells_that_cannot_be_told_apart_may_surely_differ_at_one_load():
    """The report says which, with what these alone have in common, at the loads where it is so."""
    rates = [(93, 95, 60), (137, 140, 70), (95, 96, 80), (148, 150, 90), (92, 94, 85)]
    runs = {at: a_cell_run(of, (0.05 * of[0], 0.05 * of[1], 0.6 * of[2])) for at, of in enumerate(rates)}
    # Of the slow cells, the highest load is not known.
    bad = Verdict("INVALID", [Reason("x", "x", "x")])
    for at in (0, 2, 4):
        levels = [*runs[at].levels[:2], msgspec.structs.replace(runs[at].levels[2], verdict=bad)]
        runs[at] = msgspec.structs.replace(runs[at], levels=levels)
    grid = with_conclusion(concluded(a_grid(["1", "2", "1", "2", "1"]), runs))
    assert grid.best[0].best is None
    assert [(one.load, one.more, one.than) for one in grid.best[0].more_at_load] == [
        ("users=1", [2, 4], [1, 3, 5]),
        ("users=4", [2, 4], [1, 3, 5]),
    ]
    assert (
        " At users=1 and users=4 cells 2 and 4 (slots=2) surely have more output tokens/s than cells 1, 3 and 5."
        in grid.conclusion
    )


def test_equal_cells_rarely_differ_at_one_load():
    """Of 150 grids of equal cells at most 5 % say so, also as the machine drifts from cell to cell."""
    rng = np.random.default_rng(3)
    grids = [measured([1.0] * 5, rng, noise=0.02, drift=ASSUMED_DRIFT) for _ in range(150)]
    assert sum(bool(grid.best[0].more_at_load) for grid in grids) <= 0.05 * 150


def test_where_no_cell_is_ruled_out_that_is_said():
    """Instead of a list of all; with the most that was measured, and what to do."""
    grid = with_conclusion(found([(10, 30, 60), (10, 30, 62)]))
    assert grid.conclusion == (
        "not sure which cell is the best: none of the 2 cells can be ruled out; the most was measured in cell 2 "
        "(slots=1), 62.0 output tokens/s at users=16; to tell them apart, measure fewer of them, each for longer, then "
        "compare the cells that are left in turns, two at a time: `loadbench compare --a … --b …`."
    )


def test_a_cell_whose_higher_loads_do_not_count_is_never_beaten():
    """It may be faster there."""
    fast, slow = a_cell_run((20, 60, 62), (0.1,) * 3), a_cell_run((5, 15, 16), (0.1,) * 3)
    invalid = msgspec.structs.replace(slow.levels[2], verdict=Verdict("INVALID", [Reason("x", "x", "x")]))
    slow = msgspec.structs.replace(slow, levels=[*slow.levels[:2], invalid])
    grid = concluded(a_grid(["a", "b"]), {0: fast, 1: slow})
    assert (grid.best[0].best, grid.best[0].candidates) == (None, [1, 2])
    assert grid.cells[1].figures[0].unknown == "users=16 is INVALID"


def test_cells_of_different_work_are_not_compared():
    """Each is alone with its work; with a choice varied as well, each work has its own best."""
    depth = VariedName(name="input_tokens", key="work.input_tokens", values=["1", "2"], changes_work=True)
    runs = {at: a_cell_run((of, 3 * of, 3 * of), (0.1,) * 3) for at, of in enumerate((10, 40, 5, 1))}
    alone = a_grid(["a", "b"], vary=[depth])
    cells = [msgspec.structs.replace(cell, values={"input_tokens": str(at)}) for at, cell in enumerate(alone.cells)]
    grid = with_conclusion(concluded(msgspec.structs.replace(alone, cells=cells), {0: runs[0], 1: runs[1]}))
    assert [best.best for best in grid.best] == [None, None]
    assert grid.conclusion.startswith("Each cell did other work (input_tokens), so none is better than another. Most")
    both = a_grid(["a"] * 4, vary=[depth, VariedName(name="slots", key=None, values=["1", "2"])])
    values = [{"input_tokens": depth, "slots": slots} for depth in "12" for slots in "12"]
    cells = [msgspec.structs.replace(cell, values=of) for cell, of in zip(both.cells, values, strict=True)]
    grid = concluded(msgspec.structs.replace(both, cells=cells), runs)
    assert [(best.work, best.best) for best in grid.best] == [({"input_tokens": "1"}, 2), ({"input_tokens": "2"}, 3)]


def test_failed_and_unfinished_cells_are_not_compared():
    """They have their figures, and no part in what is the best."""
    base = a_grid(["a", "b", "c"])
    cells = [
        msgspec.structs.replace(cell, status=status)
        for cell, status in zip(base.cells, ("complete", "failed", "complete"), strict=True)
    ]
    runs = {at: a_cell_run((of, of, of), (0.1,) * 3) for at, of in enumerate((10, 90, 30))}
    grid = with_conclusion(concluded(msgspec.structs.replace(base, cells=cells), runs))
    assert grid.best[0].best == 3
    assert grid.cells[1].figures[0].output_tokens_per_s == 90
    assert grid.conclusion.endswith("1 of 3 cells failed.")


def with_memory(run, used):
    """The run with so many bytes of memory at every level."""
    gauge = Gauge(mean=used, min=used, max=used, last=used, readings=3)
    telemetry = Telemetry(gauges={"process_rss_bytes": gauge})
    return msgspec.structs.replace(
        run, levels=[msgspec.structs.replace(one, telemetry=telemetry) for one in run.levels]
    )


def test_the_front_keeps_what_is_best_for_some_purpose():
    """The fastest and the smallest are on it; what is slower and larger than another is not."""
    rates, memory = (60, 30, 29), (4e9, 1e9, 3e9)
    runs = {
        at: with_memory(a_cell_run((of, of, of), (0.1,) * 3), used)
        for at, (of, used) in enumerate(zip(rates, memory, strict=True))
    }
    grid = concluded(a_grid(["a", "b", "c"]), runs)
    assert [cell.figures[0].on_front for cell in grid.cells] == [True, True, False]
    assert [cell.figures[0].memory_bytes for cell in grid.cells] == [*memory]


def test_a_little_less_memory_keeps_no_cell_on_the_front():
    """Half as fast with 3 % less memory is dominated; with 10 % less it is not."""
    runs = {0: with_memory(a_cell_run((60,) * 3, (0.1,) * 3), 1e9)}
    for less, on_front in ((0.97, False), (0.9, True)):
        runs[1] = with_memory(a_cell_run((30,) * 3, (0.1,) * 3), less * 1e9)
        assert concluded(a_grid(["a", "b"]), runs).cells[1].figures[0].on_front == on_front


def test_cells_are_compared_at_the_same_load():
    """One that is twice as fast at 16 users was not measured at the others' 1 and 4: it does not rule them out."""
    fast, slow = (a_cell_run(rates, (0.1,) * 3) for rates in ((20, 60, 62), (5, 15, 16)))
    fast = msgspec.structs.replace(fast, levels=fast.levels[2:])
    slow = msgspec.structs.replace(slow, levels=slow.levels[:2])
    grid = concluded(a_grid(["a", "b"]), {0: fast, 1: slow})
    assert [cell.figures[0].on_front for cell in grid.cells] == [True, True]


def test_one_remedy_is_for_all_levels_that_do_not_count_or_are_not_surely_steady():
    """The longest warm-up and duration of any; every cell with such a level is named, also below its best one."""
    warm = Reason("short_warm_up", "the warm-up was short", "use --warm-up 6s, and a --duration longer than that")
    moved = Reason("not_steady", "the server changed", "use --duration 20s or longer")
    unsure = Reason("steadiness_unknown", "cannot be judged", "use --duration 40s or longer")
    runs = {at: a_cell_run((30, 60, 61), (1, 2, 2)) for at in range(3)}
    for at, place, change in (
        (0, 2, {"verdict": Verdict("INVALID", [warm])}),
        (1, 0, {"verdict": Verdict("INVALID", [moved])}),
        (2, 2, {"caveats": [unsure]}),
    ):
        levels = list(runs[at].levels)
        levels[place] = msgspec.structs.replace(levels[place], **change)
        runs[at] = msgspec.structs.replace(runs[at], levels=levels)
    grid = with_conclusion(concluded(a_grid(list("abc")), runs))
    assert grid.again == ["--duration 40s", "--warm-up 6s"]
    said = "; in cell 2 users=1 is INVALID (not_steady), since the server changed; measure again with --duration 40s or"
    assert said in grid.conclusion
    assert "measure fewer" not in grid.conclusion


def test_prefill_and_decode_are_of_the_lowest_load():
    """Prompt tokens by the median TTFT, and one by the median TPOT, with the intervals of these."""
    grid = found([(10, 30, 31)])
    (depth,) = grid.cells[0].depth
    run = a_cell_run((10, 30, 31), (0.1,) * 3)
    level = run.levels[0]
    tokens = level.tokens.input / 100
    assert depth.load == "users=1"
    assert depth.prefill_tokens_per_s == pytest.approx(tokens / level.metrics["ttft_s"].p50)
    assert depth.decode_tokens_per_s == pytest.approx(1 / level.metrics["tpot_s"].p50)
    low, high = level.metrics["tpot_s"].interval["p50"]
    assert depth.decode_interval == (None if high is None else 1 / high, None if low is None else 1 / low)
    assert math.isclose(depth.input_tokens, tokens)


def test_cells_with_a_model_each_are_compared_and_several_models_are_kept_apart():
    """Which model is served may be what is varied; with two models in every cell, each has its own best."""

    def of(model, rates):
        run = a_cell_run(rates, (0.1,) * 3)
        return [msgspec.structs.replace(level, model=model) for level in run.levels]

    one = a_cell_run((1, 1, 1), (0.1,) * 3)
    runs = {at: msgspec.structs.replace(one, levels=of(f"m{at}", (n, n, n))) for at, n in enumerate((10, 30))}
    (best,) = concluded(a_grid(["a", "b"]), runs).best
    assert (best.model, best.best) == ("", 2)
    both = {
        0: msgspec.structs.replace(one, levels=[*of("x", (10, 10, 10)), *of("y", (90, 90, 90))]),
        1: msgspec.structs.replace(one, levels=[*of("x", (30, 30, 30)), *of("y", (20, 20, 20))]),
    }
    grid = with_conclusion(concluded(a_grid(["a", "b"]), both))
    assert [(best.model, best.best) for best in grid.best] == [("x", 2), ("y", 1)]
    assert grid.conclusion.startswith("x: the best is cell 2, slots=b: 30.0 output tokens/s")


def test_figures_of_a_cell_whose_server_waited_for_other_programs_have_its_factor_alone():
    """As the report of the cell has it: a server that waited a quarter of the time may be a third faster."""
    load = MachineLoad(cores=2, busy=0.98, others=0.4, stolen=0.0, waited=0.25, waited_by="the server")
    runs = {at: a_cell_run((30, 60, 61), (1, 2, 2)) for at in range(2)}
    note = Reason("busy_machine", "other programs used 40 %", "end them")
    levels = [msgspec.structs.replace(level, caveats=[note], machine=load) for level in runs[0].levels]
    runs[0] = msgspec.structs.replace(runs[0], levels=levels)
    cells = concluded(a_grid(list("ab")), runs).cells
    assert cells[0].figures[0].faster_alone == pytest.approx(4 / 3)
    assert cells[1].figures[0].faster_alone is None
