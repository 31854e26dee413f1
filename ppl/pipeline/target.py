"""What a user points a command at: a recipe, a data set, or a run to continue."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from ppl.errors import PPLFileNotFoundError
from ppl.pipeline.checking import check_recipe, read_recipe, with_overrides
from ppl.pipeline.recipe import Recipe
from ppl.refine.specs import replace_files

__all__ = ["default_out", "resolve"]


def resolve(target: Path, overrides: list[str] | None = None) -> tuple[Recipe, Path | None]:
    """The recipe that a target stands for.

    Args:
        target: a YAML recipe or a folder that holds `recipe.yaml`, the folder of a data set, or a run folder.
        overrides: `KEY=VALUE` with dotted keys; they win.

    Returns:
        The recipe, and the run folder if the target is one.

    Raises:
        PPLFileNotFoundError: if there is nothing at `target`.
        PPLValueError: if the recipe is faulty.
    """
    run_folder: Path | None = None
    content: dict[str, Any]
    if target.is_dir() and (target / "recipe.yaml").is_file():
        run_folder, content = target if _is_run(target) else None, read_recipe(target / "recipe.yaml")
    elif target.is_dir():
        content = {"data": {"root": str(target)}}
    elif target.exists():
        content = read_recipe(target)
    else:
        raise PPLFileNotFoundError(f"nothing at {target}; give a recipe (.yaml), a data set's folder or a run folder")
    return check_recipe(with_overrides(content, overrides or []), source=str(target)), run_folder


def _is_run(folder: Path) -> bool:
    """Whether a run began here, or the folder only happens to hold a recipe, as a data set's may."""
    return any((folder / name).exists() for name in ("manifest.json", "metrics.jsonl"))


def default_out(recipe: Recipe) -> Path:
    """Where a run goes if nobody says: `runs/<data set>-<mode>`."""
    return Path("runs") / f"{recipe.data.root.resolve().name}-{recipe.model.mode}"


def dump_recipe(recipe: Recipe) -> str:
    """The recipe as YAML, with every key, so that a run folder says all there is to say.

    Only the splits that nobody asked for stay out: written down, they would be asked for and could not be missing.
    """
    content = recipe.model_dump(mode="json")
    for key in {"train", "val"} - recipe.data.model_fields_set:
        del content["data"][key]
    content["data"]["root"] = str(recipe.data.root.resolve())
    if recipe.model.checkpoint_path is not None:
        content["model"]["checkpoint_path"] = str(recipe.model.checkpoint_path.resolve())
    content["refine"] = replace_files(recipe.refine, Path.resolve)
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
