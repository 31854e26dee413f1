"""Masks in colours, and masks whose 0 or 255 mean something else."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from ppl.data import check_images, open_dataset
from ppl.data.mask_sources import find_color_table
from ppl.errors import PPLValueError
from ppl.io import write_mask

CAT, DOG, VOID = (250, 50, 83), (0, 200, 10), (224, 224, 192)


@pytest.fixture
def coloured(tmp_path):
    """One image whose mask is: background, cat, dog, void."""
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    Image.new("RGB", (4, 1)).save(tmp_path / "images" / "a.png")
    Image.fromarray(np.array([[(0, 0, 0), CAT, DOG, VOID]], np.uint8)).save(tmp_path / "masks" / "a.png")
    (tmp_path / "labels.csv").write_text("image,labels\na.png,cat;dog\n")
    return tmp_path


TABLES = {
    "labelmap.txt": (
        "# label:color_rgb:parts:actions\nbackground:0,0,0::\ncat:250,50,83::\ndog:0,200,10::\nvoid:224,224,192::\n"
    ),
    "class_dict.csv": "name,r,g,b\ncat,250,50,83\ndog,0,200,10\nVoid,224,224,192\n",
}


@pytest.mark.parametrize("name", TABLES)
def test_colours_are_read_by_the_table(coloured, name):
    (coloured / name).write_text(TABLES[name])
    dataset = open_dataset(coloured)
    assert dataset.classes == ("cat", "dog")
    assert dataset[0].labels == (0, 1)
    assert dataset[0].read_mask().tolist() == [[0, 1, 2, 255]]
    assert check_images(dataset) == (dataset, [])


def test_classes_txt_sets_the_order(coloured):
    (coloured / "labelmap.txt").write_text(TABLES["labelmap.txt"])
    (coloured / "classes.txt").write_text("dog\ncat\n")
    assert open_dataset(coloured)[0].read_mask().tolist() == [[0, 2, 1, 255]]
    (coloured / "classes.txt").write_text("dog\ncow\ncat\n")
    with pytest.raises(PPLValueError, match=r"classes\.txt and the colour table differ in the classes cow"):
        open_dataset(coloured)


def test_a_colour_without_a_class_is_named(coloured):
    (coloured / "labelmap.txt").write_text("cat:250,50,83::\ndog:0,200,10::\n")
    with pytest.raises(PPLValueError, match=r"none of the 1 images .* 1 colour without a class, \(224, 224, 192\)"):
        check_images(open_dataset(coloured))


@pytest.mark.filterwarnings("ignore:.*classes.txt is missing")
def test_colours_without_a_table_are_named(coloured):
    with pytest.raises(PPLValueError, match=r"is a RGB picture, .*if its colours mean classes, name them in labelmap"):
        check_images(open_dataset(coloured))


def test_a_palette_mask_is_read_by_its_colours_where_a_table_is(coloured):
    image = Image.fromarray(np.array([[7, 3, 9, 0]], np.uint8))
    palette = np.zeros((256, 3), np.uint8)
    palette[[3, 9, 0]] = CAT, DOG, VOID
    image.putpalette(palette.tobytes())
    image.save(coloured / "masks" / "a.png")
    (coloured / "labelmap.txt").write_text(TABLES["labelmap.txt"])
    assert open_dataset(coloured)[0].read_mask().tolist() == [[0, 1, 2, 255]]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("cat:250,50::\n", "line 1: 'cat' needs a colour"),
        ("cat:1,2,3::\ndog:1,2,3::\n", "line 2: 'dog' has the colour of another class"),
        ("cat:1,2,300::\n", "line 1: 'cat' needs a colour"),
        ("background:0,0,0::\n", "names no class"),
    ],
)
def test_a_faulty_table_is_named(tmp_path, text, words):
    (tmp_path / "labelmap.txt").write_text(text)
    with pytest.raises(PPLValueError, match=words):
        find_color_table(tmp_path)


@pytest.fixture
def binary(tmp_path):
    """Two images of one class with black-and-white masks, and one image without the class."""
    (tmp_path / "images").mkdir()
    for name, mask in {"a": [[0, 255]], "b": [[255, 255]], "c": [[0, 0]]}.items():
        Image.new("RGB", (2, 1)).save(tmp_path / "images" / f"{name}.png")
        write_mask(tmp_path / "masks" / f"{name}.png", np.array(mask))
    (tmp_path / "labels.csv").write_text("image,labels\na,crack\nb,crack\nc,\n")
    (tmp_path / "classes.txt").write_text("crack\n")
    return tmp_path


def test_masks_of_0_and_255_are_refused_until_255_has_a_meaning(binary):
    with pytest.raises(PPLValueError, match=r"values of 3 masks are 0 and 255: object or ignore\? .*'a', 'b' have"):
        check_images(open_dataset(binary))
    dataset = open_dataset(binary, white="object")
    assert [sample.read_mask().tolist() for sample in dataset] == [[[0, 1]], [[1, 1]], [[0, 0]]]
    assert check_images(dataset) == (dataset, [])
    dataset = open_dataset(binary, white="ignore")
    assert [sample.read_mask().tolist() for sample in dataset] == [[[0, 255]], [[255, 255]], [[0, 0]]]
    with pytest.warns(UserWarning, match="masks of 2 of 3 images do not show the classes that their tags name"):
        assert check_images(dataset)[1] == []


def test_white_objects_need_a_single_class(root):
    with pytest.raises(PPLValueError, match='white="object" needs a data set of one class'):
        open_dataset(root, white="object")


def test_zero_can_mean_not_labelled(root):
    write_mask(root / "masks" / "a.png", np.tile([[0, 1, 2]], (30, 14))[:, :40])
    mask = open_dataset(root, zero="ignore")[0].read_mask()
    assert mask[0, :3].tolist() == [255, 1, 2]
