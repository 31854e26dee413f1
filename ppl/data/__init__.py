"""Tagged images: readers of three layouts, checks of files, transforms, loaders and a sample set made from seeds."""

from __future__ import annotations

from ppl.data.checks import check_images
from ppl.data.coco import InstanceMask, read_coco
from ppl.data.creatures import CREATURE_PARTS, CREATURES, make_creatures
from ppl.data.dataset import MaskSource, NoSplitError, Sample, TaggedImages
from ppl.data.folder import read_folder
from ppl.data.layouts import Layout, open_dataset
from ppl.data.loader import Batch, TrainLoader, eval_loader, train_loader
from ppl.data.pictures import read_images
from ppl.data.transforms import eval_transform, train_transform
from ppl.data.voc import VOC_CLASSES, read_voc

__all__ = [
    "CREATURES",
    "CREATURE_PARTS",
    "VOC_CLASSES",
    "Batch",
    "InstanceMask",
    "Layout",
    "MaskSource",
    "NoSplitError",
    "Sample",
    "TaggedImages",
    "TrainLoader",
    "check_images",
    "eval_loader",
    "eval_transform",
    "make_creatures",
    "open_dataset",
    "read_coco",
    "read_folder",
    "read_images",
    "read_voc",
    "train_loader",
    "train_transform",
]
