"""`ppl cam`: class activation maps of a run's images, or of any folder of pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ppl.cli.options import Quiet, Set, refuse_for_runs, resolve_run
from ppl.cli.show import say

__all__ = ["cam"]


def cam(
    target: Annotated[
        Path, typer.Argument(help="A run folder, or a checkpoint (.safetensors) of one.", show_default=False)
    ],
    images: Annotated[Path | None, typer.Option(help="Folder of pictures, for a checkpoint.")] = None,
    labels: Annotated[
        Path | None, typer.Option(help="CSV of their tags (image,labels). Without it: the predicted classes.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Where maps and masks go, for a checkpoint.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="For a checkpoint: make all maps again.")] = False,
    set_: Set = None,
    quiet: Quiet = False,
) -> None:
    """Compute class activation maps and the masks cut from them. What is finished is not done again."""
    from ppl.errors import PPLValueError
    from ppl.pipeline import CamRecipe, cam_folder, check_section, run_recipe
    from ppl.pipeline.checking import check_reach

    if images is None:
        refuse_for_runs({"--labels": labels, "--out": out, "--overwrite": overwrite})
        check_reach(set_ or [], ("cam", "compare", "data", "device", "jobs"), "cam")
        recipe, folder = resolve_run(target, set_ or [], "for a checkpoint add --images FOLDER --out FOLDER")
        run_recipe(recipe, folder, ("cam",), progress=not quiet, say=say)
        return
    if out is None:
        raise PPLValueError("say where maps and masks go: add --out FOLDER")
    default = {"labels": "predicted" if labels is None else "tags"}
    settings = check_section(CamRecipe, "cam", default, set_ or [])
    if settings.checkpoint != CamRecipe().checkpoint:
        raise PPLValueError(f"--set cam.checkpoint has no effect here: the weights are those of {target}")
    if labels is None and settings.labels == "tags":
        raise PPLValueError("cam.labels=tags needs the tags of the pictures: add --labels CSV")
    summary = cam_folder(target, images, out, labels, settings, overwrite=overwrite, progress=not quiet)
    for file in summary.bad:
        say(f"left out {file.image_id}: {file.reason}")
    count = summary.done + summary.skipped
    say(f"maps of {count} images in {out / 'cams'} ({summary.done} new), masks in {out / 'masks'}")
