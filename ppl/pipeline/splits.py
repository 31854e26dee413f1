"""The images of a run: opened, checked and looked at once, before any work is lost."""

from __future__ import annotations

from dataclasses import dataclass

from ppl.data import DatasetConfig, NoSplitError, TaggedImages, check_images, open_dataset, warn_shared_images
from ppl.errors import PPLValueError
from ppl.parallel import BadFile

__all__ = ["Splits", "open_splits"]


@dataclass(frozen=True)
class Splits:
    """The parts of a data set that a run uses.

    Attributes:
        train: images that are trained on.
        val: images scored after each epoch, None where there are none.
        masked: images that CAMs and masks are made of, by split.
        bad: images that were left out, with the reason.
        notes: lines that say what is done for want of a split.
    """

    train: TaggedImages
    val: TaggedImages | None
    masked: dict[str, TaggedImages]
    bad: tuple[BadFile, ...] = ()
    notes: tuple[str, ...] = ()


def open_splits(recipe: DatasetConfig, *, training: bool = True, progress: bool = True) -> Splits:
    """Open every split that a recipe names, and leave out images that cannot be read.

    A split that the recipe does not name itself may be missing: then training uses every image outside the validation
    split, or there is no validation. The notes say so.

    Args:
        recipe: the recipe's `data` section.
        training: whether the training images will be used; if not, they are not decoded.
        progress: show a bar while the images are looked at.

    Raises:
        PPLFileNotFoundError: if the folder, a file in it or a split that was asked for is missing.
        PPLValueError: if the tags are faulty, see `ppl.data.read_folder`, or nothing is left to train on.
    """
    notes: list[str] = []
    train, val = _open(recipe, "train"), _open(recipe, "val")
    opened = {recipe.train: train, recipe.val: val}
    train_name = recipe.train if recipe.train is not None and train is not None else "all"
    if train is None:
        train = opened["all"] = _read(recipe, None)
        if recipe.train is not None:
            train = _outside(train, val, recipe, notes)
    if val is None and recipe.val is not None:
        notes.append(f"{recipe.root.resolve().name} has no split {recipe.val!r}: no epoch is validated")
    names = recipe.splits or [recipe.val if val is not None and recipe.val else train_name]
    masked = {name: opened.get(name) or _read(recipe, name) for name in names}
    if val is not None and training:
        warn_shared_images(train, val)
    bad: dict[str, BadFile] = {}
    seen: dict[int, TaggedImages] = {}

    def checked(dataset: TaggedImages) -> TaggedImages:
        if id(dataset) not in seen:
            seen[id(dataset)], faults = check_images(dataset, progress=progress)
            bad.update((fault.image_id, fault) for fault in faults)
        return seen[id(dataset)]

    return Splits(
        train=checked(train) if training else train,
        val=checked(val) if val is not None and (training or recipe.val in masked) else val,
        masked={name: checked(dataset) for name, dataset in masked.items()},
        bad=tuple(bad.values()),
        notes=tuple(notes),
    )


def _open(recipe: DatasetConfig, key: str) -> TaggedImages | None:
    """The split of a key; None if there is to be none, or none is there and the recipe did not ask for it by name."""
    split: str | None = getattr(recipe, key)
    if split is None:
        return None
    try:
        return _read(recipe, split)
    except NoSplitError:
        if key in recipe.model_fields_set:
            raise
        return None


def _read(config: DatasetConfig, split: str | None) -> TaggedImages:
    options = config.model_dump(include={"layout", "zero", "white", "value_range"})
    return open_dataset(config.root, split, missing="keep", **options)


def _outside(images: TaggedImages, val: TaggedImages | None, recipe: DatasetConfig, notes: list[str]) -> TaggedImages:
    """What is trained on where no list says it: all images but those that the scores are of."""
    where = "" if val is None else f" outside {recipe.val!r}"
    notes.append(f"{recipe.root.resolve().name} has no split {recipe.train!r}: trained on every image{where}")
    if val is None:
        return images
    rest = images.without(val.image_ids)
    if not rest:
        raise PPLValueError(
            f"{recipe.root} has no split {recipe.train!r}, and every image is in {recipe.val!r}: none is left to train "
            "on; write the list, or set data.train to null to train on all"
        )
    return rest
