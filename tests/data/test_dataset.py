from __future__ import annotations

import gc
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ppl.data import MaskSource, Sample, TaggedImages, read_folder
from ppl.errors import PPLTypeError, PPLValueError


def make(count=4):
    return TaggedImages(("x", "y"), tuple(Sample(f"s{i}", Path(f"s{i}.png"), (i % 2,)) for i in range(count)), "set")


def test_it_is_a_sequence():
    dataset = make()
    assert len(dataset) == 4
    assert dataset[1].image_id == "s1"
    assert [sample.image_id for sample in dataset] == list(dataset.image_ids)
    assert dataset[1:3].image_ids == ("s1", "s2")
    assert dataset[-1] in dataset
    assert pickle.loads(pickle.dumps(dataset)) == dataset


def test_targets():
    assert torch.equal(make(3).targets(), torch.tensor([[1.0, 0], [0, 1], [1, 0]]))
    assert TaggedImages(("x",), ()).targets().shape == (0, 1)
    assert make().targets().dtype == torch.float32


def test_subsets_keep_the_order_asked_for():
    assert make().subset(["s3", "s0"]).image_ids == ("s3", "s0")
    assert make().without(["s3", "other"]).image_ids == ("s0", "s1", "s2")
    with pytest.raises(ValueError, match=r"set has no image 'S3'; did you mean 's3'"):
        make().subset(["S3"])


def test_labels_outside_the_classes_are_refused():
    with pytest.raises(ValueError, match=r"'a' has labels \(2,\), outside 0..1"):
        TaggedImages(("x", "y"), (Sample("a", Path("a.png"), (2,)),))
    with pytest.raises(ValueError, match="255 classes"):
        TaggedImages(tuple(map(str, range(255))), ())


def test_masks_come_from_a_source_and_a_missing_mask_is_named():
    class Drawn:
        def read(self):
            return torch.ones(2, 2).byte().numpy()

    assert isinstance(Drawn(), MaskSource)
    assert Sample("a", Path("a.png"), (), Drawn()).read_mask().sum() == 4
    with pytest.raises(ValueError, match="'a' has no mask"):
        Sample("a", Path("a.png"), ()).read_mask()


def test_two_images_of_one_name_are_refused():
    samples = tuple(Sample("val0", Path(f"images/val0.{suffix}"), ()) for suffix in ("png", "jpg"))
    words = (
        r"set: images.val0\.png and images.val0\.jpg are both named 'val0' without their extension; rename or remove"
    )
    with pytest.raises(PPLValueError, match=words):
        TaggedImages(("x",), samples, "set")
    accents = tuple(Sample(image_id, Path(image_id), ()) for image_id in ("caf\u00e9", "cafe\u0301"))
    with pytest.raises(PPLValueError, match="are both named"):
        TaggedImages(("x",), accents)


@pytest.mark.parametrize("image_id", ["../x", "a/../../x", "..", str(Path("x").absolute())])
def test_a_name_that_leads_out_of_the_folder_is_refused(image_id):
    with pytest.raises(PPLValueError, match="leads out of the folder of the images; name it by its path below"):
        TaggedImages(("x",), (Sample(image_id, Path("x.png"), ()),))
    assert len(TaggedImages(("x",), (Sample("a..b/..c", Path("x.png"), ()),))) == 1


@pytest.mark.parametrize("name", ["background", "Background", "BACKGROUND "])
def test_a_class_cannot_be_the_background(name):
    with pytest.raises(PPLValueError, match=f"set has a class '{name}', but the background is always there.*leave it"):
        TaggedImages(("cat", name), (), "set")
    assert TaggedImages(("background car",), ()).classes == ("background car",)


def test_images_are_chosen_by_names_in_either_form_of_accents():
    one, other = "caf\u00e9", "cafe\u0301"
    for stored, asked in ((one, other), (other, one)):
        images = TaggedImages(("x",), (Sample(stored, Path("a.png"), ()),))
        assert images.subset([asked]).image_ids == (stored,)
        assert images.without([asked]).image_ids == ()


@pytest.mark.parametrize("name", ["__ignore__", "_background_", "Background", "__background__"])
def test_names_of_other_tools_for_background_and_ignored_pixels_are_no_classes(name):
    with pytest.raises(PPLValueError, match=f"images has a class '{name}', but"):
        TaggedImages((name, "cat"), ())


def test_two_classes_of_one_name_are_refused():
    with pytest.raises(PPLValueError, match="two classes named 'cat'"):
        TaggedImages(("cat", "dog", "cat"), ())


def test_more_classes_than_masks_have_room_for_are_refused_at_once():
    names = [f"class {number}" for number in range(255)]
    assert len(TaggedImages(tuple(names[:254]), ()).classes) == 254
    with pytest.raises(PPLValueError, match="images has 255 classes, but 8-bit masks have room for 1 to 254"):
        TaggedImages(tuple(names), ())


@pytest.mark.parametrize("labels", [np.array([0, 2]), [0, 2], (np.int64(0), np.int32(2))])
def test_labels_may_be_any_integers(labels):
    sample = Sample("a", Path("a.jpg"), labels)
    assert sample.labels == (0, 2) and all(type(label) is int for label in sample.labels)


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ((0, 0, 1), r"not rising; instead of a row of zeros and ones give the indices: \(2,\)"),
        ((1, 0, 0), r"give the indices: \(0,\)"),
        ((2, 1), "not rising; give the class indices in rising order"),
        ((1, 1), "not rising"),
    ],
)
def test_rows_of_zeros_and_ones_are_not_taken_for_indices(labels, words):
    with pytest.raises(PPLValueError, match=words):
        TaggedImages(("x", "y", "z"), (Sample("a", Path("a.jpg"), labels),))


@pytest.mark.parametrize("labels", [("cat",), (0.5,), "cat"])
def test_labels_that_are_no_indices_are_refused(labels):
    with pytest.raises(PPLTypeError, match=r"image 'a' has labels .*, which must be a tuple of class indices"):
        Sample("a", Path("a.jpg"), labels)


def test_a_class_that_every_image_has_is_named(tmp_path):
    (tmp_path / "images").mkdir()
    for name in "ab":
        Image.new("RGB", (4, 3)).save(tmp_path / "images" / f"{name}.png")
    (tmp_path / "labels.csv").write_text("image,cat,dog\na,1,0\nb,1,1\n")
    with pytest.warns(UserWarning, match="every image is tagged 'cat': a classifier cannot learn from such tags where"):
        read_folder(tmp_path)


def test_samples_are_those_that_were_given_also_in_another_process():
    given = (
        Sample("a", Path("in/a.jpg"), (1,), Path("masks/a.png")),
        Sample("b", Path("in/b.png"), (0, 1), value_range=4095),
        Sample("c", Path("c.jpg"), ()),
    )
    images = TaggedImages(("cat", "dog"), given, "pets")
    for same in (images, pickle.loads(pickle.dumps(images)), images.subset("abc"), images.without(["x"])):
        assert same == images and tuple(same) == given
    assert images[-1] == given[-1] and tuple(images[::-2]) == given[::-2]
    assert tuple(images.subset(["c", "a"])) == (given[2], given[0])
    with pytest.raises(IndexError):
        images[3]


def test_a_data_set_keeps_no_object_per_image(tmp_path):
    (tmp_path / "images" / "in").mkdir(parents=True)
    names = [f"in/{number}.jpg" for number in range(300)]
    for name in names:
        (tmp_path / "images" / name).touch()
    rows = [f"{name},{tags}" for name, tags in zip(names, ["cat", "dog", "cat;dog"] * 100, strict=True)]
    (tmp_path / "labels.csv").write_text("\n".join(["image,labels", *rows]))
    (tmp_path / "classes.txt").write_text("cat\ndog\n")

    def kept():
        gc.collect()
        return sum(isinstance(thing, (Sample, Path)) for thing in gc.get_objects())

    before = kept()
    images = read_folder(tmp_path)
    assert len(images) == 300 and kept() - before < 30
    assert images[7].image == tmp_path / "images" / "in" / "7.jpg"
    assert len(images.subset(images.image_ids)) == 300 and kept() - before < 30
