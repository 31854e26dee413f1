"""Map files of other projects: written by their own lines of code, and read by them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ppl.cam import MAP_FORMATS, CamResult, read_maps, write_maps
from ppl.errors import PPLFileNotFoundError, PPLValueError

HEIGHT, WIDTH = 9, 14


def make_result(classes=(3, 14)):
    torch.manual_seed(0)
    maps = torch.rand(len(classes), HEIGHT, WIDTH)
    return CamResult(maps, torch.tensor(classes, dtype=torch.int64), torch.ones(len(classes)), (HEIGHT, WIDTH))


@pytest.mark.parametrize("kind", ["irn", "psa", "puzzle"])
@pytest.mark.parametrize("classes", [(3, 14), (), (0,), (0, 700)])
def test_written_maps_come_back(tmp_path, kind, classes):
    result = make_result(classes)
    write_maps(tmp_path / "a.npy", result, kind)
    again = read_maps(tmp_path / "a.npy", kind, allow_pickle=True)
    assert torch.equal(again.classes, result.classes)
    if classes:
        assert torch.equal(again.maps, result.maps)
        assert again.size == result.size
    assert again.maps.dtype == torch.float32 and again.scores.isnan().all()


def test_a_file_of_irn_is_read(tmp_path):
    """The lines of IRN's step/make_cam.py."""
    label = torch.zeros(20)
    label[[14, 2]] = 1
    valid_cat = torch.nonzero(label)[:, 0]
    highres_cam = torch.rand(20, HEIGHT, WIDTH)[valid_cat]
    strided_cam = torch.rand(20, 3, 4)[valid_cat]
    np.save(
        tmp_path / "2007_000032.npy",
        {"keys": valid_cat, "cam": strided_cam.cpu(), "high_res": highres_cam.cpu().numpy()},
    )
    result = read_maps(tmp_path / "2007_000032.npy", "irn", allow_pickle=True)
    assert result.classes.tolist() == [2, 14]
    assert torch.equal(result.maps, highres_cam)
    np.save(tmp_path / "b.npy", {"keys": np.array([2, 14]), "cam": strided_cam})
    assert torch.equal(read_maps(tmp_path / "b.npy", "irn", allow_pickle=True).maps, strided_cam)


def test_irn_evaluates_our_file_to_our_mask(tmp_path):
    """The lines of IRN's step/eval_cam.py and of step/make_sem_seg_labels.py."""
    result = make_result()
    write_maps(tmp_path / "a.npy", result, "irn")
    cam_dict = np.load(tmp_path / "a.npy", allow_pickle=True).item()
    cams = np.pad(cam_dict["high_res"], ((1, 0), (0, 0), (0, 0)), mode="constant", constant_values=0.4)
    keys = np.pad(cam_dict["keys"] + 1, (1, 0), mode="constant")
    assert np.array_equal(keys[np.argmax(cams, axis=0)], result.to_mask(0.4).numpy())
    assert cam_dict["cam"].cpu().shape == (2, (HEIGHT - 1) // 4 + 1, (WIDTH - 1) // 4 + 1)


def test_a_file_of_psa_is_read_and_written(tmp_path):
    """The lines of PSA's infer_cls.py and infer_aff.py."""
    norm_cam, label = np.random.default_rng(0).random((20, HEIGHT, WIDTH), np.float32), np.zeros(20)
    label[[17, 4]] = 1
    cam_dict = {i: norm_cam[i] for i in range(20) if label[i] > 1e-5}
    np.save(tmp_path / "a.npy", cam_dict)
    result = read_maps(tmp_path / "a.npy", "psa", allow_pickle=True)
    assert result.classes.tolist() == [4, 17] and np.array_equal(result.maps.numpy(), norm_cam[[4, 17]])
    write_maps(tmp_path / "b.npy", result, "psa")
    cams = np.load(tmp_path / "b.npy", allow_pickle=True).item()
    cam_full_arr = np.zeros((21, HEIGHT, WIDTH), np.float32)
    for k, v in cams.items():
        cam_full_arr[k + 1] = v
    cam_full_arr[0] = (1 - np.max(cam_full_arr[1:], (0), keepdims=False)) ** 16
    assert np.array_equal(cam_full_arr[[5, 18]], norm_cam[[4, 17]])


def test_a_file_of_puzzle_cam_is_read_and_written(tmp_path):
    """The lines of Puzzle-CAM's inference_classification.py and evaluate.py."""
    label = np.zeros(20)
    label[[1, 19]] = 1
    keys = torch.nonzero(torch.from_numpy(label))[:, 0]
    hr_cams = torch.rand(20, HEIGHT, WIDTH)[keys]
    np.save(
        tmp_path / "a.npy",
        {"keys": np.pad(keys + 1, (1, 0), mode="constant"), "cam": torch.rand(2, 3, 4), "hr_cam": hr_cams.numpy()},
    )
    result = read_maps(tmp_path / "a.npy", "puzzle", allow_pickle=True)
    assert result.classes.tolist() == [1, 19] and torch.equal(result.maps, hr_cams)
    write_maps(tmp_path / "b.npy", result, "puzzle")
    predict_dict = np.load(tmp_path / "b.npy", allow_pickle=True).item()
    cams = np.pad(predict_dict["hr_cam"], ((1, 0), (0, 0), (0, 0)), mode="constant", constant_values=0.3)
    assert np.array_equal(predict_dict["keys"][np.argmax(cams, axis=0)], result.to_mask(0.3).numpy())


def test_small_maps_are_written_at_the_size_of_the_image(tmp_path):
    result = CamResult(torch.ones(1, 2, 3), torch.tensor([5]), torch.ones(1), (8, 12))
    write_maps(tmp_path / "a.npy", result, "irn")
    content = np.load(tmp_path / "a.npy", allow_pickle=True).item()
    assert content["high_res"].shape == (1, 8, 12) and content["cam"].shape == (1, 2, 3)


def test_a_pickle_is_never_opened_unasked(tmp_path):
    class Trap:
        def __reduce__(self):
            return (pytest.fail, ("unpickled",))

    np.save(tmp_path / "a.npy", np.array({"keys": Trap()}, dtype=object))
    for kind in MAP_FORMATS:
        with pytest.raises(PPLValueError, match=r"a\.npy is a pickle, which can run any code.*--allow-pickle"):
            read_maps(tmp_path / "a.npy", kind)


@pytest.mark.parametrize(
    ("kind", "content", "told"),
    [
        ("irn", {"high_res": np.zeros((1, 2, 2))}, "lacks the key 'keys'; its keys are 'high_res'"),
        ("irn", {"keys": [0, 4], "hr_cam": np.zeros((1, 2, 2))}, "lacks the key 'high_res'"),
        ("irn", {"keys": [0, 4], "high_res": np.zeros((1, 2, 2))}, r"got \(1, 2, 2\) and \(2,\)"),
        ("irn", {"keys": [4, 4], "high_res": np.zeros((2, 2, 2))}, r"must be different and 0 or more, got \[4, 4\]"),
        ("irn", {"keys": [4.5], "high_res": np.zeros((1, 2, 2))}, "float64"),
        ("irn", {"keys": [4], "high_res": np.full((1, 2, 2), np.nan)}, "NaN"),
        ("puzzle", {"keys": [4], "hr_cam": np.zeros((1, 2, 2))}, r"begin with the background's 0, got \[4\]"),
        ("psa", {"cat": np.zeros((2, 2))}, "no class indices"),
        ("psa", {0: np.full((2, 2), 0.25), 3: np.full((2, 2), 0.75)}, "probabilities after a CRF"),
        ("psa", np.zeros((1, 2, 2)), "holds a ndarray"),
    ],
)
def test_files_of_another_format_are_refused_with_their_keys(tmp_path, kind, content, told):
    np.save(tmp_path / "a.npy", content)
    with pytest.raises(PPLValueError, match=told):
        read_maps(tmp_path / "a.npy", kind, allow_pickle=True)


def test_broken_missing_and_unknown_are_named(tmp_path):
    (tmp_path / "a.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(PPLValueError, match=r"a\.npy cannot be read"):
        read_maps(tmp_path / "a.npy", "irn", allow_pickle=True)
    with pytest.raises(PPLFileNotFoundError, match=r"b\.npy"):
        read_maps(tmp_path / "b.npy", "irn", allow_pickle=True)
    with pytest.raises(PPLValueError, match="no format of maps named 'irm'; did you mean 'irn'"):
        read_maps(tmp_path / "a.npy", "irm")
