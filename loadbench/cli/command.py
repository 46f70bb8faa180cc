"""What the help and the messages of every command have in common: examples, options under headings, and what is wrong
with a command line in one line with its remedy.
"""

from __future__ import annotations

import io
import os
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from loadbench.cli.streams import JSON, QUIET
from loadbench.core.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Sequence

    Records = dict[str, list[tuple[str, str]]]  # (option, what it does) by heading

# Options that say where results go and in what form, by the names of parameters: they have one heading.
OUTPUT = (
    "form",
    "format_err",
    "as_json",
    "json",
    "out",
    "report",
    "chart",
    "json_file",
    "output",
    "csv_file",
    "wide",
    "quiet",
    "no_live",
)


# Where `click.Context.meta` has the file of --out, which a command does not see itself.
_OUT = "loadbench.out"


class Command(click.Command):
    """A command whose examples run as they stand. One that `reads`, and measures nothing, has --json, --out and
    --quiet, as far as it does not declare them itself.
    """

    def __init__(self, *names: Any, examples: Sequence[str] = (), reads: bool = False, **attributes: Any) -> None:
        self.examples = tuple(examples)
        super().__init__(*names, **attributes)
        own = {flag for param in self.params for flag in param.opts}
        file = click.Path(path_type=Path)
        flags: tuple[tuple[str, str, dict[str, Any]], ...] = (
            ("--json", JSON, {"is_flag": True, "help": "Print JSON on stdout, as --format json does."}),
            ("--out", _OUT, {"type": file, "metavar": "FILE", "help": "Write to this file instead of stdout."}),
            ("--quiet", QUIET, {"is_flag": True, "help": "Print nothing on stderr but errors."}),
        )
        for flag, key, declared in flags:
            if reads and flag not in own:

                def keep(ctx: click.Context, _: click.Parameter, value: Any, key: str = key) -> None:
                    ctx.meta[key] = value

                self.params.append(click.Option([flag], expose_value=False, callback=keep, **declared))

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click does; raises `BadInput` for what cannot be read."""
        written = list(args)
        try:
            rest = super().parse_args(ctx, args)
        except click.UsageError as error:
            raise self.refusal(error, ctx, written) from None
        if ctx.meta.get(JSON) and not ctx.resilient_parsing:
            if any(arg.partition("=")[0] == "--format" for arg in written) and ctx.params["form"] != "json":
                problem = f"--json and --format {ctx.params['form']} exclude each other"
                raise BadInput(problem, hint="give one of them")
            ctx.params["form"] = "json"
        return rest

    def invoke(self, ctx: click.Context) -> Any:
        """Run it. With --out, what it prints on stdout goes to that file once it has ended without an error."""
        out = ctx.meta.get(_OUT)
        if out is None:
            return super().invoke(ctx)
        from loadbench.cli.measuring import check_files, write_file  # noqa: PLC0415 - the help needs nothing of it
        from loadbench.report.render_text import PLAIN_WIDTH  # noqa: PLC0415

        check_files({"out": out}, "out")
        code, columns = 0, os.environ.get("COLUMNS")
        os.environ.setdefault("COLUMNS", str(PLAIN_WIDTH))  # not the terminal's
        printed = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", newline="\n", write_through=True)
        try:
            with redirect_stdout(printed):
                super().invoke(ctx)
        except SystemExit as end:
            code = int(end.code or 0)
        finally:
            if columns is None:
                os.environ.pop("COLUMNS", None)
        assert isinstance(printed.buffer, io.BytesIO)  # noqa: S101 - it was made so
        saved = write_file("--out", out, printed.buffer.getvalue().decode())
        sys.exit(code or saved)

    def refusal(self, error: click.UsageError, ctx: click.Context, written: Sequence[str]) -> BadInput:
        """What is wrong with the arguments that were written."""
        from loadbench.cli.wrong_line import bad_input  # noqa: PLC0415 - only a wrong line needs it

        return bad_input(error, self, ctx, written)

    def records(self, ctx: click.Context) -> Records:
        """The options by heading, without those of settings. The command's text explains its arguments."""
        params = [param for param in self.get_params(ctx) if isinstance(param, click.Option)]
        options = [param for param in params if not hasattr(param, "setting")]
        chosen = [option for name in OUTPUT for option in options if option.name == name]
        found: Records = {"Output": [], "Options": []}
        for option in [*chosen, *(option for option in options if option not in chosen)]:
            record = option.get_help_record(ctx)
            if record is not None:
                found["Output" if option in chosen else "Options"].append(record)
        return found

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        write_examples(self.examples, formatter)
        for heading, records in self.records(ctx).items():
            if records:
                with formatter.section(heading):
                    formatter.write_dl(records)


class Group(click.Group):
    """A command of commands."""

    command_class = Command

    def __init__(self, *names: Any, examples: Sequence[str] = (), **attributes: Any) -> None:
        self.examples = tuple(examples)
        super().__init__(*names, **attributes)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click does; raises `BadInput` for what cannot be read."""
        written = list(args)
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            if not written:
                raise  # the help is the message
            from loadbench.cli.wrong_line import bad_input  # noqa: PLC0415 - only a wrong line needs it

            raise bad_input(error, self, ctx, written) from None

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        """As click does; raises `BadInput` for a command that does not exist."""
        if not ctx.resilient_parsing and args and self.get_command(ctx, args[0]) is None:
            from loadbench.cli.wrong_line import unknown_command  # noqa: PLC0415 - only a wrong line needs it

            raise unknown_command(args[0], self, ctx)
        return super().resolve_command(ctx, args)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        write_examples(self.examples, formatter)
        super().format_options(ctx, formatter)


def write_examples(examples: Sequence[str], formatter: click.HelpFormatter) -> None:
    """Write them as they are: a line for a shell is not wrapped."""
    if examples:
        with formatter.section("Examples"):
            formatter.write("".join(f"{'':{formatter.current_indent}}{line}\n" for line in examples))
