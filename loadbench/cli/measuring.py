"""What the commands that measure have in common: their flags, the progress line, and files named by flags."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from loadbench.cli.run_names import RUN
from loadbench.cli.streams import JSON, QUIET, message_lines
from loadbench.core.errors import BadInput, ExitCode
from loadbench.core.terminal import wants_color

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import TypeAlias

    from loadbench.live.progress import Progress
    from loadbench.plan.scenario import Scenario
    from loadbench.report.document import Document
    from loadbench.report.junit import Suite
    from loadbench.report.render_text import Look
    from loadbench.report.shown import Shown
    from loadbench.results.folder import RunPlace

    # The result in a format, for a file or for the terminal.
    Content: TypeAlias = Callable[[str, Path | None], str]


# Where `click.Context.meta` has the format of --format-err.
_ALSO = "loadbench.format_err"
# The format of a file, by the end of its name.
FORMAT_OF = {
    **dict.fromkeys((".html", ".htm"), "html"),
    **dict.fromkeys((".md", ".markdown"), "markdown"),
    ".csv": "csv",
    ".json": "json",
    ".xml": "junit",
    ".txt": "text",
    ".hlog": "hlog",
}
FORMATS = ("text", "markdown", "html", "csv", "junit", "json", "hlog", "hgrm", "llmd", "line")
FORMAT_HELP = (
    "Output format. html: a page with charts, one file. hlog: the distributions second by second, and hgrm: of each "
    "level, for the tools of HdrHistogram. "
    "llmd: llm-d's benchmark report of each level. line: one line for each level, to paste into an issue. "
    "docs/formats.md has all."
)


def format_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add --format."""
    option = click.option(
        "--format", "form", type=click.Choice(FORMATS), default="text", show_default=True, help=FORMAT_HELP
    )
    return option(function)


def run_options(*, json: str, dry_run: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Add --format, --format-err, --json, --quiet, --no-live, --wide, --dry-run and --verbose; the arguments complete
    two of the helps."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        for option in (
            wide_option,
            click.option(
                "--format-err",
                type=click.Choice(FORMATS),
                expose_value=False,
                callback=_keep_also,
                help="Also print the result in this format on stderr, as a log keeps both.",
            ),
            click.option(
                "--verbose",
                is_flag=True,
                callback=_of_plan,
                help="With --dry-run: every setting, and the first request.",
            ),
            click.option("--dry-run", is_flag=True, is_eager=True, help=f"{dry_run} Nothing is sent."),
            click.option("--no-live", is_flag=True, help="Print progress in plain lines, also on a terminal."),
            click.option("--quiet", is_flag=True, help="Print no progress on stderr."),
            format_option,
            click.option(
                "--json",
                is_flag=True,
                expose_value=False,
                callback=_is_json,
                help=f"Print {json} on stdout, and nothing else, as --format json does.",
            ),
        ):
            function = option(function)
        return function

    return decorate


def _of_plan(ctx: click.Context, _: click.Parameter, value: bool) -> bool:  # noqa: FBT001 - click calls it so
    """--verbose; raises `BadInput` where nothing is planned. --dry-run is read before it, wherever it stands."""
    if value and not ctx.params.get("dry_run"):
        raise BadInput("--verbose: is for the plan of --dry-run", hint="add --dry-run, or leave it out")
    return value


def _keep_also(ctx: click.Context, _: click.Parameter, value: str | None) -> None:
    ctx.meta[_ALSO] = value


def _is_json(ctx: click.Context, _: click.Parameter, value: bool) -> None:  # noqa: FBT001 - click calls it so
    ctx.meta[JSON] = value


def wide_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add --wide."""
    text = "Show every column of the tables, in several parts where the terminal is too narrow."
    return click.option("--wide", is_flag=True, help=text)(function)


def refuse_wide(form: str, *, wide: bool) -> None:
    """Raise `BadInput` for --wide where the output is no text."""
    if wide and form != "text":
        raise BadInput(f"--wide: is for text, and the output is {form}", hint="leave it out: every figure is in there")


def resume_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add --resume."""
    text = "Continue this run, with its own settings if no others are given."
    return click.option("--resume", type=RUN, metavar="DIR", help=text)(function)


def report_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add --report."""
    ends = ".html (a page with charts), .csv, .md, .json, .xml (JUnit), .txt, .hlog"
    text = f"Also write the result to this file, as its name ends: {ends}; repeat the flag for several."
    file = click.Path(path_type=Path)
    return click.option("--report", type=file, multiple=True, metavar="FILE", help=text)(function)


def check_report(paths: Sequence[Path]) -> None:
    """Raise `BadInput` if --report names a file of an unknown format, or one that cannot be written: before anything is
    measured."""
    for path in paths:
        if path.suffix.lower() not in FORMAT_OF:
            ends = "one of .html, .csv, .md, .json, .xml, .txt, .hlog"
            raise BadInput(f"--report {path}: its format is not known", hint=f"name a file that ends in {ends}")
        check_files({"report": path}, "report")


def print_result(content: Content, form: str, *, on_stdout: bool = True) -> None:
    """Print what was measured on stdout, and on stderr in the format of --format-err, if there is one."""
    if on_stdout:
        print_report(content(form, None), form)
    also = click.get_current_context().meta[_ALSO]
    if also is not None:
        click.echo(content(also, Path(os.devnull)), err=True, nl=False)


def write_reports(paths: Sequence[Path], content: Content) -> ExitCode:
    """Write what was measured to the files that --report names; returns the exit code for the case that nothing else
    has gone wrong."""
    texts = {path: content(FORMAT_OF[path.suffix.lower()], path) for path in paths}
    return max([ExitCode.OK, *(write_file("--report", path, text) for path, text in texts.items() if text)])


def settings_of_resumed(resume: Path | None, command: str, *, file: Path | None) -> dict[str, Any]:
    """What `resolve` takes from the run that is continued, which nobody else continues until this command ends."""
    if resume is None:
        return {}
    from loadbench.session.resume import settings_of_run  # noqa: PLC0415 - few runs are continued

    hold_resumed(resume)
    return settings_of_run(resume, command, file=file)


def hold_resumed(resume: Path) -> None:
    """Nobody else continues this run until the command ends; raises `BadInput` if somebody measures it."""
    from loadbench.session.resume import held  # noqa: PLC0415 - few runs are continued

    click.get_current_context().with_resource(held(resume))


def progress_line(*, quiet: bool, no_live: bool) -> Progress:
    """The progress on stderr, from now on; it is over when it is closed, or when the command ends."""
    from loadbench.live.progress import Progress  # noqa: PLC0415 - the help needs no progress line

    progress = Progress(sys.stderr, levels=1, quiet=quiet, live=not no_live)
    click.get_current_context().with_resource(progress)
    progress.doing("starting")
    return progress


def say(text: str) -> None:
    """Print a line for people, on stderr. With the --quiet of a command that reads, only errors."""
    context = click.get_current_context(silent=True)
    if context is None or not context.meta.get(QUIET) or text.startswith("error: "):
        click.echo(message_lines(text), err=True)


def say_trace(scenario: Scenario, progress: Progress) -> None:
    """Print what is in the trace, if there is one: a wrong unit of its times should be seen at the start."""
    from loadbench.report.plan import trace_facts  # noqa: PLC0415 - the help needs nothing of it

    for name, value in trace_facts(scenario):
        progress.say(f"{name}: {value}")


def say_unused(scenario: Scenario) -> None:
    """Print once which values that somebody gave are not used, and why."""
    for value in scenario.unused:
        say(f"not used: {value}")


def say_data_set(scenario: Scenario) -> None:
    """Print once what is sent of the file of prompts."""
    from loadbench.report.data_set import data_set_lines  # noqa: PLC0415 - the help needs nothing of it

    for line in data_set_lines(scenario):
        say(line)


def say_unused_variables(scenario: Scenario, used: set[str], reason: str) -> None:
    """Print the variables whose values a command cannot use on saved runs; `used` has the keys of those that it can."""
    from loadbench.plan.scenario import Unused  # noqa: PLC0415 - the help needs nothing of it
    from loadbench.plan.settings import Source  # noqa: PLC0415

    for key, origin in scenario.origins.items():
        if origin.source in {Source.ENVIRONMENT, Source.WORKSHOP} and key not in used:
            say(f"not used: {Unused(key, origin, reason)}")


def terminal_width() -> int:
    """The width that COLUMNS sets, or that of the terminal that stdout is; for a file or a pipe the same everywhere."""
    from loadbench.report.render_text import PLAIN_WIDTH  # noqa: PLC0415 - the help needs nothing of it

    return shutil.get_terminal_size((PLAIN_WIDTH, 0)).columns


def look(*, wide: bool = False, file: Path | None = None) -> Look:
    """How text is shown on stdout, as it is now; or in a file, where the terminal does not matter."""
    from loadbench.report.render_text import PLAIN_WIDTH  # noqa: PLC0415 - the help needs nothing of it

    if file is not None:
        columns = os.environ.get("COLUMNS", "")
        return {"width": int(columns) if columns.isdecimal() and int(columns) else PLAIN_WIDTH, "wide": wide}
    return {"width": terminal_width(), "wide": wide, "color": wants_color(sys.stdout)}


def print_document(document: Document, *, wide: bool = False) -> None:
    """Print a document as text on stdout."""
    from loadbench.report.render_text import render_text  # noqa: PLC0415 - the help needs nothing of it

    click.echo(render_text(document, **look(wide=wide)), nl=False)


def finish(
    content: Content,
    place: RunPlace,
    code: Callable[[], ExitCode],
    *,
    form: str,
    quiet: bool,
    report: Sequence[Path],
    last: Callable[[], None] = lambda: None,
) -> NoReturn:
    """Print what was measured and where it is, with the `last` words in between, write the files of --report, and leave
    with the exit code of the measurement, or else of what could not be written."""
    print_result(content, form)
    last()
    say_saved(place, quiet=quiet)
    written = write_reports(report, content)
    sys.exit(code() or place.exit_code or written)


def data_or_page(form: str, shown: Callable[[], Sequence[Shown]], page: Callable[[], Document]) -> str | None:
    """What was just compared or measured as a page, or in a format for data; `None` for the other formats, which are
    those of the command. Where nothing was measured that the format could have, that is said, and there is nothing."""
    if form == "html":
        from loadbench.report.html import render_html  # noqa: PLC0415 - only pages need it

        return render_html(page())
    from loadbench.report.shown import DATA_FORMATS, data_text  # noqa: PLC0415 - a sweep shows text

    try:
        return data_text(form, shown(), place=f"--format {form}") if form in DATA_FORMATS else None
    except BadInput as error:
        say(f"error: {error.message}")
        return ""


def print_report(content: str, form: str) -> None:
    """Print on stdout: text in the terminal's encoding, and what programs read always as UTF-8."""
    click.echo(content if form == "text" else content.encode(), nl=False)


def say_saved(place: RunPlace, *, quiet: bool) -> None:
    """Print where the run is, as the last line; with --quiet only if something is not where it should be. What was
    saved last may be on its way until then."""
    place.wait()
    if not quiet or place.exit_code:
        say(place.saved)


def check_files(options: Mapping[str, Any], *names: str) -> None:
    """Raise `BadInput` if a file that one of these flags names cannot be written: before anything is measured."""
    for name in names:
        path = options[name]
        if path is None:
            continue
        if path.is_dir():
            reason = "is a folder"
        elif not path.parent.is_dir():
            reason = f"there is no folder {path.parent}"
        elif os.access(path if path.exists() else path.parent, os.W_OK):
            continue
        else:
            reason = "cannot be written"
        raise BadInput(f"--{name.replace('_', '-')} {path}: {reason}", hint="name a file that can be written")


def github_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add --github, which is refused where no summary can be written."""

    def checked(_ctx: click.Context, _param: click.Parameter, value: bool) -> bool:  # noqa: FBT001 - click calls it so
        from loadbench.report.github import SUMMARY  # noqa: PLC0415 - the help needs nothing of it

        if value and not os.environ.get(SUMMARY):
            raise BadInput(f"--github: {SUMMARY} is not set", hint="leave it out: it is for a step of GitHub Actions")
        return value

    text = "Also append the report to $GITHUB_STEP_SUMMARY, and print annotations for GitHub on stderr."
    return click.option("--github", is_flag=True, callback=checked, help=text)(function)


def tell_github(markdown: str, suites: Sequence[Suite]) -> ExitCode:
    """Append the report to the summary of the step, and print its annotations. Returns the exit code for the case that
    nothing else has gone wrong."""
    from loadbench.report.github import MOST_BYTES, SUMMARY, annotation_lines  # noqa: PLC0415 - likewise

    path = Path(os.environ[SUMMARY])
    for line in annotation_lines(suites):
        click.echo(line, err=True)
    try:
        before = path.stat().st_size if path.exists() else 0
        if before + len(markdown.encode()) >= MOST_BYTES:
            say(f"note: --github: a summary above {MOST_BYTES >> 20} MiB is refused by GitHub; it is left as it was")
            return ExitCode.OK
        with path.open("a", encoding="utf-8", newline="\n") as file:
            file.write(("\n" if before else "") + markdown)
    except OSError as error:
        say(f"error: --github {path}: {error.strerror or error}")
        return ExitCode.BAD_INPUT
    return ExitCode.OK


def write_file(flag: str, path: Path, content: str) -> ExitCode:
    """Write a file that a flag names, and report it on stderr unless --quiet; or that it cannot be written, and where
    it is instead. Returns the exit code for the case that nothing else has gone wrong."""
    from loadbench.results.folder import keep_elsewhere  # noqa: PLC0415 - the help needs nothing of it

    try:
        path.write_text(content, encoding="utf-8", newline="\n")
    except OSError as error:
        kept = keep_elsewhere(path.name, content.encode())
        say(f"error: {flag} {path}: {error.strerror or error}" + ("" if kept is None else f"; it is in {kept}"))
        return ExitCode.BAD_INPUT
    context = click.get_current_context(silent=True)
    if context is None or not context.params.get("quiet"):
        say(f"written to {path}")
    return ExitCode.OK
