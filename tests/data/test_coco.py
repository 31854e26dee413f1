from __future__ import annotations

import json
import unicodedata

import numpy as np
import pytest
from PIL import Image

from ppl.data import InstanceMask, check_images, open_dataset, read_coco
from ppl.errors import PPLValueError


def runs(mask):
    """The uncompressed run-length code of a mask, the slow way."""
    flat, counts, value = mask.ravel(order="F"), [], 0
    position = 0
    while position < flat.size:
        end = position
        while end < flat.size and flat[end] == value:
            end += 1
        counts.append(end - position)
        position, value = end, 1 - value
    return counts


def packed(counts):
    """COCO's compressed code, written from its description: signed 5-bit groups, low bits first, offset 48."""
    text = ""
    for i, count in enumerate(counts):
        value = count - counts[i - 2] if i > 2 else count
        while True:
            bits, value = value & 31, value >> 5
            done = (value == 0 and not bits & 16) or (value == -1 and bits & 16)
            text += chr(48 + bits + (0 if done else 32))
            if done:
                break
    return text


@pytest.fixture
def coco(tmp_path):
    root = tmp_path / "coco"
    (root / "annotations").mkdir(parents=True)
    (root / "val2017").mkdir()
    for name in ("000000000009.jpg", "000000000025.jpg"):
        Image.new("RGB", (8, 6)).save(root / "val2017" / name)
    blob = np.zeros((6, 8), int)
    blob[2:4, 3:6] = 1
    content = {
        "images": [
            {"id": 9, "file_name": "000000000009.jpg", "height": 6, "width": 8},
            {"id": 25, "file_name": "000000000025.jpg", "height": 6, "width": 8},
        ],
        "categories": [{"id": 90, "name": "toothbrush"}, {"id": 1, "name": "person"}],
        "annotations": [
            {
                "image_id": 9,
                "category_id": 1,
                "area": 6,
                "iscrowd": 1,
                "segmentation": {"counts": runs(blob), "size": [6, 8]},
            },
            {"image_id": 9, "category_id": 90, "area": 40, "iscrowd": 0, "segmentation": [[0, 0, 8, 0, 8, 5, 0, 5]]},
        ],
    }
    (root / "annotations" / "instances_val2017.json").write_text(json.dumps(content))
    return root


def test_it_is_read_as_it_unpacks(coco):
    dataset = open_dataset(coco, "val2017")
    assert dataset.classes == ("person", "toothbrush")
    assert dataset.image_ids == ("000000000009", "000000000025")
    assert [sample.labels for sample in dataset] == [(0, 1), ()]
    expected = np.zeros((6, 8))
    expected[:5] = 2
    expected[2:4, 3:6] = 1  # the smaller one stays on top
    assert np.array_equal(dataset[0].read_mask(), expected)
    assert not dataset[1].read_mask().any()
    assert read_coco(coco) == dataset


def test_compressed_and_plain_run_lengths_agree():
    rng = np.random.default_rng(0)
    for shape in ((1, 1), (7, 5), (60, 90)):
        mask = (rng.random(shape) < 0.05).astype(int)
        mask[: shape[0] // 2] = 1
        for counts in (runs(mask), packed(runs(mask))):
            got = InstanceMask(shape, ((0, 1.0, {"counts": counts, "size": list(shape)}),)).read()
            assert np.array_equal(got, mask)


def test_a_damaged_run_length_is_named():
    with pytest.raises(ValueError, match=r"covers 3 pixels of an image of \(2, 2\)"):
        InstanceMask((2, 2), ((0, 1.0, {"counts": [3], "size": [2, 2]}),)).read()


def test_polygons_cover_the_area_they_span():
    angle = np.linspace(0, 2 * np.pi, 200, endpoint=False)
    circle = np.stack([50 + 30 * np.cos(angle), 40 + 30 * np.sin(angle)], 1).ravel().tolist()
    mask = InstanceMask((90, 100), ((3, 1.0, [circle]),)).read()
    assert set(np.unique(mask)) == {0, 4}
    assert (mask > 0).sum() == pytest.approx(np.pi * 30**2, rel=0.01)
    rows, columns = np.nonzero(mask)
    assert (rows.mean() + 0.5, columns.mean() + 0.5) == pytest.approx((40, 50), abs=0.1)


def test_missing_and_damaged_files_are_named(coco):
    with pytest.raises(FileNotFoundError, match="no split 'train2017'; there are: val2017"):
        read_coco(coco, "train2017")
    with pytest.raises(FileNotFoundError, match="no annotations"):
        read_coco(coco / "val2017")
    (coco / "val2017" / "000000000025.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"val2017\.json: .* has no file for '000000000025\.jpg'"):
        read_coco(coco)
    assert len(read_coco(coco, missing="keep")) == 2
    path = coco / "annotations" / "instances_val2017.json"
    path.write_text(path.read_text()[:100])
    with pytest.raises(ValueError, match="not a whole COCO instances file"):
        read_coco(coco)
    (coco / "annotations" / "instances_b.json").write_text("{}")
    with pytest.raises(ValueError, match="splits b, val2017; name one"):
        read_coco(coco)
    with pytest.raises(ValueError, match="KeyError"):
        read_coco(coco, "b")


@pytest.mark.parametrize("outline", ["absent", None, [], [[]]])
def test_an_instance_without_an_outline_leaves_its_image_without_a_mask_and_is_named(coco, outline):
    path = coco / "annotations" / "instances_val2017.json"
    content = json.loads(path.read_text())
    content["annotations"][0]["segmentation"] = outline
    if outline == "absent":
        del content["annotations"][0]["segmentation"]
    path.write_text(json.dumps(content))
    with pytest.warns(UserWarning, match=r"1 of 2 images have no mask, because an instance has no outline.*: '0+9'"):
        dataset = read_coco(coco)
    assert [sample.labels for sample in dataset] == [(0, 1), ()]
    assert dataset[0].mask is None
    assert not dataset[1].read_mask().any()


def test_a_file_of_boxes_alone_gives_tags_and_no_masks(coco):
    path = coco / "annotations" / "instances_val2017.json"
    content = json.loads(path.read_text())
    for note in content["annotations"]:
        note["segmentation"], note["bbox"] = [], [0, 0, 8, 5]
    for image in content["images"]:
        del image["height"], image["width"]
    path.write_text(json.dumps(content))
    dataset = read_coco(coco)
    assert [sample.labels for sample in dataset] == [(0, 1), ()]
    assert [sample.mask for sample in dataset] == [None, None]


def change(root, edit):
    """Edit the content of the fixture's annotations."""
    path = root / "annotations" / "instances_val2017.json"
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def name_second(root, name):
    change(root, lambda content: content["images"][1].update(file_name=name))


def test_two_files_that_differ_in_extension_alone_are_refused(coco):
    Image.new("RGB", (8, 6)).save(coco / "val2017" / "000000000009.png")
    assert len(read_coco(coco)) == 2  # as long as only one of them is listed
    name_second(coco, "000000000009.png")
    with pytest.raises(PPLValueError, match=r"000000000009\.jpg and .*000000000009\.png are both named '000000000009'"):
        read_coco(coco)


@pytest.mark.parametrize("missing", ["error", "keep"])
@pytest.mark.parametrize("absolute", [True, False])
def test_a_file_name_that_leads_out_of_the_folder_is_refused(coco, missing, absolute):
    Image.new("RGB", (8, 6)).save(coco / "x.png")
    name_second(coco, (coco / "x.png").as_posix() if absolute else "../x.png")
    with pytest.raises(PPLValueError, match=r"image '.*/x' leads out of the folder of the images; name it by its path"):
        read_coco(coco, missing=missing)


DAMAGED = {
    "odd": ([[1, 2, 3, 4, 5, 6, 7]], "a polygon is [1, 2, 3, 4, 5, 6, ...], not x and y of three corners or more"),
    "too short": ([[1, 2, 3]], "a polygon is [1, 2, 3], not x and y"),
    "a box": ([[1, 2, 3, 4]], "a polygon is [1, 2, 3, 4], not x and y"),
    "flat": ([1, 2, 3, 4, 5], "a polygon is [1, 2, 3, 4, 5], not x and y"),
    "fractions": ([[0.1, 0.1, 0.8, 0.1, 0.8, 0.9]], "all within the first pixel: are these fractions?"),
    "null": ([[1, 2, 3, 4, 5, None]], "not x and y"),
    "words": ([["a", 2, 3, 4, 5, 6]], "ValueError: could not convert string to float"),
    "nested": ([[[1, 2], [3, 4], [5]]], "its outlines cannot be drawn (ValueError"),
    "negative run": ({"counts": [50, -2]}, "its outlines cannot be drawn (ValueError"),
    "endless run": ({"counts": [10**15]}, "covers 1000000000000000 pixels of an image of (6, 8)"),
    "no runs": ({"size": [6, 8]}, "its outlines cannot be drawn (KeyError: 'counts')"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_an_image_with_a_damaged_outline_is_left_out(coco, name):
    outline, words = DAMAGED[name]
    change(coco, lambda content: content["annotations"][0].update(segmentation=outline))
    with pytest.warns(UserWarning, match="coco/val2017: '000000000009' is left out: "):
        good, bad = check_images(read_coco(coco, missing="keep"))
    assert good.image_ids == ("000000000025",)
    assert words in bad[0].reason
    assert "\n" not in bad[0].reason


@pytest.mark.parametrize(("on_disk", "written"), [("NFD", "NFC"), ("NFC", "NFD")])
def test_accents_may_be_stored_in_either_form(coco, on_disk, written):
    images = coco / "val2017"
    (images / "000000000025.jpg").rename(images / unicodedata.normalize(on_disk, "caf\u00e9.jpg"))
    name_second(coco, unicodedata.normalize(written, "caf\u00e9.jpg"))
    change(coco, lambda content: content["categories"][0].update(name=unicodedata.normalize(written, "gar\u00e7on")))
    dataset = read_coco(coco)
    assert dataset.image_ids[1] == "caf\u00e9"
    assert dataset.classes == ("person", "gar\u00e7on")
    assert dataset[1].read_image().size == (8, 6)


def test_a_category_named_background_is_refused(coco):
    change(coco, lambda content: content["categories"][0].update(name="Background"))
    with pytest.raises(
        PPLValueError, match="coco/val2017 has a class 'Background', but the background is always there"
    ):
        read_coco(coco)


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b'{"categories": [{"id": 1}], "annotations": [], "images": []}'])
def test_a_file_of_other_bytes_or_nameless_categories_is_named(coco, content):
    (coco / "annotations" / "instances_val2017.json").write_bytes(content)
    with pytest.raises(PPLValueError, match="not a whole COCO instances file"):
        read_coco(coco)


def test_lines_beside_polygons_have_no_area(coco):
    before = read_coco(coco)[0].read_mask()
    change(coco, lambda content: content["annotations"][1]["segmentation"].append([1, 2, 3, 4]))
    assert np.array_equal(read_coco(coco)[0].read_mask(), before)


def test_a_background_that_no_instance_has_is_no_class(coco):
    classes = read_coco(coco).classes
    change(coco, lambda content: content["categories"].insert(0, {"id": 0, "name": "Background"}))
    assert read_coco(coco).classes == classes


def test_another_size_names_the_json_and_both_sizes(coco):
    change(coco, lambda content: content["images"][0].update(height=60, width=80))
    change(coco, lambda content: content["annotations"].pop(0))
    with pytest.warns(
        UserWarning, match=r"instances_val2017\.json says that .*9\.jpg is \(60, 80\) but .* is \(6, 8\)"
    ):
        assert check_images(read_coco(coco))[0].image_ids == ("000000000025",)


def export(root, files, images, categories):
    """Write one polygon of the first class in the middle of every image."""
    for path, prefix in files.items():
        folder = (root / path).parent
        (folder / images).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 6)).save(folder / images / f"{prefix.replace('/', '_')}a.jpg")
        used = categories[-1]["id"]
        content = {
            "images": [{"id": 0, "file_name": f"{prefix}a.jpg".replace("/", "_"), "height": 6, "width": 8}],
            "categories": categories,
            "annotations": [{"image_id": 0, "category_id": used, "segmentation": [[2, 1, 6, 1, 6, 5, 2, 5]]}],
        }
        (root / path).write_text(json.dumps(content))


EXPECTED = [[0] * 8, *([[0, 0, 1, 1, 1, 1, 0, 0]] * 4), [0] * 8]


def test_roboflow_has_a_file_beside_the_images_of_each_split_and_a_category_that_groups_the_others(tmp_path):
    categories = [{"id": 0, "name": "pets", "supercategory": "none"}, {"id": 1, "name": "cat", "supercategory": "pets"}]
    export(tmp_path, {f"{s}/_annotations.coco.json": f"{s}_" for s in ("train", "valid")}, ".", categories)
    for split in ("val", "valid"):
        dataset = open_dataset(tmp_path, split)
        assert (dataset.classes, dataset.image_ids) == (("cat",), ("valid_a",))
        assert dataset[0].read_mask().tolist() == EXPECTED
    assert open_dataset(tmp_path, "train").image_ids == ("train_a",)
    with pytest.raises(PPLValueError, match="has the splits train, valid; name one"):
        open_dataset(tmp_path)


def test_label_studio_has_one_file_beside_the_images(tmp_path):
    export(tmp_path, {"result.json": ""}, "images", [{"id": 0, "name": "cat"}])
    (sample,) = open_dataset(tmp_path)
    assert (sample.image_id, sample.labels) == ("a", (0,))
    assert sample.read_mask().tolist() == EXPECTED


def test_a_json_of_another_name_is_read_where_the_layout_is_named(tmp_path):
    export(tmp_path, {"train.json": ""}, "images", [{"id": 7, "name": "cat"}])
    assert open_dataset(tmp_path, "train", "coco")[0].read_mask().tolist() == EXPECTED


def test_runs_are_checked_against_the_box_of_the_instance(coco):
    blob = np.zeros((6, 8), int)
    blob[2:4, 3:6] = 1

    def by_row(content):
        own = content["annotations"][0]
        own.update(bbox=[3, 2, 3, 2], segmentation={"counts": runs(blob.T), "size": [8, 6]})
        content["annotations"].pop()

    change(coco, by_row)
    assert np.array_equal(read_coco(coco)[0].read_mask(), blob)
    change(coco, lambda content: content["annotations"][0].update(bbox=[0, 0, 8, 1]))
    with pytest.raises(PPLValueError, match=r"but its bbox is \(0, 0, 8, 1\)"):
        read_coco(coco)[0].read_mask()


@pytest.mark.parametrize("outline", [[2, 1, 6, 1, 6, 5, 2, 5], [[[2, 1], [6, 1], [6, 5], [2, 5]]]])
def test_a_polygon_may_be_flat_or_of_pairs(coco, outline):
    masks = []
    for form in ([[2, 1, 6, 1, 6, 5, 2, 5]], outline):
        change(coco, lambda content, form=form: content["annotations"][0].update(segmentation=form))
        masks.append(read_coco(coco)[0].read_mask())
    assert (masks[0] == 1).any() and (masks[0] == masks[1]).all()


def test_ids_and_sizes_may_be_text(coco):
    expected = [(sample.labels, sample.read_mask().tolist()) for sample in read_coco(coco)]

    def as_text(content):
        for note in content["annotations"]:
            note.update(image_id=str(note["image_id"]), category_id=str(note["category_id"]))
        for image in content["images"]:
            image.update(height=str(image["height"]), width=float(image["width"]))

    change(coco, as_text)
    assert [(sample.labels, sample.read_mask().tolist()) for sample in read_coco(coco)] == expected


def test_annotations_of_no_image_are_counted_and_those_of_no_category_refused(coco):
    change(coco, lambda content: content["annotations"][0].update(image_id=77))
    with pytest.warns(UserWarning, match=r"val2017\.json: 1 of \d annotations are left out, .* their image_id: '77'"):
        read_coco(coco)
    change(coco, lambda content: content["annotations"][0].update(id=5, category_id=4))
    with pytest.raises(PPLValueError, match="annotation 5 has category_id 4, and no category has that id"):
        read_coco(coco)


def test_an_image_that_is_listed_twice_is_named_once(coco):
    name_second(coco, "000000000009.jpg")
    with pytest.raises(PPLValueError, match=r"lists .*000000000009\.jpg twice"):
        read_coco(coco)
