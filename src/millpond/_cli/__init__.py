"""The command line: `millpond` and its commands."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from millpond._cli.commands import COMMANDS
from millpond._cli.options import as_options
from millpond.errors import MillpondError

INTERRUPTED = 130
"""The exit code of a shell's child that SIGINT ended."""


class _Commands(TyperGroup):
    """Says so when it is interrupted: by then everything that was half made is gone."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            raise typer.Exit(INTERRUPTED) from None


_typer = typer.Typer(
    name="millpond",
    cls=_Commands,
    help="Feeds video to model training: flat memory, no hangs, nothing lost, at the speed of sequential decode.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
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


def _paragraphs(text: str) -> str:
    """Each on a line, which typer wraps to the terminal: of all but the first it keeps the line ends."""
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in text.split("\n\n"))


for _command in COMMANDS:
    _typer.command(help=_paragraphs(_command.__doc__ or ""))(_command)


def app() -> None:
    """Run the command line; bad data and misuse end with one line on standard error and exit code 1."""
    try:
        _typer()
    except (MillpondError, ValueError, OSError) as error:
        print(f"millpond: {as_options(str(error))}", file=sys.stderr)
        sys.exit(1)
