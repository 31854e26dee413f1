"""Data sets of the package `datasets` become folders."""

from __future__ import annotations

import builtins

import numpy as np
import pytest
from PIL import Image

from ppl.data import import_huggingface, open_dataset
from ppl.errors import MissingExtraError, PPLValueError


def test_a_missing_package_names_the_line_to_type(tmp_path, monkeypatch):
    real = builtins.__import__
    monkeypatch.setattr("importlib.import_module", lambda name: real("no such " + name))
    with pytest.raises(MissingExtraError, match=r'pip install "ppl-wsss\[datasets\]"'):
        import_huggingface("someone/pets", tmp_path / "pets")


@pytest.fixture
def pictures():
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)) for _ in range(3)]


@pytest.fixture
def datasets():
    return pytest.importorskip("datasets")


NAMES = ["cat, domestic", "dog"]


@pytest.mark.filterwarnings("ignore:.*image is tagged")
@pytest.mark.parametrize("kind", ["list", "single", "objects"])
def test_images_tags_and_masks_are_the_same(datasets, pictures, tmp_path, kind):
    label = datasets.ClassLabel(names=NAMES)
    features = {"picture": datasets.Image(), "mask": datasets.Image()}
    columns = {"picture": pictures, "mask": [Image.fromarray(np.full((6, 8), i, np.uint8)) for i in range(3)]}
    if kind == "list":
        features["tags"], columns["tags"] = datasets.Sequence(label), [[1], [1, 0, 1], []]
    elif kind == "single":
        features["tags"], columns["tags"] = label, [1, 0, 1]
    else:
        features["objects"] = {"category": datasets.Sequence(label)}
        columns["objects"] = [{"category": tags} for tags in ([1], [1, 0, 1], [])]
    data = datasets.Dataset.from_dict(columns, features=datasets.Features(features))
    splits = datasets.DatasetDict(train=data.select([0, 1]), test=data.select([2]))
    root = import_huggingface(splits, tmp_path / "pets", mask="mask")
    read = [*open_dataset(root, "train"), *open_dataset(root, "test")]
    assert open_dataset(root).classes == tuple(NAMES)
    assert [sample.image_id for sample in read] == ["train_000000", "train_000001", "test_000000"]
    assert [sample.labels for sample in read] == ([(1,), (0,), (1,)] if kind == "single" else [(1,), (0, 1), ()])
    for number, (sample, picture) in enumerate(zip(read, pictures, strict=True)):
        assert np.array_equal(np.asarray(sample.read_image()), np.asarray(picture))
        assert (sample.read_mask() == number).all()


@pytest.mark.filterwarnings("ignore:.*image is tagged")
def test_many_images_lie_in_folders(datasets, pictures, tmp_path, monkeypatch):
    monkeypatch.setattr("ppl.data.huggingface._PER_FOLDER", 2)
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=NAMES)})
    data = datasets.Dataset.from_dict({"image": pictures, "label": [0, 1, 0]}, features=features)
    read = open_dataset(import_huggingface(data, tmp_path / "pets"), "train")
    assert read.image_ids == ("train_0000/train_000000", "train_0000/train_000001", "train_0001/train_000002")
    assert [sample.labels for sample in read] == [(0,), (1,), (0,)]


def test_columns_that_are_not_there_are_named(datasets, pictures, tmp_path):
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
    data = datasets.Dataset.from_dict({"image": pictures, "label": [0, 1, 0]}, features=features)
    with pytest.raises(PPLValueError, match="has no column of labels; the columns are image, label"):
        import_huggingface(data, tmp_path / "pets")
    with pytest.raises(PPLValueError, match="has no column 'imgae' of image; did you mean 'image'"):
        import_huggingface(data, tmp_path / "pets", image="imgae")
    assert not (tmp_path / "pets").exists()
