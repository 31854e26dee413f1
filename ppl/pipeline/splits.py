"""The images of a run, opened and checked before any work begins."""

from __future__ import annotations

from dataclasses import dataclass

from ppl.data import DatasetConfig, NoSplitError, Sample, TaggedImages, check_images, open_dataset, warn_shared_images
from ppl.errors import PPLValueError
from ppl.parallel import BadFile, current_share, spread

__all__ = ["Splits", "check_share", "open_splits", "spread_tagged"]


@dataclass(frozen=True)
class Splits:
    """The images of a data set that a run uses.

    Attributes:
        train: the training images.
        val: the images that are scored after each epoch, or None.
        masked: the images that CAMs and masks are made of, by split.
        bad: the images that were left out, with the reason.
        notes: one line for each missing split, with the images that are used instead.
    """

    train: TaggedImages
    val: TaggedImages | None
    masked: dict[str, TaggedImages]
    bad: tuple[BadFile, ...] = ()
    notes: tuple[str, ...] = ()


def check_share(images: TaggedImages, *, progress: bool = True) -> tuple[TaggedImages, list[BadFile]]:
    """Check images as `check_images`; those of a shard alone, which knows nothing of the others.

    Returns:
        The images without the bad ones, and the bad ones. A shard has its own images alone.
    """
    share = current_share()
    return check_images(images.part(share) if share.is_shard else images, progress=progress)


def open_splits(recipe: DatasetConfig, *, training: bool = True, check: bool = True, progress: bool = True) -> Splits:
    """Open the splits of a recipe, and leave out the images that cannot be read.

    A split that the recipe does not set may be missing. Without a training split, training uses every image outside the
    validation split; without a validation split, no epoch is scored. The notes say so.

    Args:
        recipe: the `data` section of the recipe.
        training: whether the run uses the training images; otherwise they are not read.
        check: read every file and leave out those that cannot be used.
        progress: show a bar while the images are checked.

    Raises:
        PPLFileNotFoundError: if the folder, a file in the folder or a split that the recipe sets is missing.
        PPLValueError: if the tags are faulty, see `ppl.data.read_folder`, or no image is left to train on.
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
        if not check:
            return dataset
        if id(dataset) not in seen:
            seen[id(dataset)], faults = check_share(dataset, progress=progress)
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
    """Return the split of a key, or None if the recipe sets null, or does not set the key and there is no split."""
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
    options = config.model_dump(include={"layout", "zero", "white", "untagged", "value_range"})
    return open_dataset(config.root, split, missing="keep", **options)


def _outside(images: TaggedImages, val: TaggedImages | None, recipe: DatasetConfig, notes: list[str]) -> TaggedImages:
    """Return the training images of a data set without a training list: all images outside the validation split."""
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


def spread_tagged(images: TaggedImages, count: int) -> list[Sample]:
    """Return tagged images at equal distances over a split; only images with masks if there are any.

    Args:
        images: the split.
        count: the most images.
    """
    tagged = [sample for sample in images if sample.labels]
    return spread([sample for sample in tagged if sample.mask is not None] or tagged or list(images), count)
