from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from ppl.data import check_images, read_folder
from ppl.errors import PPLValueError
from ppl.io import write_mask


def test_good_files_stay(root):
    dataset = read_folder(root)
    assert check_images(dataset) == (dataset, [])


@pytest.mark.parametrize("fault", ["truncated", "missing", "mask size", "mask index", "mask unreadable"])
def test_one_bad_file_is_named_and_left_out(root, fault):
    image, mask = root / "images" / "a.jpg", root / "masks" / "a.png"
    if fault == "truncated":
        Image.effect_noise((640, 480), 90).save(image)
        image.write_bytes(image.read_bytes()[:-5000])
    elif fault == "missing":
        image.unlink()
    elif fault == "mask size":
        write_mask(mask, np.zeros((40, 30), np.uint8))
    elif fault == "mask index":
        write_mask(mask, np.full((30, 40), 3, np.uint8))
    else:
        mask.write_bytes(b"PNG")
    dataset = read_folder(root, missing="keep")
    with pytest.warns(UserWarning, match="pets: 'a' is left out"):
        good, bad = check_images(dataset, workers=2)
    assert good.image_ids == ("b.c", "sub/d")
    assert [file.image_id for file in bad] == ["a"]
    words = {"mask size": "(40, 30) but the image is (30, 40)", "mask index": "index 3, but there are 2 classes"}
    assert words.get(fault, "masks/a.png" if "mask" in fault else "images/a") in bad[0].reason
    assert "\n" not in bad[0].reason


def test_masks_can_be_passed_over(root):
    write_mask(root / "masks" / "a.png", np.zeros((1, 1), np.uint8))
    assert check_images(read_folder(root), masks=False)[1] == []


def test_a_turned_photo_and_its_mask_agree(root):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (30, 40)).save(root / "images" / "a.jpg", exif=exif)
    dataset = read_folder(root)
    assert dataset[0].read_image().size == (40, 30)
    assert check_images(dataset)[1] == []


def test_nothing_left_is_an_error(root):
    for path in (root / "images").rglob("*.*"):
        path.write_bytes(b"")
    with pytest.raises(PPLValueError, match="none of the 3 images can be used; the first: "):
        check_images(read_folder(root))
