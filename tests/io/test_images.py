from __future__ import annotations

import io
import pickle
from contextlib import nullcontext

import numpy as np
import pytest
from PIL import Image
from skimage import data

from ppl.errors import PPLFileNotFoundError, PPLValueError
from ppl.io import BadImageError, ImageFile, image_size, read_image, read_mask, to_rgb, write_mask
from ppl.io.images import raise_limit


@pytest.fixture
def photo():
    return Image.fromarray(data.astronaut()[:90, :120])


def pixels(path, **kwargs):
    image = read_image(path, **kwargs)
    assert image.mode == "RGB"
    return np.asarray(image)


def test_rgb_is_untouched(tmp_path, photo):
    photo.save(tmp_path / "a.png")
    assert np.array_equal(pixels(tmp_path / "a.png"), np.asarray(photo))


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_applied(tmp_path, photo, suffix, orientation):
    path = tmp_path / f"a.{suffix}"
    exif = Image.Exif()
    exif[0x0112] = orientation
    photo.save(path, exif=exif, **{"jpg": {"quality": 95, "subsampling": 0}, "webp": {"quality": 95}}.get(suffix, {}))
    upright = {  # EXIF 2.3: where row 0 and column 0 of the file lie in the upright picture
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, -1),
        7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
        8: lambda a: np.rot90(a, 1),
    }[orientation](np.asarray(photo).astype(int))
    got = pixels(path)
    assert got.shape == upright.shape
    assert np.abs(got - upright).mean() < 4
    assert image_size(path) == got.shape[:2]
    with Image.open(path) as unread:
        assert np.array_equal(np.asarray(to_rgb(unread)), got)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bit_grey_keeps_its_tones(tmp_path, suffix):
    values = np.linspace(0, 65535, 256).round().astype(np.uint16).reshape(16, 16)
    Image.fromarray(values).save(tmp_path / f"a.{suffix}")
    assert np.array_equal(pixels(tmp_path / f"a.{suffix}")[..., 1].ravel(), np.arange(256))


def test_a_dark_16_bit_picture_stays_dark(tmp_path):
    Image.fromarray(np.full((4, 4), 200, np.uint16)).save(tmp_path / "a.png")
    assert pixels(tmp_path / "a.png").max() == 1


@pytest.mark.parametrize("top", [1.0, 255.0, 65535.0])
def test_float_tiff(tmp_path, top):
    Image.fromarray(np.linspace(0, top, 256, dtype=np.float32).reshape(16, 16)).save(tmp_path / "a.tif")
    assert np.array_equal(pixels(tmp_path / "a.tif")[..., 0].ravel(), np.arange(256))


@pytest.mark.parametrize("value", [np.nan, -1.0, 1e9])
def test_float_tiff_out_of_range(tmp_path, value):
    Image.fromarray(np.full((2, 2), value, np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(BadImageError, match=r"a\.tif"):
        read_image(tmp_path / "a.tif")


@pytest.mark.parametrize("mode", ["L", "1", "P", "LA", "CMYK", "YCbCr"])
def test_other_modes_look_like_the_original(tmp_path, photo, mode):
    suffix = {"CMYK": "jpg", "YCbCr": "jpg"}.get(mode, "png")
    (photo.quantize(256) if mode == "P" else photo.convert(mode)).save(
        tmp_path / f"a.{suffix}", **({"quality": 95} if suffix == "jpg" else {})
    )
    expected = photo.convert("1" if mode == "1" else "L").convert("L")
    got = read_image(tmp_path / f"a.{suffix}").convert("L")
    assert np.abs(np.asarray(got).astype(int) - np.asarray(expected)).mean() < 6


def test_transparency_lies_over_white(tmp_path):
    Image.fromarray(np.array([[[255, 0, 0, 0], [255, 0, 0, 255], [0, 0, 0, 128]]], np.uint8)).save(tmp_path / "a.png")
    assert pixels(tmp_path / "a.png").tolist() == [[[255, 255, 255], [255, 0, 0], [127, 127, 127]]]
    palette = Image.fromarray(np.array([[0, 1]], np.uint8))
    palette.putpalette([9, 9, 9, 0, 0, 255])
    palette.save(tmp_path / "p.png", transparency=0)
    assert pixels(tmp_path / "p.png").tolist() == [[[255, 255, 255], [0, 0, 255]]]


@pytest.mark.parametrize("size", [(1, 50), (50, 1), (1, 1)])
def test_one_pixel_wide(tmp_path, size):
    Image.new("RGB", size, "red").save(tmp_path / "a.jpg")
    assert read_image(tmp_path / "a.jpg", at_least=(64, 64)).size == size


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif"])
def test_a_truncated_file_is_named(tmp_path, photo, suffix):
    buffer = io.BytesIO()
    photo.save(buffer, {"jpg": "JPEG", "png": "PNG", "tif": "TIFF"}[suffix])
    (tmp_path / f"cut.{suffix}").write_bytes(buffer.getvalue()[: len(buffer.getvalue()) // 2])
    with pytest.raises(BadImageError, match=rf"cut\.{suffix}") as caught:
        read_image(tmp_path / f"cut.{suffix}")
    assert "\n" not in str(caught.value)


def test_not_a_picture_and_not_there(tmp_path):
    (tmp_path / "a.jpg").write_text("hello")
    (tmp_path / "empty.jpg").write_bytes(b"")
    for name in ("a.jpg", "empty.jpg"):
        with pytest.raises(BadImageError, match=name):
            read_image(tmp_path / name)
    for read in (read_image, image_size):
        with pytest.raises(PPLFileNotFoundError, match=r"b\.jpg does not exist"):
            read(tmp_path / "b.jpg")


def test_the_reason_why_a_sound_file_cannot_be_opened_is_named(tmp_path, photo, monkeypatch):
    path = tmp_path / "a.png"
    photo.save(path)
    with monkeypatch.context() as patch:
        patch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
        for read in (read_image, image_size):
            with pytest.raises(
                BadImageError, match=r"a\.png: .*10800 pixels.* exceeds limit.*PPL_MAX_PIXELS.*MAX_IMAGE_PIXELS"
            ):
                read(path)
    with pytest.raises(BadImageError, match=r"photos\.png cannot be opened as an image: Is a directory"):
        (tmp_path / "photos.png").mkdir()
        read_image(tmp_path / "photos.png")

    def denied(*_):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Image, "open", denied)
    with pytest.raises(BadImageError, match=r"a\.png cannot be opened as an image: Permission denied; ") as caught:
        read_image(path)
    assert str(caught.value).count("a.png") == 1


@pytest.mark.filterwarnings("error::PIL.Image.DecompressionBombWarning")
def test_the_environment_allows_large_pictures_and_masks(tmp_path, photo, monkeypatch):
    photo.save(tmp_path / "a.png")
    write_mask(tmp_path / "mask.png", np.zeros((90, 120), np.uint8))
    for read, name in ((read_image, "a.png"), (read_mask, "mask.png")):
        for allowed, message in (("5000", "PPL_MAX_PIXELS"), ("many", "set it to 1e9"), ("2e4", None)):
            monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
            monkeypatch.setenv("PPL_MAX_PIXELS", allowed)
            raise_limit.cache_clear()
            with pytest.raises(PPLValueError, match=message) if message else nullcontext():
                read(tmp_path / name)
    raise_limit.cache_clear()


def test_draft_decoding_keeps_the_size_asked_for(tmp_path):
    photo = Image.fromarray(data.astronaut())
    exif = Image.Exif()
    exif[0x0112] = 6
    photo.crop((0, 0, 512, 400)).save(tmp_path / "a.jpg", exif=exif, quality=95)
    full, small = read_image(tmp_path / "a.jpg"), read_image(tmp_path / "a.jpg", at_least=(256, 100))
    assert full.size == (400, 512)
    assert small.size == (200, 256)
    assert read_image(tmp_path / "a.jpg", at_least=200).size == (200, 256)
    assert read_image(tmp_path / "a.jpg", at_least=300).size == (400, 512)
    reference = np.asarray(full.resize(small.size, Image.Resampling.BOX)).astype(int)
    assert np.abs(reference - np.asarray(small)).mean() < 3


def test_a_file_with_a_range_is_read_as_a_path_is(tmp_path):
    values = np.array([[0, 1000, 4095]], np.uint16)
    Image.fromarray(values).save(tmp_path / "a.png")
    file = ImageFile(tmp_path / "a.png", 4095)
    assert np.asarray(read_image(file))[0, :, 0].tolist() == [0, 62, 255]
    assert np.array_equal(np.asarray(read_image(tmp_path / "a.png", value_range=4095)), np.asarray(read_image(file)))
    assert np.asarray(read_image(tmp_path / "a.png"))[0, :, 0].tolist() == [0, 4, 16]
    assert image_size(file) == (1, 3) and pickle.loads(pickle.dumps(file)) == file
    with pytest.raises(BadImageError, match=r"a\.png cannot be read .* reach 4095, above value_range=1023"):
        read_image(ImageFile(tmp_path / "a.png", 1023))
