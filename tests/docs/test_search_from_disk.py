"""The search of the documents where they are opened from the disk: there a browser starts no worker."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.report.browser import browser

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]
SCRIPT = Path(__file__).parents[2] / "docs" / "search-from-disk.js"
# As the worker of the search: it loads other scripts, and answers what it is asked, in that order.
WORKER = """
let loaded = null;
addEventListener("message", async ({ data }) => {
    loaded ??= importScripts("one.js", "two.js");
    await loaded;
    postMessage(`${data} ${typeof both}`);
});
"""
PAGE = """<!DOCTYPE html><title>x</title><script src="search-from-disk.js"></script><body><script>
window.got = [];
const worker = new Worker("worker.js");
worker.addEventListener("message", event => got.push(event.data));
worker.postMessage("a");
worker.postMessage("b");
</script>"""


def test_a_worker_runs_in_a_frame(tmp_path):
    """What is sent to it is answered, also what is sent before it is loaded; nothing else is asked for."""
    (tmp_path / "search-from-disk.js").write_bytes(SCRIPT.read_bytes())
    (tmp_path / "worker.js").write_text(WORKER)
    (tmp_path / "one.js").write_text("const first = 1;")
    (tmp_path / "two.js").write_text("const both = first + 1;")
    (tmp_path / "page.html").write_text(PAGE)
    with browser() as opened:
        page = opened.new_page()
        problems: list[str] = []
        page.on("console", lambda message: problems.append(message.text))
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.goto((tmp_path / "page.html").as_uri())
        page.wait_for_function("got.length === 2")
        assert page.evaluate("got") == ["a number", "b number"]
        assert problems == []
