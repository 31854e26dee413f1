"""`ppl check`: measure whether and where a backbone can be cut into patches."""

from __future__ import annotations

from typing import Annotated

import typer

from ppl.cli.show import say

__all__ = ["check"]


def check(
    names: Annotated[list[str], typer.Argument(help="Names of timm models.", show_default=False)],
    grid: Annotated[int, typer.Option(min=1, help="Rows and columns of patches.")] = 2,
) -> None:
    """Try a backbone with patches at each of its stages and print which cuts work. Nothing is downloaded."""
    from ppl.backbones import check_backbone

    for name in names:
        say(str(check_backbone(name, grid)))
