"""Predictions as evaluation servers take them."""

from __future__ import annotations

import tarfile
from collections.abc import Mapping
from pathlib import Path

from ppl.io import atomic_write

__all__ = ["pack_voc12"]


def pack_voc12(masks: Mapping[str, Path], path: str | Path) -> None:
    """Pack masks into the archive that the server of PASCAL VOC 2012 takes.

    The archive holds `results/VOC2012/Segmentation/comp6_test_cls/<image id>.png`, palette PNGs. Competition 6 allows
    other data in training, such as the images of ImageNet; competition 5 does not.

    Args:
        masks: palette PNG by image id.
        path: the archive, `.tgz`.

    Raises:
        FileWriteError: if the disk is full or the place cannot be written to.
    """
    with atomic_write(path) as handle, tarfile.open(fileobj=handle, mode="w:gz") as archive:
        for image_id, mask in masks.items():
            archive.add(mask, f"results/VOC2012/Segmentation/comp6_test_cls/{image_id}.png")
