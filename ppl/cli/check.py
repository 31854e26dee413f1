"""`ppl check`: measure whether and where a backbone can be cut into patches."""

from __future__ import annotations

from typing import Annotated

import typer

from ppl.cli.options import given
from ppl.cli.show import print_line

__all__ = ["check"]


def check(
    names: Annotated[list[str], typer.Argument(help="Names of timm models.", show_default=False)],
    grid: Annotated[int | None, typer.Option(min=1, help="Rows and columns of patches.", show_default=False)] = None,
) -> None:
    """Try a backbone with patches at each of its stages and print which cuts work. Nothing is downloaded."""
    from ppl.backbones import check_backbone

    for name in names:
        print_line(str(check_backbone(name, **given(grid=grid))))
