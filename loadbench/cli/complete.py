"""What completes values in a shell: models, scenario files, sides of a comparison. Nothing here raises, or prints: who
presses Tab gets fewer words instead.
"""

# Each kind of value imports its own modules, so that none waits for another's.
# ruff: noqa: PLC0415

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from click.shell_completion import BashComplete, CompletionItem, split_arg_string

from loadbench.cli.run_names import RUN
from loadbench.core.errors import LoadbenchError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import click

# A server that lists its models later is not waited for.
_WITHIN_S = 2.0
# Models of older runs are hardly wanted.
_MOST_RUNS = 20
_SUFFIXES = (".toml", ".json")
# Names come from servers and files: what bash would take for more than a part of a word gets a backslash.
_SPECIAL, _ESCAPED = re.compile(r"[^\w%+,./:=@^~-]|^~"), r"\\\g<0>"


class Bash(BashComplete):
    """bash takes a colon for a word of its own, as in a URL or in `qwen2.5:3b`: they are put together again."""

    def get_completion_args(self) -> tuple[list[str], str]:
        """The words before the one to complete, and its beginning."""
        place, words = int(os.environ["COMP_CWORD"]), split_arg_string(os.environ["COMP_WORDS"])
        words = [*words[1:place], *(words[place : place + 1] or [""])]
        whole: list[str] = []
        for word in words:
            if whole and ":" in {word, whole[-1][-1:]} and (word or whole[-1].endswith(":")):
                whole[-1] += word
            else:
                whole.append(word)
        *args, incomplete = whole
        # What bash has in place of the word is what follows its last colon.
        self._cut = len(incomplete) - len(incomplete.rpartition(":")[2])
        return args, incomplete

    def format_completion(self, item: CompletionItem) -> str:
        """A line for the shell's script. The shell takes a word as it is, so that each character stands for itself."""
        word = item.value[self._cut :] if item.type == "plain" else item.value
        return f"{item.type},{_SPECIAL.sub(_ESCAPED, word) if item.type == 'plain' else word}"


def _beginning(words: Iterable[str], incomplete: str) -> list[CompletionItem]:
    """Those that begin like this. What no terminal shows, as a line feed, is not typed into one either."""
    return [CompletionItem(word) for word in dict.fromkeys(words) if word.startswith(incomplete) and word.isprintable()]


def models(ctx: click.Context, incomplete: str) -> list[CompletionItem]:
    """The models that the server of the command line, or of LOADBENCH_URL, lists; else those of the latest runs. In a
    list of several the last one is completed."""
    before, comma, last = incomplete.rpartition(",")
    names = _listed(ctx) or _measured()
    return [CompletionItem(before + comma + item.value) for item in _beginning(names, last)]


def _listed(ctx: click.Context) -> Sequence[str]:
    from loadbench.core import event_loop
    from loadbench.plan.sources import resolve

    settings = [setting for param in ctx.command.params if (setting := getattr(param, "setting", None)) is not None]
    flags = {
        setting.name: value
        for setting in settings
        if setting.section in {"target", "limits"} and "model" not in setting.name
        if (value := ctx.params.get(setting.name)) not in (None, ())
    }
    try:
        scenario = resolve(flags=flags, environment=os.environ)
        if not scenario.url:
            return ()

        async def ask(url: str) -> Sequence[str]:
            import anyio

            from loadbench.targets.openai import find_endpoint

            with anyio.move_on_after(_WITHIN_S):
                return (await find_endpoint(scenario, os.environ, url=url)).models or ()
            return ()

        return event_loop.run(lambda: ask(scenario.url or ""))
    except (LoadbenchError, OSError, RuntimeError):
        return ()


def _measured() -> list[str]:
    from loadbench.results.run_list import results_folder, runs_in
    from loadbench.results.run_summary import summary_of

    try:
        runs = runs_in(results_folder(os.environ))[:_MOST_RUNS]
        return [model for run in runs for model in summary_of(run).models]
    except (LoadbenchError, OSError):
        return []


def scenario_files(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Scenario files, and the folders on the way to them; any file where there is none."""
    folder, _, name = incomplete.rpartition("/")
    shown = Path(folder) if folder else Path("/" if incomplete.startswith("/") else ".")
    try:
        entries = sorted(shown.iterdir())
    except OSError:
        entries = []
    found = []
    for entry in entries:
        if entry.name.startswith(name) and entry.name.isprintable() and (name or not entry.name.startswith(".")):
            path = f"{incomplete[: len(incomplete) - len(name)]}{entry.name}"
            if entry.suffix in _SUFFIXES:
                found.append(CompletionItem(path))
            elif entry.is_dir() and any(entry.glob("*.toml")):
                found.append(CompletionItem(f"{path}/"))
    return found or [CompletionItem(incomplete, type="file")]


def files(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Files, which the shell completes itself."""
    return [CompletionItem(incomplete, type="file")]


def profiles(incomplete: str) -> list[CompletionItem]:
    """The profiles of the simulated server."""
    from loadbench.plan.sim_profile import PROFILES

    return _beginning(PROFILES, incomplete)


def side(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """A side of a comparison: a saved run, a simulated server, the words that name a server, or files."""
    start = "profile="
    if incomplete.startswith(start):
        return [CompletionItem(f"{start}{item.value}") for item in profiles(incomplete.removeprefix(start))]
    runs = [item for item in RUN.shell_complete(ctx, param, incomplete) if item.type == "plain"]
    words = _beginning((start, "url=", "http://"), incomplete) if incomplete else []
    return [*runs, *words] or [CompletionItem(incomplete, type="file")]


def setting_values(ctx: click.Context, key: str, metavar: str, incomplete: str) -> list[CompletionItem]:
    """The values of a setting, by its key and what stands for a value in the help."""
    if key in {"target.model", "compare.a_model", "compare.b_model"}:
        return models(ctx, incomplete)
    if key == "target.profile":
        return profiles(incomplete)
    if key == "work.persona":
        from loadbench.plan.personas import PERSONAS

        return _beginning(PERSONAS, incomplete)
    if metavar in {"FILE", "DIR"}:
        return [CompletionItem(incomplete, type="file" if metavar == "FILE" else "dir")]
    # Words stand for themselves, in lower case.
    return _beginning((word for word in metavar.split("|") if word.replace("-", "").islower()), incomplete)
