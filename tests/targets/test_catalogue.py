"""Models from everybody who tells of them, and which one a name means: pure."""

from __future__ import annotations

import json

import pytest

from loadbench.report.models import catalogue_document
from loadbench.report.render_text import render_text
from loadbench.results.models import Catalogue, Model
from loadbench.targets.catalogue import (
    bare_name,
    from_cache,
    from_catalogue,
    from_listing,
    from_ollama,
    merged,
    resolve,
    same_model,
    unversioned,
    with_loaded,
    with_names,
)

VARIANTS = [
    with_names(Model(id=name, alias="phi"))
    for name in ("phi-generic-cpu:3", "phi-generic-cpu:4", "phi-cuda-gpu:4", "phi-qnn-npu:2")
]


@pytest.mark.parametrize(
    ("model_id", "version", "device", "provider", "bare"),
    [
        ("phi-4-mini-generic-cpu:3", 3, "CPU", "CPUExecutionProvider", "phi-4-mini"),
        ("phi-4-mini-cuda-gpu:12", 12, "GPU", "CUDAExecutionProvider", "phi-4-mini"),
        ("Phi-4-mini-qnn-npu", None, "NPU", "QNNExecutionProvider", "Phi-4-mini"),
        ("phi-generic-gpu:1", 1, "GPU", None, "phi"),
        ("llama3:8b", None, None, None, "llama3:8b"),
        ("gpt-oss-20b", None, None, None, "gpt-oss-20b"),
    ],
)
def test_id_tells_version_and_device(model_id, version, device, provider, bare):
    """Of a generic GPU the provider is not told: it was seen to be another than the name suggests."""
    model = with_names(Model(id=model_id))
    assert (model.version, model.device, model.execution_provider) == (version, device, provider)
    assert bare_name(model_id) == bare


def test_ids_are_the_same_where_one_lacks_the_version():
    """Two versions are two models."""
    assert same_model("a-generic-cpu", "a-generic-cpu:3")
    assert not same_model("a-generic-cpu:2", "a-generic-cpu:3")
    assert not same_model("a", "b:1")
    assert unversioned("a:8b") == "a:8b"


@pytest.mark.parametrize(
    ("wanted", "meant", "ambiguous"),
    [
        ("phi-generic-cpu:3", "phi-generic-cpu:3", False),
        ("phi-generic-cpu", "phi-generic-cpu:4", False),
        ("phi", "phi-qnn-npu:2", True),
    ],
)
def test_names_are_resolved(wanted, meant, ambiguous):
    """An id is itself, an id without its version the newest, an alias what Foundry Local itself would take."""
    found = resolve(wanted, VARIANTS)
    assert found is not None
    assert (found.model.id, found.ambiguous) == (meant, ambiguous)


def test_what_is_loaded_or_cached_is_meant_before_what_is_newer():
    """A version that is not on the disk cannot be tested."""
    told = merged([Model(id="phi-generic-cpu:3", cached=True)], VARIANTS)
    found = [resolve("phi-generic-cpu", told), resolve("phi", with_loaded(told, ["phi-cuda-gpu:4"]))]
    assert [one.model.id for one in found if one] == ["phi-generic-cpu:3", "phi-cuda-gpu:4"]


def test_name_before_the_device_is_enough_where_no_alias_is_told():
    """As with a service on another machine, whose files cannot be read."""
    found = resolve("phi", [Model(id="phi-generic-cpu:1")])
    assert (found is not None and found.model.id, resolve("ph", VARIANTS)) == ("phi-generic-cpu:1", None)


def test_first_to_tell_is_believed_and_the_next_fill_the_gaps():
    """By id, with or without a version; which is asked for stays as the server lists it."""
    listed = [Model(id="a-generic-cpu", cached=True)]
    told = [Model(id="a-generic-cpu:3", license="MIT", cached=False), Model(id="b-generic-cpu:1", license="MIT")]
    assert merged(listed, told) == [
        with_names(Model(id="a-generic-cpu", cached=True, license="MIT")),
        with_names(Model(id="b-generic-cpu:1", license="MIT")),
    ]


def test_loaded_is_unknown_where_nobody_tells():
    """Not known is not no."""
    assert [one.loaded for one in with_loaded([Model(id="a")], None)] == [None]
    assert [one.loaded for one in with_loaded([Model(id="a"), Model(id="b")], ["b"])] == [False, True]


def test_lists_of_other_servers_tell_sizes_and_contexts():
    """llama.cpp under `meta`, vLLM beside the id; Foundry's `parent` is an alias, vLLM's is not."""
    listing = [
        {"id": "tiny", "meta": {"n_ctx": 2048, "n_ctx_train": 8192, "size": 1781248}},
        {"id": "v", "max_model_len": 4096, "parent": "base"},
        {"id": "r", "status": {"value": "unloaded"}},
    ]
    found = [
        (one.context_length, one.size_bytes, one.alias, one.loaded) for one in from_listing(listing, foundry=False)
    ]
    assert found == [(2048, 1781248, None, None), (4096, None, None, None), (None, None, None, False)]
    assert from_listing([{"id": "x", "parent": "alias"}], foundry=True)[0].alias == "alias"


def test_catalogue_file_and_its_older_list_are_read():
    """Ids stand under `id`, or under `name`; versions are numbers or texts; what is no entry is passed over."""
    entry = {"alias": "a", "version": "3", "license": "MIT", "fileSizeMb": 2, "runtime": {"deviceType": "gpu"}}
    document = {"models": [{"id": "a-x:3", **entry}, {"name": "b-x", **entry}, {"alias": "none"}, 7]}
    found = from_catalogue(document)
    assert [(one.id, one.version, one.device, one.size_bytes) for one in found] == [
        ("a-x:3", 3, "GPU", 2 * 1024**2),
        ("b-x", 3, "GPU", 2 * 1024**2),
    ]


@pytest.mark.parametrize("document", [None, [], {}, {"models": None}, {"models": {"id": 1}}, "text", 7, [[]]])
def test_what_is_no_catalogue_has_no_models(document):
    """Whatever a file or a command holds."""
    assert from_catalogue(document) == from_ollama(document, document) == []


def test_cache_is_what_is_on_the_disk(tmp_path):
    """Each folder with its marker file; one that is broken is none."""
    for name, content in {
        "Lab/a-1": json.dumps({"Name": "a:1"}),
        "Lab/b/v2": json.dumps({"Name": "b:2"}),
        "x/c": "{",
    }.items():
        folder = tmp_path / name
        folder.mkdir(parents=True)
        (folder / "inference_model.json").write_text(content)
        (folder / "weights").write_bytes(bytes(1000))
    found = {one.id: one for one in from_cache(tmp_path)}
    assert found.keys() == {"a:1", "b:2"}
    assert found["a:1"].size_bytes == 1000 + len(json.dumps({"Name": "a:1"}))
    assert found["a:1"].cached


def test_ollama_tells_where_a_model_lies():
    """All, some or nothing of it in the GPU's memory."""
    tags = {"models": [{"name": name, "size": 100} for name in "abcd"]}
    running = {"models": [{"name": n, "size": 100, "size_vram": v} for n, v in zip("abc", (100, 37, 0), strict=True)]}
    found = [(one.device, one.loaded) for one in from_ollama(tags, running)]
    assert found == [("GPU", True), ("37% GPU", True), ("CPU", True), (None, False)]


def test_table_leaves_out_what_nobody_tells():
    """A column of dashes is no column; foreign words cannot paint the terminal."""
    models = [Model(id="a\x1b[31m", size_bytes=3_000_000, cached=True), Model(id="b", loaded=False)]
    text = render_text(catalogue_document(Catalogue(endpoint="http://h/v1", dialect="openai", models=models)))
    heading, _, first, second = text.splitlines()[2:]
    assert heading.split() == ["id", "size", "cached", "loaded"]
    assert first.split() == ["a?[31m", "2.86", "MiB", "yes", "-"]
    assert second.split() == ["b", "-", "-", "no"]
    assert "no models" in render_text(catalogue_document(Catalogue(endpoint="http://h/v1", dialect="openai")))
