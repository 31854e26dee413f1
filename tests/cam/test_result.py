from __future__ import annotations

import dataclasses
import pickle
from contextlib import suppress

import numpy as np
import pytest
import torch

from ppl.cam import CamResult, PowerBackground
from ppl.errors import PPLFileNotFoundError, PPLValueError
from ppl.io.files import FileWriteError


def make_result(k=2, height=5, width=7):
    return CamResult(torch.rand(k, height, width), torch.arange(k) * 3, torch.rand(k), (10, 14))


@pytest.mark.parametrize("background", [0.4, "auto", PowerBackground(4)])
def test_mask_is_the_argmax_with_the_background_first(background):
    """IRN's recipe: put the background plane in front, argmax, look the class up."""
    from ppl.cam.background import background_score

    result = make_result(3)
    plane = background_score(result.maps.amax(0), background).numpy()
    stack = np.concatenate([plane[None], result.maps.numpy()])
    expected = np.array([0, 1, 4, 7])[stack.argmax(0)]
    mask = result.to_mask(background=background)
    assert mask.dtype == torch.uint8
    assert np.array_equal(mask.numpy(), expected)


def test_background_wins_a_tie_and_then_the_lower_class():
    maps = torch.tensor([[[0.5, 0.75]], [[0.5, 0.75]]])
    result = CamResult(maps, torch.tensor([1, 2]), torch.ones(2), (1, 2))
    assert result.to_mask(0.5).tolist() == [[0, 2]]


@pytest.mark.parametrize("background", [0.2, "auto", PowerBackground(4)])
def test_maps_of_nan_become_no_mask(background):
    result = CamResult(torch.tensor([[[float("nan"), 1.0]]]), torch.tensor([0]), torch.ones(1), (1, 2))
    with pytest.raises(PPLValueError, match="maps hold 1 values that are NaN or infinite"):
        result.to_mask(background)


def test_maps_of_8_bits_become_a_mask_by_the_automatic_rule_alone():
    maps = torch.tensor([[[3.0, 250.0, 240.0, 5.0]]])
    result = CamResult(maps, torch.tensor([0]), torch.ones(1), (1, 4))
    assert result.to_mask("auto").tolist() == [[0, 1, 1, 0]]
    for background in (0.2, PowerBackground(4)):
        with pytest.raises(PPLValueError, match=r"maps must lie in \[0, 1\], got 250: divide .* 8-bit maps by 255"):
            result.to_mask(background)


def test_a_file_with_a_class_below_0_is_refused(tmp_path):
    np.savez(tmp_path / "a.npz", maps=np.ones((1, 2, 3)), classes=np.array([-1]))
    with pytest.raises(PPLValueError, match=r"a\.npz .*class -1 is below 0"):
        CamResult.load(tmp_path / "a.npz")


def test_no_class_is_all_background():
    result = make_result(0)
    assert torch.equal(result.to_mask("auto"), torch.zeros(5, 7, dtype=torch.uint8))
    assert torch.equal(result.to_probs(), torch.ones(1, 5, 7))


def test_label_255_is_never_written_for_a_class():
    result = CamResult(torch.ones(2, 1, 1), torch.tensor([3, 254]), torch.ones(2), (1, 1))
    with pytest.warns(UserWarning, match='class 254 has the value 255 in this mask, .* take for "ignore"'):
        assert result.to_mask(0.2).dtype == torch.int64
    assert CamResult(torch.ones(1, 1, 1), torch.tensor([253]), torch.ones(1), (1, 1)).to_mask(0.2).item() == 254


@pytest.mark.parametrize("background", [0.0, 0.4, "auto", PowerBackground(4)])
def test_probabilities_sum_to_one_and_agree_with_the_mask(background):
    result = make_result(3)
    result.maps[:, 0, 0] = 0
    probs = result.to_probs(background)
    assert probs.shape == (4, 5, 7)
    torch.testing.assert_close(probs.sum(0), torch.ones(5, 7))
    labels = torch.cat([torch.zeros(1, dtype=torch.int64), result.classes + 1])
    assert torch.equal(labels[probs.argmax(0)].to(torch.uint8), result.to_mask(background))


@pytest.mark.parametrize("k", [0, 2])
def test_file_gives_the_result_back(tmp_path, k):
    result = make_result(k)
    result.save(tmp_path / "a.npz")
    loaded = CamResult.load(tmp_path / "a.npz")
    assert torch.equal(loaded.maps, result.maps)
    assert torch.equal(loaded.classes, result.classes)
    assert torch.equal(loaded.scores, result.scores)
    assert loaded.size == result.size
    assert loaded.maps.dtype == torch.float32
    assert [p.name for p in tmp_path.iterdir()] == ["a.npz"]


def test_half_precision_file(tmp_path):
    result = make_result()
    result.save(tmp_path / "a.npz", half=True)
    loaded = CamResult.load(tmp_path / "a.npz")
    assert loaded.maps.dtype == torch.float32
    torch.testing.assert_close(loaded.maps, result.maps, atol=1e-3, rtol=0)


def test_file_holds_no_pickle(tmp_path):
    make_result().save(tmp_path / "a.npz")
    with np.load(tmp_path / "a.npz", allow_pickle=False) as file:
        assert sorted(file) == ["classes", "maps", "scores", "size"]


def test_pickled_arrays_are_never_opened(tmp_path):
    class Trap:
        def __reduce__(self):
            return (pytest.fail, ("unpickled",))

    trap = np.array([Trap()], dtype=object)
    np.savez(tmp_path / "a.npz", maps=trap, classes=trap, scores=trap, size=np.array([1, 1]))
    with pytest.raises(PPLValueError, match=r"a\.npz is not a whole CAM file"):
        CamResult.load(tmp_path / "a.npz")
    (tmp_path / "b.npz").write_bytes(pickle.dumps({"maps": 1}))
    with pytest.raises(PPLValueError, match=r"b\.npz is not a whole CAM file"):
        CamResult.load(tmp_path / "b.npz")


def test_broken_and_missing_files_are_named(tmp_path):
    make_result().save(tmp_path / "a.npz")
    whole = (tmp_path / "a.npz").read_bytes()
    for number, content in enumerate([b"", whole[: len(whole) // 2], whole[:-200] + bytes(200)]):
        path = tmp_path / f"broken{number}.npz"
        path.write_bytes(content)
        with pytest.raises(PPLValueError, match=path.name):
            CamResult.load(path)
    for position in range(30, len(whole), 29):  # zip, zlib and numpy each have their own words for it
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 0xFF]) + whole[position + 1 :])
        with suppress(PPLValueError):
            CamResult.load(path)
    np.savez(tmp_path / "other.npz", x=1)
    with pytest.raises(PPLValueError, match=r"other\.npz"):
        CamResult.load(tmp_path / "other.npz")
    with pytest.raises(PPLFileNotFoundError, match=r"nothing\.npz"):
        CamResult.load(tmp_path / "nothing.npz")


def test_place_that_cannot_be_written_is_one_clear_error(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(FileWriteError, match="cannot write"):
        make_result().save(tmp_path / "file" / "a.npz")


def test_result_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        make_result().size = (1, 1)


def test_moving_keeps_everything():
    moved = make_result().to("meta")
    assert moved.maps.device.type == moved.classes.device.type == moved.scores.device.type == "meta"
    assert moved.size == (10, 14)


def test_shapes_must_fit_together():
    with pytest.raises(PPLValueError, match=r"got \(2, 5, 7\), \(3,\) and \(2,\)"):
        CamResult(torch.rand(2, 5, 7), torch.arange(3), torch.rand(2), (5, 7))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_any_float_is_saved_as_float32(tmp_path, dtype):
    result = make_result()
    CamResult(result.maps.to(dtype), result.classes, result.scores.to(dtype), result.size).save(tmp_path / "a.npz")
    with np.load(tmp_path / "a.npz") as file:
        assert file["maps"].dtype == file["scores"].dtype == np.float32
        assert np.array_equal(file["maps"], result.maps.to(dtype).float())
