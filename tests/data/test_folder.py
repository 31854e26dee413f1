from __future__ import annotations

import unicodedata
import warnings
from functools import partial

import pytest
from PIL import Image

from ppl.data import open_dataset, read_folder, read_images
from ppl.errors import PPLError, PPLFileNotFoundError, PPLValueError


def test_everything_is_read(root):
    dataset = read_folder(root)
    assert dataset.classes == ("cat", "dog")
    assert dataset.image_ids == ("a", "b.c", "sub/d")
    assert [sample.labels for sample in dataset] == [(1,), (0, 1), ()]
    assert [sample.image.name for sample in dataset] == ["a.jpg", "b.c.png", "d.JPG"]
    assert [sample.mask and sample.mask.name for sample in dataset] == ["a.png", None, "d.png"]
    assert dataset.name == "pets"
    assert dataset[0].read_image().size == (40, 30)
    assert dataset[0].read_mask().shape == (30, 40)


def test_splits(root):
    with pytest.warns(UserWarning, match=r"pets/train: no image is tagged 'cat'"):
        assert read_folder(root, "train").image_ids == ("a", "sub/d")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_folder(root, "val").name == "pets/val"
    assert open_dataset(root, "val") == read_folder(root, "val")


def test_files_from_a_spreadsheet_on_windows(root):
    text = (root / "labels.csv").read_text().replace("\n", "\r\n")
    (root / "labels.csv").write_bytes(b"\xef\xbb\xbf" + text.encode() + b"\r\n,\r\n")
    (root / "classes.txt").write_bytes(b"\xef\xbb\xbfcat\r\ndog\r\n\r\n")
    assert [sample.labels for sample in read_folder(root)] == [(1,), (0, 1), ()]


def test_columns_in_another_order_and_quotes(root):
    (root / "labels.csv").write_text('labels,who,Image\n"dog;cat;dog",me,"a"\n')
    dataset = read_folder(root)
    assert dataset[0].labels == (0, 1)


BROKEN = {
    "unknown tag": ("labels.csv", "image,labels\na,dog\nb.c,dgo\n", r"labels\.csv line 3: tag 'dgo' .*mean 'dog'\?"),
    "case of a tag": ("labels.csv", "image,labels\na,Dog\n", r"tag 'Dog' .*mean 'dog'"),
    "nothing near": ("labels.csv", "image,labels\na,zebra\n", r"tag 'zebra' .*there are: cat, dog"),
    "duplicate row": (
        "labels.csv",
        "image,labels\na,dog\na.jpg,cat\n",
        r"line 3: 'a\.jpg' is already on line 2; merge",
    ),
    "empty file": ("labels.csv", "", r"labels\.csv is empty"),
    "header only": ("labels.csv", "image,labels\n\n", "holds a header and no rows"),
    "no header": ("labels.csv", "a,dog\n", r"line 1: the header is 'a,dog'; it must hold image,labels"),
    "commas": ("labels.csv", "image,labels\na,dog,cat\n", r"line 2: 3 cells instead of 2; put \";\""),
    "open quote": ("labels.csv", 'image,labels\na,"dog\nb.c,cat\n', r'labels\.csv line 2: a quote \("\) opens a cell'),
    "open quote, closed by another": (
        "labels.csv",
        'image,labels\na,"dog\nb.c,"cat;dog"\nsub/d,\n',
        r'labels\.csv line 2: a quote \("\) opens a cell',
    ),
    "open quote before many rows": (
        "labels.csv",
        'image,labels\na,dog\nb.c,"cat\n' + "".join(f"image {i:06},dog\n" for i in range(10_000)),
        r'labels\.csv line 3: a quote \("\) opens a cell',
    ),
    "open quote in the last row": ("labels.csv", 'image,labels\na,dog\nb.c,"cat', "line 3: a quote"),
    "open quote in a column of notes": (
        "labels.csv",
        'image,labels,notes\na,dog,"12 inch\nb.c,cat,\n',
        "line 2: a quote",
    ),
    "nameless": ("labels.csv", "image,labels\n,dog\n", "line 2: the image has no name"),
    "missing image": (
        "labels.csv",
        "image,labels\na,dog\nb_c,cat\n",
        r"labels\.csv line 3: .*'b_c'; did you mean 'b\.c'",
    ),
    "no classes": ("classes.txt", "\n", "classes.txt is empty"),
    "class twice": ("classes.txt", "cat\ndog\ncat\n", "line 3: 'cat' is already on line 1"),
    "semicolon": ("classes.txt", "cat\ndog;s\n", 'line 2: .* holds a ";"'),
    "not in csv": ("train.txt", "a\nzz\n", r"train\.txt line 2: image 'zz' has no row in labels\.csv"),
    "twice in list": ("train.txt", "a\na.jpg\n", r"train\.txt line 2: 'a\.jpg' is already on line 1"),
    "empty list": ("train.txt", "\n", r"train\.txt is empty"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_faulty_files_are_named_in_one_line(root, name):
    file, content, words = BROKEN[name]
    (root / file).write_text(content)
    with pytest.raises(PPLError, match=words) as caught:
        read_folder(root, "train" if file == "train.txt" else None)
    assert "\n" not in str(caught.value)


def test_a_column_of_notes_may_go_over_several_lines(root):
    (root / "labels.csv").write_text('image,labels,notes\na,dog,"two\nlines"\nb.c,"cat;dog" ,a 12" one\nsub/d,,')
    assert [sample.labels for sample in read_folder(root)] == [(1,), (0, 1), ()]
    (root / "labels.csv").write_text('image,labels,notes\na,dog,"two\nlines"\nb.c,cta,\n')
    with pytest.raises(PPLValueError, match="line 4: tag 'cta'"):
        read_folder(root)


def test_missing_files_are_named(root):
    with pytest.raises(PPLFileNotFoundError, match="no split 'tset'; there are: train, val"):
        read_folder(root, "tset")
    with pytest.raises(PPLFileNotFoundError, match="is not a folder"):
        read_folder(root / "nowhere")
    content = (root / "labels.csv").read_bytes()
    (root / "labels.csv").unlink()
    with pytest.raises(PPLFileNotFoundError, match=r"labels\.csv is missing"):
        read_folder(root)
    (root / "labels.csv").write_bytes(content)
    (root / "classes.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(PPLValueError, match="not UTF-8"):
        read_folder(root)


def test_missing_images_can_be_left_to_the_check_of_images(root):
    (root / "images" / "a.jpg").unlink()
    with pytest.raises(PPLFileNotFoundError, match=r"labels\.csv line 2: .*images has no file for 'a\.jpg'"):
        read_folder(root)
    assert read_folder(root, missing="keep").image_ids == ("a", "b.c", "sub/d")
    with pytest.raises(PPLValueError, match="'drop'"):
        read_folder(root, missing="drop")


def test_two_files_of_one_name(root):
    Image.new("RGB", (2, 2)).save(root / "images" / "a.png")
    with pytest.raises(PPLValueError, match=r"a\.png and a\.jpg differ in extension"):
        read_folder(root)


def test_hidden_files_and_other_files_are_ignored(root):
    (root / "images" / "._a.jpg").write_bytes(b"")
    (root / "images" / "notes.md").write_text("")
    assert len(read_folder(root)) == 3


def test_without_a_list_of_classes_the_tags_are_the_classes(root):
    with_list = read_folder(root)
    (root / "classes.txt").unlink()
    with pytest.warns(UserWarning, match="misspelt tag"):
        without = read_folder(root)
    assert without.classes == tuple(sorted(with_list.classes))
    for one, other in zip(with_list, without, strict=True):
        assert {with_list.classes[i] for i in one.labels} == {without.classes[i] for i in other.labels}


def test_an_unknown_tag_beside_a_folder_of_pictures_names_no_file_that_is_not_there(root):
    (root / "labels.csv").write_text("image,labels\na,dgo\n")
    with pytest.raises(PPLValueError, match="tag 'dgo' of image 'a' is not among the classes; did you mean 'dog'"):
        read_images(root / "images", ("cat", "dog"), root / "labels.csv")


@pytest.mark.parametrize(("on_disk", "written"), [("NFD", "NFC"), ("NFC", "NFD")])
def test_accents_may_be_stored_in_either_form(root, on_disk, written):
    disk, text = (partial(unicodedata.normalize, form) for form in (on_disk, written))
    (root / "images" / "a.jpg").rename(root / "images" / disk("caf\u00e9.jpg"))
    (root / "masks" / "a.png").rename(root / "masks" / disk("caf\u00e9.png"))
    (root / "labels.csv").write_text(text("image,labels\ncaf\u00e9.jpg,gar\u00e7on\n"), encoding="utf-8")
    (root / "classes.txt").write_text(disk("gar\u00e7on\n"), encoding="utf-8")
    (root / "train.txt").write_text(text("caf\u00e9\n"), encoding="utf-8")
    (sample,) = read_folder(root, "train")
    assert (sample.image_id, sample.labels) == ("caf\u00e9", (0,))
    assert sample.read_image().size == (40, 30)
    assert sample.read_mask().shape == (30, 40)
    assert read_images(root / "images", [disk("gar\u00e7on")], root / "labels.csv")[0].labels == (0,)


def test_masks_with_an_ending_in_capitals_are_read(root):
    (root / "masks" / "a.png").rename(root / "masks" / "a.PNG")
    assert read_folder(root)[0].read_mask().shape == (30, 40)


def test_masks_of_no_image_are_named_in_a_warning(root):
    (root / "masks" / "a.png").rename(root / "masks" / "a_mask.png")
    with pytest.warns(UserWarning, match="1 of 2 masks left out, because no image has the name: 'a_mask'"):
        assert [sample.mask for sample in read_folder(root, "val")] == [None]
    (root / "masks" / "sub" / "d.png").rename(root / "masks" / "sub" / "e.png")
    with pytest.warns(
        UserWarning,
        match=r"masks holds 2 files and none is named after an image: scores need NAME\.png .* are 'a_mask\.png'",
    ):
        assert all(sample.mask is None for sample in read_folder(root))


@pytest.mark.parametrize("listed", [True, False])
@pytest.mark.filterwarnings("ignore:.*classes.txt is missing")
def test_a_tag_named_background_is_refused(root, listed):
    (root / "labels.csv").write_text("image,labels\na,Background;dog\n")
    (root / "classes.txt").write_text("Background\ndog\n")
    if not listed:
        (root / "classes.txt").unlink()
    with pytest.raises(PPLValueError, match="pets has a class 'Background', but the background is always there"):
        read_folder(root)


def test_pictures_of_a_folder_have_the_range_that_is_given(root):
    samples = read_images(root / "images", ("cat", "dog"), value_range=4095)
    assert [sample.value_range for sample in samples] == [4095] * 3
    assert read_images(root / "images", ("cat", "dog"), root / "labels.csv", value_range=4095)[0].value_range == 4095
