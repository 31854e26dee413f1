"""CAM files: read, and paired with images."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from ppl.cam import CamResult
from ppl.errors import PPLFileNotFoundError, PPLValueError
from ppl.refine import RefineJob, jobs_from_folders


def load(path):
    return RefineJob("a", path.with_suffix(".png"), path).load()


def test_files_of_cam_results_are_read(tmp_path):
    maps = torch.rand(2, 3, 4)
    CamResult(maps, torch.tensor([1, 5]), torch.ones(2), (3, 4)).save(tmp_path / "a.npz")
    loaded, classes = load(tmp_path / "a.npz")
    np.testing.assert_array_equal(loaded, maps.numpy())
    assert classes.tolist() == [1, 5]


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"maps": np.zeros((1, 2, 2))}, "not a whole CAM file"),
        ({"maps": np.zeros((2, 2, 2)), "classes": np.array([0])}, r"\(2, 2, 2\).*\(1,\)"),
        ({"maps": np.zeros((1, 2, 2)), "classes": np.array([254])}, "254"),
        ({"maps": np.zeros((1, 2, 2)), "classes": np.array([-1])}, "-1"),
        ({"maps": np.zeros((1, 2, 2)), "classes": np.array([{}], dtype=object)}, "not a whole CAM file"),
    ],
)
def test_broken_files_are_named(tmp_path, arrays, words):
    np.savez(tmp_path / "bad.npz", **arrays)
    with pytest.raises(PPLValueError, match=words) as caught:
        load(tmp_path / "bad.npz")
    assert "bad.npz" in str(caught.value)


def test_truncated_and_missing_files(tmp_path):
    np.savez(tmp_path / "a.npz", maps=np.zeros((1, 9, 9)), classes=np.array([0]))
    (tmp_path / "cut.npz").write_bytes((tmp_path / "a.npz").read_bytes()[:-60])
    with pytest.raises(PPLValueError, match=r"cut\.npz"):
        load(tmp_path / "cut.npz")
    with pytest.raises(PPLFileNotFoundError, match=r"no\.npz"):
        load(tmp_path / "no.npz")


def test_pairs_by_id(tmp_path):
    images, cams = tmp_path / "images", tmp_path / "cams"
    images.mkdir()
    cams.mkdir()
    for name in ("b.v1.JPG", "a.png", "unused.png"):
        Image.new("RGB", (4, 4)).save(images / name)
    for image_id in ("b.v1", "a"):
        np.savez(cams / f"{image_id}.npz", maps=np.zeros((1, 4, 4)), classes=np.array([0]))
    jobs = jobs_from_folders(images, cams)
    assert [(job.image_id, job.image.name) for job in jobs] == [("a", "a.png"), ("b.v1", "b.v1.JPG")]
    assert jobs[0] == RefineJob("a", images / "a.png", cams / "a.npz")
    assert [job.image_id for job in jobs_from_folders(images, cams, ["b.v1", "missing"])] == ["b.v1", "missing"]
    (images / "2019").mkdir()
    (cams / "2019").mkdir()
    Image.new("RGB", (4, 4)).save(images / "2019" / "beach.jpg")
    np.savez(cams / "2019" / "beach.npz", maps=np.zeros((1, 4, 4)), classes=np.array([0]))
    assert [job.image_id for job in jobs_from_folders(images, cams)] == ["2019/beach", "a", "b.v1"]
    Image.new("RGB", (4, 4)).save(images / "a.jpg")
    with pytest.raises(PPLValueError, match="differ in extension alone"):
        jobs_from_folders(images, cams)
    with pytest.raises(PPLFileNotFoundError, match="nowhere"):
        jobs_from_folders(images, tmp_path / "nowhere")
