"""COCO's own layout: instances as JSON, masks drawn from them when asked for."""

from __future__ import annotations

import json
import os
import reprlib
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ppl.data.dataset import NoSplitError, Sample, TaggedImages, warn_absent_classes
from ppl.errors import PPLError, PPLFileNotFoundError, PPLValueError
from ppl.io import BadImageError
from ppl.io.listing import list_files, normalize_name

__all__ = ["InstanceMask", "read_coco"]


@dataclass(frozen=True)
class InstanceMask:
    """A class mask drawn from an image's COCO instances.

    Larger instances are drawn first, so that small ones stay visible where they overlap; crowds count as their class.

    Attributes:
        size: (height, width).
        instances: (class index 0..K-1, area, COCO segmentation: polygons or a run-length code).

    Example:
        >>> InstanceMask((3, 4), ((1, 4.0, [[1, 0, 3, 0, 3, 2, 1, 2]]),)).read().tolist()
        [[0, 2, 2, 0], [0, 2, 2, 0], [0, 0, 0, 0]]
    """

    size: tuple[int, int]
    instances: tuple[tuple[int, float, Any], ...]

    def read(self) -> npt.NDArray[np.uint8]:
        """(H, W) uint8 class indices, 0 background.

        Raises:
            PPLValueError: if an outline or the size is damaged.
        """
        try:
            return self._draw()
        except PPLError:
            raise
        except Exception as error:  # the file may hold anything: numpy has many names for what it cannot take
            what = f"{type(error).__name__}: {error}"
            raise BadImageError(f"its outlines cannot be drawn ({what}); mend them in the annotations file") from error

    def _draw(self) -> npt.NDArray[np.uint8]:
        mask = np.zeros(self.size, np.uint8)
        for label, _, segmentation in sorted(self.instances, key=lambda instance: -instance[1]):
            if isinstance(segmentation, dict):
                mask[_decode_runs(segmentation["counts"], self.size)] = label + 1
                continue
            # points and lines beside polygons have no area
            for polygon in [corners for corners in segmentation if np.size(corners) not in (2, 4)] or segmentation:
                _fill(mask, polygon, label + 1)
        return mask


def read_coco(
    root: str | os.PathLike[str], split: str | None = None, *, missing: Literal["error", "keep"] = "error"
) -> TaggedImages:
    """Read COCO, or other data in its layout.

    ::

        annotations/instances_<split>.json
        <split>/, images/<split>/ or images/      the files

    Args:
        root: the folder that holds `annotations`.
        split: e.g. "val2017"; None takes the only instances file there is.
        missing: whether an image that is not there is an error or is kept for `check_images` to report.

    Returns:
        The data set: classes by rising category id, tags from the instances, images without an instance included
        (`labels` is empty), masks drawn on demand (`InstanceMask`). An image has no mask if one of its instances has
        no outline, and none has one if the whole file holds boxes alone.

    Raises:
        PPLFileNotFoundError: if the layout or an image is missing; `NoSplitError` if the split is.
        PPLValueError: if the file is not COCO instances JSON, there are several splits and none is named, two file
            names differ in their extension alone, one leads out of the folder, or a category is named "background".
    """
    root = Path(root)
    found = {path.stem.removeprefix("instances_"): path for path in sorted(root.glob("annotations/instances_*.json"))}
    if not found:
        raise PPLFileNotFoundError(f"{root} holds no annotations/instances_*.json; check the path")
    if split is None:
        if len(found) > 1:
            raise PPLValueError(f"{root} has the splits {', '.join(found)}; name one of them")
        split = next(iter(found))
    if split not in found:
        raise NoSplitError(f"{root} has no split {split!r}; there are: {', '.join(found)}")
    try:
        content = json.loads(found[split].read_bytes())
        used = {note["category_id"] for note in content["annotations"]}
        categories = sorted(content["categories"], key=lambda category: category["id"])
        # some tools list a background, which no instance has
        categories = [one for one in categories if one["id"] in used or one["name"].strip().lower() != "background"]
        index = {category["id"]: i for i, category in enumerate(categories)}
        instances = defaultdict(list)
        for note in content["annotations"]:
            entry = (index[note["category_id"]], float(note.get("area", 0.0)), _outline(note))
            instances[note["image_id"]].append(entry)
        outlined = any(outline is not None for own in instances.values() for _, _, outline in own)
        samples = []
        for image in content["images"]:
            own = tuple(instances.get(image["id"], ()))
            name = Path(normalize_name(image["file_name"]))
            whole = outlined and all(outline is not None for _, _, outline in own)
            samples.append(
                Sample(
                    image_id=name.with_suffix("").as_posix(),
                    image=name,
                    labels=tuple(sorted({label for label, _, _ in own})),
                    mask=InstanceMask((image["height"], image["width"]), own) if whole else None,
                )
            )
        classes = tuple(normalize_name(category["name"]) for category in categories)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        what = f"{type(error).__name__}: {error}"
        raise PPLValueError(f"{found[split]} is not a whole COCO instances file ({what}); download it again") from error
    if not samples:
        raise PPLValueError(f"{found[split]} lists no images; choose another split")
    dataset = TaggedImages(classes, _located(samples, _image_folder(root, split)), f"{root.name}/{split}")
    for sample in dataset if missing == "error" else ():
        if not sample.image.is_file():
            raise PPLFileNotFoundError(
                f"{sample.image} is missing but listed in {found[split].name}; download it again"
            )
    return warn_absent_classes(dataset)


def _located(samples: list[Sample], folder: Path) -> tuple[Sample, ...]:
    """The samples with their images as the disk names them, which may store accents in another way."""
    files = list_files(folder)
    return tuple(replace(sample, image=files.get(sample.image.as_posix(), folder / sample.image)) for sample in samples)


def _outline(note: dict[str, Any]) -> Any:
    """An instance's polygons or run-length code; None where a box is all that is known, as in files for detection."""
    outline = note.get("segmentation")
    return outline if isinstance(outline, dict) or any(outline or ()) else None


def _image_folder(root: Path, split: str) -> Path:
    folders = (root / split, root / "images" / split, root / "images")
    for folder in folders:
        if folder.is_dir():
            return folder
    raise PPLFileNotFoundError(f"{root} has neither {split}/ nor images/; put the image files there")


def _fill(mask: npt.NDArray[np.uint8], polygon: list[float], value: int) -> None:
    from skimage.draw import polygon as draw

    numbers = np.asarray(polygon, np.float64)
    if numbers.ndim != 1 or numbers.size < 6 or numbers.size % 2 or not np.isfinite(numbers).all():
        what = f"a polygon is {reprlib.repr(polygon)}, not x and y of three corners or more"
        raise BadImageError(f"{what}; mend it in the annotations file")
    corners = numbers.reshape(-1, 2)
    # COCO counts from the corner of the top-left pixel, scikit-image from its centre
    rows, columns = draw(corners[:, 1] - 0.5, corners[:, 0] - 0.5, shape=mask.shape)
    mask[rows, columns] = value


def _decode_runs(counts: str | list[int], size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """A run-length code as a boolean mask: runs of 0 and 1 in turn, column by column."""
    runs = _unpack_runs(counts) if isinstance(counts, str) else counts
    covered = sum(runs)  # looked at first: a damaged one may ask for more memory than there is
    if covered != size[0] * size[1]:
        raise BadImageError(f"a run-length code covers {covered} pixels of an image of {size}; the file is damaged")
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(size, order="F")


def _unpack_runs(text: str) -> list[int]:
    """COCO's compressed code: 5 bits a character, low bits first; from the fourth run on, the change to two before."""
    runs: list[int] = []
    value = shift = 0
    for byte in text.encode("ascii"):
        bits = byte - 48
        value |= (bits & 0x1F) << shift
        shift += 5
        if bits & 0x20:  # more to come
            continue
        if bits & 0x10:  # sign
            value -= 1 << shift
        runs.append(value + runs[-2] if len(runs) > 2 else value)
        value = shift = 0
    return runs
