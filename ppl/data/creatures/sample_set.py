"""Write the sample set as a folder."""

from __future__ import annotations

import json
import operator
import os
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ppl.data.creatures.scene import draw_scene
from ppl.errors import PPLValueError
from ppl.io import atomic_folder, mask_image

__all__ = ["CREATURES", "CREATURE_PARTS", "make_creatures"]

CREATURES = ("cat", "owl", "frog", "ram")
"""The classes of the sample set."""
CREATURE_PARTS = ("head", "body")
"""The parts of each creature, which `masks_parts/` marks by 1 and 2."""

_VERSION = 1  # rises when the same seed draws other pictures


def make_creatures(
    root: str | os.PathLike[str], train: int = 400, val: int = 100, size: int = 128, seed: int = 0
) -> Path:
    """Write the sample set in the folder layout of `read_folder`, with masks of creatures and of their parts.

    The same arguments give the same bytes. A second call finds the set and returns at once; a killed call leaves
    nothing behind at `root`. Nothing is downloaded: the textures are photographs that ship with scikit-image.

    Args:
        root: folder to make.
        train: number of images in the split "train".
        val: number of images in the split "val".
        size: height and width in pixels.
        seed: seed of everything that is drawn.

    Returns:
        `root`, now holding `images`, `masks` (class of the creature), `masks_parts` (see `PartMasks`), `labels.csv`,
        `classes.txt`, `train.txt`, `val.txt` and `creatures.json`.

    Raises:
        PPLValueError: if a number is out of range, or `root` holds a sample set of other arguments or a broken one.
        FileWriteError: if `root` holds something else or cannot be written.

    Example:
        >>> import tempfile
        >>> from ppl.data import read_folder
        >>> folder = tempfile.TemporaryDirectory()
        >>> root = make_creatures(Path(folder.name) / "creatures", train=6, val=2, size=48)
        >>> len(read_folder(root, "train")), sorted(path.name for path in root.glob("*.txt"))
        (6, ['classes.txt', 'train.txt', 'val.txt'])
        >>> folder.cleanup()
    """
    try:
        train, val, size, seed = map(operator.index, (train, val, size, seed))
    except TypeError as error:
        raise PPLValueError(f"train={train}, val={val}, size={size}, seed={seed} must be whole numbers") from error
    if min(train, val) < 0 or train + val < 1 or size < 32:
        raise PPLValueError(f"train={train}, val={val}, size={size}: draw at least one image of at least 32 pixels")
    if seed < 0:
        raise PPLValueError(f"seed is {seed}; give 0 or a positive number")
    root = Path(root)
    recipe = {"version": _VERSION, "train": train, "val": val, "size": size, "seed": seed}
    if (root / "creatures.json").is_file():
        found = _found_recipe(root / "creatures.json")
        if found != recipe:
            raise PPLValueError(f"{root} holds a sample set of {found}, asked for is {recipe}; choose another folder")
        return root
    from joblib import Parallel, delayed

    image_ids = {"train": [f"train_{i:04d}" for i in range(train)], "val": [f"val_{i:04d}" for i in range(val)]}
    jobs = [
        (image_id, (seed, part, i))
        for part, split in enumerate(image_ids)
        for i, image_id in enumerate(image_ids[split])
    ]
    with atomic_folder(root) as folder:
        for name in ("images", "masks", "masks_parts"):
            (folder / name).mkdir()
        workers = min(os.cpu_count() or 1, 1 + len(jobs) // 150)
        rows = Parallel(n_jobs=workers)(delayed(_write)(folder, image_id, key, size) for image_id, key in jobs)
        (folder / "labels.csv").write_text("image,labels\n" + "".join(f"{row}\n" for row in rows))
        (folder / "classes.txt").write_text("".join(f"{name}\n" for name in CREATURES))
        for split, names in image_ids.items():
            (folder / f"{split}.txt").write_text("".join(f"{name}\n" for name in names))
        (folder / "masks_parts" / "parts.txt").write_text("".join(f"{name}\n" for name in CREATURE_PARTS))
        (folder / "creatures.json").write_text(json.dumps(recipe))
    return root


def _found_recipe(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise PPLValueError(f"{path} is broken ({error}); remove {path.parent}, then the set is drawn anew") from error


def _write(folder: Path, image_id: str, key: tuple[int, ...], size: int) -> str:
    image, mask, parts = draw_scene(np.random.default_rng(key), size)
    Image.fromarray(image).save(folder / "images" / f"{image_id}.jpg", quality=92)
    mask_image(mask).save(folder / "masks" / f"{image_id}.png")
    mask_image(parts).save(folder / "masks_parts" / f"{image_id}.png")
    present = [name for index, name in enumerate(CREATURES, start=1) if (mask == index).any()]
    return f"{image_id}.jpg,{';'.join(present)}"
