"""The site that mkdocs builds of the documents: whole, readable in a browser, and with all that it needs."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.report.browser import browser

ROOT = Path(__file__).parents[2]
PAGES = sorted(path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md"))


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site's folder, built so that a page in no menu and a link or an anchor that leads nowhere is an error."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    return folder


@pytest.fixture(scope="module")
def address(site):
    """The site's URL on a web server."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            """Nobody reads it."""

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=site)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("page", PAGES)
def test_page_is_in_the_menu(page):
    """The menu of the site names it."""
    assert f"{page}\n" in (ROOT / "mkdocs.yml").read_text(encoding="utf-8").replace("]", "\n").replace(",", "\n")


@pytest.mark.slow
def test_site_has_what_its_pages_link_to(site):
    """Files and runs outside of docs/ are there, a run as its page of charts."""
    assert "root.dataset.ready" in (site / "runs" / "20261128T044316Z-gpu.html").read_text(encoding="utf-8")
    assert (site / "project" / "SECURITY.html").is_file()


@pytest.mark.slow
@pytest.mark.browser
@pytest.mark.parametrize("page", ["index.html", "metrics.html", "project/CHANGELOG.html"])
def test_page_needs_no_other_host(address, page):
    """A browser shows it without an error, and asks no other host for anything."""
    with browser() as opened:
        view = opened.new_page()
        problems, requests = [], []
        view.on("console", lambda message: problems.append(message.text))
        view.on("pageerror", lambda error: problems.append(str(error)))
        view.on("request", lambda request: requests.append(request.url))
        view.goto(f"{address}/{page}", wait_until="networkidle")
        assert problems == []
        assert [url for url in requests if not url.startswith(f"{address}/")] == []


@pytest.mark.slow
@pytest.mark.browser
def test_search_finds_a_term(address):
    """What is typed into the search leads to a page that has it."""
    with browser() as opened:
        view = opened.new_page()
        view.goto(address, wait_until="networkidle")
        # Typed, since the search looks when a key goes up: text put in at one go may come too early.
        view.click("input[data-md-component=search-query]")
        view.keyboard.type("steady state")
        view.wait_for_selector(".md-search-result__link[href*=metrics]")


@pytest.mark.slow
@pytest.mark.browser
def test_search_works_from_the_disk(site):
    """Without a server, from a page in a folder, and without another host."""
    with browser() as opened:
        view = opened.new_page()
        requests = []
        view.on("request", lambda request: requests.append(request.url))
        view.goto((site / "tutorials" / "first-sweep.html").as_uri())
        view.click("input[data-md-component=search-query]")
        view.keyboard.type("steady state")
        view.wait_for_selector(".md-search-result__link[href*=metrics]")
        assert [url for url in requests if not url.startswith("file:")] == []
