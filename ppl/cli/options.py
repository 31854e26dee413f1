"""Options that several commands share, so that they mean the same everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

__all__ = [
    "Backbone",
    "Compare",
    "Epochs",
    "Mode",
    "Out",
    "Quiet",
    "Set",
    "Target",
    "Weights",
    "refuse_for_runs",
    "resolve_run",
]

Target = Annotated[
    Path,
    typer.Argument(
        help="A recipe (.yaml), a data set (a folder with images/ and labels.csv), or a run folder to continue.",
        show_default=False,
    ),
]
Out = Annotated[
    Path | None, typer.Option("--out", "-o", help="Run folder. Default: runs/<data set>-<mode>.", show_default=False)
]
Mode = Annotated[
    str | None,
    typer.Option(help="baseline, control, progressive or explicit. Default: progressive.", show_default=False),
]
Compare = Annotated[
    list[str] | None,
    typer.Option(
        help="Another mode to train with the same recipe, for comparison. May be repeated.", show_default=False
    ),
]
Backbone = Annotated[
    str | None, typer.Option(help="Any timm model that `ppl check` supports. Default: resnet50.", show_default=False)
]
Weights = Annotated[
    Path | None,
    typer.Option(help="File of timm-keyed weights to start from. Default: timm's pretrained ones.", show_default=False),
]
Epochs = Annotated[int | None, typer.Option(min=1, help="Epochs of training.", show_default=False)]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", "-s", help="Any key of the recipe, as train.lr=0.001. May be repeated.", show_default=False),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bars.")]


def resolve_run(target: Path, overrides: list[str], otherwise: str) -> tuple[Any, Path]:
    """The recipe of a run folder, and the folder; PPLValueError says what a target that is none would need."""
    from ppl.errors import PPLValueError
    from ppl.pipeline import resolve

    recipe, folder = (None, None) if target.is_file() else resolve(target, overrides)
    if folder is None:
        raise PPLValueError(f"{target} is not a run folder; {otherwise}")
    return recipe, folder


def refuse_for_runs(options: dict[str, Any]) -> None:
    """Raise PPLValueError for an option that a command takes without a run folder alone."""
    from ppl.errors import PPLValueError

    for option, value in options.items():
        if value:
            raise PPLValueError(
                f"{option} has no effect on a run folder, which keeps all in its own places; leave it out"
            )
