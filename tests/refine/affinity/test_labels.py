"""Confident labels, compared with the rule of IRN."""

from __future__ import annotations

import os

import numpy as np
import pytest
from PIL import Image

from ppl.errors import PPLValueError
from ppl.io import read_mask
from ppl.refine import crf, jobs_from_folders
from ppl.refine.affinity import confident_label_folder, confident_labels


@pytest.fixture
def scene():
    random = np.random.default_rng(0)
    image = random.integers(0, 256, (16, 18, 3)).astype(np.uint8)
    return image, random.random((2, 16, 18)).astype(np.float32) ** 2


def test_labels_follow_the_rule_of_irn(scene):
    image, maps = scene

    def hard(score):
        stack = np.concatenate([np.full((1, 16, 18), score, np.float32), maps])
        labels = stack.argmax(axis=0)
        return crf(image, labels=labels, num_labels=3, bilateral_sxy=50, bilateral_srgb=5).argmax(axis=0)

    sure, generous = hard(0.5), hard(0.1)
    expected = np.array([255, 4, 9])[sure]
    expected[(sure == 0) & (generous == 0)] = 0
    np.testing.assert_array_equal(confident_labels(image, maps, [3, 8], foreground=0.5, background=0.1), expected)


def test_without_refiners_the_labels_are_two_thresholds(scene):
    image, maps = scene
    labels = confident_labels(image, maps, refiners=None)
    best = maps.max(axis=0)
    np.testing.assert_array_equal(labels == 0, best <= 0.05)
    np.testing.assert_array_equal(labels == 255, (best > 0.05) & (best <= 0.30))
    np.testing.assert_array_equal(labels[best > 0.30], (maps.argmax(axis=0) + 1)[best > 0.30])


def test_an_image_of_no_class_is_background(scene):
    assert not confident_labels(scene[0], np.zeros((0, 16, 18), np.float32)).any()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"foreground": 0.1, "background": 0.2}, "background=0.2"),
        ({"classes": [1]}, "2 numbers"),
        ({"classes": [1, 254]}, "254"),
        ({"refiners": "crff"}, "did you mean 'crf'"),
    ],
)
def test_bad_input_is_named(scene, change, words):
    with pytest.raises(PPLValueError, match=words):
        confident_labels(*scene, **change)


@pytest.fixture
def jobs(tmp_path, scene):
    for name in ("images", "cams"):
        (tmp_path / name).mkdir()
    for image_id in "ab":
        Image.fromarray(scene[0]).save(tmp_path / "images" / f"{image_id}.png")
        np.savez(tmp_path / "cams" / f"{image_id}.npz", maps=scene[1], classes=np.array([3, 8]))
    return jobs_from_folders(tmp_path / "images", tmp_path / "cams")


@pytest.mark.parametrize("overwrite", [False, True])
def test_labels_that_would_overwrite_the_images_are_refused(tmp_path, jobs, overwrite):
    before = {path: path.read_bytes() for path in (tmp_path / "images").iterdir()}
    with pytest.raises(PPLValueError, match=r"a\.png would be overwritten by a result"):
        confident_label_folder(jobs, tmp_path / "images", refiners=None, overwrite=overwrite)
    assert {path: path.read_bytes() for path in (tmp_path / "images").iterdir()} == before


def test_labels_of_a_replaced_image_are_made_again_once(tmp_path, jobs):
    confident_label_folder(jobs, tmp_path / "out", refiners=None)
    Image.new("RGB", Image.open(tmp_path / "images" / "a.png").size).save(tmp_path / "images" / "a.png")
    os.utime(tmp_path / "images" / "a.png", (1e9, 1e9))
    assert [confident_label_folder(jobs, tmp_path / "out", refiners=None).done for _ in range(2)] == [1, 0]


def test_a_folder_of_labels_resumes_and_names_bad_images(tmp_path, scene, jobs):
    (tmp_path / "cams" / "c.npz").write_bytes(b"")
    jobs = jobs_from_folders(tmp_path / "images", tmp_path / "cams")
    summary = confident_label_folder(jobs, tmp_path / "out", refiners="guided_filter: 1", num_workers=2)
    assert summary.done == 2 and [file.image_id for file in summary.bad] == ["c"]
    expected = confident_labels(*scene, [3, 8], refiners="guided_filter: 1")
    np.testing.assert_array_equal(read_mask(tmp_path / "out" / "b.png"), expected)
    with pytest.raises(PPLValueError, match=r"foreground: .* less than or equal to 1 \(got 2\)"):
        confident_label_folder(jobs, tmp_path / "other", foreground=2)
    with pytest.raises(PPLValueError, match="another way"):
        confident_label_folder(jobs, tmp_path / "out", refiners=None)
