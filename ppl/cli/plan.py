"""`ppl plan`: hours, disk and cost of a run, before the run."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from ppl.cli.options import Backbone, Compare, Data, Epochs, Mode, Plugin, Preset, Set, Source, given, plugin_modules
from ppl.cli.run import recipe_changes
from ppl.cli.show import print_line

__all__ = ["plan"]


def plan(
    source: Source,
    data: Data = None,
    images: Annotated[
        int | None, typer.Option(min=1, help="Training images to plan for. Default: those of the data set.")
    ] = None,
    devices: Annotated[
        int | None, typer.Option(min=1, help="Devices like this one that share the work. Default: 1.")
    ] = None,
    price: Annotated[float | None, typer.Option(min=0, help="Price of one device for an hour.")] = None,
    sample: Annotated[int | None, typer.Option(min=2, help="Images to measure.", show_default=False)] = None,
    mode: Mode = None,
    compare: Compare = None,
    backbone: Backbone = None,
    epochs: Epochs = None,
    preset: Preset = None,
    plugin: Plugin = None,
    set_: Set = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only the table.")] = False,
) -> None:
    """Measure the steps of a run on a few of its images, and print hours, disk space and cost of the whole run."""
    from ppl.pipeline import plan_run, resolve_recipe

    changes = recipe_changes(mode, compare, backbone, None, epochs, set_, data)
    recipe, _ = resolve_recipe(source, changes, preset=preset, plugins=plugin_modules(plugin))
    steps = plan_run(recipe, images=images, **given(sample=sample, log=None if quiet else print_line))
    shares = devices or 1
    table = Table(header_style="bold")
    for column in ("step", "images", "s/image", "hours", "GB", *(["cost"] if price is not None else [])):
        table.add_column(column, justify="left" if column == "step" else "right")
    for step in steps:
        cost = [] if price is None else [f"{step.hours * price:.2f}"]
        row = (f"{step.passes}", f"{step.seconds:.4f}", f"{step.hours / shares:.2f}", f"{step.disk / 1e9:.2f}", *cost)
        table.add_row(step.name, *row)
    hours, size = sum(step.hours for step in steps), sum(step.disk for step in steps)
    cost = [] if price is None else [f"{hours * price:.2f}"]
    table.add_section()
    table.add_row("all", "", "", f"{hours / shares:.2f}", f"{size / 1e9:.2f}", *cost)
    Console(highlight=False).print(table)
    if shares > 1:
        print_line(f"hours of {shares} devices: those of one, divided; what they wait for each other is not measured")
    print_line("not in the table: start-up, scores and the report")
