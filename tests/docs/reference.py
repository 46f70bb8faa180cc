"""The pages of docs/reference/, made of what the code declares. To write them again:

python -m tests.docs.reference
"""

from __future__ import annotations

import html
import inspect
import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from loadbench.cli import COMMANDS, root
from loadbench.cli.options import default_text
from loadbench.core.errors import ExitCode
from loadbench.plan.settings import SECTIONS, settings
from loadbench.report.terms import KINDS, TERMS
from loadbench.session.schemas import document_schema
from tests.docs.glossary import anchor, prose

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

FOLDER = Path(__file__).parents[2] / "docs" / "reference"
MADE = "This page is made from the code: `python -m tests.docs.reference` writes it.\n"
# As the declarations name commands that have one more word.
_SPELT = {"score": "score stub", "judge": "score judge", "compare-saved": "compare (saved runs)"}


def code(text: str) -> str:
    """Text as code, in a cell of a table too."""
    if "|" in text:
        return f"<code>{html.escape(text, quote=False).replace('|', '&#124;')}</code>"
    return f"`{text}`" if text else ""


def cell(text: str) -> str:
    """A sentence in a cell: its names are code, and it breaks no table."""
    parts = prose(" ".join(text.split())).split("`")
    return "".join(
        code(part) if number % 2 else html.escape(part, quote=False).replace("|", "&#124;")
        for number, part in enumerate(parts)
    )


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a table, and an empty one; a column that is empty in all rows is left out."""
    rows = list(rows)
    used = [number for number in range(len(head)) if any(row[number] for row in rows)]
    lines = [
        [head[number] for number in used],
        ["---"] * len(used),
        *([row[number] for number in used] for row in rows),
    ]
    return [*(f"| {' | '.join(line)} |" for line in lines), ""]


def commands(
    group: click.Group = root, names: Sequence[str] = ()
) -> Iterator[tuple[str, click.Command, click.Context]]:
    """(name, command, context) of every command, those in groups after their group."""
    parent = click.Context(group, info_name=" ".join(("loadbench", *names)), **root.context_settings)
    for name in group.list_commands(parent):
        command = group.get_command(parent, name)
        assert command is not None
        yield " ".join((*names, name)), command, click.Context(command, info_name=name, parent=parent)
        if isinstance(command, click.Group):
            yield from commands(command, (*names, name))


def paragraphs(command: click.Command) -> list[str]:
    """Those of a command's help, each in one line."""
    return [" ".join(part.split()) for part in inspect.cleandoc(command.help or "").split("\n\n")]


def cli() -> str:
    """Every command with its options, under the headings of its help."""
    lines = ["# Commands", "", MADE, "`loadbench COMMAND --help` prints the same in the terminal.", ""]
    lines += table(
        ["command", ""], ((f"[{code(name)}](#loadbench-{name})", cell(text)) for name, text in COMMANDS.items())
    )
    for name, command, context in commands():
        usage = command.get_usage(context).removeprefix("Usage: ")
        lines += [f"{'##' if name in COMMANDS else '###'} loadbench {name}", "", code(" ".join(usage.split())), ""]
        lines += [line for text in paragraphs(command) for line in (cell(text), "")]
        examples = getattr(command, "examples", ())
        if examples:
            lines += ["<!-- not run: another test runs the examples of the help -->", "```", *examples, "```", ""]
        if isinstance(command, click.Group):
            continue
        for heading, records in command.records(context).items():
            if records:
                lines += [f"**{heading}**", ""]
                lines += table(["", "what it does"], ((code(names), cell(text)) for names, text in records))
    return "\n".join(lines)


def setting_pages() -> str:
    """Every setting with its flag, variable, key, value, default and commands."""
    lines = ["# Settings", "", MADE]
    lines += [
        "[Settings: flags, variables, scenario files](../settings.md) explains how to give them, and which one holds.",
        "",
    ]
    every = sorted({command for one in settings() for command in one.commands})
    for section, declared in SECTIONS.items():
        lines += [
            f"## {section}",
            "",
            cell(f"`[{section}]` in a scenario file. {inspect.cleandoc(declared.__doc__ or '')}"),
            "",
        ]
        rows = []
        for one in settings():
            if one.section == section:
                names = [", ".join(map(code, one.flags)), code(one.variable), "" if one.confirms else code(one.name)]
                defaults = {command: default_text(one, command) for command in sorted(one.commands)}
                usual = default_text(one, "")
                shown = [code(usual)] if usual else []
                shown += [f"{code(text or 'none')} in {command}" for command, text in defaults.items() if text != usual]
                taken = ", ".join(_SPELT.get(name, name) for name in every if name in one.commands)
                facts = [f"Value: {code(one.type.metavar)}"] if one.type.metavar else []
                facts += [f"default: {', '.join(shown)}"] if shown else []
                facts.append(f"commands: {taken}")
                rows.append(["<br>".join(filter(None, names)), f"{cell(one.help)}<br>{'; '.join(facts)}"])
        lines += table(["flag, variable, key", "what it does"], rows)
    return "\n".join(lines)


def kind_of(form: Mapping[str, Any]) -> str:
    """What a field of a document may hold, with links to objects on the same page."""
    match form:
        case {"$ref": str(target)}:
            name = target.rpartition("/")[2]
            return f"[{name}](#{name.lower()})"
        case {"anyOf": list(forms)}:
            return " or ".join(map(kind_of, forms))
        case {"enum": list(values)}:
            return " or ".join(code(str(value)) for value in values)
        case {"type": "array", "prefixItems": list(forms)}:
            return f"[{', '.join(map(kind_of, forms))}]"
        case {"type": "array"}:
            return f"list of {kind_of(form.get('items') or {})}"
        case {"type": "object", "additionalProperties": dict(inner)}:
            return f"object; each value {kind_of(inner)}"
        case {"type": str(kind)}:
            return kind
    return "any value"


def run_json() -> str:
    """Every object of `run.json` with its fields, from its JSON Schema."""
    definitions = document_schema("run")["$defs"]
    lines = ["# run.json", "", MADE]
    lines += [
        "`sweep --json` prints it, and every run folder has it. `loadbench schema run` prints its JSON Schema.",
        "Durations are in seconds, and a figure that is unknown is null. Fields may be added; any other change",
        "is a new version of `schema`.",
        "",
    ]
    for name, declared in sorted(definitions.items(), key=lambda item: (item[0] != "Run", item[0])):
        lines += [f"## {name}", ""]
        lines += [line for text in declared["description"].split("\n\n") for line in (cell(text), "")]
        required = declared.get("required", ())
        if "enum" in declared:
            lines += [kind_of(declared), ""]
        fields = declared.get("properties", {}).items()
        if fields:
            absent = ("" if key in required else code(json.dumps(form.get("default"))) for key, form in fields)
            rows = ((code(key), kind_of(form), default) for (key, form), default in zip(fields, absent, strict=True))
            lines += table(["field", "holds", "if absent"], rows)
    return "\n".join(lines)


def terms(title: str, kinds: Sequence[str], introduction: str) -> str:
    """The words of these kinds, in the order in which they are declared."""
    lines = [f"# {title}", "", MADE, introduction, ""]
    for kind in kinds:
        rows = (
            [
                f"[{code(term.name)}](../glossary.md#{anchor(term.name)})",
                cell(term.text),
                code(term.formula),
                cell(term.undefined),
                cell(term.remedy),
                cell("; ".join(f"{tool}: {name}" for tool, name in term.others)),
            ]
            for term in TERMS
            if term.kind == kind
        )
        lines += [f"## {KINDS[kind][1]}", ""]
        lines += table(["", "means", "formula", "undefined if", "what to do", "in other tools"], rows)
    return "\n".join(lines)


def exit_codes() -> str:
    """Every exit code; then what the help of single commands says of them."""
    lines = ["# Exit codes", "", MADE]
    lines += table(["code", "means"], ((code(str(one.value)), cell(one.meaning)) for one in ExitCode))
    lines += ["Of several reasons the first of 130, 6, 4, 3 and 5 decides. Some commands say it more closely:", ""]
    rows = []
    for name, command, _ in commands():
        said = [text for text in paragraphs(command) if text.startswith("Exit code")]
        rows += [(code(name), cell(text.partition(": ")[2])) for text in said]
    return "\n".join([*lines, *table(["command", "its exit codes"], rows)])


PAGES: dict[str, Callable[[], str]] = {
    "cli.md": cli,
    "settings.md": setting_pages,
    "run-json.md": run_json,
    "verdicts.md": partial(
        terms,
        "Verdicts, reasons, caveats, outcomes, states",
        ("status", "code", "caveat", "outcome", "state"),
        "A level has one verdict; its reasons are why it is not VALID, and caveats do not change it.\n"
        "[What the figures mean](../metrics.md#the-verdict) has the rules.",
    ),
    "metrics.md": partial(
        terms,
        "Metrics",
        ("figure", "mark", "level", "column"),
        "[What the figures mean](../metrics.md) has the definitions in full.",
    ),
    "exit-codes.md": exit_codes,
}


def write(folder: Path) -> None:
    """Write every page into this folder."""
    folder.mkdir(exist_ok=True)
    for file, make in PAGES.items():
        (folder / file).write_text(make().rstrip() + "\n", encoding="utf-8", newline="\n")


if __name__ == "__main__":
    write(FOLDER)
