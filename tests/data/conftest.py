from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from ppl.io import write_mask


@pytest.fixture
def root(tmp_path):
    """A small folder data set: a.jpg, b.c.png (a dot in the name), sub/d.JPG, and two masks."""
    base = tmp_path / "pets"
    (base / "images" / "sub").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name, size in {"a.jpg": (40, 30), "b.c.png": (20, 50), "sub/d.JPG": (64, 64)}.items():
        pixels = rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
        Image.fromarray(pixels).save(base / "images" / name, format="PNG" if name.endswith("png") else "JPEG")
    write_mask(base / "masks" / "a.png", np.full((30, 40), 2, np.uint8))
    write_mask(base / "masks" / "sub" / "d.png", np.full((64, 64), 255, np.uint8))
    (base / "classes.txt").write_text("cat\ndog\n")
    (base / "labels.csv").write_text("image,labels\na.jpg,dog\nb.c,cat; dog\nsub/d,\n")
    (base / "train.txt").write_text("a\nsub/d.JPG\n")
    (base / "val.txt").write_text("b.c\n")
    return base
