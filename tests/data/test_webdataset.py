"""Tar archives are read as they lie, as if they were folders."""

from __future__ import annotations

import io
import json
import pickle
import tarfile
import warnings

import numpy as np
import pytest
from PIL import Image

from ppl.data import NoSplitError, check_images, open_dataset, read_images, read_webdataset
from ppl.errors import PPLFileNotFoundError, PPLValueError
from ppl.io import sha256
from ppl.io.archives import list_archive
from ppl.pipeline.results import hash_files

pytestmark = pytest.mark.filterwarnings("ignore:.*image is tagged", "ignore:.*are the classes")


def picture(seed, suffix=".png", size=(9, 7)):
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG" if suffix == ".jpg" else "PNG")
    return buffer.getvalue()


def mask(value, size=(9, 7)):
    buffer = io.BytesIO()
    Image.fromarray(np.full(size, value, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def write_tar(path, files):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, given in files.items():
            content = given.encode() if isinstance(given, str) else given
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


@pytest.fixture
def pets(tmp_path):
    root = tmp_path / "pets"
    write_tar(
        root / "pets-train-000.tar",
        {"a.png": picture(0), "a.cls": "1", "a.seg.png": mask(2), "b.v2.jpg": picture(1, ".jpg"), "b.v2.cls": "0 1"},
    )
    write_tar(root / "pets-train-001.tar", {"./in/a.png": picture(2), "./in/a.json": json.dumps({"labels": ["cat"]})})
    write_tar(root / "pets-val-000.tar", {"z.png": picture(3), "z.txt": "dog\n", "y.png": picture(4), "y.txt": ""})
    (root / "classes.txt").write_text("cat\ndog\n")
    return root


def test_images_tags_and_masks_of_all_archives_are_read(pets):
    images = open_dataset(pets)
    found = {sample.image_id: sample.labels for sample in images}
    assert found == {
        "pets-train-000/a": (1,),
        "pets-train-000/b.v2": (0, 1),
        "pets-train-001/in/a": (0,),
        "pets-val-000/z": (1,),
        "pets-val-000/y": (),
    }
    first = images[0]
    assert np.array_equal(np.asarray(first.read_image()), np.asarray(Image.open(io.BytesIO(picture(0)))))
    assert (first.read_mask() == 2).all()
    assert images[1].mask is None
    assert check_images(images, progress=False) == (images, [])
    assert pickle.loads(pickle.dumps(images[1])) == images[1]


def test_a_split_is_a_word_in_the_names_of_archives_or_folders(pets, tmp_path):
    assert open_dataset(pets, "train").image_ids == ("pets-train-000/a", "pets-train-000/b.v2", "pets-train-001/in/a")
    assert open_dataset(pets, "validation").name == "pets/val"
    with pytest.raises(NoSplitError, match="no split 'test'; there are: pets, train, val"):
        open_dataset(pets, "test")
    root = tmp_path / "folders"
    write_tar(root / "train" / "000.tar", {"a.png": picture(0), "a.txt": "cat"})
    write_tar(root / "val" / "000.tar", {"a.png": picture(1), "a.txt": "cat;dog"})
    assert open_dataset(root, "val").image_ids == ("val/000/a",)
    assert open_dataset(root).classes == ("cat", "dog")


def test_what_lacks_its_counterpart_is_left_out_and_named(tmp_path):
    write_tar(
        tmp_path / "x.tar", {"a.png": picture(0), "a.txt": "cat", "b.png": picture(1), "c.txt": "cat", "d.bin": "?"}
    )
    with pytest.warns(UserWarning) as found:
        assert read_webdataset(tmp_path).image_ids == ("x/a",)
    texts = " ".join(str(warning.message) for warning in found)
    assert "1 picture left out, without tags of the same name: 'x/b'" in texts
    assert "1 file of tags left out, without picture of the same name: 'x/c'" in texts


def test_an_archive_that_was_cut_off_gives_the_files_before_the_cut(tmp_path):
    names = {
        f"{name}{suffix}": picture(0) if suffix == ".png" else "cat" for name in "abc" for suffix in (".txt", ".png")
    }
    path = write_tar(tmp_path / "x.tar", names)
    whole = path.read_bytes()
    second, third = (list_archive(path)[f"{name}.png"] for name in "bc")
    # inside a picture, inside a header, and a header that is overwritten
    for content, kept in (
        (whole[: third.offset + 9], "ab"),
        (whole[: second.offset - 100], "a"),
        (whole[: second.offset - 512] + b"?" * 512 + whole[second.offset :], "a"),
    ):
        path.write_bytes(content)
        with pytest.warns(UserWarning, match=r"x\.tar is cut off or damaged: only the \d files before"):
            assert read_webdataset(tmp_path).image_ids == tuple(f"x/{name}" for name in kept)


def test_a_picture_that_is_broken_inside_its_archive_is_left_out_alone(tmp_path):
    write_tar(tmp_path / "x.tar", {"a.png": picture(0), "a.txt": "cat", "b.png": picture(1)[:60], "b.txt": "cat"})
    with pytest.warns(UserWarning, match=r"'x/b' is left out: .*x\.tar/b\.png cannot be read"):
        good, bad = check_images(read_webdataset(tmp_path), progress=False)
    assert (good.image_ids, [file.image_id for file in bad]) == (("x/a",), ["x/b"])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", "{", "the tags in .*x.tar/a.json cannot be read"),
        ("a.cls", "cat", "the tags in .*x.tar/a.cls cannot be read"),
        ("a.json", '{"caption": "a cat"}', "has the keys caption, but tags stand in labels"),
        ("a.json", '[1, "cat"]', "write names, or class indices from 0"),
        ("a.cls", "2", "a.png has the class index 2, but there are 2 classes"),
        ("a.txt", "catt", "a.png has the tag 'catt', which is not in classes.txt; did you mean 'cat'"),
    ],
)
def test_tags_that_are_not_understood_are_named(tmp_path, name, content, message):
    write_tar(tmp_path / "x.tar", {"a.png": picture(0), name: content})
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    with pytest.raises(PPLValueError, match=message):
        read_webdataset(tmp_path)


def test_numbers_need_the_names_of_the_classes(tmp_path):
    write_tar(tmp_path / "x.tar", {"a.png": picture(0), "a.cls": "1"})
    with pytest.raises(PPLValueError, match=r"classes\.txt is missing, and the tags are numbers"):
        read_webdataset(tmp_path)


def test_a_compressed_archive_is_refused(tmp_path):
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("a.png"))
    with pytest.raises(PPLValueError, match=r"x\.tar is no tar archive .*unpack a compressed one"):
        open_dataset(tmp_path)


def test_a_table_of_tags_names_images_in_archives(tmp_path):
    write_tar(tmp_path / "images" / "000.tar", {"a.png": picture(0), "a.mask.png": mask(1)})
    write_tar(tmp_path / "images" / "001.tar", {"a.png": picture(1), "b.png": picture(2)})
    (tmp_path / "labels.csv").write_text("image,labels\n000/a.png,cat\nb.png,dog\n001/a,cat\n")
    images = open_dataset(tmp_path)
    assert images.image_ids == ("000/a", "001/b", "001/a")
    assert np.array_equal(np.asarray(images[1].read_image()), np.asarray(Image.open(io.BytesIO(picture(2)))))


def test_archives_beside_pictures_are_no_pictures(tmp_path):
    write_tar(tmp_path / "backup.tar", {"a.png": picture(0)})
    (tmp_path / "a.png").write_bytes(picture(0))
    assert read_images(tmp_path, ["cat"]).image_ids == ("a",)


def test_an_archive_alone_is_a_folder_of_pictures(tmp_path):
    path = write_tar(tmp_path / "x.tar", {"a.png": picture(0), "in/b.png": picture(1)})
    assert read_images(path, ["cat"]).image_ids == ("x/a", "x/in/b")


def test_the_content_of_a_picture_is_hashed_not_its_place(tmp_path):
    file = list_archive(write_tar(tmp_path / "x.tar", {"b.png": picture(1), "a.png": picture(0)}))["a.png"]
    (tmp_path / "a.png").write_bytes(picture(0))
    assert hash_files({"a": file}, 1) == {"a": sha256(tmp_path / "a.png")}


def test_an_archive_that_is_gone_or_shorter_is_told(tmp_path):
    path = write_tar(tmp_path / "x.tar", {"a.png": picture(0), "a.txt": "cat"})
    sample = read_webdataset(tmp_path)[0]
    path.write_bytes(path.read_bytes()[:600])
    with pytest.raises(PPLValueError, match=r"x\.tar ends inside a\.png"):
        sample.read_image()
    path.unlink()
    with pytest.raises(PPLFileNotFoundError, match=r"x\.tar does not exist any more"):
        sample.read_image()


def test_a_new_archive_of_the_same_name_is_read_again(tmp_path):
    path = write_tar(tmp_path / "x.tar", {"a.png": picture(0), "a.txt": "cat"})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert len(read_webdataset(tmp_path)) == 1
        write_tar(path, {"a.png": picture(0), "a.txt": "cat", "b.png": picture(1), "b.txt": "dog"})
        assert len(read_webdataset(tmp_path)) == 2
