"""`ppl cam`: class activation maps of a run's images, or of any folder of pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ppl.cli.options import Quiet, Set
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
    set_: Set = None,
    quiet: Quiet = False,
) -> None:
    """Compute class activation maps and the masks cut from them. What is finished is not done again."""
    from ppl.errors import PPLValueError
    from ppl.pipeline import CamRecipe, cam_folder, check_section, resolve, run_recipe

    if images is None:
        recipe, folder = resolve(target, set_)
        if folder is None:
            raise PPLValueError(f"{target} is not a run folder; for a checkpoint add --images FOLDER --out FOLDER")
        run_recipe(recipe, folder, ("cam",), progress=not quiet, say=say)
        return
    if out is None:
        raise PPLValueError("say where maps and masks go: add --out FOLDER")
    default = {"labels": "predicted" if labels is None else "tags"}
    settings = check_section(CamRecipe, "cam", default, set_ or [])
    count, bad = cam_folder(target, images, out, labels, settings, progress=not quiet)
    for file in bad:
        say(f"left out {file.stem}: {file.reason}")
    say(f"maps of {count} images in {out / 'cams'}, masks in {out / 'masks'}")
