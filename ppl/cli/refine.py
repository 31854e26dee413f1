"""`ppl refine`: the CAM files of a run, or of any folder, into sharper masks."""

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

__all__ = ["refine"]

_KEYS = ("refine", "affinity", "pixels", "cam.background", "compare", "data", "device", "num_workers")
"""The keys of a recipe that the command uses on a run."""


def refine(
    source: Annotated[Path, typer.Argument(help="A run folder, or a folder of CAM files (.npz).", show_default=False)],
    images: Annotated[
        Path | None, typer.Option(help="Pictures for a folder of CAM files: a folder or one file.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Where the masks go, for a folder of CAM files.")
    ] = None,
    refiners: Annotated[
        str | None, typer.Option(help='Refiners in order, as "crf: irn, random_walk".', show_default=False)
    ] = None,
    background: Annotated[
        str | None,
        typer.Option(help='Score of the background: a number, "auto" or "power:ALPHA".', show_default=False),
    ] = None,
    value_range: ValueRange = None,
    num_workers: NumWorkers = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="For a folder of CAM files: make all masks again.")
    ] = False,
    shard: Shard = None,
    plugin: Plugin = None,
    set_: Set = None,
    quiet: Quiet = False,
) -> None:
    """Refine class maps into masks on all cores. What is finished is not done again; unusable files are listed."""
    from ppl import parallel
    from ppl.errors import PPLValueError
    from ppl.pipeline import import_plugins, refine_cams, run_recipe
    from ppl.pipeline.recipe_file import check_reach

    if images is None:
        refuse_for_runs({"--out": out, "--overwrite": overwrite, "--value-range": value_range})
        check_reach(set_ or [], _KEYS, "refine")
        changes = [f"refine=[{refiners}]"] if refiners else []
        changes += [f"cam.background={background}"] if background else []
        changes += assignments({"num_workers": num_workers}, set_)
        otherwise = "for a folder of CAM files add --images FOLDER --out FOLDER"
        recipe, folder = resolve_run(source, changes, plugin, otherwise)
        with parallel.shard(shard):
            result = run_recipe(recipe, folder, ("refine",), progress=not quiet, log=print_line)
        for note in result.notes:
            print_line(note)
        return
    if out is None:
        raise PPLValueError("say where the masks go: add --out FOLDER")
    if set_:
        raise PPLValueError(f"--set {set_[0]} has no effect on a folder of CAM files; use --refiners and --background")
    import_plugins(plugin_modules(plugin), [Path.cwd()])
    options = given(refiners=refiners, background=background, value_range=value_range, num_workers=num_workers)
    with parallel.shard(shard):
        summary = refine_cams(source, images, out, overwrite=overwrite, progress=not quiet, **options)
    for bad in summary.bad:
        print_line(f"left out {bad.image_id}: {bad.reason}")
    rate = f", {summary.images_per_second:.1f} images/s" if summary.done else ""
    print_line(f"{summary.done} masks in {out} ({summary.skipped} were there{rate})")
