"""Which server answers, and its version: of replays of the servers, each with its own list and its own route."""

from __future__ import annotations

import json
import re
import threading
import time
from typing import Any

import pytest

from loadbench.report.formats import render
from loadbench.report.html import render_html
from loadbench.report.pages import page_of
from loadbench.results.folder import read_run
from tests.cli.any_server import Reply, any_server
from tests.cli.typed import typed

QUICK = ("--users=1", "--requests=2", "--warm-up=0s", "--max-tokens=4", "--telemetry=off", "--quiet", "--out=out")


def listing(**entry: Any) -> dict[str, Any]:
    return {"object": "list", "data": [{"id": "m", "object": "model", **entry}]}


# name: (list of models, headers, what is at other routes, the program, the routes that are asked for the version)
SERVERS = {
    "llama.cpp": (
        listing(owned_by="llamacpp", meta={"n_ctx_train": 4096}),
        {"Server": "llama.cpp"},
        {"/props": {"build_info": "b8681-0d2ad02a1", "total_slots": 4, "chat_template": "x" * 9000}},
        "llama.cpp b8681-0d2ad02a1",
        {"/props"},
    ),
    "vLLM": (listing(owned_by="vllm"), {}, {"/version": {"version": "0.32.0"}}, "vLLM 0.32.0", {"/version"}),
    "SGLang": (
        listing(owned_by="sglang"),
        {},
        {"/get_server_info": {"version": "0.5.9", "api_key": "do-not-keep", "internal_states": []}},
        "SGLang 0.5.9",
        {"/get_server_info"},
    ),
    "SGLang, newer": (
        listing(owned_by="sglang"),
        {},
        {"/server_info": {"version": "0.6.0"}},
        "SGLang 0.6.0",
        {"/get_server_info", "/server_info"},
    ),
    "Ollama": (
        listing(owned_by="library"),
        {},
        {"/api/version": {"version": "0.15.2"}},
        "Ollama 0.15.2",
        {"/api/version"},
    ),
    "TGI": (
        listing(owned_by="m"),
        {},
        {"/info": {"model_id": "m", "version": "3.3.6", "sha": "ab"}},
        "TGI 3.3.6",
        {"/info"},
    ),
    "LM Studio": (listing(owned_by="organization_owner"), {}, {}, "LM Studio", set()),
    "by its route": (
        listing(owned_by="me"),
        {},
        {"/version": {"version": "1.2"}},
        "1.2",
        {"/props", "/api/version", "/version"},
    ),
    "by its header": (
        listing(owned_by="me"),
        {"Server": "tiny/3"},
        {},
        "tiny/3",
        {"/props", "/api/version", "/version"},
    ),
    "no version": (listing(owned_by="vllm"), {}, {"/version": {"version": 7}}, "vLLM", {"/version"}),
    "another page": (listing(owned_by="m"), {}, {"/info": {"version": "9"}}, "", {"/info"}),
}


@pytest.mark.parametrize("name", SERVERS)
def test_a_server_is_asked_where_it_says_its_version(name, tmp_path):
    """Before the first request to a model, at its own route alone where its list says what it is; the run and its
    reports have it."""
    models, headers, pages, program, asked = SERVERS[name]

    def listed(path: str) -> Reply | None:
        document = models if path == "/v1/models" else pages.get(path)
        return None if document is None else Reply(document, headers=headers)

    with any_server(listed) as server:
        done = typed("sweep", "--url", server.root, *QUICK, cwd=tmp_path)
        assert "Traceback" not in done.stderr
        paths = [got.path for got in server.got]
        first = next(place for place, got in enumerate(server.got) if got.method == "POST")
    own = {path for path in paths if path in {"/props", "/version", "/api/version", "/info"} or "server_info" in path}
    if name == "llama.cpp":  # its context is at the same route
        assert paths.count("/props") == 2
    assert own == asked
    assert not own & {*paths[first:]}
    (folder,) = (tmp_path / "out").iterdir()
    run = read_run(folder)
    (info,) = run.servers
    if name == "by its header":
        assert info.program.endswith(program)  # after that of the test's own server
    else:
        assert f"{info.name} {info.version}".strip() == program
    assert "do-not-keep" not in (folder / "run.json").read_text("utf-8")
    text = render(run, "text", width=200)
    page = re.sub("<[^>]+>", "", render_html(page_of([folder])))
    if program:
        assert f"server: {info.program}\n" in text
        assert info.program in page
        assert "server software" in page


def test_a_simulated_server_has_no_version(tmp_path):
    """It is this program."""
    typed("sweep", *QUICK, cwd=tmp_path)
    (folder,) = (tmp_path / "out").iterdir()
    assert json.loads((folder / "run.json").read_text("utf-8"))["servers"] == []


def test_a_route_that_hangs_holds_nothing_up(tmp_path):
    """The run begins without the version."""

    def listed(path: str) -> Reply | None:
        if path == "/version":
            time.sleep(5)
        return Reply(listing(owned_by="vllm")) if path == "/v1/models" else None

    with any_server(listed) as server:
        done = typed("sweep", "--url", server.root, *QUICK, cwd=tmp_path)
    assert "error" not in done.stderr
    (folder,) = (tmp_path / "out").iterdir()
    (info,) = read_run(folder).servers
    assert (info.name, info.version) == ("vLLM", "")


@pytest.mark.parametrize(
    "said",
    ["1\x1b[2J\n<script>" + "x" * 500, "1.2 \u202e3", "]0;x[31m v1 | <b>x</b>", "no number", "1." * 41, "", 7, None],
)
@pytest.mark.parametrize("owner", ["vllm", "someone"])
def test_a_version_that_is_none_is_left_out(tmp_path, owner, said):
    """A text that is no version names no program either."""

    def listed(path: str) -> Reply | None:
        bad = {"version": said}
        return Reply({"/v1/models": listing(owned_by=owner), "/version": bad, "/api/version": bad}.get(path, {}))

    with any_server(listed) as server:
        typed("sweep", "--url", server.root, *QUICK, cwd=tmp_path)
    (folder,) = (tmp_path / "out").iterdir()
    (info,) = read_run(folder).servers
    assert (info.name, info.version) == ("vLLM" if owner == "vllm" else "", "")


def test_servers_are_asked_at_the_same_time(tmp_path):
    """Of three that say nothing, the second and third are asked before the first is given up."""
    asked = []
    all_asked = threading.Event()

    def listed(path: str) -> Reply | None:
        if path == "/version":
            asked.append(path)
            if len(asked) == 3:
                all_asked.set()
            assert all_asked.wait(10)
        return Reply({"version": "1.2.3"} if path == "/version" else listing(owned_by="vllm"))

    with any_server(listed) as first, any_server(listed) as second, any_server(listed) as third:
        urls = [word for server in (first, second, third) for word in ("--url", server.root)]
        typed("sweep", *urls, *QUICK, cwd=tmp_path)
    (folder,) = (tmp_path / "out").iterdir()
    assert [info.version for info in read_run(folder).servers] == ["1.2.3"] * 3
