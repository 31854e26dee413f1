"""The images of a run: opened, checked and looked at once, before any work is lost."""

from __future__ import annotations

from dataclasses import dataclass

from ppl.data import BadFile, TaggedImages, open_dataset, screen
from ppl.errors import PPLFileNotFoundError
from ppl.pipeline.recipe import DataRecipe

__all__ = ["Splits", "open_splits"]


@dataclass(frozen=True)
class Splits:
    """The parts of a data set that a run uses.

    Attributes:
        train: images that are trained on.
        val: images scored after each epoch, None where there are none.
        masked: images that CAMs and masks are made of, by split.
        bad: images that were left out, with the reason.
    """

    train: TaggedImages
    val: TaggedImages | None
    masked: dict[str, TaggedImages]
    bad: tuple[BadFile, ...] = ()


def open_splits(recipe: DataRecipe, *, training: bool = True, progress: bool = True) -> Splits:
    """Open every split that a recipe names, and leave out images that cannot be read.

    A split that the recipe does not name itself may be missing: then training uses every image, and there is no
    validation.

    Args:
        recipe: the recipe's `data` section.
        training: whether the training images will be used; if not, they are not decoded.
        progress: show a bar while the images are looked at.

    Raises:
        PPLFileNotFoundError: if the folder or a split that was asked for is missing.
        PPLValueError: if the tags are faulty; see `ppl.data.read_folder`.
    """
    train = _open(recipe, "train", recipe.train)
    val = _open(recipe, "val", recipe.val) if recipe.val is not None else None
    train_name = recipe.train if recipe.train is not None and train is not None else "all"
    if train is None:  # no list: every image
        train = open_dataset(recipe.root, None, recipe.layout, missing="keep")
    names = recipe.splits or [recipe.val if val is not None and recipe.val else train_name]
    opened = {recipe.val: val, train_name: train}
    masked = {
        name: opened.get(name) or open_dataset(recipe.root, name, recipe.layout, missing="keep") for name in names
    }
    bad: dict[str, BadFile] = {}
    seen: dict[int, TaggedImages] = {}

    def screened(dataset: TaggedImages) -> TaggedImages:
        if id(dataset) not in seen:
            seen[id(dataset)], faults = screen(dataset, progress=progress)
            bad.update((fault.stem, fault) for fault in faults)
        return seen[id(dataset)]

    return Splits(
        train=screened(train) if training else train,
        val=screened(val) if val is not None and (training or recipe.val in masked) else val,
        masked={name: screened(dataset) for name, dataset in masked.items()},
        bad=tuple(bad.values()),
    )


def _open(recipe: DataRecipe, key: str, split: str | None) -> TaggedImages | None:
    """A split; None if it is missing and the recipe did not ask for it by name."""
    if split is None:
        return None
    try:
        return open_dataset(recipe.root, split, recipe.layout, missing="keep")
    except PPLFileNotFoundError:
        if key in recipe.model_fields_set or not recipe.root.is_dir():
            raise
        if recipe.layout in ("auto", "folder") and not (recipe.root / f"{split}.txt").exists():
            return None
        raise
