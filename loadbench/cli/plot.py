"""`loadbench plot`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from loadbench.cli.command import Command
from loadbench.cli.measuring import check_files, print_report, say, write_file
from loadbench.cli.run_names import RUN
from loadbench.core.errors import BadInput
from loadbench.core.text import some

SUFFIXES = {".svg": "svg", ".png": "png"}


@click.command(
    cls=Command,
    examples=(
        "loadbench plot results/*-before",
        "loadbench plot results/*-before --chart throughput --out throughput.svg",
        "loadbench plot results/*-before --chart ttft-distribution --out ttft.png",
    ),
)
@click.argument("run", type=RUN)
@click.option("--chart", metavar="NAME", help="Which chart. Without it, the charts of the run are listed.")
@click.option(
    "--format", "form", type=click.Choice(tuple(SUFFIXES.values())), help="Default: as --out ends, or else svg."
)
@click.option("--out", type=click.Path(path_type=Path), metavar="FILE", help="Write to this file instead of stdout.")
def command(run: Path, *, chart: str | None, form: str | None, out: Path | None) -> None:
    """Draw a chart of a saved run as a file: the same charts that its page has (`loadbench report --format html`).

    PNG needs the extra `png`: pip install 'loadbench[png]'.
    """
    # ruff: noqa: PLC0415 - the help needs nothing of what is imported here
    from loadbench.report.chart import svg
    from loadbench.report.html import charts_of
    from loadbench.report.pages import page_of
    from loadbench.results.folder import contradictions_in

    check_files({"out": out}, "out")
    by_name = None if out is None else SUFFIXES.get(out.suffix.lower())
    if form is not None and by_name not in {None, form}:
        raise BadInput(f"--format {form} and --out {out}: two formats", hint="give one of them")
    with contradictions_in(run):
        charts = charts_of(page_of([run]).blocks)
    if not charts:
        raise BadInput(f"{run}: has nothing to draw", hint="name a run with requests that ended ok")
    if chart is None:
        if out is not None or form is not None:
            raise BadInput("which chart?", hint=f"add --chart NAME: {some([*charts])}")
        wide = max(map(len, charts))
        print_report("".join(f"{name:{wide}}  {made.title}\n" for name, made in charts.items()), "text")
        return
    if chart not in charts:
        hint = f"its charts are {some([*charts])}; `loadbench plot` without --chart lists them"
        raise BadInput(f"--chart {chart}: the run has none of this name", hint=hint)
    with contradictions_in(run):
        drawn = svg(charts[chart])
    if (form or by_name or "svg") == "png":
        from loadbench.report.png import png

        content = png(drawn)
        if out is None:
            if sys.stdout.isatty():
                raise BadInput("a PNG cannot be shown on a terminal", hint="add --out FILE.png")
            click.echo(content, nl=False)
            return
        try:
            out.write_bytes(content)
        except OSError as error:
            raise BadInput(f"--out {out}: {error.strerror or error}", hint="name a file that can be written") from None
    elif out is None:
        print_report(drawn, "svg")
        return
    else:
        sys.exit(write_file("--out", out, drawn))
    say(f"written to {out}")
