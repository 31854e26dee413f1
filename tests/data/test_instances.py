"""Outlines of instances against pycocotools."""

from __future__ import annotations

import numpy as np
import pytest

from ppl.data import InstanceMask
from ppl.data.instances import decode_runs
from ppl.io import BadImageError

coco = pytest.importorskip("pycocotools.mask")


def blob(height, width, seed):
    """An irregular mask that does not touch all borders."""
    rng = np.random.default_rng(seed)
    mask = np.zeros((height, width), np.uint8)
    for _ in range(4):
        top, left = rng.integers(0, height // 2), rng.integers(0, width // 2)
        mask[top : top + rng.integers(2, height // 2), left : left + rng.integers(2, width // 3)] = 1
    return mask


def encoded(mask):
    """The code of pycocotools, with its text as JSON holds it."""
    code = coco.encode(np.asfortranarray(mask))
    return {"size": list(code["size"]), "counts": code["counts"].decode()}, tuple(coco.toBbox(code).tolist())


@pytest.mark.parametrize("seed", range(8))
def test_codes_of_pycocotools_are_decoded_alike(seed):
    mask = blob(40, 57, seed)
    code, box = encoded(mask)
    for given in (box, None):
        assert np.array_equal(decode_runs(code, mask.shape, given), mask)


@pytest.mark.parametrize("seed", range(8))
def test_a_swapped_size_is_seen_through_with_the_box(seed):
    mask = blob(40, 57, seed)
    code, box = encoded(mask)
    swapped = {**code, "size": code["size"][::-1]}
    assert np.array_equal(decode_runs(swapped, mask.shape, box), mask)
    with pytest.raises(BadImageError, match=r"is of size \(57, 40\), but the image is \(40, 57\) .*a bbox"):
        decode_runs(swapped, mask.shape)


@pytest.mark.parametrize("seed", range(8))
def test_runs_that_go_row_by_row_are_seen_through_with_the_box(seed):
    mask = blob(40, 57, seed)
    _, box = encoded(mask)
    by_row, _ = encoded(mask.T)  # column by column of the transpose
    for size in ([40, 57], [57, 40]):
        assert np.array_equal(decode_runs({**by_row, "size": size}, mask.shape, box), mask)


def test_runs_that_contradict_the_box_are_refused():
    code, _ = encoded(blob(40, 57, 0))
    with pytest.raises(BadImageError, match=r"but its bbox is .* encode the mask again"):
        decode_runs(code, (40, 57), (50.0, 30.0, 5.0, 5.0))


@pytest.mark.parametrize("seed", range(4))
def test_polygons_cover_what_pycocotools_draws_but_for_the_border(seed):
    rng = np.random.default_rng(seed)
    turns = np.sort(rng.uniform(0, 2 * np.pi, 9))
    corners = np.stack([50 + rng.uniform(15, 30, 9) * np.cos(turns), 40 + rng.uniform(15, 30, 9) * np.sin(turns)], 1)
    polygon = corners.ravel().tolist()
    ours = InstanceMask((80, 100), ((0, 1.0, [polygon]),)).read().astype(bool)
    theirs = coco.decode(coco.merge(coco.frPyObjects([polygon], 80, 100))).astype(bool)
    assert (ours & theirs).sum() / (ours | theirs).sum() > 0.95
