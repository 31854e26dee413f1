from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from ppl.data import VOC_CLASSES, open_dataset, read_voc
from ppl.io import write_mask

XML = "<annotation><filename>x</filename>{}</annotation>"
OBJECT = "<object><name>{}</name><part><name>head</name></part><difficult>1</difficult></object>"


@pytest.fixture
def voc(tmp_path):
    base = tmp_path / "VOCdevkit" / "VOC2012"
    for folder in ("JPEGImages", "Annotations", "SegmentationClass", "ImageSets/Segmentation", "ImageSets/Main"):
        (base / folder).mkdir(parents=True)
    for image_id, names in {"2007_000032": ["person", "aeroplane", "person"], "2007_000039": ["tvmonitor"]}.items():
        Image.new("RGB", (8, 6)).save(base / "JPEGImages" / f"{image_id}.jpg")
        (base / "Annotations" / f"{image_id}.xml").write_text(XML.format("".join(map(OBJECT.format, names))))
    write_mask(base / "SegmentationClass" / "2007_000032.png", np.zeros((6, 8), np.uint8))
    (base / "ImageSets" / "Segmentation" / "train.txt").write_text("2007_000032\n")
    (base / "ImageSets" / "Main" / "train.txt").write_text("2007_000032\n2007_000039\n")
    (base / "ImageSets" / "Main" / "dog_train.txt").write_text("2007_000032 -1\n")
    return base


@pytest.mark.filterwarnings("ignore:.*no image is tagged")
def test_it_is_read_as_it_unpacks(voc):
    for root in (voc, voc.parent, voc.parent.parent):
        dataset = open_dataset(root, "train")
        assert dataset.classes == VOC_CLASSES
        assert dataset.image_ids == ("2007_000032",)
        assert [dataset.classes[label] for label in dataset[0].labels] == ["aeroplane", "person"]
        assert dataset[0].read_mask().shape == (6, 8)
        assert dataset.name == "VOC2012/train"
    assert len(read_voc(voc, "Main/train")) == len(read_voc(voc)) == 2
    assert read_voc(voc)[1].mask is None


def test_classes_are_vocs_in_its_order():
    assert len(VOC_CLASSES) == 20
    assert list(VOC_CLASSES) == sorted(VOC_CLASSES)


@pytest.mark.filterwarnings("ignore:.*no image is tagged")
def test_own_classes_in_vocs_layout(voc):
    (voc / "Annotations" / "2007_000039.xml").write_text(XML.format(OBJECT.format("scratch")))
    with pytest.raises(ValueError, match=r"2007_000039\.xml: object 'scratch' is not among the 20"):
        read_voc(voc)
    (voc / "classes.txt").write_text("scratch\nperson\naeroplane\n")
    assert read_voc(voc)[1].labels == (0,)


@pytest.mark.filterwarnings("ignore:.*no image is tagged")
def test_missing_and_damaged_files_are_named(voc):
    with pytest.raises(FileNotFoundError, match="no split 'vla'; there are: Main/train, Segmentation/train"):
        read_voc(voc, "vla")
    with pytest.raises(FileNotFoundError, match="no folder JPEGImages"):
        read_voc(voc / "Annotations")
    (voc / "Annotations" / "2007_000032.xml").write_text("<annotation>")
    with pytest.raises(ValueError, match=r"2007_000032\.xml is not whole XML"):
        read_voc(voc, "train")
    (voc / "Annotations" / "2007_000032.xml").unlink()
    with pytest.raises(FileNotFoundError, match=r"2007_000032\.xml is missing"):
        read_voc(voc, "train")
    (voc / "JPEGImages" / "2007_000039.jpg").unlink()
    with pytest.raises(FileNotFoundError, match="no file for '2007_000039'"):
        read_voc(voc)
    assert read_voc(voc, missing="keep").image_ids == ("2007_000039",)


def test_several_years_need_a_choice(voc):
    (voc.parent / "VOC2007" / "JPEGImages").mkdir(parents=True)
    with pytest.raises(ValueError, match="VOC2007, VOC2012; name one"):
        read_voc(voc.parent)


@pytest.mark.filterwarnings("ignore:.*no image is tagged")
def test_endings_of_masks_may_be_in_capitals_and_masks_of_no_image_are_named(voc):
    masks = voc / "SegmentationClass"
    (masks / "2007_000032.png").rename(masks / "2007_000032.PNG")
    assert read_voc(voc, "train")[0].read_mask().shape == (6, 8)
    write_mask(voc / "SegmentationClassAug" / "2007_000032.png", np.zeros((1, 1), np.uint8))
    assert read_voc(voc, "train")[0].mask == masks.resolve() / "2007_000032.PNG"
    (masks / "2007_000032.PNG").rename(masks / "32.png")
    with pytest.warns(UserWarning, match="SegmentationClass holds 1 files and none is named after an image"):
        read_voc(voc, "train")


@pytest.mark.filterwarnings("ignore:.*no image is tagged")
def test_accents_may_be_stored_in_either_form(voc):
    for folder, suffix in (("JPEGImages", "jpg"), ("Annotations", "xml"), ("SegmentationClass", "png")):
        (voc / folder / f"2007_000032.{suffix}").rename(voc / folder / f"cafe\u0301.{suffix}")
    (voc / "Annotations" / "cafe\u0301.xml").write_text(XML.format(OBJECT.format("gar\u00e7on")), encoding="utf-8")
    (voc / "classes.txt").write_text("tvmonitor\ngarc\u0327on\n", encoding="utf-8")
    (voc / "ImageSets" / "Segmentation" / "train.txt").write_text("caf\u00e9\n", encoding="utf-8")
    (sample,) = read_voc(voc, "train")
    assert (sample.image_id, sample.labels) == ("caf\u00e9", (1,))
    assert sample.read_image().size == (8, 6)
    assert sample.read_mask().shape == (6, 8)
    assert len(read_voc(voc)) == 2


@pytest.fixture
def cvat(tmp_path):
    """CVAT's "Segmentation mask" export: masks in colours, a table of them, no annotations."""
    for folder in ("JPEGImages", "SegmentationClass", "SegmentationObject", "ImageSets/Segmentation"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "labelmap.txt").write_text(
        "# label:color_rgb:parts:actions\nbackground:0,0,0::\ncat:250,50,83::\ndog:51,221,255::\n"
    )
    for name, colours in {"a": [(0, 0, 0), (51, 221, 255)], "b": [(250, 50, 83), (51, 221, 255)]}.items():
        Image.new("RGB", (2, 1)).save(tmp_path / "JPEGImages" / f"{name}.jpg")
        Image.fromarray(np.array([colours], np.uint8)).save(tmp_path / "SegmentationClass" / f"{name}.png")
    (tmp_path / "ImageSets" / "Segmentation" / "default.txt").write_text("a\nb\n")
    return tmp_path


@pytest.mark.filterwarnings("ignore:.*every image is tagged")
def test_a_segmentation_mask_export_of_cvat_is_read(cvat):
    dataset = open_dataset(cvat, "default")
    assert dataset.classes == ("cat", "dog")
    assert [sample.read_mask().tolist() for sample in dataset] == [[[0, 2]], [[1, 2]]]
    assert [sample.labels for sample in dataset] == [(1,), (0, 1)]
    assert open_dataset(cvat).image_ids == ("a", "b")


@pytest.mark.filterwarnings("ignore:.*every image is tagged")
def test_without_annotations_an_image_without_a_mask_is_named(cvat):
    (cvat / "SegmentationClass" / "b.png").unlink()
    assert open_dataset(cvat).image_ids == ("a",)
    with pytest.raises(FileNotFoundError, match="has no folder Annotations, and 'b' has no mask"):
        open_dataset(cvat, "default")


@pytest.mark.filterwarnings("ignore:.*no image is tagged")
def test_without_annotations_the_tags_are_those_of_the_masks(voc):
    for path in (voc / "Annotations").iterdir():
        path.unlink()
    (voc / "Annotations").rmdir()
    write_mask(voc / "SegmentationClass" / "2007_000032.png", np.array([[0, 15, 255, 1]] * 6).repeat(2, 1))
    (sample,) = read_voc(voc)
    assert [VOC_CLASSES[label] for label in sample.labels] == ["aeroplane", "person"]


@pytest.mark.filterwarnings("ignore:.*no image is tagged")
@pytest.mark.parametrize(
    "line", ["/JPEGImages/2007_000032.jpg /SegmentationClassAug/2007_000032.png", "2007_000032  1", "2007_000032 -1"]
)
def test_lists_with_further_columns_are_read(voc, line):
    (voc / "ImageSets" / "Segmentation" / "train_aug.txt").write_text(f"{line}\n")
    assert open_dataset(voc, "train_aug").image_ids == ("2007_000032",)
