"""`ppl export`: results in the files of other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ppl.cli.exchange import export_files, refuse_without_format
from ppl.cli.options import NumWorkers, Plugin, Quiet, given
from ppl.cli.show import print_line

__all__ = ["export"]


def export(
    source: Annotated[
        Path,
        typer.Argument(
            help="File of a segmentation network or of a classifier, or a run folder for its segmentation network; "
            "with --to a folder of CAM files or masks.",
            show_default=False,
        ),
    ],
    onnx: Annotated[Path | None, typer.Option(help="Write the network as an ONNX file.", show_default=False)] = None,
    torch_program: Annotated[
        Path | None,
        typer.Option("--torch", help="Write the network as a program of torch.export (.pt2).", show_default=False),
    ] = None,
    size: Annotated[
        tuple[int, int] | None,
        typer.Option(help="Height and width of the images, for networks that take no other.", show_default=False),
    ] = None,
    to: Annotated[
        str | None,
        typer.Option(
            help="CAM files (.npz) as irn, psa, puzzle or png; masks (.png) as coco or yolo.", show_default=False
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Where the files of --to go.")] = None,
    images: Annotated[Path | None, typer.Option(help="The pictures, for coco.")] = None,
    classes: Annotated[Path | None, typer.Option(help="The class names, one per line, for coco and yolo.")] = None,
    background: Annotated[
        str | None, typer.Option(help='Score of the background for png: a number, "auto" or "power:ALPHA".')
    ] = None,
    num_workers: NumWorkers = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Make all files of --to again.")] = False,
    plugin: Plugin = None,
    quiet: Quiet = False,
) -> None:
    """Write a network for programs without ppl, and check the file; or with --to, maps and masks for other projects."""
    if to is None:
        refuse_without_format(out=out, images=images, classes=classes, background=background)
        _export_network(source, onnx, torch_program, size)
        return
    options = given(images=images, classes=classes, background=background, num_workers=num_workers)
    export_files(source, out, to, plugin, overwrite=overwrite, progress=not quiet, **options)


def _export_network(source: Path, onnx: Path | None, torch_program: Path | None, size: tuple[int, int] | None) -> None:
    from ppl.errors import PPLValueError
    from ppl.models import export_onnx, export_torch
    from ppl.pipeline import load_network

    if onnx is None and torch_program is None:
        raise PPLValueError("say what to write: --onnx FILE.onnx or --torch FILE.pt2")
    network = load_network(source)
    for path, write in ((onnx, export_onnx), (torch_program, export_torch)):
        if path is not None:
            difference = write(network, path, **given(size=size))
            print_line(f"{path}: differs from the network by at most {difference:.1g}")
