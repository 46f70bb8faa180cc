"""Runs that were kept: found however they lie."""

from __future__ import annotations

import json
import shutil

import msgspec
import pytest

from loadbench.core.errors import BadInput
from loadbench.results.run import to_json
from loadbench.results.saved import Baseline, has_pairs, of_model, read_pairs, read_side, save_baseline
from tests.building import a_level, a_run


@pytest.fixture
def kept(tmp_path):
    """Three runs in folders, of which the last was stopped."""
    for number in range(3):
        run = msgspec.structs.replace(a_run(complete=number < 2), name=f"r{number}")
        folder = tmp_path / "runs" / f"0{number}"
        folder.mkdir(parents=True)
        (folder / "run.json").write_bytes(to_json(run))
    return tmp_path / "runs"


def names(runs):
    return [run.name for run in runs]


def test_a_side_is_named_in_many_ways(kept):
    """A folder of runs, one of them, its file, a pattern; each in the order of names."""
    assert names(read_side([str(kept)])) == ["r0", "r1", "r2"]
    assert names(read_side([str(kept / "01"), str(kept / "00" / "run.json")])) == ["r1", "r0"]
    assert names(read_side([str(kept / "0[12]")])) == ["r1", "r2"]
    assert names(read_side([str(kept / "*" / "run.json")])) == ["r0", "r1", "r2"]


def test_a_baseline_holds_what_a_comparison_needs(kept, tmp_path):
    """All of the runs but their histograms, in one file that is read like a run."""
    runs = read_side([str(kept)])
    save_baseline(tmp_path / "base.json", runs)
    back = read_side([str(tmp_path / "base.json")])
    assert names(back) == ["r0", "r1", "r2"]
    assert back[0].levels[0].throughput == runs[0].levels[0].throughput
    ttft, before = back[0].levels[0].metrics["ttft_s"], runs[0].levels[0].metrics["ttft_s"]
    assert msgspec.structs.replace(ttft, hdr=before.hdr) == before
    assert ttft.hdr == ""


@pytest.mark.parametrize("linked", ["a", "a/00"])
def test_a_link_is_no_part_of_a_comparison(kept, tmp_path, linked):
    """It leads to runs that lie elsewhere."""
    folder = tmp_path / "both"
    for part in ("a/00", "b/00"):
        if part != linked and not part.startswith(f"{linked}/"):
            (folder / part).parent.mkdir(parents=True, exist_ok=True)
            shutil.copytree(kept / "00", folder / part)
    (folder / linked).parent.mkdir(parents=True, exist_ok=True)
    (folder / linked).symlink_to(kept if linked == "a" else kept / "00")
    with pytest.raises(BadInput, match="no repeat in it is complete on both sides"):
        read_pairs(folder)


def test_pairs_are_the_repeats_that_are_whole_on_both_sides(kept, tmp_path):
    """The third was stopped on one side, a fourth is on one side only."""
    folder = tmp_path / "both"
    for side, complete in (("a", True), ("b", False)):
        for number in range(3 if complete else 4):
            path = folder / side / f"0{number}"
            path.mkdir(parents=True)
            run = msgspec.structs.replace(a_run(complete=complete or number < 2), name=f"{side}{number}")
            (path / "run.json").write_bytes(to_json(run))
    assert has_pairs(folder)
    assert not has_pairs(kept)
    a, b = read_pairs(folder)
    assert (names(a), names(b)) == (["a0", "a1"], ["b0", "b1"])


def test_one_model_of_several_is_chosen():
    """Its levels alone; a model that a run lacks is named with those that it has."""
    run = a_run(a_level(), msgspec.structs.replace(a_level(), model="other"))
    (chosen,) = of_model([run], "other", side="b")
    assert [level.model for level in chosen.levels] == ["other"]
    with pytest.raises(BadInput, match=r"--b-model gone: not in every run of b \(its models: m, other\)"):
        of_model([run], "gone", side="b")


def test_names_that_lead_nowhere_say_so(kept, tmp_path):
    """Nothing there, an empty folder, a pattern that fits nothing, a file of something else, a folder without pairs."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "some.json").write_text('{"schema": "other"}', encoding="utf-8")
    (tmp_path / "list.json").write_text("[1, 2]", encoding="utf-8")
    (tmp_path / "torn.json").write_bytes(b'{"schema": "loadbench.baseline/1", "runs": [{"na')
    (tmp_path / "bare.json").write_bytes(msgspec.json.encode(Baseline(runs=[])))
    (tmp_path / "later.json").write_text(json.dumps({"schema": "loadbench.baseline/1", "runs": [{}]}), encoding="utf-8")
    for name in ("gone", "empty", "x*", "some.json", "list.json", "torn.json", "bare.json", "later.json"):
        with pytest.raises(BadInput) as caught:
            read_side([str(tmp_path / name)])
        assert name in caught.value.message
        assert caught.value.hint
    with pytest.raises(BadInput, match="no repeat in it is complete"):
        read_pairs(kept)
    with pytest.raises(BadInput, match="--save-baseline"):
        save_baseline(tmp_path / "no" / "base.json", [])
