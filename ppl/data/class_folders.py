"""Read a folder per class, as image classifiers are often trained from."""

from __future__ import annotations

import os
from pathlib import Path

from ppl.data.dataset import BACKGROUND_NAMES, Sample, TaggedImages, warn_about_tags
from ppl.data.image_index import Missing
from ppl.data.splits import SPLIT_NAMES, find_split
from ppl.errors import PPLFileNotFoundError
from ppl.io.archives import FilePath
from ppl.io.listing import IMAGE_SUFFIXES, list_images, list_masks, normalize_name

__all__ = ["find_class_folders", "read_class_folders"]


def read_class_folders(
    root: str | os.PathLike[str], split: str | None = None, *, missing: Missing = "error"
) -> TaggedImages:
    """Read a data set with one folder of images per class.

    ::

        cat/, dog/, ...           images, also in sub-folders; or
        train/cat/, val/cat/...   the same for each split; or images/cat/, ...
        masks/cat/<name>.png      optional masks, at the same path

    A folder named `background` holds images that show none of the classes.

    Args:
        root: folder of the data set.
        split: folder of a split; None reads all images.
        missing: without effect: the images are those that exist.

    Returns:
        The data set: classes in the order of their names, image ids are paths below `root` (or `images/`).

    Raises:
        PPLFileNotFoundError: if `root` holds no folders of images; `NoSplitError` if the split does not exist.
    """
    root = Path(root)
    splits = find_class_folders(root)
    if not splits:
        raise PPLFileNotFoundError(f"{root} holds no folders of images; make one folder per class")
    chosen = list(splits.values()) if split is None else [splits[find_split(splits, split, root)]]
    base = root / "images" if (root / "images").is_dir() else root
    names = {normalize_name(folder.name) for folders in splits.values() for folder in folders}
    classes = tuple(sorted(name for name in names if name.lower() not in BACKGROUND_NAMES))
    label = {name: index for index, name in enumerate(classes)}
    found: dict[str, tuple[FilePath, tuple[int, ...]]] = {}
    for folder in (folder for folders in chosen for folder in folders):
        name = normalize_name(folder.name)
        prefix = normalize_name(folder.relative_to(base).as_posix())
        labels = (label[name],) if name in label else ()
        found |= {f"{prefix}/{image_id}": (path, labels) for image_id, path in list_images(folder).items()}
    masks = list_masks(root / "masks", list_images(base)) if (root / "masks").is_dir() else {}
    samples = tuple(Sample(image_id, path, labels, masks.get(image_id)) for image_id, (path, labels) in found.items())
    return warn_about_tags(TaggedImages(classes, samples, f"{root.name}/{split}" if split else root.name))


def find_class_folders(root: Path) -> dict[str, list[Path]]:
    """Return the class folders of every split ("" where there are no splits); empty if the layout is another.

    The folders of a level are classes if each of them holds images and no images lie beside them.
    """
    base = root / "images" if (root / "images").is_dir() else root
    folders = _folders(base)
    splits = {folder.name: _classes(_folders(folder)) for folder in folders if folder.name in SPLIT_NAMES}
    if splits:
        return splits if all(splits.values()) else {}
    classes = _classes(folders)
    return {"": classes} if classes and not _holds_images(base) else {}


def _folders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(
        path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".") and path.name != "masks"
    )


def _classes(folders: list[Path]) -> list[Path]:
    return folders if all(map(_holds_images, folders)) else []


def _holds_images(folder: Path) -> bool:
    return any(path.is_file() and path.suffix.lower() in IMAGE_SUFFIXES for path in folder.iterdir())
