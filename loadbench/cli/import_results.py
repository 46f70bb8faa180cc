"""`loadbench import`."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path

import click

from loadbench.cli.command import Command
from loadbench.cli.measuring import print_report, say, terminal_width


@click.command(
    cls=Command,
    examples=(
        "loadbench import vllm-result.json",
        "loadbench import c1.json c8.json c32.json --name vllm-0.11",
        "loadbench import benchmarks.json --json",
        "loadbench import artifacts/profile_export_aiperf.json",
    ),
)
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FILE...")
@click.option("--name", metavar="TEXT", help="The name of the run. Default: that of the first file.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="The folder in which the run folder is made. Default: results.",
)
@click.option("--json", "as_json", is_flag=True, help="Print run.json on stdout.")
def command(files: tuple[Path, ...], *, name: str | None, out: Path | None, as_json: bool) -> None:
    """Open results of another load tester: a run folder that `report` and `compare` take.

    FILE is what `vllm bench serve --save-result` (best with --save-detailed), SGLang's `bench_serving --output-file`,
    guidellm (JSON) or aiperf (profile_export_aiperf.json, with the profile_export.jsonl beside it) wrote. Several files
    of one tool are levels of one run. The report says what each figure means in that tool. No level is VALID: nothing
    is known of the client that measured.
    """
    from loadbench.analyze.imports.read import imported_run  # noqa: PLC0415 - the help needs nothing of it
    from loadbench.report.formats import render  # noqa: PLC0415
    from loadbench.results.folder import RESULTS, RunFolder, contradictions_in, slug  # noqa: PLC0415
    from loadbench.results.hlog import hlog  # noqa: PLC0415
    from loadbench.results.run import to_json  # noqa: PLC0415

    with contradictions_in(files[0]):
        run = imported_run(files, name=slug(name or files[0].stem))
        try:
            started_at = datetime.fromisoformat(run.started_at)
        except ValueError:  # the file does not say it
            started_at = datetime.now(UTC)
        text = render(run, "text", width=terminal_width())
        # A file that cannot be shown is not saved in part.
        contents = {
            "run.json": to_json(run),
            "histograms.hlog": hlog(run, started_at).encode(),
            "report.md": render(run, "markdown", width=terminal_width()).encode(),
        }
    folder = RunFolder.create(out or RESULTS, name=run.name, started_at=started_at)
    for file, content in contents.items():
        folder.save(file, content)
    print_report(contents["run.json"].decode() if as_json else text, "json" if as_json else "text")
    say(folder.place.saved)
    sys.exit(folder.place.exit_code)
