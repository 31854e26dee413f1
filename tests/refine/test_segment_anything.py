"""Segments of SAM that a label mostly covers are taken whole."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from ppl.errors import MissingExtraError, PPLValueError
from ppl.refine import apply_refiners, parse_refiners, sam, sam_segments
from ppl.refine.specs import check_files

IMAGE = np.random.default_rng(0).integers(0, 255, (12, 20, 3), np.uint8)


def one_hot(mask: np.ndarray, labels: int) -> np.ndarray:
    return np.eye(labels, dtype=np.float32)[mask].transpose(2, 0, 1)


def blocks(*boxes: tuple[int, int, int, int]) -> np.ndarray:
    """Return a segment for each box (top, bottom, left, right)."""
    segments = np.zeros((len(boxes), 12, 20), bool)
    for segment, (top, bottom, left, right) in zip(segments, boxes, strict=True):
        segment[top:bottom, left:right] = True
    return segments


def test_a_segment_that_a_label_mostly_covers_is_taken_whole_and_the_rest_of_the_label_is_background() -> None:
    mask = np.zeros((12, 20), int)
    mask[2:8, 2:10] = 1  # covers 6 of 8 rows of the segment below, and spills to the left of it
    refined = sam(IMAGE, one_hot(mask, 2), model=lambda image: blocks((2, 10, 4, 10)))
    expected = np.zeros((12, 20), int)
    expected[2:10, 4:10] = 1
    np.testing.assert_array_equal(refined.argmax(axis=0), expected)
    np.testing.assert_allclose(refined[1, 2:10, 4:10], 0.75)
    np.testing.assert_allclose(refined.sum(axis=0), 1)


def test_a_segment_that_contains_a_small_label_is_taken_whole() -> None:
    mask = np.zeros((12, 20), int)
    mask[3:5, 3:5] = 1
    refined = sam(IMAGE, one_hot(mask, 2), model=lambda image: blocks((2, 10, 2, 18)))
    np.testing.assert_array_equal(refined.argmax(axis=0) == 1, blocks((2, 10, 2, 18))[0])
    without = sam(IMAGE, one_hot(mask, 2), model=lambda image: blocks((2, 10, 4, 18)))
    np.testing.assert_array_equal(without.argmax(axis=0), mask)  # half of the label lies outside: nothing is taken


def test_a_label_without_segments_stays_beside_one_with_segments() -> None:
    mask = np.zeros((12, 20), int)
    mask[:, 2:6], mask[:, 12:16] = 1, 2
    refined = sam(IMAGE, one_hot(mask, 3), model=lambda image: blocks((0, 12, 1, 6)))
    np.testing.assert_array_equal(refined.argmax(axis=0)[:, 12:16], 2)
    np.testing.assert_array_equal(refined.argmax(axis=0)[:, 1:6], 1)


def test_many_random_segments_are_treated_as_a_loop_over_pixels_does() -> None:
    rng = np.random.default_rng(1)
    for _ in range(20):
        probs = rng.dirichlet(np.ones(4), size=(12, 20)).transpose(2, 0, 1).astype(np.float32)
        segments = rng.random((6, 12, 20)) < 0.2
        probs[2] += segments[:3].any(axis=0)
        probs[3] += segments[3:].any(axis=0)
        probs /= probs.sum(axis=0)
        refined = sam(IMAGE, probs, model=lambda image, segments=segments: segments)
        np.testing.assert_allclose(refined, by_pixel(probs, segments), atol=1e-6)


def by_pixel(probs: np.ndarray, segments: np.ndarray) -> np.ndarray:
    best = probs.argmax(axis=0)
    taken = []
    for segment in segments:
        counts = [int(((best == label) & segment).sum()) for label in range(1, len(probs))]
        label = 1 + int(np.argmax(counts))
        shares = counts[label - 1] / segment.sum(), counts[label - 1] / max(1, int((best == label).sum()))
        if shares[0] > 0.5 or shares[1] > 0.85:
            taken.append((max(shares), label, segment))
    result = probs.copy()
    for y, x in np.ndindex(best.shape):
        inside = [(share, label) for share, label, segment in taken if segment[y, x]]
        if inside:
            share, label = max(inside, key=lambda pair: pair[0])
            result[:, y, x] = 0
            result[[0, label], y, x] = 1 - share, share
        elif best[y, x] in {label for _, label, _ in taken}:
            result[0, y, x] += result[best[y, x], y, x]
            result[best[y, x], y, x] = 0
    return result


def test_without_segments_or_without_foreground_nothing_changes() -> None:
    probs = one_hot(np.ones((12, 20), int), 2)
    np.testing.assert_array_equal(sam(IMAGE, probs, model=lambda image: blocks()), probs)
    np.testing.assert_array_equal(sam(IMAGE, probs[:1], model=lambda image: blocks((0, 12, 0, 20))), probs[:1])


def test_tensors_stay_tensors_of_their_type() -> None:
    probs = torch.from_numpy(one_hot(np.ones((12, 20), int), 2)).half()
    refined = sam(torch.from_numpy(IMAGE), probs, model=lambda image: blocks((0, 12, 0, 20)))
    assert refined.dtype == torch.float16
    assert (refined.argmax(dim=0) == 1).all()


def test_segments_of_another_size_are_refused() -> None:
    with pytest.raises(PPLValueError, match=r"segments must be \(n, 12, 20\), got \(1, 3, 3\)"):
        sam(IMAGE, one_hot(np.ones((12, 20), int), 2), model=lambda image: np.ones((1, 3, 3), bool))


def test_without_transformers_a_folder_is_refused_before_any_image(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingExtraError, match=r'pip install "ppl-wsss\[hf\]"'):
        check_files(parse_refiners("sam: some/model"))


@pytest.fixture(scope="module")
def tiny_sam(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a SAM model of random weights, which sees images of 64 x 64."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.SamConfig(
        vision_config={
            "hidden_size": 16,
            "output_channels": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "image_size": 64,
            "patch_size": 8,
            "global_attn_indexes": [0],
            "window_size": 0,
            "mlp_dim": 16,
            "num_pos_feats": 8,
        },
        prompt_encoder_config={"hidden_size": 16, "image_size": 64, "patch_size": 8, "mask_input_channels": 4},
        mask_decoder_config={
            "hidden_size": 16,
            "mlp_dim": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "iou_head_hidden_dim": 16,
            "iou_head_depth": 1,
        },
    )
    folder = tmp_path_factory.mktemp("sam")
    transformers.SamModel(config).save_pretrained(folder)
    side, small = {"height": 64, "width": 64}, {"height": 16, "width": 16}
    transformers.SamImageProcessor(
        size={"longest_edge": 64}, pad_size=side, mask_size={"longest_edge": 16}, mask_pad_size=small
    ).save_pretrained(folder)
    return folder


def test_a_model_from_a_folder_gives_segments_at_the_size_of_the_image(tiny_sam: Path) -> None:
    image = np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8)
    segments = sam_segments(image, model=str(tiny_sam), points=4, min_iou=0, min_stability=0)
    assert segments.dtype == bool
    assert len(segments) > 0
    assert segments.shape[1:] == (40, 60)
    assert sam_segments(image, model=str(tiny_sam), points=2).shape == (0, 40, 60)  # none is good enough


def test_threads_share_a_model_and_get_the_result_of_one_thread(tiny_sam: Path) -> None:
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 255, (40, 60, 3), np.uint8) for _ in range(4)]
    probs = one_hot((images[0][..., 0] > 80).astype(int), 2)
    options = {"points": 4, "min_iou": 0.0, "min_stability": 0.0}
    refiners = parse_refiners([{"sam": {"model": str(tiny_sam), **options}}])
    with ThreadPoolExecutor(4) as pool:
        threaded = list(pool.map(lambda image: apply_refiners(refiners, image, probs), images))
    for image, found in zip(images, threaded, strict=True):
        np.testing.assert_array_equal(found, apply_refiners(refiners, image, probs))


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    with pytest.raises(PPLValueError, match="no SAM model at"):
        check_files(parse_refiners([{"sam": str(tmp_path)}]))
