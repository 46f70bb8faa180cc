"""Files and JSON from outside are read within bounds, and what is beyond them is the input's fault."""

from __future__ import annotations

import os
import tracemalloc
from pathlib import Path

import orjson
import pytest

from loadbench.core.bounded import MOST_LEVELS, parse_json, read_file
from loadbench.core.errors import BadInput
from loadbench.plan import json_text
from loadbench.plan.extra_body import read_objects
from loadbench.plan.models import read_models
from loadbench.plan.scenario_file import ScenarioFile
from loadbench.results.capacity import read_capacity
from loadbench.results.folder import read_run
from loadbench.results.quality import read_annotation, read_quality
from loadbench.results.requests import read_requests
from loadbench.results.saved import read_side


def test_a_file_is_read_up_to_its_limit(tmp_path):
    """As many bytes as are allowed, and not one more."""
    path = tmp_path / "a"
    path.write_bytes(b"x" * 100)
    assert read_file(path, 100) == b"x" * 100
    with pytest.raises(OSError, match="larger than"):
        read_file(path, 99)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "pread"), reason="files of holes take space there")
@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("a.toml", ScenarioFile.read),
        ("a.json", ScenarioFile.read),
        ("a.json", lambda path: read_objects(f"@{path}")),
        ("models.json", read_models),
        ("run.json", read_run),
        ("run.json", lambda path: read_run(path.parent)),
        ("baseline.json", lambda path: read_side([str(path)])),
        ("capacity.json", lambda path: read_capacity(path.parent)),
        ("quality.json", lambda path: read_quality(path.parent)),
        ("annotation.json", read_annotation),
        ("requests.jsonl", lambda path: list(read_requests(path))),
    ],
)
def test_a_file_of_gigabytes_is_refused(tmp_path, name, read):
    """Two gigabytes of zeros, which take no space on the disk, take little memory either."""
    path = tmp_path / name
    with path.open("wb") as file:
        file.truncate(2 << 30)
    tracemalloc.start()
    try:
        with pytest.raises((BadInput, ValueError)):
            read(path)
        assert tracemalloc.get_traced_memory()[1] < 100 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("kind", [b"[%b]", b'{"a":%b}', b'[{"a":[%b]}]'])
def test_json_is_read_to_a_depth(kind):
    """What is nested deeper than anything that is meant is refused like any other text that is no JSON."""
    levels = kind.count(b"[") + kind.count(b"{")

    def nested(depth: int) -> bytes:
        text = b"1"
        for _ in range(depth // levels):
            text = kind % text
        return text

    assert parse_json(nested(MOST_LEVELS))
    assert parse_json(b"[" + b"[]," * 1000 + b"[]]")
    for depth in (MOST_LEVELS + levels, 900):
        with pytest.raises(orjson.JSONDecodeError, match="levels"):
            parse_json(nested(depth))


def test_a_server_may_send_no_more_values_than_memory_allows():
    """A frame of two megabytes may be a long text, and not a million lists; a user's own file may have them."""
    text, lists = b'{"a":"' + b"x" * 2_000_000 + b'"}', b"[" + b"[]," * 690_000 + b"0]"
    assert len(parse_json(text)["a"]) == 2_000_000
    with pytest.raises(orjson.JSONDecodeError, match="may take more than 32 MiB"):
        parse_json(lists)
    assert len(json_text.parse_json(lists, Path("prompts.json"))) == 690_001
