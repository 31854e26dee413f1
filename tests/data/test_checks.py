from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ppl.data import Sample, TaggedImages, check_images, open_dataset, read_folder, warn_shared_images
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
        good, bad = check_images(dataset, num_workers=2)
    assert good.image_ids == ("b.c", "sub/d")
    assert [file.image_id for file in bad] == ["a"]
    words = {"mask size": "(40, 30) but the image is (30, 40)", "mask index": "index 3, but there are 2 classes"}
    assert words.get(fault, "masks/a.png" if "mask" in fault else "images/a") in bad[0].reason
    assert "\n" not in bad[0].reason


def test_masks_are_not_checked_when_not_asked_for(root):
    write_mask(root / "masks" / "a.png", np.zeros((1, 1), np.uint8))
    assert check_images(read_folder(root), masks=False)[1] == []


def test_a_rotated_photo_and_its_upright_mask_fit(root):
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


def test_masks_and_tags_that_contradict_each_other_are_counted_and_named(root):
    write_mask(root / "masks" / "a.png", np.full((30, 40), 1, np.uint8))
    with pytest.warns(UserWarning) as caught:
        _, bad = check_images(read_folder(root))
    assert bad == []
    (message,) = [str(warning.message) for warning in caught]
    assert message.startswith("pets: the masks of 1 of 2 images do not show the classes that their tags name: ")
    assert "'a' (mask: cat; tags: dog)" in message


@pytest.mark.parametrize(("step", "words"), [(-1, "too small: 0 is the first class"), (1, "too large: 2 is the first")])
def test_masks_whose_classes_are_counted_from_another_number_are_told(root, step, words):
    (root / "classes.txt").write_text("cat\ndog\nfox\n")
    (root / "labels.csv").write_text("image,labels\na.jpg,cat\nb.c,cat; dog\nsub/d,dog\n")
    write_mask(root / "masks" / "a.png", np.full((30, 40), 1 + step, np.uint8))
    write_mask(root / "masks" / "sub" / "d.png", np.full((64, 64), 2 + step, np.uint8))
    with pytest.warns(UserWarning, match=f"all would agree if the values were not one {words}"):
        check_images(read_folder(root))


def test_a_mask_of_a_smaller_copy_is_to_be_resized(root):
    write_mask(root / "masks" / "a.png", np.zeros((15, 20), np.uint8))
    with pytest.warns(UserWarning, match="resize the mask with nearest-neighbour interpolation"):
        check_images(read_folder(root))


def test_a_square_picture_that_is_turned_is_named_too(root):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (64, 64)).save(root / "images" / "sub" / "d.JPG", format="JPEG", exif=exif)
    with pytest.warns(UserWarning, match="1 picture with a mask and an EXIF orientation of 2, 3 or 4 .*: 'sub/d'"):
        check_images(read_folder(root))


@pytest.mark.parametrize("orientation", [2, 3, 4])
def test_mirrored_pictures_with_masks_are_one_warning(root, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    for name, size in {"a.jpg": (40, 30), "sub/d.JPG": (64, 64)}.items():
        Image.new("RGB", size).save(root / "images" / name, format="JPEG", exif=exif)
    with pytest.warns(
        UserWarning, match="2 pictures with a mask and an EXIF orientation of 2, 3 or 4 .*: 'a', 'sub/d'"
    ) as told:
        check_images(read_folder(root))
    assert len(told) == 1


def test_a_mask_of_the_size_before_the_rotation_names_exif(root):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 30)).save(root / "images" / "a.jpg", exif=exif)
    with pytest.warns(
        UserWarning, match="EXIF orientation 6 turns the image, and the mask was drawn before; turn the mask"
    ):
        assert [file.image_id for file in check_images(read_folder(root))[1]] == ["a"]


def wide(root, top):
    values = np.linspace(0, top, 30 * 40).astype(np.uint16).reshape(30, 40)
    (root / "images" / "a.jpg").unlink(missing_ok=True)
    Image.fromarray(values).save(root / "images" / "a.png")
    return values


def test_16_bit_pictures_with_small_values_are_named_and_the_range_can_be_set(root):
    values = wide(root, 4000)
    with pytest.warns(UserWarning, match="1 picture of 16 bits without a value above 4000, .* 4095 for"):
        check_images(read_folder(root))
    dataset = open_dataset(root, value_range=4095)
    assert check_images(dataset) == (dataset, [])
    expected = np.round(values * (255 / 4095)).astype(np.uint8)
    assert np.array_equal(np.asarray(dataset[0].read_image())[..., 0], expected)
    with pytest.warns(UserWarning, match="its values reach 4000, above value_range=1023"):
        assert len(check_images(open_dataset(root, value_range=1023))[1]) == 1


def test_tiffs_of_several_pages_are_named_and_smaller_copies_are_no_pages(root):
    pages = [Image.new("L", (40, 30), number) for number in range(3)]
    (root / "images" / "a.jpg").unlink()
    pages[0].save(root / "images" / "a.tif", save_all=True, append_images=pages[1:])
    with pytest.warns(UserWarning, match="pets: 1 picture of several pages, of which the first alone is read: 'a'"):
        check_images(read_folder(root))
    pages[0].save(root / "images" / "a.tif", save_all=True, append_images=[Image.new("L", (20, 15))])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_images(read_folder(root))


def test_16_bit_pictures_with_large_values_are_not_named(root):
    wide(root, 65000)
    dataset = read_folder(root)
    assert check_images(dataset) == (dataset, [])


def test_many_bad_files_are_counted(root):
    rows = "".join(f"x{number},dog\n" for number in range(20))
    (root / "labels.csv").write_text(f"image,labels\na,dog\n{rows}")
    with pytest.warns(UserWarning) as caught:
        good, bad = check_images(read_folder(root, missing="keep"))
    assert (len(good), len(bad)) == (1, 20)
    told = [
        str(warning.message) for warning in caught if "left out" in str(warning.message) and "x" in str(warning.message)
    ]
    assert len(told) == 4
    assert told[-1] == "pets: 17 more images left out: 'x3', 'x4', 'x5' and 14 more"


def test_images_of_both_splits_are_counted_and_named():
    samples = tuple(Sample(name, Path(f"{name}.jpg"), (0,)) for name in "abcdef")
    images = TaggedImages(("cat",), samples, "pets")
    with pytest.warns(
        UserWarning, match="pets and pets share 4 images: 'b', 'c', 'd' and 1 more; scores there are scores"
    ):
        warn_shared_images(images[:5], images[1:])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_shared_images(images[:3], images[3:])


def test_smoothed_edges_of_masks_are_named(root):
    write_mask(root / "masks" / "a.png", np.arange(30 * 40).reshape(30, 40) % 256)
    with pytest.warns(UserWarning, match=r"mask of .*a\.jpg holds 252 values without a class: was it resized"):
        assert [file.image_id for file in check_images(read_folder(root))[1]] == ["a"]
