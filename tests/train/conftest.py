"""Images of three colours, which a network of a few thousand weights learns within seconds."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from ppl.data import read_folder
from ppl.models import create_model
from ppl.train import TrainConfig

CLASSES = ("red", "green", "blue")


@pytest.fixture(scope="session")
def colours_root(tmp_path_factory):
    """Write 24 training and 12 validation images: 40x50 noise with one or two bright channels."""
    root = tmp_path_factory.mktemp("colours")
    rng = np.random.default_rng(0)
    (root / "images").mkdir()
    rows, image_ids = ["image,labels"], []
    for index in range(36):
        present = {index % 3} | ({(index + 1) % 3} if index % 4 == 0 else set())
        pixels = rng.integers(0, 160, (40, 50, 3), dtype=np.uint8)
        for channel in present:
            pixels[10:30, 10:40, channel] = 255
        Image.fromarray(pixels).save(root / "images" / f"{index:02d}.png")
        rows.append(f"{index:02d}," + ";".join(CLASSES[channel] for channel in sorted(present)))
        image_ids.append(f"{index:02d}")
    (root / "labels.csv").write_text("\n".join(rows) + "\n")
    (root / "classes.txt").write_text("\n".join(CLASSES) + "\n")
    (root / "train.txt").write_text("\n".join(image_ids[:24]) + "\n")
    (root / "val.txt").write_text("\n".join(image_ids[24:]) + "\n")
    return root


@pytest.fixture(scope="session")
def colours(colours_root):
    return read_folder(colours_root, "train")


@pytest.fixture(scope="session")
def colours_val(colours_root):
    return read_folder(colours_root, "val")


@pytest.fixture
def make_model():
    def make(mode="progressive", seed=0, **options):
        torch.manual_seed(seed)
        cuts = ["layer2", "layer3"] if mode in ("progressive", "explicit") else None
        return create_model(
            "test_resnet", **{"num_classes": 3, "mode": mode, "cuts": cuts, "pretrained": False, **options}
        )

    return make


@pytest.fixture
def make_config():
    def make(**options):
        quick = {"epochs": 2, "batch_size": 4, "size": (64, 64), "num_workers": 0, "lr": 3e-3}
        return TrainConfig(**{**quick, **options})

    return make


@pytest.fixture(autouse=True)
def one_thread():
    """Use one thread, so that sums have the same order in every process."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
