from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from ppl.io import BadImageError, palette, read_mask, write_mask
from ppl.io.masks import read_color_mask


def test_the_palette_is_vocs():
    # the first colours as the VOC development kit prints them
    known = "000000 800000 008000 808000 000080 800080 008080 808080 400000"
    assert " ".join(bytes(c).hex() for c in palette(9)) == known
    assert palette()[255].tolist() == [224, 224, 192]
    assert len({tuple(c) for c in palette().tolist()}) == 256
    with pytest.raises(ValueError, match="257"):
        palette(257)


@pytest.mark.parametrize("kind", [np.uint8, np.int64, bool, torch.int64])
def test_round_trip(tmp_path, kind):
    values = np.array([[0, 1], [1, 0]]) if kind is bool else np.array([[0, 1], [7, 255]])
    mask = torch.from_numpy(values) if isinstance(kind, torch.dtype) else values.astype(kind)
    write_mask(tmp_path / "m.png", mask)
    assert read_mask(tmp_path / "m.png").dtype == np.uint8
    assert np.array_equal(read_mask(tmp_path / "m.png"), values)
    with Image.open(tmp_path / "m.png") as image:
        assert image.mode == "P"
        assert image.convert("RGB").getpixel((1, 0)) == (128, 0, 0)


def test_few_indices_do_not_shrink_the_palette(tmp_path):
    write_mask(tmp_path / "m.png", np.full((3, 5), 255, np.uint8))
    assert (read_mask(tmp_path / "m.png") == 255).all()


def test_grey_and_bilevel_and_16_bit_masks_are_read(tmp_path):
    values = np.array([[0, 3], [255, 20]], np.uint8)
    Image.fromarray(values).save(tmp_path / "l.png")
    Image.fromarray(values.astype(np.uint16)).save(tmp_path / "i.png")
    Image.fromarray(values > 100).save(tmp_path / "1.png")
    assert np.array_equal(read_mask(tmp_path / "l.png"), values)
    assert np.array_equal(read_mask(tmp_path / "i.png"), values)
    assert np.array_equal(read_mask(tmp_path / "1.png"), values > 100)


def test_bad_masks_are_named(tmp_path):
    Image.new("RGB", (2, 2), (0, 128, 0)).save(tmp_path / "rgb.png")
    Image.fromarray(np.full((2, 2), 300, np.uint16)).save(tmp_path / "big.png")
    (tmp_path / "text.png").write_text("no")
    for name, words in {"rgb.png": "RGB picture", "big.png": r"\[300, 300\]", "text.png": "cannot be read"}.items():
        with pytest.raises(BadImageError, match=f"{name}.*{words}"):
            read_mask(tmp_path / name)
    with pytest.raises(FileNotFoundError, match=r"none\.png"):
        read_mask(tmp_path / "none.png")


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_an_alpha_channel_counts_as_none_unless_pixels_are_transparent(tmp_path, mode):
    values = np.array([[0, 1], [2, 255]], np.uint8)
    opaque = Image.fromarray(values).convert(mode)
    opaque.save(tmp_path / "opaque.png")
    assert np.array_equal(read_mask(tmp_path / "opaque.png"), values)
    opaque.putalpha(Image.fromarray(values))
    opaque.save(tmp_path / "drawn_in_alpha.png")
    with pytest.raises(BadImageError, match=r"drawn_in_alpha\.png has transparent pixels"):
        read_mask(tmp_path / "drawn_in_alpha.png")


@pytest.mark.parametrize(
    ("mask", "words"),
    [
        (np.zeros((1, 2, 2), np.uint8), r"\(1, 2, 2\)"),
        (np.zeros((0, 3), np.uint8), r"\(0, 3\)"),
        (np.zeros((2, 2)), "float64"),
        (np.full((2, 2), 256), r"\[256, 256\]"),
        (np.full((2, 2), -1), r"\[-1, -1\]"),
    ],
)
def test_what_is_not_a_mask_is_refused(tmp_path, mask, words):
    with pytest.raises(ValueError, match=words):
        write_mask(tmp_path / "m.png", mask)
    assert not list(tmp_path.iterdir())


def test_a_mask_above_pillows_limit_is_not_called_damaged(tmp_path, monkeypatch):
    write_mask(tmp_path / "a.png", np.zeros((40, 50), np.uint8))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    for read in (read_mask, lambda path: read_color_mask(path, {(0, 0, 0): 0})):
        with pytest.raises(BadImageError, match=r"a\.png: Image size \(2000 pixels\) exceeds limit .*MAX_IMAGE_PIXELS"):
            read(tmp_path / "a.png")


def test_colours_are_looked_up_pixel_by_pixel(tmp_path):
    rng = np.random.default_rng(0)
    colours = rng.integers(0, 256, (5, 3), dtype=np.uint8)
    indices = rng.integers(0, 5, (30, 40))
    Image.fromarray(colours[indices]).save(tmp_path / "a.png")
    table = {tuple(map(int, colour)): int(index) for index, colour in enumerate(colours)}
    assert np.array_equal(read_color_mask(tmp_path / "a.png", table), indices)
    del table[tuple(map(int, colours[3]))]
    with pytest.raises(BadImageError, match=r"holds 1 colour without a class, \({}, {}, {}\)".format(*colours[3])):
        read_color_mask(tmp_path / "a.png", table)


def test_grey_that_is_stored_three_times_is_read(tmp_path):
    indices = np.array([[0, 1], [2, 255]], np.uint8)
    Image.fromarray(np.stack([indices] * 3, -1)).save(tmp_path / "a.png")
    assert np.array_equal(read_mask(tmp_path / "a.png"), indices)
