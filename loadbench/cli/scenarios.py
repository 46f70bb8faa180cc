"""`loadbench scenarios`: the scenario files and examples that come with the package, listed and copied."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from pathlib import Path

import click

import loadbench
from loadbench.cli.command import Group
from loadbench.cli.measuring import look
from loadbench.core.errors import BadInput
from loadbench.core.new_file import is_taken, write_new

_PACKAGE = Path(loadbench.__file__).parent
# (folder in an installed package, folder in a checkout): the build copies one to the other, see pyproject.toml.
_SCENARIOS = ("scenarios", "scenarios")
_EXAMPLES = ("examples", "docs/examples")
# JSON has no comments that could say it.
_ABOUT_JSON = {
    "models.json": "Models with their size and license, for `workshop --models` and `select`.",
    "prompts.json": "Prompts with what a good response contains, for `workshop --prompts` and `score`.",
}


@dataclass(frozen=True, slots=True)
class Shipped:
    """A file that can be copied."""

    name: str
    about: str
    # The commands that its header shows with it; empty for an example.
    commands: tuple[str, ...]
    # The file itself first, then the files that it names.
    files: tuple[Path, ...]


@click.group(
    cls=Group,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    examples=("loadbench scenarios", "loadbench scenarios copy chat", "loadbench sweep scenarios/chat.toml"),
)
@click.pass_context
def command(context: click.Context) -> None:
    """List the scenario files and examples that come with loadbench, or copy them.

    Each scenario answers one question. Copy a scenario to edit it.
    """
    if context.invoked_subcommand is None:
        click.echo(_listing(), nl=False)


def _names(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    names = [entry.name for entry in [*scenarios(), *examples()]]
    return [name for name in names if name.startswith(incomplete)]


@command.command("copy", examples=("loadbench scenarios copy chat", "loadbench scenarios copy --all --to mine"))
@click.argument("names", nargs=-1, metavar="[NAME]...", shell_complete=_names)
@click.option("--all", "everything", is_flag=True, help="Copy every scenario and example.")
@click.option(
    "--to",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    default=Path("scenarios"),
    show_default=True,
    help="The folder to copy to. It is created if it does not exist.",
)
@click.option("--force", is_flag=True, help="Replace files that exist.")
def copy(names: tuple[str, ...], *, everything: bool, folder: Path, force: bool) -> None:
    """Copy scenarios and examples.

    The files that they use are copied too. Commands in the comments of a copied file show its new path.
    """
    shipped = {entry.name: entry for entry in [*scenarios(), *examples()]}
    if everything == bool(names):
        raise BadInput("name what to copy, or give --all", hint=f"there are {', '.join(shipped)}")
    for name in names:
        if name.removesuffix(".toml") not in shipped:
            near = difflib.get_close_matches(name, shipped, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(shipped)}"
            raise BadInput(f"there is no scenario or example {name!r}", hint=hint)
    chosen = list(shipped.values()) if everything else [shipped[name.removesuffix(".toml")] for name in names]
    if not folder.as_posix().isprintable() or set('"\\') & set(folder.as_posix()):
        raise BadInput(
            f"--to {folder}: the files name it", hint="name a folder without quotes, backslashes and control characters"
        )
    # Two scenarios may use the same file: it is copied once.
    copies = {folder / file.name: file for entry in chosen for file in entry.files}

    # Nothing is written unless everything can be.
    existing = [str(path) for path in copies if is_taken(path)]
    if existing and not force:
        raise BadInput(
            f"{', '.join(existing)}: already there", hint="--force replaces files, --to DIR copies elsewhere"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, file in copies.items():
            # Paths in the files start where the commands are typed.
            text = file.read_text(encoding="utf-8").replace("scenarios/", f"{folder.as_posix()}/")
            write_new(path, text.encode(), replace=force)
            click.echo(path)
    except OSError as error:
        raise BadInput(
            f"{error.filename or folder}: {error.strerror or error}", hint="name another folder with --to"
        ) from None


def scenarios() -> list[Shipped]:
    """The scenarios, by name."""
    from loadbench.plan.scenario_file import ScenarioFile  # noqa: PLC0415 - only the command itself needs it

    shipped = []
    for file in sorted(_folder(*_SCENARIOS).glob("*.toml")):
        text = file.read_text(encoding="utf-8")
        commands = re.findall(rf"^#\s+loadbench (\w+) .*\bscenarios/{re.escape(file.name)}", text, re.MULTILINE)
        used = {file.parent / name for name in re.findall(r'"scenarios/([\w.-]+)"', text)}
        shipped.append(Shipped(file.stem, ScenarioFile.read(file).question, tuple(commands), (file, *sorted(used))))
    return shipped


def examples() -> list[Shipped]:
    """The other files that the documents use, by file name."""
    shipped = []
    for file in sorted(_folder(*_EXAMPLES).iterdir()):
        first = file.read_text(encoding="utf-8").split("\n", 1)[0]
        about = _ABOUT_JSON.get(file.name) or first.lstrip("# ").strip()
        shipped.append(Shipped(file.name, about, (), (file,)))
    return shipped


def _folder(installed: str, in_checkout: str) -> Path:
    folder = _PACKAGE / installed
    return folder if folder.is_dir() else _PACKAGE.parent / in_checkout


def _listing() -> str:
    """Name, question and commands of each scenario; name and purpose of each example."""
    from loadbench.report.document import Block, Document, Heading, Table, Text  # noqa: PLC0415 - not for the help
    from loadbench.report.render_text import render_text  # noqa: PLC0415

    blocks: list[Block] = []
    for kind, shipped in {"Scenarios": scenarios(), "Examples": examples()}.items():
        rows = []
        for entry in shipped:
            rows.append((entry.name, entry.about))
            rows += [("", f"for {', '.join(entry.commands)}")] if entry.commands else []
        blocks += [Heading(kind), Table((), rows, "ll")]
    copies = "`loadbench scenarios copy NAME` copies one to ./scenarios, `loadbench scenarios copy --all` all of them."
    return render_text(Document("", [*blocks, Text([copies])]), **look())
