"""`ppl run`, `ppl train`, `ppl report` and `ppl demo`: commands on a whole run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ppl.cli.options import (
    Backbone,
    Compare,
    Data,
    Epochs,
    Mode,
    Out,
    Plugin,
    Preset,
    Quiet,
    Set,
    Source,
    Weights,
    assignments,
    given,
    plugin_modules,
    resolve_run,
)
from ppl.cli.show import print_line, show_scores

__all__ = ["demo", "report", "run", "train"]


def run(
    source: Source,
    data: Data = None,
    out: Out = None,
    mode: Mode = None,
    compare: Compare = None,
    backbone: Backbone = None,
    weights: Weights = None,
    epochs: Epochs = None,
    preset: Preset = None,
    plugin: Plugin = None,
    set_: Set = None,
    quiet: Quiet = False,
) -> None:
    """Tags in, masks out: train, CAMs, refinement, scores and a report. What is finished is not done again."""
    changes = recipe_changes(mode, compare, backbone, weights, epochs, set_, data)
    _run(source, out, changes, preset, plugin, None, quiet)


def train(
    source: Source,
    data: Data = None,
    out: Out = None,
    mode: Mode = None,
    compare: Compare = None,
    backbone: Backbone = None,
    weights: Weights = None,
    epochs: Epochs = None,
    preset: Preset = None,
    plugin: Plugin = None,
    set_: Set = None,
    quiet: Quiet = False,
) -> None:
    """Train the classifier alone. An interrupted training goes on where it was."""
    changes = recipe_changes(mode, compare, backbone, weights, epochs, set_, data)
    _run(source, out, changes, preset, plugin, ("train",), quiet)


def demo(
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Run folder. Default: runs/demo.", show_default=False)
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Seed of the sample set and of the training.", show_default=False)
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Do the whole run on the built-in sample set, from scratch and without downloads: a few minutes on two cores."""
    from ppl.pipeline import demo_recipe

    out = out or Path("runs/demo")
    print_line(f"the sample set is drawn into {out / 'creatures'}; two small networks learn its tags from scratch")
    _finish(demo_recipe(out, **given(seed=seed)), out, None, quiet)


def report(
    folder: Annotated[Path, typer.Argument(help="A run folder.", show_default=False)], plugin: Plugin = None
) -> None:
    """Write report.html and the image grid of a run again."""
    from ppl.pipeline import run_recipe

    recipe, found = resolve_run(folder, [], plugin, "give the folder that `ppl run` wrote")
    result = run_recipe(recipe, found, ("report",), progress=False, log=print_line)
    if result.report is not None:
        typer.echo(result.report)


def recipe_changes(
    mode: str | None,
    compare: list[str] | None,
    backbone: str | None,
    weights: Path | None,
    epochs: int | None,
    others: list[str] | None,
    data: Path | None = None,
) -> list[str]:
    """Return the options of `ppl run` as `KEY=VALUE` of the recipe."""
    options = {
        "data.root": data,
        "model.mode": mode,
        "compare": compare or None,
        "model.backbone": backbone,
        "model.checkpoint_path": weights,
        "train.epochs": epochs,
    }
    return assignments(options, others)


def _run(
    source: Path,
    out: Path | None,
    changes: list[str],
    preset: str | None,
    plugins: list[str] | None,
    steps: tuple[str, ...] | None,
    quiet: bool,
) -> None:
    from ppl.pipeline import default_out, resolve_recipe

    recipe, run_folder = resolve_recipe(source, changes, preset=preset, plugins=plugin_modules(plugins))
    _finish(recipe, out or run_folder or default_out(recipe), steps, quiet)


def _finish(recipe: Any, out: Path, steps: tuple[str, ...] | None, quiet: bool) -> None:
    from ppl.pipeline import STEPS, run_recipe

    result = run_recipe(recipe, out, steps or STEPS, progress=not quiet, log=print_line)
    show_scores(result)
