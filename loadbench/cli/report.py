"""`loadbench report`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, Unpack

import click
from click.core import ParameterSource

from loadbench.cli.command import Command
from loadbench.cli.measuring import (
    FORMAT_OF,
    format_option,
    github_option,
    look,
    print_report,
    refuse_wide,
    say,
    tell_github,
    wide_option,
    write_file,
)
from loadbench.cli.run_names import RUN
from loadbench.core.errors import BadInput, ExitCode

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from loadbench.report.render_text import Look
    from loadbench.results.run import Run

OUT_HELP = (
    "Write to this file instead of stdout, without --format in the one that its name ends in (.html, .md, .csv, .json, "
    ".xml, .txt, .hlog). With hgrm and llmd: write one file per distribution or level to this folder."
)
# Those of `report/other_tools.py`, which the help need not import.
TOOLS = ("vllm", "sglang", "guidellm", "aiperf", "llmperf", "loadgen")


@click.command(
    cls=Command,
    reads=True,
    examples=(
        "loadbench report results/*-before",
        "loadbench report results/*-before --out report.md",
        "loadbench report results/*-before --out report.html",
        "loadbench report results/*-before --as vllm",
    ),
)
@click.argument("runs", nargs=-1, type=RUN, metavar="[RUN]...")
@format_option
@click.option(
    "--as", "tool", type=click.Choice(TOOLS), help="Show that tool's figures next to loadbench's, and why they differ."
)
@click.option("--by-prompt", is_flag=True, help="Show the figures of each prompt of --prompts, and the outliers.")
@click.option("--by-user", is_flag=True, help="Show whether the users of each closed-loop level were served equally.")
@click.option("--out", type=click.Path(path_type=Path), metavar="FILE", help=OUT_HELP)
@click.option("--open", is_flag=True, help="Open the page in the browser; without --format, make one.")
@wide_option
@github_option
@click.option("--schema", is_flag=True, help="Print the JSON Schema of run.json.")
def command(
    runs: tuple[Path, ...],
    *,
    form: str,
    tool: str | None,
    by_prompt: bool,
    by_user: bool,
    out: Path | None,
    schema: bool,
    **flags: bool,
) -> None:
    """Show a saved run again, in any format. RUN is a run folder, a run.json, `last`, `last~1`, or a run's name.

    The folder may be one of any command that measures, and of a run that was killed: a level that was not finished is
    put together from its requests, and the report says what is missing. With --format html several runs make one page.
    """
    # Each kind of report imports its own modules, so that none waits for another's.
    # ruff: noqa: PLC0415
    from loadbench.analyze.level.rebuild import run_in
    from loadbench.report.formats import RENDERERS, schema_text
    from loadbench.report.shown import DATA_FORMATS, SEVERAL_FILES, data_files, data_text, runs_at
    from loadbench.results.capacity import SEVERAL_FILE, read_capacities
    from loadbench.results.compare_capacity import FILE as COMPARED_FILE
    from loadbench.results.folder import contradictions_in, read_run
    from loadbench.results.grid import is_grid
    from loadbench.results.saved import has_pairs

    is_given = click.get_current_context().get_parameter_source("form") is not ParameterSource.DEFAULT
    if not is_given and not schema:
        form = "html" if flags["open"] else form if out is None else FORMAT_OF.get(out.suffix.lower(), form)
    refuse_wide("a schema" if schema else form, wide=flags["wide"])
    appearance = look(wide=flags["wide"], file=out)
    chosen = [f"--as {tool}"] * (tool is not None) + ["--by-prompt"] * by_prompt + ["--by-user"] * by_user
    if len(chosen) > 1:
        raise BadInput(f"{chosen[0]} and {chosen[1]}: two reports", hint="ask for one at a time")
    if chosen and form not in RENDERERS:
        raise BadInput(f"{chosen[0]}: does not exist as {form}", hint="leave --format out, or use markdown")
    run = runs[0] if runs else None
    if len(runs) > 1 and form != "html":
        raise BadInput(f"{len(runs)} runs are named: only a page shows several", hint="add --format html")
    if flags["open"] and form != "html":
        raise BadInput("--open: is for pages", hint="add --format html")
    if flags["github"] and (schema or len(runs) != 1):
        raise BadInput("--github: is for the report of one run", hint="name one run")
    with contradictions_in(run):
        told = _tell_github(run) if flags["github"] and run is not None else ExitCode.OK
        if schema:
            content = schema_text()
        elif run is None:
            raise BadInput("no run given", hint="`loadbench report last` shows the newest, `loadbench runs` lists all")
        elif form == "html":
            content = _page(runs, out, opens=flags["open"])
        elif form in SEVERAL_FILES and out is not None:
            _write_several(data_files(form, runs_at(_folder_of(run) or run), place=str(run)), out)
        elif form in DATA_FORMATS:
            content = data_text(form, runs_at(_folder_of(run) or run), place=str(run))
        elif (folder := _folder_of(run)) is not None and (folder / COMPARED_FILE).is_file():
            if chosen:
                hint = f"name one of them, as in {folder / 'a'}"
                raise BadInput(f"{run}: {chosen[0]} is for one run, and these are two searches", hint=hint)
            content = _searched_sides(folder, form, **appearance)
        elif folder is not None and (folder / SEVERAL_FILE).is_file():
            if chosen:
                first = folder / next(iter(read_capacities(folder).folders.values()))
                hint = f"name one of them, as in {first}"
                raise BadInput(f"{run}: {chosen[0]} is for one run, and these are the searches of several", hint=hint)
            content = _searches(folder, form, **appearance)
        elif folder is not None and is_grid(folder):
            content = _grid(folder, form, chosen, **appearance)
        elif folder is not None and has_pairs(folder):
            content = _comparison(folder, form, chosen, **appearance)
        else:
            result = run_in(folder) if folder is not None else read_run(run)
            kind = tool or ("prompt" if by_prompt else "user" if by_user else "")
            content = _of_run(result, folder or run.parent, form, kind, **appearance)
    if out is not None:
        sys.exit(write_file("--out", out, content) or told)
    print_report(content, "json" if schema else form)
    sys.exit(told)


def _tell_github(run: Path) -> ExitCode:
    """Show a run, a search or a comparison in the step's summary; returns an exit code."""
    from loadbench.analyze.compare.in_folder import comparison_in
    from loadbench.analyze.level.rebuild import run_in
    from loadbench.report.formats import render_comparison
    from loadbench.report.junit import (
        compare_suite,
        grid_suites,
        run_suites,
        search_suite,
        searches_suites,
        sides_suites,
        undecided_of,
    )
    from loadbench.results.capacity import FILE, SEVERAL_FILE, read_capacities, read_capacity
    from loadbench.results.compare_capacity import FILE as COMPARED_FILE
    from loadbench.results.compare_capacity import read_capacity_comparison
    from loadbench.results.folder import read_run
    from loadbench.results.grid import is_grid
    from loadbench.results.saved import has_pairs, read_pairs

    folder = _folder_of(run)
    if folder is not None and (folder / COMPARED_FILE).is_file():
        suites = sides_suites(read_capacity_comparison(folder))
        return tell_github(_searched_sides(folder, "markdown"), suites)
    if folder is not None and has_pairs(folder):
        comparison = comparison_in(folder)
        suite = compare_suite(comparison, undecided=undecided_of(read_pairs(folder)[0][0]))
        return tell_github(render_comparison(comparison, "markdown"), [suite])
    if folder is not None and is_grid(folder):
        from loadbench.analyze.grid.in_folder import grid_in

        return tell_github(_grid(folder, "markdown", []), grid_suites(*grid_in(folder)))
    if folder is not None and (folder / SEVERAL_FILE).is_file():
        return tell_github(_searches(folder, "markdown"), searches_suites(read_capacities(folder)))
    result = run_in(folder) if folder is not None else read_run(run)
    folder = folder or run.parent
    suites = run_suites(result)
    if (folder / FILE).is_file():
        # Its probes are beyond the server's limit on purpose: that is no news.
        suites = [search_suite(read_capacity(folder), undecided=undecided_of(result))]
    return tell_github(_of_run(result, folder, "markdown", "", **look(wide=False, file=run)), suites)


def _of_run(result: Run, folder: Path, form: str, kind: str, **appearance: Unpack[Look]) -> str:
    """The report of a run: that of a tool, by `prompt` or by `user`, if such a `kind` is named."""
    from loadbench.plan.cluster import REQUESTS_ELSEWHERE, WHERE_THEY_ARE
    from loadbench.report.capacity import capacity_document
    from loadbench.report.formats import RENDERERS, render, renderers
    from loadbench.report.junit import run_junit
    from loadbench.report.line import capacity_lines
    from loadbench.results.capacity import FILE, read_capacity
    from loadbench.results.quality import read_quality
    from loadbench.results.requests import read_requests

    requests, shown = folder / "requests.jsonl", renderers(**appearance)
    if kind and result.requests_elsewhere:
        raise BadInput(f"{requests}: {REQUESTS_ELSEWHERE}", hint=WHERE_THEY_ARE)
    if kind == "prompt":
        from loadbench.analyze.level.by_prompt import by_prompt
        from loadbench.report.by_prompt import by_prompt_document

        return shown[form](by_prompt_document(result, by_prompt(read_requests(requests))))
    if kind == "user":
        from loadbench.analyze.level.fairness import fairness
        from loadbench.report.by_user import by_user_document

        return shown[form](by_user_document(result, fairness(read_requests(requests))))
    if kind:
        from loadbench.report.tool_comparison import tool_comparison_document

        return shown[form](tool_comparison_document(result, kind, read_requests(requests)))
    if form == "line" and (folder / FILE).is_file():
        return capacity_lines([read_capacity(folder)])
    if form == "junit" and (folder / FILE).is_file():
        return run_junit(result, read_capacity(folder))
    content = render(result, form, quality=read_quality(folder), **appearance)
    # The answer of a capacity search comes before its levels, for people, and its title is higher.
    if form in RENDERERS and (folder / FILE).is_file():
        search = shown[form](capacity_document(read_capacity(folder), result.levels))
        content = search + "\n" + "#" * (form == "markdown") + content
    return content


def _page(runs: Sequence[Path], out: Path | None, *, opens: bool) -> str:
    """The page of the runs; if it is to be opened, it is written to a file that stays, and this ends the command."""
    import tempfile
    import webbrowser

    from loadbench.report.html import render_html
    from loadbench.report.pages import page_of

    content = render_html(page_of([_folder_of(run) or run for run in runs]))
    if not opens:
        return content
    if out is None:
        with tempfile.NamedTemporaryFile(prefix="loadbench-", suffix=".html", delete=False) as file:
            out = Path(file.name)
    code = write_file("--out", out, content)
    if code is ExitCode.OK and not webbrowser.open(out.resolve().as_uri()):
        say("note: no browser could be started; open the file yourself")
    sys.exit(code)


def _write_several(files: Mapping[str, str], out: Path) -> NoReturn:
    """Write the files of a format that has several to the folder `out`; this ends the command."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        hint = "name a folder that can be written"
        raise BadInput(f"--out {out}: {error.strerror or error}", hint=hint) from None
    sys.exit(max(write_file("--out", out / name, content) for name, content in files.items()))


def _searches(folder: Path, form: str, **appearance: Unpack[Look]) -> str:
    """The searches of several models."""
    from loadbench.report.capacities import capacities_document
    from loadbench.report.formats import renderers
    from loadbench.report.junit import searches_junit, undecided_of
    from loadbench.report.line import capacity_lines
    from loadbench.report.shown import runs_at, runs_of_searches
    from loadbench.results.capacity import read_capacities
    from loadbench.results.run import to_json

    capacities = read_capacities(folder)
    if form == "line":
        return capacity_lines(capacities.searches)
    if form == "json":
        return to_json(capacities).decode()
    if form == "junit":
        runs = runs_at(folder)
        return searches_junit(capacities, undecided=undecided_of(runs[0].run) if runs else None)
    return renderers(**appearance)[form](capacities_document(capacities, runs_of_searches(folder)))


def _grid(folder: Path, form: str, chosen: list[str], **appearance: Unpack[Look]) -> str:
    """The grid in a folder, as its cells are now."""
    from loadbench.analyze.grid.in_folder import grid_in
    from loadbench.report.formats import render_grid
    from loadbench.report.grid import with_conclusion

    grid, runs = grid_in(folder)
    if chosen:
        hint = f"name one of its cells, as in {folder / grid.cells[0].folder}"
        raise BadInput(f"{folder}: {chosen[0]} is for one run, and this is a grid", hint=hint)
    return render_grid(with_conclusion(grid), runs, form, folder=folder, **appearance)


def _searched_sides(folder: Path, form: str, **appearance: Unpack[Look]) -> str:
    """The searches of two sides."""
    from loadbench.report.compare_capacity import capacity_comparison_document
    from loadbench.report.formats import renderers
    from loadbench.report.junit import sides_junit, undecided_of
    from loadbench.report.line import capacity_lines
    from loadbench.report.shown import runs_at
    from loadbench.results.compare_capacity import read_capacity_comparison
    from loadbench.results.run import to_json

    comparison = read_capacity_comparison(folder)
    if form == "line":
        return capacity_lines([side.capacity for side in (comparison.a, comparison.b) if side.capacity is not None])
    if form == "json":
        return to_json(comparison).decode()
    if form == "junit":
        runs = runs_at(folder)
        return sides_junit(comparison, undecided=undecided_of(runs[0].run) if runs else None)
    return renderers(**appearance)[form](capacity_comparison_document(comparison))


def _folder_of(run: Path) -> Path | None:
    """The run folder that a path names, by itself or by one of its files; `None` for a result that lies elsewhere.

    Raises `BadInput` for a folder of several runs, and for one that is none.
    """
    from loadbench.results.saved import FILES, has_pairs

    folder = run if run.is_dir() else run.parent
    if not run.is_dir():
        return folder if run.name in FILES else None
    runs = sorted(path.parent.name for path in folder.glob("*/run.json"))
    if not any((folder / name).exists() for name in FILES) and not has_pairs(folder):
        if runs:
            hint = f"name one of them, as in {folder / runs[-1]}"
            raise BadInput(f"{run}: has {len(runs)} runs", hint=hint)
        if not any(folder.iterdir()):
            hint = "it was killed as it began: measure again"
            raise BadInput(f"{run}: an empty folder, in which no run wrote anything", hint=hint)
    return folder


def _comparison(folder: Path, form: str, chosen: list[str], **appearance: Unpack[Look]) -> str:
    """The comparison in a folder; as text, the runs so far where there is nothing to compare yet."""
    from loadbench.analyze.compare.in_folder import comparison_in
    from loadbench.analyze.level.rebuild import run_in
    from loadbench.report.formats import RENDERERS, render, render_comparison
    from loadbench.report.junit import undecided_of
    from loadbench.results.saved import repeats_of

    runs = [run for side in ("a", "b") for run in repeats_of(folder, side).values()]
    if chosen:
        hint = f"name one of its runs, as in {runs[0]}" if runs else "measure again"
        raise BadInput(f"{folder}: {chosen[0]} is for one run, and this is a comparison", hint=hint)
    unfinished = [run for run in runs if not run_in(run).complete]
    try:
        undecided = undecided_of(run_in(runs[0])) if runs else None
        content = render_comparison(comparison_in(folder), form, undecided=undecided, **appearance)
    except BadInput:
        if form not in RENDERERS or not runs:
            raise
        content = "No repeat is complete on both sides, so nothing is compared. The runs so far:\n\n"
        content += "\n".join(render(run_in(run), form, **appearance) for run in runs)
    for run in unfinished:
        say(f"note: {run.relative_to(folder)} is not complete, and not compared")
    return content
