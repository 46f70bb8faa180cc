"""The workshop's files, made from any run: benchmark_report.json, .md and .csv."""

from __future__ import annotations

from typing import TYPE_CHECKING, Unpack

from loadbench.analyze.level.workshop_stats import model_rounds
from loadbench.report.render_markdown import render_markdown
from loadbench.report.render_text import render_text
from loadbench.report.workshop import stable_json, workshop_csv, workshop_document, workshop_json
from loadbench.results.requests import read_requests

if TYPE_CHECKING:
    from loadbench.report.render_text import Look
    from loadbench.results.folder import RunFolder
    from loadbench.results.run import Run


def export_workshop(
    folder: RunFolder, run: Run, *, shape: str, first_token: bool, **look: Unpack[Look]
) -> dict[str, str]:
    """Write the three files into the folder of this run; returns their contents by suffix, and the table as `text` of
    this look.

    `shape` is that of the JSON. Raises `BadInput` if its requests cannot be read.
    """
    requests = list(read_requests(folder.path / "requests.jsonl"))
    rows = model_rounds(run, requests)
    document = workshop_document(run, rows, first_token=first_token)
    contents = {
        "json": stable_json(run, rows, requests)
        if shape == "stable"
        else workshop_json(rows, shape, first_token=first_token),
        "md": render_markdown(document),
        "csv": workshop_csv(rows, first_token=first_token),
    }
    for suffix, content in contents.items():
        # As the workshop's own exporter names its files.
        folder.save(f"benchmark_report.{suffix}", content.encode())
    return {**contents, "text": render_text(document, **look)}
