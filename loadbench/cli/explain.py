"""`loadbench explain`."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem

from loadbench.cli.command import Command
from loadbench.cli.measuring import print_document

if TYPE_CHECKING:
    TermType = click.ParamType[str]  # newer versions say of which type
else:
    TermType = click.ParamType


class _Word(TermType):
    """A word of loadbench, which is looked up later."""

    name = "term"

    def shell_complete(self, _ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        from loadbench.report.terms import TERMS

        return [CompletionItem(term.name) for term in TERMS if term.name.lower().startswith(incomplete.lower())]


@click.command(
    cls=Command,
    reads=True,
    examples=("loadbench explain ttft", "loadbench explain late_reads", "loadbench explain   # all words"),
)
@click.argument("words", nargs=-1, type=_Word(), metavar="[WORD]")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON on stdout: one word, or all.")
def command(words: tuple[str, ...], *, as_json: bool) -> None:
    """Explain a word: its definition, its formula, when it is undefined, and what other tools call it.

    WORD is a figure (ttft, tpot, goodput), a timestamp (due), a verdict (OVERLOADED), the code of a reason or a caveat
    (not_steady), or the outcome of a request (truncated). Without WORD all are listed.
    """
    # ruff: noqa: PLC0415 - the help needs nothing of what is imported in functions
    import orjson

    from loadbench.report.terms import TERMS, find_term, term_document, terms_document

    term = find_term(" ".join(words)) if words else None
    if as_json:
        document = [asdict(one) for one in TERMS] if term is None else asdict(term)
        click.echo(orjson.dumps(document, option=orjson.OPT_INDENT_2).decode())
        return
    content = terms_document() if term is None else term_document(term)
    print_document(content)
