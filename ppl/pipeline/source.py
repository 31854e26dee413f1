"""The recipe that a source stands for: a recipe file or its name, a data set's folder, or a run folder to continue."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ppl.errors import PPLFileNotFoundError
from ppl.pipeline.named import RECIPES, check_data, read_named_recipe
from ppl.pipeline.plugins import import_plugins
from ppl.pipeline.presets import set_preset
from ppl.pipeline.recipe import Recipe
from ppl.pipeline.recipe_file import check_recipe, read_recipe, with_overrides
from ppl.pipeline.run_folder import RunFolder

__all__ = ["default_out", "resolve_recipe"]


def resolve_recipe(
    source: Path, overrides: Sequence[str] = (), *, preset: str | None = None, plugins: Sequence[str] = ()
) -> tuple[Recipe, Path | None]:
    """Return the recipe that a path stands for.

    Args:
        source: a YAML recipe or a folder that holds `recipe.yaml`, the folder of a data set, a run folder, or the name
            of a recipe that comes with the library, if there is no such file or folder.
        overrides: `KEY=VALUE` with dotted keys; they win over the recipe.
        preset: name of a preset; its values win over the recipe, but not over `overrides`.
        plugins: modules to import first, found in the working directory, beside a recipe file or on `sys.path`. The
            plugins that a recipe file names are imported too; those of a folder's recipe must be named here.

    Returns:
        The recipe, and the run folder if `source` is one.

    Raises:
        PPLFileNotFoundError: if there is nothing at `source`, a plugin is missing, or the data set of a named recipe
            lacks files.
        PPLValueError: if the recipe is faulty, or a named recipe lacks its data set.
    """
    here = [Path.cwd()]
    run_folder: Path | None = None
    content: dict[str, Any]
    if source.is_dir() and (source / "recipe.yaml").is_file():
        content = read_recipe(source / "recipe.yaml", plugins, here, stored=True)
        run_folder = source if RunFolder(source).exists else None
    elif source.is_dir():
        import_plugins(plugins, here)
        content = {"data": {"root": str(source)}, "plugins": list(plugins)}
    elif source.exists():
        content = read_recipe(source, plugins, here)
    elif str(source) in RECIPES:
        import_plugins(plugins, here)
        content = {**read_named_recipe(str(source)), "plugins": list(plugins)}
    else:
        raise PPLFileNotFoundError(
            f"nothing at {source}; give a recipe (.yaml), a data set's folder, a run folder, or the name of a recipe: "
            f"{', '.join(RECIPES)}"
        )
    if preset is not None:
        content = set_preset(content, preset)
    content = with_overrides(content, overrides)
    if str(source) in RECIPES and not source.exists():
        check_data(str(source), content)
    return check_recipe(content, source=str(source)), run_folder


def default_out(recipe: Recipe) -> Path:
    """Return the default run folder of a recipe: `runs/<data set>-<mode>`."""
    return Path("runs") / f"{recipe.data.root.resolve().name}-{recipe.model.mode}"
