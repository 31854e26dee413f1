"""Recipes that come with the library, by name, and the files that each needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

from ppl.data.voc import find_voc
from ppl.errors import PPLFileNotFoundError, PPLValueError

__all__ = ["RECIPES", "NamedRecipe", "check_data", "read_named_recipe"]


@dataclass(frozen=True)
class NamedRecipe:
    """A recipe that comes with the library.

    Attributes:
        data_set: name of the data set, for messages.
        needs: function from the names of the splits to the files and folders that the data set must hold; "a|b" is
            either of two.
    """

    data_set: str
    needs: Callable[[Sequence[str]], list[str]]


def _voc(splits: Sequence[str]) -> list[str]:
    lists = [f"ImageSets/Segmentation/{split}.txt" for split in splits]
    return ["JPEGImages/", "Annotations/", "SegmentationClass/", *lists]


def _coco(splits: Sequence[str]) -> list[str]:
    files = [f"annotations/instances_{split}.json" for split in splits]
    return [*files, *(f"{split}/|images/{split}/" for split in splits)]


RECIPES: Mapping[str, NamedRecipe] = MappingProxyType(
    {"voc12": NamedRecipe("PASCAL VOC 2012", _voc), "coco14": NamedRecipe("COCO 2014", _coco)}
)
"""The recipes that `ppl run NAME --data FOLDER` knows; their files lie in `ppl/pipeline/recipes`."""


def read_named_recipe(name: str) -> dict[str, Any]:
    """Return the content of a recipe that comes with the library; it names no folder of the data set.

    Example:
        >>> read_named_recipe("voc12")["model"]["backbone"]
        'resnet50.tv_in1k'
    """
    path = Path(__file__).with_name("recipes") / f"{name}.yaml"
    content: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return content


def check_data(name: str, content: Mapping[str, Any]) -> None:
    """Raise an error that lists all that a named recipe needs, unless its data set is named and complete.

    Args:
        name: a key of `RECIPES`.
        content: the recipe, after the changes of the command line.

    Raises:
        PPLValueError: if `data.root` is not set.
        PPLFileNotFoundError: if a file or folder is missing.
    """
    data, recipe = content["data"], RECIPES[name]
    splits = [data.get("train"), data.get("val"), *(data.get("splits") or [])]
    needs = recipe.needs([split for split in dict.fromkeys(splits) if split])
    listed = ", ".join(need.replace("|", " or ") for need in needs)
    if not data.get("root"):
        raise PPLValueError(f"recipe {name} needs {recipe.data_set}: add --data FOLDER, which holds {listed}")
    root = Path(str(data["root"])).expanduser()
    base = (find_voc(root) or root) if root.is_dir() and recipe.needs is _voc else root
    missing = [need for need in needs if not any((base / place).exists() for place in need.split("|"))]
    if missing:
        lacks = ", ".join(need.replace("|", " or ") for need in missing)
        raise PPLFileNotFoundError(
            f"{base} lacks {lacks}: recipe {name} needs {recipe.data_set} with {listed} (docs/field_recipes.md says "
            "where the lists come from; --set data.train=NAME takes another list)"
        )
