"""The workshop's files, made from any run: benchmark_report.json, .md and .csv."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from loadbench.analyze.level.workshop_stats import model_rounds
from loadbench.report.render_markdown import render_markdown
from loadbench.report.render_text import render_text
from loadbench.report.workshop import stable_json, workshop_csv, workshop_document, workshop_json
from loadbench.results.folder import RunFolder, read_run
from loadbench.results.requests import read_requests

if TYPE_CHECKING:
    from pathlib import Path

# As the workshop's own exporter names its files.
_NAME = "benchmark_report"


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkshopReport:
    """The contents of the three files, and the table with its notes for the terminal."""

    json: str
    markdown: str
    csv: str
    text: str

    def write(self, folder: RunFolder) -> None:
        """Write the files into a run folder."""
        for suffix, content in (("json", self.json), ("md", self.markdown), ("csv", self.csv)):
            folder.write(f"{_NAME}.{suffix}", content.encode())


def workshop_report(path: Path, *, shape: str, first_token: bool) -> WorkshopReport:
    """The report of the run in this folder; `shape` is that of the JSON.

    Raises `BadInput` if there is no run, or its requests cannot be read.
    """
    folder = path if path.is_dir() else path.parent
    run, requests = read_run(path), list(read_requests(folder / "requests.jsonl"))
    rows = model_rounds(run, requests)
    document = workshop_document(run, rows, first_token=first_token)
    return WorkshopReport(
        json=stable_json(run, rows, requests)
        if shape == "stable"
        else workshop_json(rows, shape, first_token=first_token),
        markdown=render_markdown(document),
        csv=workshop_csv(rows, first_token=first_token),
        text=render_text(document),
    )
