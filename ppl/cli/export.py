"""`ppl export`: results in the files of other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ppl.cli.options import given
from ppl.cli.show import print_line

__all__ = ["export"]


def export(
    source: Annotated[
        Path,
        typer.Argument(
            help="File of a segmentation network or of a classifier, or a run folder for its segmentation network.",
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
) -> None:
    """Write a network for programs without ppl, for batches and images of any size, and check the file."""
    _export_network(source, onnx, torch_program, size)


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
