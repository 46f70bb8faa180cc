"""Certificates that were not verified are no secret: who sees a result sees that too."""

from __future__ import annotations

import json
import ssl
import threading
from typing import TYPE_CHECKING

import pytest
import trustme

from loadbench.plan.server_url import UNVERIFIED
from tests.cli.any_server import BY_ROUTE, Got, Reply, Server
from tests.cli.running import loadbench

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def secure() -> Iterator[str]:
    """The URL of a server whose certificate nobody knows."""

    def answer(got: Got) -> Reply:
        return next(make for route, make in BY_ROUTE.items() if got.path.endswith(route))("m")

    server = Server(lambda path: Reply({"data": [{"id": "m"}]}) if "/models" in path else None, answer)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"https://127.0.0.1:{server.server_address[1]}/v1"
    server.shutdown()
    thread.join()
    server.server_close()


def test_insecure_is_told_everywhere(secure, tmp_path):
    """On stderr, even with --quiet; in the report; in run.json; among the checks of doctor."""
    given = ("--users", "1", "--requests", "3", "--warm-up", "0s", "--max-tokens", "9", "--insecure", "--quiet")
    done = loadbench("sweep", "--url", secure, *given, cwd=tmp_path)
    assert (done.stderr.count(UNVERIFIED), UNVERIFIED in done.stdout) == (1, True), done.stderr
    (folder,) = (tmp_path / "results").iterdir()
    assert "(--insecure)" in (folder / "report.md").read_text(encoding="utf-8")
    assert json.loads((folder / "run.json").read_bytes())["scenario"]["target"]["insecure"] is True
    checked = loadbench("doctor", "--url", secure, "--insecure", "--json", cwd=tmp_path)
    (found,) = [check for check in json.loads(checked.stdout)["checks"] if check["name"] == "certificate"]
    assert (found["status"], found["message"]) == ("warn", UNVERIFIED)
