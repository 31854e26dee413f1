from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from PIL import Image

from ppl.errors import PPLValueError
from ppl.report import class_colours, overlay, overlay_mask


def image(height=4, width=6):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_rows_are_drawn_in_parts_without_a_trace(monkeypatch):
    labels = np.random.default_rng(0).integers(0, 3, (5, 4)).repeat(3, 0).repeat(3, 1)
    picture = np.random.default_rng(1).integers(0, 256, (15, 12, 3), dtype=np.uint8)
    whole = overlay_mask(picture, labels)
    for rows in (1, 2, 7, 15):
        monkeypatch.setattr(sys.modules[overlay_mask.__module__], "_ROWS", rows)
        assert np.array_equal(overlay_mask(picture, labels), whole)


def test_a_map_of_zero_is_transparent():
    base = image()
    assert np.array_equal(overlay(base, np.zeros((4, 6))), base)
    assert np.array_equal(overlay(base, np.zeros((2, 4, 6)), [0, 3]), base)
    assert np.array_equal(overlay(base, np.zeros((0, 4, 6)), []), base)
    assert np.array_equal(overlay_mask(base, np.zeros((4, 6), int)), base)


def test_each_class_has_its_colour():
    maps = torch.zeros(2, 4, 6)
    maps[0, 0, 0] = maps[1, 1, 1] = 1
    got = overlay(Image.fromarray(image()), maps, torch.tensor([2, 5]), strength=1.0)
    assert np.array_equal(got[0, 0], class_colours(6)[2])
    assert np.array_equal(got[1, 1], class_colours(6)[5])
    mask = np.zeros((4, 6), np.uint8)
    mask[2, 2] = 3
    assert np.array_equal(overlay_mask(image(), mask)[2, 2], class_colours(6)[2])


def test_colours_are_bright_and_differ():
    colours = class_colours(20).astype(int)
    assert colours.max(1).min() > 150
    distance = np.abs(colours[:, None] - colours[None]).sum(-1) + 1000 * np.eye(20)
    assert distance.min() > 30


def test_the_heat_map_follows_the_values():
    got = overlay(np.zeros((1, 3, 3), np.uint8), [[0.0, 0.5, 1.0]]).astype(int).sum(-1)[0]
    assert got[0] == 0
    assert got[2] > 0


def test_nan_is_transparent():
    assert np.array_equal(overlay(image(), np.full((4, 6), np.nan)), image())


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: overlay(image(), np.zeros((3, 6))), r"\(3, 6\) do not fit the image \(4, 6\)"),
        (lambda: overlay(image(), np.zeros((2, 4, 6)), [1]), "2 maps but 1 classes"),
        (lambda: overlay(image(), np.zeros((2, 4, 6))), "2 maps but 0 classes"),
        (lambda: overlay_mask(image(), np.zeros((6, 4), int)), r"mask \(6, 4\) does not fit"),
        (lambda: overlay(image() / 255, np.zeros((4, 6))), "float64"),
    ],
)
def test_bad_input(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_labels_above_ignore_have_their_colour_and_those_out_of_range_are_refused():
    drawn = overlay_mask(np.zeros((1, 3, 3), np.uint8), [[300, 255, 0]], strength=1.0)
    assert np.array_equal(drawn[0], [class_colours(300)[299], [235] * 3, [0] * 3])
    for label in (-1, 65536):
        with pytest.raises(PPLValueError, match=rf"{label}; labels are 0\.\.65535"):
            overlay_mask(np.zeros((1, 1, 3), np.uint8), [[label]])


def test_bfloat16_maps_are_drawn():
    maps = torch.full((4, 6), 0.5)
    assert np.array_equal(overlay(image(), maps.bfloat16()), overlay(image(), maps))
