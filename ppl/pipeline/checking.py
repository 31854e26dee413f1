"""Recipe files and `KEY=VALUE` into checked recipes, or into one line that names every fault."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from ppl.config import describe_faults
from ppl.errors import PPLError, PPLFileNotFoundError, PPLValueError
from ppl.pipeline.recipe import Recipe
from ppl.refine.specs import replace_files

__all__ = ["check_reach", "check_recipe", "check_section", "load_recipe", "read_recipe", "with_overrides"]

Section = TypeVar("Section", bound=BaseModel)


def load_recipe(path: str | Path) -> Recipe:
    """Read and check a recipe; see `read_recipe` and `check_recipe`."""
    return check_recipe(read_recipe(Path(path)), source=str(path))


def read_recipe(path: Path) -> dict[str, Any]:
    """The content of a recipe file, not checked yet; relative paths in it become relative to the file's own folder.

    Raises:
        PPLFileNotFoundError: if there is no such file.
        PPLValueError: if it is not YAML or holds no keys.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise PPLFileNotFoundError(f"no recipe at {path}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise PPLValueError(f"{path} is not a YAML recipe: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise PPLValueError(f"{path} holds no keys; a recipe needs at least data: {{root: FOLDER}}")
    for section in ("model", "train", "cam"):
        if section in content and content[section] is None:  # left empty
            del content[section]
    for section, key in (("data", "root"), ("model", "checkpoint_path")):
        values = content.get(section)
        if isinstance(values, dict) and isinstance(values.get(key), str):
            values[key] = str(path.parent / Path(values[key]).expanduser())
    if isinstance(content.get("refine"), list):
        with suppress(PPLError):  # an invalid refiner is reported with all other faults
            content["refine"] = replace_files(content["refine"], lambda file: _beside(path, file.expanduser()))
    return content


def _beside(recipe: Path, file: Path) -> Path:
    """A file that a recipe names: beside it, or, as recipes of older runs have it, in the working directory."""
    beside = recipe.parent / file
    return file if file.is_file() and not beside.is_file() else beside


def with_overrides(content: dict[str, Any], overrides: list[str]) -> dict[str, Any]:
    """Set dotted keys of a recipe, as `--set train.epochs=5` does; the value is read as YAML.

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
            if child is None:  # missing, or left empty
                child = node[parent] = {}
            if not isinstance(child, dict):
                raise PPLValueError(f"--set {override!r}: {parent} is a value, not a section")
            node = child
        try:
            node[leaf] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise PPLValueError(f"--set {override!r}: the value is not YAML") from None
    return content


def check_recipe(content: dict[str, Any], source: str = "recipe") -> Recipe:
    """Turn the content of a recipe into a `Recipe`, or name every fault in one line.

    Raises:
        PPLValueError: if a key is unknown, missing or has a value that cannot work.
    """
    try:
        return Recipe.model_validate(content)
    except ValidationError as error:
        raise PPLValueError(f"{source}: " + "; ".join(describe_faults(Recipe, error))) from None


def check_section(section: type[Section], name: str, content: dict[str, Any], overrides: list[str]) -> Section:
    """One section of a recipe on its own, for commands that need no more.

    Args:
        section: its class.
        name: its name in a recipe.
        content: its keys.
        overrides: `NAME.KEY=VALUE`; they win.

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


def check_reach(overrides: list[str], keys: Sequence[str], command: str) -> None:
    """Refuse overrides that a command on a run would write into the run's recipe without looking at them.

    Args:
        overrides: `KEY=VALUE` with dotted keys.
        keys: the keys and sections that the command looks at.
        command: its name.

    Raises:
        PPLValueError: for the first override of another key.

    Example:
        >>> check_reach(["cam.scales=[1]"], ["cam", "device"], "cam")
        >>> check_reach(["train.lr=1"], ["cam", "device"], "cam")
        Traceback (most recent call last):
        ppl.errors.PPLValueError: --set train.lr=1 has no effect in `ppl cam`, which looks at: cam, device
    """
    for override in overrides:
        key = override.partition("=")[0].strip()
        if not any(key == known or key.startswith(f"{known}.") for known in keys):
            raise PPLValueError(f"--set {override} has no effect in `ppl {command}`, which looks at: {', '.join(keys)}")
