"""Recipe files: read, changed by `KEY=VALUE`, checked, and written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from ppl.config import describe_faults
from ppl.errors import PPLError, PPLFileNotFoundError, PPLTypeError, PPLValueError
from ppl.pipeline.plugins import check_allowed, import_plugins
from ppl.pipeline.presets import with_preset
from ppl.pipeline.recipe import Recipe
from ppl.pipeline.run_folder import RunFolder
from ppl.refine.specs import replace_files

__all__ = [
    "check_reach",
    "check_recipe",
    "check_section",
    "dump_recipe",
    "load_recipe",
    "read_recipe",
    "with_overrides",
]

Section = TypeVar("Section", bound=BaseModel)


def load_recipe(path: str | Path, plugins: Sequence[str] = ()) -> Recipe:
    """Read and check a recipe file.

    Args:
        path: a YAML file. Relative paths in it are relative to its folder.
        plugins: modules to import beforehand. The plugins that the file itself names are imported too, unless the file
            lies in a run folder: then they must be named here.

    Raises:
        PPLFileNotFoundError: if the file or a plugin is missing.
        PPLValueError: if the file is no recipe, or the recipe is faulty; the message names every fault.
    """
    return check_recipe(read_recipe(Path(path), plugins), source=str(path))


def read_recipe(
    path: Path, plugins: Sequence[str] = (), folders: Sequence[Path] = (), *, stored: bool = False
) -> dict[str, Any]:
    """Read a recipe file without checking it, and import its plugins.

    Args:
        path: the file.
        plugins: modules to import beforehand; they join the recipe's own plugins.
        folders: where to look for `plugins`, besides `sys.path` and the folder of the recipe.
        stored: whether the user has named a folder and not this file. Then, as in a run folder, only `plugins` are
            imported.

    Returns:
        The content. Relative paths in it have become relative to the working directory.

    Raises:
        PPLFileNotFoundError: if the file or a plugin is missing.
        PPLValueError: if the file is not YAML or holds no keys, or a stored recipe names further plugins.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise PPLFileNotFoundError(f"no recipe at {path}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise PPLValueError(f"{path} is not a YAML recipe: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise PPLValueError(f"{path} holds no keys; a recipe needs at least data: {{root: FOLDER}}")
    own = _plugins_of(content)
    if stored or RunFolder(path.parent).exists:
        check_allowed(own, plugins, str(path))
    else:
        folders = [path.parent, *folders]
    content["plugins"] = [*dict.fromkeys([*own, *plugins])]
    import_plugins(content["plugins"], folders)
    for section in ("model", "train", "cam"):
        if section in content and content[section] is None:  # the key stands there without a value
            del content[section]
    return _place_files(content, path.parent)


def _plugins_of(content: Mapping[str, Any]) -> list[str]:
    plugins = content.get("plugins") or []
    if not isinstance(plugins, list) or not all(isinstance(name, str) for name in plugins):
        raise PPLTypeError(f"plugins must be a list of module names, got {plugins!r}: write plugins: [my_module]")
    return plugins


def _place_files(content: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Make the relative paths of a recipe relative to the working directory."""
    for section, key in (("data", "root"), ("model", "checkpoint_path")):
        values = content.get(section)
        if isinstance(values, dict) and isinstance(values.get(key), str):
            values[key] = str(folder / Path(values[key]).expanduser())
    if isinstance(content.get("refine"), list):
        with suppress(PPLError):  # `check_recipe` reports a faulty refiner together with all other faults
            content["refine"] = replace_files(content["refine"], lambda file: folder / file.expanduser())
    return content


def with_overrides(content: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Set dotted keys of a recipe, as `--set train.epochs=5` does. The value is read as YAML.

    Args:
        content: the content of a recipe, which is changed.
        overrides: `KEY=VALUE` with dotted keys.

    Returns:
        `content`.

    Raises:
        PPLValueError: if an override is not of this form, or a key on its way is no section.

    Example:
        >>> with_overrides({"train": {"epochs": 2}}, ["train.epochs=5", "cam.flip=false"])
        {'train': {'epochs': 5}, 'cam': {'flip': False}}
    """
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals or not key:
            raise PPLValueError(f"--set {override!r} is not KEY=VALUE, such as train.epochs=5")
        *parents, leaf = key.strip().split(".")
        node = content
        for parent in parents:
            child = node.get(parent)
            if child is None:  # the section is missing or empty
                child = node[parent] = {}
            if not isinstance(child, dict):
                raise PPLValueError(f"--set {override!r}: {parent} is a value, not a section")
            node = child
        try:
            node[leaf] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise PPLValueError(f"--set {override!r}: the value is not YAML") from None
    return content


def check_recipe(content: Mapping[str, Any], source: str = "recipe") -> Recipe:
    """Make a `Recipe` from the content of a recipe file. Its plugins are imported and its preset is filled in first.

    Args:
        content: section and keys, as YAML holds them.
        source: where the content comes from, for messages.

    Returns:
        The recipe.

    Raises:
        PPLFileNotFoundError: if a plugin is missing.
        PPLTypeError: if the content is no mapping.
        PPLValueError: if a key is unknown or missing, or a value does not fit; the message names every fault.

    Example:
        >>> check_recipe({"data": {"root": "photos"}, "train": {"epochs": 5}}).train.epochs
        5
        >>> check_recipe({"data": {"root": "photos"}, "train": {"epoch": 5}})
        Traceback (most recent call last):
        ppl.errors.PPLValueError: recipe: unknown key train.epoch; did you mean 'epochs'?
    """
    if not isinstance(content, Mapping):
        raise PPLTypeError(
            f"{source} must be a mapping of sections, got {content!r}: write {{'data': {{'root': FOLDER}}}}"
        )
    import_plugins(_plugins_of(content))
    try:
        return Recipe.model_validate(with_preset(content))
    except ValidationError as error:
        raise PPLValueError(f"{source}: " + "; ".join(describe_faults(Recipe, error))) from None


def check_section(section: type[Section], name: str, content: dict[str, Any], overrides: Sequence[str]) -> Section:
    """Make one section of a recipe, for a command that needs no other.

    Args:
        section: the class of the section.
        name: its name in a recipe.
        content: its keys and values.
        overrides: `NAME.KEY=VALUE`; they win over `content`.

    Raises:
        PPLValueError: if a key or value is wrong, or an override is of another section.
    """
    content = with_overrides({name: content}, overrides)
    others = sorted(set(content) - {name})
    if others:
        raise PPLValueError(f"--set {others[0]}... has no effect here: only keys of {name} have")
    try:
        return section.model_validate(content[name])
    except ValidationError as error:
        raise PPLValueError("; ".join(describe_faults(section, error, [name]))) from None


def check_reach(overrides: Sequence[str], keys: Sequence[str], command: str) -> None:
    """Refuse overrides of keys that a command does not use: the command would write them into the run's recipe.

    Args:
        overrides: `KEY=VALUE` with dotted keys.
        keys: the keys and sections that the command uses.
        command: its name.

    Raises:
        PPLValueError: for the first override of another key.

    Example:
        >>> check_reach(["cam.scales=[1]"], ["cam", "device"], "cam")
        >>> check_reach(["train.lr=1"], ["cam", "device"], "cam")
        Traceback (most recent call last):
        ppl.errors.PPLValueError: --set train.lr=1 has no effect in `ppl cam`, which uses: cam, device
    """
    for override in overrides:
        key = override.partition("=")[0].strip()
        if not any(key == known or key.startswith(f"{known}.") for known in keys):
            raise PPLValueError(f"--set {override} has no effect in `ppl {command}`, which uses: {', '.join(keys)}")


def dump_recipe(recipe: Recipe) -> str:
    """Return the recipe as YAML with every key filled in and every path absolute.

    `data.train` and `data.val` stay out if the recipe does not set them: a split that is named must exist, and one that
    is not named may be missing.
    """
    content = recipe.model_dump(mode="json")
    for key in {"train", "val"} - recipe.data.model_fields_set:
        del content["data"][key]
    content["data"]["root"] = str(recipe.data.root.resolve())
    if recipe.model.checkpoint_path is not None:
        content["model"]["checkpoint_path"] = str(recipe.model.checkpoint_path.resolve())
    content["refine"] = replace_files(recipe.refine, Path.resolve)
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
