"""`ppl run`, `ppl train`, `ppl report` and `ppl demo`: commands on a whole run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from ppl.cli.options import Backbone, Compare, Epochs, Mode, Out, Quiet, Set, Target, Weights, resolve_run
from ppl.cli.show import say, show_scores

__all__ = ["demo", "overrides", "report", "run", "train"]


def run(
    target: Target,
    out: Out = None,
    mode: Mode = None,
    compare: Compare = None,
    backbone: Backbone = None,
    weights: Weights = None,
    epochs: Epochs = None,
    set_: Set = None,
    quiet: Quiet = False,
) -> None:
    """Tags in, masks out: train, CAMs, refinement, scores and a report. What is finished is not done again."""
    _run(target, out, overrides(mode, compare, backbone, weights, epochs, set_), None, quiet)


def train(
    target: Target,
    out: Out = None,
    mode: Mode = None,
    compare: Compare = None,
    backbone: Backbone = None,
    weights: Weights = None,
    epochs: Epochs = None,
    set_: Set = None,
    quiet: Quiet = False,
) -> None:
    """Train the classifier alone; resumes where a killed run was."""
    _run(target, out, overrides(mode, compare, backbone, weights, epochs, set_), ("train",), quiet)


def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Run folder.")] = Path("runs/demo"),
    seed: Annotated[int, typer.Option(help="Of the sample set and of training.")] = 0,
    quiet: Quiet = False,
) -> None:
    """The whole job on the built-in sample set, from scratch and without any download: a few minutes on two cores."""
    from ppl.pipeline import demo_recipe

    say(f"the sample set is drawn into {out / 'creatures'}; then two small networks learn its tags from scratch")
    _finish(demo_recipe(out, seed), out, None, quiet)


def report(
    folder: Annotated[Path, typer.Argument(help="A run folder.", show_default=False)],
) -> None:
    """Write report.html and the image grid of a run again."""
    from ppl.pipeline import run_recipe

    recipe, found = resolve_run(folder, [], "give the folder that `ppl run` wrote")
    result = run_recipe(recipe, found, ("report",), progress=False, say=say)
    typer.echo(result.report)


def overrides(
    mode: str | None,
    compare: list[str] | None,
    backbone: str | None,
    weights: Path | None,
    epochs: int | None,
    others: list[str] | None,
) -> list[str]:
    """Options as `KEY=VALUE` of the recipe; `--set` comes last and wins."""
    given: dict[str, Any] = {
        "model.mode": mode,
        "compare": compare or None,
        "model.backbone": backbone,
        "model.checkpoint_path": str(weights) if weights else None,
        "train.epochs": epochs,
    }
    # JSON is YAML: whatever the text holds, it is read as that text
    told = [f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in given.items() if value is not None]
    return told + (others or [])


def _run(target: Path, out: Path | None, changes: list[str], steps: tuple[str, ...] | None, quiet: bool) -> None:
    from ppl.pipeline import default_out, resolve

    recipe, run_folder = resolve(target, changes)
    _finish(recipe, out or run_folder or default_out(recipe), steps, quiet)


def _finish(recipe: Any, out: Path, steps: tuple[str, ...] | None, quiet: bool) -> None:
    from ppl.pipeline import STEPS, run_recipe

    result = run_recipe(recipe, out, steps or STEPS, progress=not quiet, say=say)
    show_scores(result)
