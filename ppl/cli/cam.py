"""`ppl cam`: class activation maps of the images of a run, or of any pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ppl.cli.options import (
    NumWorkers,
    Plugin,
    Quiet,
    Set,
    Shard,
    ValueRange,
    assignments,
    given,
    plugin_modules,
    refuse_for_runs,
    resolve_run,
)
from ppl.cli.show import print_line

__all__ = ["cam"]

_KEYS = ("cam", "compare", "data", "device", "num_workers")
"""The keys of a recipe that the command uses on a run."""


def cam(
    source: Annotated[
        Path, typer.Argument(help="A run folder, or a checkpoint (.safetensors) of one.", show_default=False)
    ],
    images: Annotated[Path | None, typer.Option(help="Pictures for a checkpoint: a folder or one file.")] = None,
    labels: Annotated[
        Path | None, typer.Option(help="CSV of their tags (image,labels). Without it: the predicted classes.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Where maps and masks go, for a checkpoint.")] = None,
    value_range: ValueRange = None,
    num_workers: NumWorkers = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="For a checkpoint: make all maps again.")] = False,
    shard: Shard = None,
    plugin: Plugin = None,
    set_: Set = None,
    quiet: Quiet = False,
) -> None:
    """Compute class activation maps and the masks cut from them. What is finished is not done again."""
    from ppl import parallel
    from ppl.errors import PPLValueError
    from ppl.pipeline import CamRecipe, cam_folder, check_section, import_plugins, run_recipe
    from ppl.pipeline.recipe_file import check_reach

    if images is None:
        refuse_for_runs({"--labels": labels, "--out": out, "--overwrite": overwrite, "--value-range": value_range})
        check_reach(set_ or [], _KEYS, "cam")
        changes = assignments({"num_workers": num_workers}, set_)
        recipe, folder = resolve_run(source, changes, plugin, "for a checkpoint add --images FOLDER --out FOLDER")
        with parallel.shard(shard):
            run_recipe(recipe, folder, ("cam",), progress=not quiet, log=print_line)
        return
    if out is None:
        raise PPLValueError("say where maps and masks go: add --out FOLDER")
    import_plugins(plugin_modules(plugin), [Path.cwd()])
    default = {"labels": "predicted" if labels is None else "tags"}
    settings = check_section(CamRecipe, "cam", default, set_ or [])
    if settings.checkpoint != CamRecipe().checkpoint:
        raise PPLValueError(f"--set cam.checkpoint has no effect here: the weights are those of {source}")
    if labels is None and settings.labels == "tags":
        raise PPLValueError("cam.labels=tags needs the tags of the pictures: add --labels CSV")
    options = given(value_range=value_range, num_workers=num_workers)
    with parallel.shard(shard):
        summary = cam_folder(source, images, out, labels, settings, overwrite=overwrite, progress=not quiet, **options)
    for file in summary.bad:
        print_line(f"left out {file.image_id}: {file.reason}")
    count = summary.done + summary.skipped
    print_line(f"maps of {count} images in {out / 'cams'} ({summary.done} new), masks in {out / 'masks'}")
