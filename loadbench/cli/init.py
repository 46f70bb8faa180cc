"""`loadbench init`: a scenario file, written by asking."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from loadbench.cli.command import Command
from loadbench.cli.measuring import say
from loadbench.core.errors import BadInput, Interrupted, LoadbenchError
from loadbench.core.new_file import is_taken, write_new
from loadbench.core.text import SURROGATE, printable

if TYPE_CHECKING:
    from collections.abc import Callable

# `loadbench.plan.new_scenario.USES`, which the help need not import.
USES = ("chat", "rag", "summariser", "code", "prompts")
# Of a server's models: more are named, not numbered.
_MOST_LISTED = 20


@click.command(
    cls=Command,
    examples=(
        "loadbench init",
        "loadbench init chat.toml --url http://127.0.0.1:8080/v1 --use chat --yes",
        "loadbench init ci.toml --users 1,4 --duration 20s --slo 'ttft_p95<1s' --yes",
    ),
)
@click.argument("file", required=False, default=Path("scenario.toml"), type=click.Path(path_type=Path))
@click.option("--url", "--base-url", metavar="URL", help="The server's URL. Default: the simulated server.")
@click.option("--model", metavar="ID", help="The model to test. Default: the first that the server lists.")
@click.option("--use", type=click.Choice(USES), help="What the server is used for; prompts: your own, see --prompts.")
@click.option("--prompts", metavar="FILE", help="The file of your own prompts.")
@click.option("--users", metavar="N,...|auto", help="Users at each level.  [default: 1,2,4,8]")
@click.option(
    "--duration", metavar="TIME", help="How long to measure each level. Default: until there are enough responses."
)
@click.option(
    "--slo", multiple=True, metavar="RULE", help="An objective; repeat the flag. Default: what suits the use."
)
@click.option("--yes", is_flag=True, help="Ask nothing: take the flags, and defaults for what they do not say.")
@click.option("--force", is_flag=True, help="Replace FILE if it exists.")
def command(file: Path, *, slo: tuple[str, ...], yes: bool, force: bool, **given: str | None) -> None:
    """Write a scenario file by asking: which server, which model, what for, how many users, which objectives?

    FILE is scenario.toml unless named. What flags say is not asked; with --yes nothing is. Nothing is sent but the
    question which models the server has.
    """
    # ruff: noqa: PLC0415 - the help needs nothing of it
    import tempfile

    from loadbench.plan.new_scenario import DEFAULT_USERS, Answers, scenario_text
    from loadbench.plan.new_scenario import USES as ABOUT
    from loadbench.plan.sources import resolve

    asks, prompts, use, model = not yes, given["prompts"], given["use"], given["model"]
    if asks and not sys.stdin.isatty():
        raise BadInput("init: nobody is there to answer", hint="add --yes, and flags for what the defaults are not")
    force = _may_replace(file, force=force, asks=asks)
    if prompts is not None and use not in {None, "prompts"}:
        raise BadInput(f"--prompts and --use {use}: each says what is sent", hint="leave one of them out")
    use = "prompts" if prompts is not None else use
    if use == "prompts" and prompts is None and not asks:
        raise BadInput("--use prompts: no file is named", hint="add --prompts FILE")

    # Each answer is read as the setting that it becomes: a wrong one is refused, or asked for again.
    url = _answer(
        "Server's URL (empty: the simulated server)", given["url"], "", _setting("target.url", "--url"), asks=asks
    )
    listed = _listed(url) if url else ()
    named = next(iter(listed), "")
    if asks and model is None and len(listed) > 1:
        say(f"The server lists {len(listed)} models:")
        for number, name in enumerate(listed[:_MOST_LISTED], start=1):
            say(f"  {number:2}  {name}")

    def read_model(text: str) -> str:
        text = text.strip()
        return listed[int(text) - 1] if text.isascii() and text.isdigit() and 0 < int(text) <= len(listed) else text

    if url and not (len(listed) == 1 and model is None):
        model = read_model(_answer("Model, by number or name", model, named, read_model, asks=asks))
        if model and listed and model not in listed:
            say(f"note: the server does not list {model}")
    elif url:
        model = named
    if SURROGATE.search(model or ""):
        raise BadInput(f"--model {model}: not valid Unicode", hint="name a model as the server lists it")
    if asks and use is None:
        say("What is it used for?")
        for name, (about, _) in ABOUT.items():
            say(f"  {name:10}  {about}")
    use = _answer("Use", use, "chat", _one_of(USES), asks=asks)
    if use == "prompts":
        prompts = _answer("File of prompts", prompts, "", _setting("work.prompts", "--prompts", exists=True), asks=asks)
    users = _answer(
        "Users at each level, or auto", given["users"], DEFAULT_USERS, _setting("load.users", "--users"), asks=asks
    )
    text = "How long to measure each level, as in 30s (empty: until there are enough responses)"
    duration = _answer(text, given["duration"], "", _setting("load.duration", "--duration"), asks=asks)
    rules = _answer(
        "Objectives, with commas between them (none: -)",
        ",".join(slo) or None,
        ",".join(ABOUT[use][1]),
        _setting("slo.objectives", "--slo", nothing="-"),
        asks=asks,
    )
    answers = Answers(
        url=url or None,
        model=model or None,
        listed=listed,
        use=use,
        prompts=Path(prompts) if prompts else None,
        users=users,
        duration=duration or None,
        objectives=() if rules == "-" else tuple(rule.strip() for rule in rules.split(",")),
    )
    text = scenario_text(answers, path=file)
    try:
        with tempfile.TemporaryDirectory() as folder:
            draft = Path(folder) / "scenario.toml"
            draft.write_text(text, encoding="utf-8", newline="\n")
            resolve(flags={}, environment={}, file=draft)  # what cannot be run is not written
        write_new(file, text.encode(), replace=force)
    except FileExistsError:
        raise BadInput(f"{file}: exists", hint="name another file, or add --force to replace it") from None
    except OSError as error:
        raise BadInput(f"{file}: {error.strerror or error}", hint="name a file that can be written") from None
    click.echo(file)
    say(f"written to {file}; next: loadbench sweep {shlex.quote(file.as_posix())} --dry-run")


def _may_replace(file: Path, *, force: bool, asks: bool) -> bool:
    """Whether the user lets a file of this name be replaced; raises `BadInput` for one that cannot be written."""
    if file.is_dir() or not file.parent.is_dir():
        problem = "is a folder" if file.is_dir() else f"there is no folder {file.parent}"
        raise BadInput(f"{file}: {problem}", hint="name a file that can be written")
    if file.suffix.lower() == ".json":
        raise BadInput(f"{file}: JSON has no comments", hint="name a file that ends in .toml")
    if file.exists() and not file.is_file():
        raise BadInput(f"{file}: is no plain file", hint="name a file that can be written")
    if is_taken(file) and not force:
        if not asks:
            raise BadInput(f"{file}: exists", hint="name another file, or add --force to replace it")
        if not _confirmed(f"{file} exists. Replace it?"):
            raise BadInput(f"{file}: exists", hint="name another file: loadbench init FILE")
        return True
    return force


def _answer(question: str, given: str | None, default: str, read: Callable[[str], object], *, asks: bool) -> str:
    """What a flag says, or the answer to a question, or the default; raises `BadInput` for what cannot be used."""
    if given is not None or not asks:
        read(given if given is not None else default)
        return given if given is not None else default
    while True:
        try:
            text = str(click.prompt(question, default=default, show_default=bool(default), err=True))
            read(text)
        except click.Abort:
            raise Interrupted("stopped: nothing was written") from None
        except BadInput as error:
            say(f"{error.message.partition(': ')[2] or error.message}{f' ({error.hint})' if error.hint else ''}")
        else:
            return text


def _setting(key: str, flag: str, *, nothing: str = "", exists: bool = False) -> Callable[[str], object]:
    """What reads a text as the value of a setting, unless it is `nothing`."""
    from loadbench.plan.scenario_file import read
    from loadbench.plan.settings import Origin, Source, setting_of

    def check(text: str) -> object:
        if text == nothing:
            return None
        value = read(setting_of(key), text, Origin(Source.FLAG, flag)).value
        if exists and not Path(text).is_file():
            raise BadInput(f"{flag}: {text}: there is no such file", hint="name a file of prompts")
        return value

    return check


def _one_of(words: tuple[str, ...]) -> Callable[[str], object]:
    def check(text: str) -> None:
        if text not in words:
            raise BadInput(f"--use: found {text!r}, want {', '.join(words[:-1])} or {words[-1]}")

    return check


def _confirmed(question: str) -> bool:
    try:
        return click.confirm(printable(question), err=True)
    except click.Abort:
        raise Interrupted("stopped: nothing was written") from None


def _listed(url: str) -> tuple[str, ...]:
    """The models that the server lists; none, with a note, if it cannot be asked."""
    from loadbench.plan.sources import resolve
    from loadbench.session.models import list_models

    scenario = resolve(flags={"url": url}, environment=os.environ, command="models")
    try:
        found = list_models(
            scenario, os.environ, download=None, unload=None, load=None, quiet_stdout=True, say=lambda _: None
        )
    except LoadbenchError as error:
        say(f"note: no list of models: {error.message}")
        return ()
    return tuple(model.id for model in found.models)
