"""The program `ppl`: its commands, and the one line that an error of the user prints."""

from __future__ import annotations

import functools
import sys
import warnings
from collections.abc import Callable
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from ppl import __version__
from ppl.cli.cam import cam
from ppl.cli.check import check
from ppl.cli.env import env
from ppl.cli.evaluate import evaluate
from ppl.cli.exchange import import_files
from ppl.cli.export import export
from ppl.cli.memory import keep_freed_memory
from ppl.cli.plan import plan
from ppl.cli.refine import refine
from ppl.cli.run import demo, report, run, train
from ppl.cli.segment import predict, segment
from ppl.errors import PPLError

__all__ = ["app", "main"]

app = typer.Typer(
    name="ppl",
    help="Segmentation masks from image tags: train a classifier, read class activation maps, refine them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _interruptible(command: Callable[..., None]) -> Callable[..., None]:
    """Make Ctrl-C end a command with one line that tells how to go on, and with exit code 130."""

    @functools.wraps(command)
    def call(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except KeyboardInterrupt:
            typer.echo("interrupted; the same command goes on from here", err=True)
            raise typer.Exit(130) from None

    return call


for command in (run, plan, train, cam, refine, segment, predict, evaluate, export, report, check, demo, env):
    app.command()(_interruptible(command))
app.command("import")(_interruptible(import_files))


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

    The exit code is 0 after success, 2 after an error of the user, which one line names, and 130 after Ctrl-C. The same
    command goes on where an interrupted or killed one stopped.

    Args:
        arguments: words of the command line; None for those of this process.
    """
    keep_freed_memory()
    usual, warnings.formatwarning = warnings.formatwarning, _one_line
    try:
        app(arguments)
    except PPLError as error:
        message = _process() + " ".join(str(error).split())
        Console(stderr=True, soft_wrap=True, highlight=False).print(f"[bold red]error:[/] {escape(message)}")
        sys.exit(2)
    finally:
        warnings.formatwarning = usual


def _one_line(message: Warning | str, *_: object, **__: object) -> str:
    """Format a warning as one line without the source line that raised it, in the first process of a launch alone."""
    from ppl.parallel import current_share

    return f"warning: {' '.join(str(message).split())}\n" if current_share().is_first else ""


def _process() -> str:
    """Name this process if it is one of several of a launch, each of which prints its own error."""
    from ppl.parallel import current_share

    share = current_share()
    return f"process {share.index + 1} of {share.count}: " if share.count > 1 and not share.is_shard else ""
