"""`loadbench serve`."""

from __future__ import annotations

import click

from loadbench.cli.command import Command


@click.command(
    cls=Command,
    examples=("loadbench serve", "loadbench serve --profile small-gpu --port 9000", "loadbench serve --list"),
)
@click.option("--profile", default="slot-server", show_default=True, help="The profile to simulate; --list lists them.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="The port; 0: any free port."
)
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of random delays and text.")
@click.option("--model", "models", multiple=True, metavar="ID", help="A model name to offer; may be repeated.")
@click.option("--list", "listing", is_flag=True, help="List the profiles and exit.")
def command(*, profile: str, port: int, host: str, seed: int, models: tuple[str, ...], listing: bool) -> None:
    """Run the simulated server: OpenAI-compatible, with continuous batching; each profile has fixed speeds.

    Prints READY and its URL when it accepts requests, and runs until Ctrl-C.
    """
    from loadbench.core.errors import BadInput  # noqa: PLC0415 - not for the help
    from loadbench.sim.command import profiles_text, serve_until_signal  # noqa: PLC0415

    if listing:
        click.echo(profiles_text(), nl=False)
        return
    if not host.strip():
        # The system takes it for every address of this machine.
        raise BadInput("--host: is empty", hint="name an address: 127.0.0.1 for this machine, 0.0.0.0 for any")
    serve_until_signal(profile, host=host, port=port, seed=seed, models=models)
