"""`ppl segment` and `ppl predict`: train a segmentation network on masks, and segment pictures with it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ppl.cli.options import NumWorkers, Out, Plugin, Quiet, Set, Shard, ValueRange, given, resolve_run
from ppl.cli.show import print_line, show_scores

__all__ = ["predict", "segment"]

_KEYS = ("segment", "data", "device", "num_workers")
"""The keys of a recipe that the command uses on a run."""


def segment(
    source: Annotated[Path, typer.Argument(help="A run folder, or a data set.", show_default=False)],
    masks: Annotated[
        Path | None,
        typer.Option(help="For a data set: folder of masks <image>.png. Default: the masks of the data set."),
    ] = None,
    out: Out = None,
    plugin: Plugin = None,
    set_: Set = None,
    quiet: Quiet = False,
) -> None:
    """Train a segmentation network on the masks of a run, or on masks of any origin; continue where it stopped."""
    from ppl.pipeline import run_recipe, segment_dataset
    from ppl.pipeline.recipe_file import check_reach

    check_reach(set_ or [], _KEYS, "segment")
    if masks is None and out is None:
        recipe, folder = resolve_run(source, set_ or [], plugin, "for a data set add --out FOLDER (and --masks FOLDER)")
        show_scores(run_recipe(recipe, folder, ("segment", "evaluate", "report"), progress=not quiet, log=print_line))
        return
    path = segment_dataset(source, masks, out, set_ or [], progress=not quiet, log=print_line)
    print_line(f"network: {path}")


def predict(
    model: Annotated[
        Path, typer.Argument(help="A run folder, or the file of a segmentation network.", show_default=False)
    ],
    images: Annotated[Path, typer.Option(help="Pictures: a folder or one file.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the results.", show_default=False)],
    crf: Annotated[
        str | None, typer.Option(help='Preset of a CRF that refines the result, such as "deeplab".', show_default=False)
    ] = None,
    scale: Annotated[
        list[float] | None, typer.Option(help="Scale of the pictures. May be repeated.", show_default=False)
    ] = None,
    flip: Annotated[
        bool | None, typer.Option("--flip/--no-flip", help="Also predict the mirror image.", show_default=False)
    ] = None,
    names: Annotated[
        Path | None, typer.Option("--list", help="List of the pictures, one name per line.", show_default=False)
    ] = None,
    submission: Annotated[
        Path | None,
        typer.Option(help="Pack the masks into an archive (.tgz) for PASCAL VOC 2012's server.", show_default=False),
    ] = None,
    value_range: ValueRange = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, mps.", show_default=False)] = None,
    num_workers: NumWorkers = None,
    shard: Shard = None,
    quiet: Quiet = False,
) -> None:
    """Segment pictures without tags: masks, overlays and a page to look at. What is finished is not done again."""
    from ppl import parallel
    from ppl.io.listing import counted
    from ppl.pipeline import predict_folder

    options = given(crf=crf, scales=tuple(scale) if scale else None, flip=flip, names=names, submission=submission)
    options |= given(value_range=value_range, device=device, num_workers=num_workers)
    with parallel.shard(shard):
        summary = predict_folder(model, images, out, progress=not quiet, **options)
    for file in summary.bad:
        print_line(f"left out {file.image_id}: {file.reason}")
    count = counted(summary.done + summary.skipped, "picture")
    print_line(f"{count} segmented ({summary.done} new): {out / ('masks' if shard else 'index.html')}")
