"""`ppl refine`: a run's maps, or any folder of them, into sharper masks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ppl.cli.options import Quiet, Set, refuse_for_runs, resolve_run
from ppl.cli.show import say

__all__ = ["refine"]


def refine(
    target: Annotated[Path, typer.Argument(help="A run folder, or a folder of CAM files (.npz).", show_default=False)],
    images: Annotated[Path | None, typer.Option(help="Folder of the pictures, for a folder of CAM files.")] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Where the masks go, for a folder of CAM files.")
    ] = None,
    refiners: Annotated[
        str | None, typer.Option(help='Refiners in order, as "crf: irn, random_walk". Default: crf: deeplab.')
    ] = None,
    background: Annotated[
        str | None, typer.Option(help='Score of the background: a number, "auto" or "power:ALPHA". Default: auto.')
    ] = None,
    jobs: Annotated[int | None, typer.Option("--jobs", "-j", help="Workers; -1, the default: one a core.")] = None,
    overwrite: Annotated[bool, typer.Option(help="For a folder of CAM files: make all masks again.")] = False,
    set_: Set = None,
    quiet: Quiet = False,
) -> None:
    """Refine class maps into masks, over all cores. What is finished is not done again; bad files are listed."""
    from ppl.errors import PPLValueError
    from ppl.pipeline import refine_cams, run_recipe
    from ppl.pipeline.checking import check_reach

    if images is None:
        refuse_for_runs({"--out": out, "--overwrite": overwrite})
        check_reach(set_ or [], ("refine", "affinity", "cam.background", "compare", "data", "device", "jobs"), "refine")
        changes = [f"jobs={jobs}"] if jobs is not None else []
        changes += [f"refine=[{refiners}]"] if refiners else []
        changes += [f"cam.background={background}"] if background else []
        otherwise = "for a folder of CAM files add --images FOLDER --out FOLDER"
        recipe, folder = resolve_run(target, changes + (set_ or []), otherwise)
        run_recipe(recipe, folder, ("refine",), progress=not quiet, say=say)
        return
    if out is None:
        raise PPLValueError("say where the masks go: add --out FOLDER")
    if set_:
        raise PPLValueError(f"--set {set_[0]} has no effect on a folder of CAM files; use --refiners and --background")
    workers = -1 if jobs is None else jobs
    summary = refine_cams(
        target, images, out, refiners, background or "auto", workers, overwrite=overwrite, progress=not quiet
    )
    for bad in summary.bad:
        say(f"left out {bad.image_id}: {bad.reason}")
    rate = f", {summary.images_per_second:.1f} images/s" if summary.done else ""
    say(f"{summary.done} masks in {out} ({summary.skipped} were there{rate})")
