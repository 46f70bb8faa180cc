"""`loadbench completion`."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from loadbench.cli.command import Command

VARIABLE = "_LOADBENCH_COMPLETE"


@click.command(cls=Command, examples=("loadbench completion bash", "loadbench completion fish"))
@click.argument("shell", type=click.Choice(("bash", "zsh", "fish")))
def command(shell: str) -> None:
    """Print the script that completes commands, options, files and saved runs in a shell.

    bash: put `eval "$(loadbench completion bash)"` into ~/.bashrc. zsh: the same with zsh into ~/.zshrc, after
    compinit. fish: `loadbench completion fish > ~/.config/fish/completions/loadbench.fish`.
    """
    root, kind = click.get_current_context().find_root().command, get_completion_class(shell)
    assert kind is not None  # noqa: S101 - click has these three
    click.echo(kind(root, {}, "loadbench", VARIABLE).source())
