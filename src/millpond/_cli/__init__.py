"""The command line: `millpond demo`, `synth`, `inspect` and `bench`."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from millpond._cli.bench import bench
from millpond._cli.demo import demo
from millpond._cli.inspect import inspect
from millpond._cli.synth import synth
from millpond.errors import MillpondError

_typer = typer.Typer(
    name="millpond",
    help="Feeds video to model training: flat memory, no hangs, nothing lost, at the speed of sequential decode.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"millpond {version('millpond')}")
        raise typer.Exit


@_typer.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    """Only carries `--version`."""


for _command in (demo, synth, inspect, bench):
    _typer.command()(_command)


def app() -> None:
    """Run the command line; bad data and misuse end with one line on standard error and exit code 1."""
    try:
        _typer()
    except (MillpondError, ValueError, OSError) as error:
        print(f"millpond: {error}", file=sys.stderr)
        sys.exit(1)
