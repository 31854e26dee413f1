"""`ppl evaluate`: scores of a run, or of any folder of masks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from ppl.cli.options import refuse_for_runs, resolve_run
from ppl.cli.show import percent, say, show_scores

__all__ = ["evaluate"]


def evaluate(
    target: Annotated[Path, typer.Argument(help="A run folder, or a folder of palette PNGs.", show_default=False)],
    data: Annotated[
        Path | None, typer.Option(help="The data set that holds the true masks, for a folder of PNGs.")
    ] = None,
    split: Annotated[str | None, typer.Option(help="Its split; every image with a mask if left out.")] = None,
) -> None:
    """Score masks against the ground truth: IoU of every class over the whole set, VOC's way."""
    from ppl.pipeline import run_recipe, score_masks

    if data is None:
        refuse_for_runs({"--split": split})
        recipe, folder = resolve_run(target, [], "to score a folder of PNGs add --data DATASET")
        show_scores(run_recipe(recipe, folder, ("evaluate",), progress=False, say=say))
        return
    from ppl.data import open_dataset

    images = open_dataset(data, split)
    notes: list[str] = []
    scores = score_masks(target, images, notes)
    table = Table(header_style="bold")
    for column in ("class", "IoU", "recall", "precision"):
        table.add_column(column, justify="left" if column == "class" else "right")
    columns = zip(
        ("background", *images.classes),
        scores["iou"].tolist(),
        scores["recall"].tolist(),
        scores["precision"].tolist(),
        strict=True,
    )
    for name, *values in columns:
        table.add_row(name, *map(percent, values))
    Console(highlight=False).print(table)
    for note in notes:
        say(note)
    say(f"mIoU {percent(scores['miou'])} over {sum(sample.mask is not None for sample in images)} images")
