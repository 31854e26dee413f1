"""`ppl`: its commands, and what a user's mistake looks like."""

from __future__ import annotations

import sys
import warnings
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from ppl import __version__
from ppl.cli.cam import cam
from ppl.cli.check import check
from ppl.cli.evaluate import evaluate
from ppl.cli.refine import refine
from ppl.cli.run import demo, report, run, train
from ppl.errors import PPLError

__all__ = ["app", "main"]

app = typer.Typer(
    name="ppl",
    help="From images that carry only tags to masks of what the tags name.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (run, train, cam, refine, evaluate, report, check, demo):
    app.command()(command)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"ppl {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and leave the process with its exit code.

    0: done. 2: a mistake in what was asked for, told in one line. Anything else: interrupted; the same command goes on
    where this one stopped.

    Args:
        arguments: words of the command line; by default those of this process.
    """
    usual, warnings.formatwarning = warnings.formatwarning, _one_line
    try:
        app(arguments)
    except PPLError as error:
        message = " ".join(str(error).split())
        Console(stderr=True, soft_wrap=True, highlight=False).print(f"[bold red]error:[/] {escape(message)}")
        sys.exit(2)
    finally:
        warnings.formatwarning = usual


def _one_line(message: Warning | str, *_: object, **__: object) -> str:
    """A warning without the place in the library's code that it comes from."""
    return f"warning: {' '.join(str(message).split())}\n"
