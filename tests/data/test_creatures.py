from __future__ import annotations

import hashlib
import multiprocessing
import os
import signal
import time

import numpy as np
import pytest

from ppl.data import CREATURE_PARTS, CREATURES, PartMasks, check_images, make_creatures, read_folder
from ppl.data.creatures import draw_scene, sample_set
from ppl.errors import PPLValueError
from ppl.io import FileWriteError, read_mask


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return make_creatures(tmp_path_factory.mktemp("sets") / "creatures", train=60, val=20, size=64, seed=1)


def digest(folder):
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_it_is_a_whole_data_set(root):
    train, val = read_folder(root, "train"), read_folder(root, "val")
    assert (len(train), len(val)) == (60, 20)
    assert train.classes == CREATURES
    assert check_images(train)[1] == check_images(val)[1] == []
    assert (train.targets().sum(0) >= 8).all()
    assert 1.1 < train.targets().sum(1).mean() < 2.2


def test_tags_masks_and_parts_agree(root):
    for sample in read_folder(root, "train"):
        mask, parts = sample.read_mask(), read_mask(root / "masks_parts" / f"{sample.image_id}.png")
        assert sample.labels == tuple(np.unique(mask[mask > 0]) - 1)
        assert np.array_equal(mask > 0, parts > 0)
        assert parts.max() <= len(CREATURE_PARTS)
        for label in sample.labels:
            assert 2 in parts[mask == label + 1]


def test_parts_have_names_in_the_set_itself(root):
    assert PartMasks(root).names == CREATURE_PARTS


def test_the_body_is_the_larger_part(root):
    parts = np.concatenate([read_mask(path).ravel() for path in sorted((root / "masks_parts").glob("*.png"))])
    head, body = (parts == 1).mean(), (parts == 2).mean()
    assert 1.5 < body / head < 6
    assert 0.1 < head + body < 0.5


def test_the_background_does_not_depend_on_the_class(root):
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import cross_val_predict

    rows, targets = [], []
    for split in ("train", "val"):
        dataset = read_folder(root, split)
        targets.append(dataset.targets().numpy())
        for sample in dataset:
            ground = np.asarray(sample.read_image(), np.float32)[sample.read_mask() == 0]
            rows.append(np.concatenate([ground.mean(0), ground.std(0)]) / 255)
    for column in np.concatenate(targets).T:
        guess = cross_val_predict(LogisticRegression(), np.stack(rows), column, cv=5, method="predict_proba")[:, 1]
        assert roc_auc_score(column, guess) < 0.72


def test_the_same_seed_gives_the_same_bytes(tmp_path, root):
    again = make_creatures(tmp_path / "again", train=60, val=20, size=64, seed=1)
    assert digest(again) == digest(root)
    other = make_creatures(tmp_path / "other", train=2, val=1, size=64, seed=2)
    assert digest(other)["images/train_0000.jpg"] != digest(root)["images/train_0000.jpg"]
    fewer = make_creatures(tmp_path / "fewer", train=2, val=1, size=64, seed=1)
    assert digest(fewer)["images/val_0000.jpg"] == digest(root)["images/val_0000.jpg"]


def test_a_second_call_changes_nothing(root):
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    make_creatures(root, train=60, val=20, size=64, seed=1)
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before
    with pytest.raises(ValueError, match=r"'seed': 1.*asked for is .*'seed': 3"):
        make_creatures(root, train=60, val=20, size=64, seed=3)


def make_creatures_but_stop_after_one(folder):
    write = sample_set._write

    def write_and_stop(*arguments):
        write(*arguments)
        time.sleep(600)

    sample_set._write = write_and_stop  # in a process of its own
    make_creatures(folder, 8, 0, 64)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_killed_call_leaves_no_folder_behind(tmp_path):
    context = multiprocessing.get_context("fork")
    child = context.Process(target=make_creatures_but_stop_after_one, args=(tmp_path / "set",))
    child.start()
    while not any(tmp_path.glob(".set.*/images/*")):
        assert child.is_alive()
        time.sleep(0.01)
    os.kill(child.pid, signal.SIGKILL)
    child.join()
    assert not (tmp_path / "set").exists()
    assert len(read_folder(make_creatures(tmp_path / "set", 8, 0, 64), "train")) == 8


def test_a_folder_of_something_else_stays_as_it_is(tmp_path):
    (tmp_path / "mine.txt").write_text("")
    with pytest.raises(FileWriteError, match="already holds something"):
        make_creatures(tmp_path, train=2, val=0, size=64)


@pytest.mark.parametrize("arguments", [{"train": 0, "val": 0}, {"train": -1}, {"size": 8}])
def test_invalid_arguments_are_refused(tmp_path, arguments):
    with pytest.raises(ValueError, match="at least one image"):
        make_creatures(tmp_path / "set", **arguments)


@pytest.mark.parametrize(("arguments", "words"), [({"seed": -1}, "seed is -1"), ({"train": 2.0}, r"train=2\.0.*whole")])
def test_a_seed_below_zero_and_fractions_are_refused(tmp_path, arguments, words):
    with pytest.raises(PPLValueError, match=words):
        make_creatures(tmp_path / "set", **arguments)


def test_a_broken_recipe_is_named(tmp_path):
    (tmp_path / "creatures.json").write_text('{"version"')
    with pytest.raises(PPLValueError, match=r"creatures\.json is broken .*; remove"):
        make_creatures(tmp_path)


@pytest.mark.parametrize("size", [33, 160])
def test_sizes(size):
    image, mask, parts = draw_scene(np.random.default_rng(0), size)
    assert image.shape == (size, size, 3)
    assert mask.shape == parts.shape == (size, size)
    assert image.dtype == mask.dtype == parts.dtype == np.uint8
