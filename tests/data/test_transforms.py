from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data

from ppl.data import eval_transform, train_transform

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.5)
SIZES = [(1, 1), (1, 300), (300, 1), (33, 57), (400, 300)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("target", [32, (48, 31)])
def test_the_output_has_the_size_asked_for(size, target):
    image = Image.new("RGB", size, (200, 30, 90))
    expected = (3, 32, 32) if target == 32 else (3, 48, 31)
    for transform in (train_transform(target, MEAN, STD), eval_transform(target, MEAN, STD)):
        tensor = transform(image)
        assert tensor.shape == expected
        assert tensor.dtype == torch.float32
        assert tensor.isfinite().all()


def test_padding_is_zero_after_normalisation():
    colour = (250, 10, 10)
    value = (torch.tensor(colour) / 255 - torch.tensor(MEAN)) / torch.tensor(STD)
    tensor = train_transform(64, MEAN, STD, resize_long=(40, 40), jitter=None)(Image.new("RGB", (100, 50), colour))
    inside = (tensor - value[:, None, None]).abs().amax(0) < 1e-5
    outside = (tensor == 0).all(0)
    assert inside.sum() == 40 * 20
    assert (inside ^ outside).all()


def test_eval_keeps_the_shape_and_is_repeatable():
    photo = Image.fromarray(data.astronaut()[:, :256])
    transform = eval_transform((64, 64), MEAN, STD)
    tensor = transform(photo)
    assert torch.equal(tensor, transform(photo))
    assert (tensor[:, :, :16] == 0).all()
    assert (tensor[:, :, -16:] == 0).all()
    pixels = (tensor[:, :, 16:48] * torch.tensor(STD)[:, None, None] + torch.tensor(MEAN)[:, None, None]) * 255
    plain = np.asarray(photo.resize((32, 64), Image.Resampling.BICUBIC)).transpose(2, 0, 1).astype(np.float32)
    assert np.abs(pixels.numpy() - plain).mean() < 1


def test_training_varies_with_the_seed_and_only_with_it():
    photo = Image.fromarray(data.astronaut())
    transform = train_transform(48, MEAN, STD)
    runs = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        runs.append(transform(photo))
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])


def test_the_default_range_is_that_of_crops_of_512():
    assert train_transform(512, MEAN, STD).transforms[0].low == 320
    assert train_transform((300, 512), MEAN, STD).transforms[0].high == 640


def test_flips_can_be_certain():
    ramp = Image.fromarray(np.tile(np.arange(0, 250, 5, dtype=np.uint8), (50, 1))).convert("RGB")
    options = {"resize_long": (50, 50), "jitter": None}
    plain = train_transform(50, MEAN, STD, hflip=0.0, **options)(ramp)
    turned = train_transform(50, MEAN, STD, hflip=1.0, **options)(ramp)
    assert torch.equal(plain.flip(-1), turned)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"size": 0}, "size 0"),
        ({"size": (4, -1)}, r"\(4, -1\)"),
        ({"resize_long": (20, 10)}, r"20\.\.10"),
        ({"std": (1.0, 0.0, 1.0)}, "above zero"),
        ({"mean": (0.5,)}, "three numbers"),
    ],
)
def test_invalid_arguments_are_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        train_transform(**({"size": 32, "mean": MEAN, "std": STD} | arguments))
