"""Tagged images: readers of several layouts, checks of files, transforms, loaders and a sample set made from seeds."""

from __future__ import annotations

from ppl.data.checks import check_images, warn_shared_images
from ppl.data.class_folders import read_class_folders
from ppl.data.coco import read_coco
from ppl.data.config import DatasetConfig
from ppl.data.creatures import CREATURE_PARTS, CREATURES, make_creatures
from ppl.data.dataset import MaskSource, NoSplitError, Sample, TaggedImages
from ppl.data.folder import read_folder, read_images
from ppl.data.huggingface import import_huggingface
from ppl.data.instances import InstanceMask
from ppl.data.labelme import read_labelme
from ppl.data.layouts import LAYOUTS, open_dataset, register_layout
from ppl.data.loader import Batch, TrainLoader, eval_loader, train_loader
from ppl.data.pairs import PairImages
from ppl.data.parts import PartMasks
from ppl.data.transforms import eval_transform, train_transform
from ppl.data.voc import VOC_CLASSES, read_voc
from ppl.data.webdataset import read_webdataset
from ppl.data.writers import write_coco, write_yolo
from ppl.data.yolo import read_yolo

__all__ = [
    "CREATURES",
    "CREATURE_PARTS",
    "LAYOUTS",
    "VOC_CLASSES",
    "Batch",
    "DatasetConfig",
    "InstanceMask",
    "MaskSource",
    "NoSplitError",
    "PairImages",
    "PartMasks",
    "Sample",
    "TaggedImages",
    "TrainLoader",
    "check_images",
    "eval_loader",
    "eval_transform",
    "import_huggingface",
    "make_creatures",
    "open_dataset",
    "read_class_folders",
    "read_coco",
    "read_folder",
    "read_images",
    "read_labelme",
    "read_voc",
    "read_webdataset",
    "read_yolo",
    "register_layout",
    "train_loader",
    "train_transform",
    "warn_shared_images",
    "write_coco",
    "write_yolo",
]
