"""A set of models from a file, in each of the workshop's shapes."""

from __future__ import annotations

import json

import pytest

from loadbench.core.errors import BadInput
from loadbench.plan.models import KnownModel, read_models
from loadbench.plan.sources import resolve

FACTS = {"capabilities": ["chat"], "size_mb": 528, "license": "Apache-2.0"}
KNOWN = KnownModel(name="a", alias="a", capabilities=("chat",), size_bytes=528_000_000, license="Apache-2.0")


def written(tmp_path, document: object) -> str:
    """A file of this JSON."""
    path = tmp_path / "models.json"
    path.write_text(document if isinstance(document, str) else json.dumps(document), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize(
    ("document", "models"),
    [
        ({"a": FACTS}, (KNOWN,)),
        ({"a": {**FACTS, "priority": 3}}, (KNOWN,)),
        ([{"alias": "a", **FACTS}], (KNOWN,)),
        ([{"name": "a", **FACTS}], (KNOWN,)),
        (["a", "b"], (KnownModel(name="a", alias="a"), KnownModel(name="b", alias="b"))),
        ([{"alias": "a", "id": "a-cpu:1"}], (KnownModel(name="a-cpu:1", alias="a"),)),
        ({"a": {"id": "a-cpu:1"}}, (KnownModel(name="a-cpu:1", alias="a"),)),
        (
            {"a": {"size_bytes": 7, "load_cold_s": 2.5}},
            (KnownModel(name="a", alias="a", size_bytes=7, load_cold_s=2.5),),
        ),
        (
            {"schema": "loadbench.models/1", "models": [{"id": "a", "alias": None, "size_bytes": 5, "license": None}]},
            (KnownModel(name="a", alias="a", size_bytes=5),),
        ),
    ],
)
def test_every_shape_of_the_workshop_is_read(document, models, tmp_path):
    """An object by alias, an array of names or objects, and what `loadbench models --json` prints."""
    assert read_models(written(tmp_path, document)) == models


def test_mark_of_an_editor_is_passed_over(tmp_path):
    """A byte order mark in front is no JSON, and is not meant as any."""
    assert read_models(written(tmp_path, "\ufeff" + json.dumps(["a"])))[0].name == "a"


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ("{\n  ]", "models.json, line 2: this is not JSON"),
        ("3", "holds neither an object nor an array"),
        ([], "has no models"),
        ([3], "item 1 is neither a name nor an object"),
        ([" "], "item 1 has no name"),
        ({"a": 3}, "a is not an object"),
        ({"a": {"size_mb": "big"}}, "a has the size_mb 'big'"),
        ({"a": {"size_mb": -1}}, "a has the size_mb -1"),
        ({"a": {"size_mb": True}}, "a has the size_mb True"),
        ({"a": {"capabilities": "chat"}}, "a has capabilities that are not texts"),
        ({"a": {"license": 3}}, "a has a license that is not a text"),
        (["a", "a"], "has the model 'a' twice"),
    ],
)
def test_what_cannot_be_a_model_is_told_with_its_place(document, says, tmp_path):
    """File, place and what was found there."""
    with pytest.raises(BadInput) as raised:
        read_models(written(tmp_path, document))
    assert says in raised.value.message
    assert raised.value.hint


def test_file_that_is_not_there_is_told(tmp_path):
    """The path and the reason."""
    with pytest.raises(BadInput, match=r"cannot read the models in .*nowhere\.json"):
        read_models(tmp_path / "nowhere.json")


def test_set_of_models_is_a_setting(tmp_path):
    """--models names the models to test, by what requests ask for, and says where they came from."""
    path = written(tmp_path, [{"alias": "a", "id": "a:1"}, "b"])
    scenario = resolve(flags={"model_set": path}, environment={})
    assert scenario.target.model == ("a:1", "b")
    assert str(scenario.origins["target.model"]) == "flag --models"


def test_nearer_source_of_models_wins(tmp_path):
    """A flag's models silence a variable's file, and the other way round; two flags exclude each other."""
    path = written(tmp_path, ["a"])
    assert resolve(flags={"model": ["x"]}, environment={"LOADBENCH_MODELS": path}).target.model == ("x",)
    assert resolve(flags={"model_set": path}, environment={"LOADBENCH_MODEL": "x"}).target.model == ("a",)
    with pytest.raises(BadInput, match="exclude each other"):
        resolve(flags={"model": ["x"], "model_set": path}, environment={})
