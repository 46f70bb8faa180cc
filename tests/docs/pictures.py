"""The pictures of the documents, all made from runs that are in the repository. To make them again (with Chromium):

python -m tests.docs.pictures
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from tests.report.browser import Opened, browser

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "pictures"
_SWEEP = "results/20261124T230344Z-llamacpp-25m-8slots"
_CAPACITY = "results/20261127T161413Z-capacity-llamacpp-25m-4slots"
_COMPARISON = "results/20261128T044037Z-cpu-against-gpu"
# Of a run, the chart that `loadbench plot` draws.
CHARTS = {
    "throughput.svg": (_SWEEP, "throughput"),
    "capacity-search.svg": (_CAPACITY, "search"),
    "ratios.svg": (_COMPARISON, "ratios"),
}
# Of a run, the beginning of its page of charts, to the end of the first two.
PAGES = {"report.png": _SWEEP, "capacity.png": _CAPACITY}
_WIDTH = 1100
_END = "document.querySelectorAll('figure')[1].getBoundingClientRect().bottom + 12"


def chart(name: str, file: Path) -> None:
    """Draw a chart."""
    run, title = CHARTS[name]
    _loadbench("plot", run, "--chart", title, "--out", str(file))


def _loadbench(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "loadbench", *arguments], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def main() -> None:
    """Make them all."""
    FOLDER.mkdir(exist_ok=True)
    for name in CHARTS:
        chart(name, FOLDER / name)
    with browser() as opened, tempfile.TemporaryDirectory() as folder:
        for name, run in PAGES.items():
            page = Path(folder) / "page.html"
            _loadbench("report", run, "--format", "html", "--out", str(page))
            view = Opened(opened, page, width=_WIDTH).page
            view.set_viewport_size({"width": _WIDTH, "height": int(view.evaluate(_END))})
            view.screenshot(path=FOLDER / name)
            page.unlink()


if __name__ == "__main__":
    main()
