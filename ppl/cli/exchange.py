"""`ppl import`: maps and masks of other projects and tools; and the folders of `ppl export`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ppl.cli.options import NumWorkers, Plugin, Quiet, given, plugin_modules
from ppl.cli.show import print_line
from ppl.io.listing import counted

if TYPE_CHECKING:
    from ppl.parallel import FolderSummary

__all__ = ["export_files", "import_files", "refuse_without_format"]


def import_files(
    source: Annotated[
        Path, typer.Argument(help="A folder of map files or masks, or COCO's JSON file.", show_default=False)
    ],
    kind: Annotated[
        str,
        typer.Option(
            "--from",
            help="irn (IRN, ReCAM), psa (PSA, SEAM), puzzle (Puzzle-CAM): maps; png, coco, yolo: masks.",
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Where CAM files or masks go.", show_default=False)],
    images: Annotated[Path | None, typer.Option(help="The pictures, for yolo.")] = None,
    classes: Annotated[Path | None, typer.Option(help="The class names, one per line, for yolo.")] = None,
    allow_pickle: Annotated[
        bool, typer.Option("--allow-pickle", help="Open pickles, which can run any code: only files that you trust.")
    ] = False,
    num_workers: NumWorkers = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Make all files again.")] = False,
    plugin: Plugin = None,
    quiet: Quiet = False,
) -> None:
    """Turn maps of other projects into CAM files for `ppl refine`, and masks of annotation tools into palette PNGs."""
    from ppl.pipeline import import_folder, import_plugins

    import_plugins(plugin_modules(plugin), [Path.cwd()])
    options = given(images=images, classes=classes, num_workers=num_workers)
    summary = import_folder(
        source, out, kind, allow_pickle=allow_pickle, overwrite=overwrite, progress=not quiet, **options
    )
    _report(summary, out)


def export_files(source: Path, out: Path | None, kind: str, plugin: list[str] | None, **options: Any) -> None:
    """Write a folder of CAM files or masks in another format, and print what was done."""
    from ppl.errors import PPLValueError
    from ppl.pipeline import export_folder, import_plugins

    if out is None:
        raise PPLValueError("say where the files go: add --out FOLDER, or --out FILE.json for coco")
    import_plugins(plugin_modules(plugin), [Path.cwd()])
    _report(export_folder(source, out, kind, **options), out)


def refuse_without_format(**options: Any) -> None:
    """Raise PPLValueError if an option is given that has an effect with --to alone."""
    from ppl.errors import PPLValueError

    for name in given(**options):
        raise PPLValueError(f"--{name} needs --to FORMAT, for a folder of CAM files or masks")


def _report(summary: FolderSummary, out: Path) -> None:
    for file in summary.bad:
        print_line(f"left out {file.image_id}: {file.reason}")
    print_line(f"{counted(summary.done + summary.skipped, 'image')} in {out} ({summary.done} new)")
