"""`ppl check`: can this backbone be cut, where, and if not, why."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ppl.cli.show import say

__all__ = ["check"]


def check(
    names: Annotated[
        list[str] | None,
        typer.Argument(help='Names of timm models, or "all": one or more of every family.', show_default=False),
    ] = None,
    grid: Annotated[int, typer.Option(min=1, help="Patches per side to try.")] = 2,
    table: Annotated[bool, typer.Option("--table", help="Write the support table of all families (hours).")] = False,
    state: Annotated[
        Path | None,
        typer.Option(help="File of finished rows, with which a stopped --table goes on.", show_default=False),
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Where the table goes.")] = Path("docs/backbones.md"),
) -> None:
    """Try a backbone with patches at each of its stages and print what holds. Nothing is downloaded."""
    from ppl.backbones import check_backbone, support_table, variants
    from ppl.errors import PPLValueError

    if table:
        support_table(out, state=state)
        say(f"table: {out}")
    elif not names:
        raise PPLValueError('name a timm model, such as `ppl check resnet50`, or "all"')
    elif names == ["all"]:
        supported = 0
        for _, name in variants():
            report = check_backbone(name, grid)
            supported += report.supported
            say(str(report).splitlines()[0])
        say(f"{supported} of {len(variants())} can be cut")
    else:
        for name in names:
            say(str(check_backbone(name, grid)))
