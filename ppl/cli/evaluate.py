"""`ppl evaluate`: scores of a run, or of any folder of masks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ppl.cli.options import Plugin, refuse_for_runs, resolve_run
from ppl.cli.show import percent, print_line, show_scores

__all__ = ["evaluate"]


def evaluate(
    source: Annotated[Path, typer.Argument(help="A run folder, or a folder of palette PNGs.", show_default=False)],
    data: Annotated[
        Path | None, typer.Option(help="The data set that holds the true masks, for a folder of PNGs.")
    ] = None,
    split: Annotated[str | None, typer.Option(help="Its split; without it, every image that has a mask.")] = None,
    layout: Annotated[str | None, typer.Option(help="Its layout; without it, recognised by its files.")] = None,
    zero: Annotated[str | None, typer.Option(help="Meaning of 0 in its masks: background or ignore.")] = None,
    white: Annotated[str | None, typer.Option(help="Meaning of 255 in its masks: ignore or object.")] = None,
    plugin: Plugin = None,
) -> None:
    """Score masks against the true ones: IoU of every class over all pixels of the set, as PASCAL VOC does."""
    if data is None:
        refuse_for_runs({"--split": split, "--layout": layout, "--zero": zero, "--white": white})
        _evaluate_run(source, plugin)
    else:
        from ppl.pipeline import import_plugins

        import_plugins(plugin or [])
        given = {"layout": layout, "zero": zero, "white": white}
        _evaluate_folder(source, data, split, {key: value for key, value in given.items() if value is not None})


def _evaluate_run(source: Path, plugin: list[str] | None) -> None:
    from ppl.errors import PPLValueError
    from ppl.pipeline import run_recipe

    recipe, folder = resolve_run(source, [], plugin, "to score a folder of PNGs add --data DATASET")
    result = run_recipe(recipe, folder, ("evaluate",), progress=False, log=print_line)
    if not any(scores for of_mode in result.scores.values() for scores in of_mode.values()):
        raise PPLValueError(
            f"nothing to score: none of the images of {', '.join(result.splits)} has a mask with a pixel that counts; "
            "add masks to the data set, or name a split that has some: --set data.splits of `ppl cam`"
        )
    show_scores(result)


def _evaluate_folder(masks: Path, data: Path, split: str | None, options: dict[str, str]) -> None:
    from ppl.data import DatasetConfig, open_dataset
    from ppl.pipeline import score_masks

    config = DatasetConfig.checked(options, root=data)
    images = open_dataset(config.root, split, config.layout, zero=config.zero, white=config.white)
    notes: list[str] = []
    scores = score_masks(masks, images, notes)
    table = Table(header_style="bold")
    for column in ("class", "IoU", "recall", "precision"):
        table.add_column(column, justify="left" if column == "class" else "right")
    columns = (scores[key].tolist() for key in ("iou", "recall", "precision"))
    for name, *values in zip(("background", *images.classes), *columns, strict=True):
        table.add_row(escape(name), *map(percent, values))
    Console(highlight=False).print(table)
    for note in notes:
        print_line(note)
    scored = sum(sample.mask is not None for sample in images)
    print_line(f"mIoU of {scored} of {len(images)} images: {percent(scores['miou'])}")
