"""Options that several commands share. None of them has a default of its own: the recipe's settings have them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

__all__ = [
    "Backbone",
    "Compare",
    "Data",
    "Epochs",
    "Mode",
    "NumWorkers",
    "Out",
    "Plugin",
    "Preset",
    "Quiet",
    "Set",
    "Shard",
    "Source",
    "ValueRange",
    "Weights",
    "assignments",
    "given",
    "plugin_modules",
    "refuse_for_runs",
    "resolve_run",
]

Source = Annotated[
    Path,
    typer.Argument(
        help="A recipe (.yaml, or voc12 or coco14 with --data), a data set (a folder with images/ and labels.csv), or "
        "a run folder to continue.",
        show_default=False,
    ),
]
Out = Annotated[
    Path | None, typer.Option("--out", "-o", help="Run folder. Default: runs/<data set>-<mode>.", show_default=False)
]
Data = Annotated[Path | None, typer.Option(help="Folder of the recipe's data set.", show_default=False)]
Mode = Annotated[
    str | None,
    typer.Option(help="baseline, control, progressive or explicit.", show_default=False),
]
Compare = Annotated[
    list[str] | None,
    typer.Option(
        help="Another mode to train with the same recipe, for comparison. May be repeated.", show_default=False
    ),
]
Backbone = Annotated[str | None, typer.Option(help="Any timm model that `ppl check` supports.", show_default=False)]
Weights = Annotated[
    Path | None,
    typer.Option(help="File of timm-keyed weights to start from, instead of timm's own.", show_default=False),
]
Epochs = Annotated[int | None, typer.Option(min=1, help="Epochs of training.", show_default=False)]
NumWorkers = Annotated[
    int | None, typer.Option("--num-workers", "-j", help="Workers; -1 for one per core.", show_default=False)
]
Preset = Annotated[
    str | None,
    typer.Option(
        help='Several recipe keys under one name: "propagated" (best on photographs), "paper" (as drawn there).',
        show_default=False,
    ),
]
Plugin = Annotated[
    list[str] | None,
    typer.Option(
        help="A module of yours (my_module or path/my_module.py) to import first. May be repeated.", show_default=False
    ),
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", "-s", help="Any key of the recipe, as train.lr=0.001. May be repeated.", show_default=False),
]
Shard = Annotated[
    str | None,
    typer.Option(
        help="Do part I of N alone, as 2/8, in one of N jobs; then the command without --shard closes the work.",
        metavar="I/N",
        show_default=False,
    ),
]
ValueRange = Annotated[
    int | None,
    typer.Option(
        min=1, max=65535, help="Largest value of 16-bit pictures, 4095 for 12 bits. Default: 65535.", show_default=False
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bars.")]


def assignments(options: dict[str, Any], others: list[str] | None) -> list[str]:
    """Return options as `KEY=VALUE` of the recipe, without those that were not given.

    Args:
        options: value by dotted key; None for an option that was not given.
        others: what `--set` gives; it comes last and wins.

    Example:
        >>> assignments({"train.epochs": 3, "model.mode": None}, ["cam.flip=false"])
        ['train.epochs=3', 'cam.flip=false']
    """
    # JSON is YAML, and quotes any text in such a way that YAML reads the same text
    values = {key: str(value) if isinstance(value, Path) else value for key, value in given(**options).items()}
    return [f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in values.items()] + (others or [])


def given(**options: Any) -> dict[str, Any]:
    """Return the options that were given. A function gets these alone, and keeps its own defaults for the others.

    Example:
        >>> given(seed=None, num_workers=2)
        {'num_workers': 2}
    """
    return {name: value for name, value in options.items() if value is not None}


def plugin_modules(plugins: list[str] | None) -> list[str]:
    """Return the module names of `--plugin`. The folder of a plugin that is given as a file joins `sys.path`."""
    import sys

    names = []
    for plugin in plugins or []:
        path = Path(plugin)
        if path.suffix == ".py":
            sys.path.append(str(path.parent.resolve()))
        names.append(path.stem if path.suffix == ".py" else plugin)
    return names


def resolve_run(source: Path, overrides: list[str], plugins: list[str] | None, otherwise: str) -> tuple[Any, Path]:
    """Return the recipe of a run folder, and the folder.

    Args:
        source: the run folder.
        overrides: `KEY=VALUE`.
        plugins: what `--plugin` gives.
        otherwise: what a source that is no run folder needs, for the message.

    Raises:
        PPLValueError: if `source` is no run folder.
    """
    from ppl.errors import PPLValueError
    from ppl.pipeline import resolve_recipe

    recipe, folder = (None, None)
    if not source.is_file():
        recipe, folder = resolve_recipe(source, overrides, plugins=plugin_modules(plugins))
    if folder is None:
        raise PPLValueError(f"{source} is not a run folder; {otherwise}")
    return recipe, folder


def refuse_for_runs(options: dict[str, Any]) -> None:
    """Raise PPLValueError if an option is given that has no effect on a run folder."""
    from ppl.errors import PPLValueError

    for option, value in options.items():
        if value:
            raise PPLValueError(
                f"{option} has no effect on a run folder, which keeps all in its own places; leave it out"
            )
