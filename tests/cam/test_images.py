from __future__ import annotations

import warnings

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset

from ppl.cam import generate, iter_generate
from ppl.errors import PPLTypeError, PPLValueError
from ppl.io.images import ImageFile
from ppl.models import create_model


def make_model():
    torch.manual_seed(0)
    return create_model("test_resnet", 5, mode="baseline", pretrained=False).eval()


def picture(seed=0, shape=(48, 64, 3)):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def test_arrays_of_pixels_are_pictures():
    model, arrays = make_model(), [picture(0), picture(1, (70, 40, 3))]
    found = generate(model, arrays, [[1], [2]], scales=[1.0])
    expected = generate(model, [Image.fromarray(one) for one in arrays], [[1], [2]], scales=[1.0])
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one.maps, other.maps)
    batch = np.stack([picture(0), picture(2)])
    assert torch.equal(generate(model, batch, [[1], [2]], scales=[1.0])[0].maps, expected[0].maps)


def test_arrays_of_other_memory_and_channels_are_pictures():
    model, pixels = make_model(), picture()
    expected = generate(model, [pixels], [[1]], scales=[1.0])[0].maps
    flipped = np.ascontiguousarray(pixels[:, ::-1])[:, ::-1]  # strides below 0, as OpenCV's img[..., ::-1] has
    assert torch.equal(generate(model, [flipped], [[1]], scales=[1.0])[0].maps, expected)
    grey = picture(3, (48, 64))
    as_rgb = generate(model, [np.stack([grey] * 3, axis=2)], [[1]], scales=[1.0])[0].maps
    for one in (grey, grey[:, :, None]):
        assert torch.equal(generate(model, [one], [[1]], scales=[1.0])[0].maps, as_rgb)


@pytest.mark.parametrize(
    ("images", "error", "message"),
    [
        (picture(), PPLTypeError, r"one array of shape \(48, 64, 3\): write \[image\]"),
        ([picture().astype(np.float32)], PPLTypeError, r"an array of float32: pass uint8 \(H,W,3\) in RGB order"),
        (
            [picture(0, (3, 48, 64))],
            PPLValueError,
            r"image 0 must be an array \(H,W,3\) of uint8, got shape \(3, 48, 64\): pass array\.transpose\(1, 2, 0\)",
        ),
        ([picture(0, (0, 4, 3))], PPLValueError, r"got shape \(0, 4, 3\)"),
        ([np.array(5, np.uint8)], PPLValueError, r"got shape \(\)"),
    ],
)
def test_arrays_that_are_no_pictures_are_named(images, error, message):
    with pytest.raises(error, match=message):
        generate(make_model(), images, [[0]])


class Pairs(Dataset):
    def __len__(self):
        return 3

    def __getitem__(self, index):
        return torch.randn(3, 48, 64, generator=torch.Generator().manual_seed(index)), index


class Stream(IterableDataset):
    def __iter__(self):
        return (Pairs()[index] for index in range(3))


@pytest.mark.parametrize("dataset", [Pairs(), Stream()])
def test_the_images_of_a_torch_dataset_are_read_and_its_targets_are_not(dataset):
    model, images = make_model(), [Pairs()[index][0] for index in range(3)]
    found = generate(model, dataset, [[1], [2], [0, 4]], scales=[1.0])
    for one, other in zip(found, generate(model, images, [[1], [2], [0, 4]], scales=[1.0]), strict=True):
        assert torch.equal(one.maps, other.maps)
    with pytest.raises(PPLValueError, match="3 images, but 2 rows"):
        generate(model, dataset, [[1], [2]], scales=[1.0])


@pytest.mark.parametrize("collate", [None, list])
def test_the_images_of_a_loader_are_those_of_its_dataset(collate):
    model, labels = make_model(), [[1], [2], [0, 4]]
    dataset = [image for image, _ in (Pairs()[index] for index in range(3))] if collate else Pairs()
    found = generate(model, DataLoader(dataset, 2, collate_fn=collate), labels, scales=[1.0])
    for one, other in zip(found, generate(model, Pairs(), labels, scales=[1.0]), strict=True):
        assert torch.equal(one.maps, other.maps)
    with pytest.raises(PPLValueError, match="3 images, but 2 rows"):
        generate(model, DataLoader(Pairs(), 2), [[1], [2]], scales=[1.0])


def test_labels_of_a_shuffled_loader_are_refused():
    loader = DataLoader(Pairs(), 2, shuffle=True)
    with pytest.raises(PPLValueError, match=r"that of a RandomSampler: make it with shuffle=False"):
        generate(make_model(), loader, [[1]] * 3)
    assert len(generate(make_model(), loader, scales=[1.0])) == 3


def test_tensors_of_pixels_that_are_not_normalised_are_a_warning():
    model, pixels = make_model(), torch.from_numpy(picture()).permute(2, 0, 1).float()
    with pytest.warns(
        UserWarning, match=r"image 0 holds 255, but a normalised picture stays within 1: are these pixels"
    ):
        generate(model, [pixels], [[1]], scales=[1.0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        generate(model, [(pixels / 255 - 0.5) / 0.5, 3 * torch.randn(3, 64, 64)], [[1]] * 2, scales=[1.0])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_pixels_that_are_no_numbers_are_refused_by_image(value):
    images = [torch.randn(3, 64, 64) for _ in range(3)]
    images[1][0, 3, 5] = value
    for scales in ([1.0], [0.25]):
        with pytest.raises(PPLValueError, match="image 1 holds NaN or infinity"):
            generate(make_model(), images, [[0]] * 3, scales=scales)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused_by_name_and_at_once(value):
    model = make_model()
    with torch.no_grad():
        model.backbone.layer3[0].conv1.weight[0, 0, 0, 0] = value
    with pytest.raises(
        PPLValueError, match=r"'backbone\.layer3\.0\.conv1\.weight' of PPLNet holds NaN or infinity in 1 of"
    ):
        iter_generate(model, torch.randn(1, 3, 64, 64), [[0]])


def test_statistics_that_are_no_numbers_are_refused_by_name():
    model = make_model()
    model.backbone.bn1.running_var[2] = float("nan")
    with pytest.raises(PPLValueError, match=r"'backbone\.bn1\.running_var' of PPLNet holds NaN"):
        generate(model, torch.randn(1, 3, 64, 64), [[0]])


class Overflow(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.grow = nn.Conv2d(3, 4, 3, 4, 1), nn.Conv2d(4, 4, 1, bias=False)
        self.last = nn.Conv2d(4, 5, 1)
        nn.init.constant_(self.grow.weight, 1e30)

    def forward(self, x):
        return self.last(self.grow(self.grow(self.first(x)))).mean((2, 3))


def test_a_layer_that_overflows_is_named():
    torch.manual_seed(0)
    model = Overflow()
    with torch.no_grad():
        model.first.weight.mul_(0)
        model.first.bias.fill_(0)
    generate(model, torch.randn(1, 3, 64, 64), [[0]], scales=[1.0])  # zeros all the way
    nn.init.normal_(model.first.weight)
    with pytest.raises(
        PPLValueError, match=r"'Overflow' returns NaN or infinity for image 0.*its layer 'grow' is the first"
    ):
        generate(model, torch.randn(1, 3, 64, 64), [[0]], scales=[1.0])


def test_pictures_for_a_model_of_many_bands_are_refused_by_its_number_of_bands():
    model = timm.create_model("test_resnet", num_classes=3, in_chans=5).eval()
    for image in (picture(0, (48, 64, 5)), picture()):
        with pytest.raises(PPLTypeError, match=r"the model takes 5: pass normalised tensors \(5,H,W\)"):
            generate(model, [image], [[0]])
    assert len(generate(model, [torch.randn(5, 48, 64)], [[0]], scales=[1.0])) == 1


def test_tensors_of_pixels_within_0_and_1_are_a_warning():
    model, pixels = make_model(), torch.from_numpy(picture()).permute(2, 0, 1) / 255
    with pytest.warns(UserWarning, match=r"lie within 0\.\.1: are these pixels that are not normalised"):
        generate(model, [pixels], [[1]], scales=[1.0])


@pytest.mark.parametrize("kind", ["picture", "file"])
def test_16_bit_pictures_with_small_values_are_a_warning_unless_their_range_is_given(tmp_path, kind):
    dark = Image.fromarray(np.linspace(0, 4095, 48 * 64).reshape(48, 64).astype(np.uint16))
    dark.save(tmp_path / "dark.png")
    with pytest.warns(UserWarning, match="pictures of 16 bits with small values alone"):
        generate(make_model(), [dark if kind == "picture" else tmp_path / "dark.png"], [[1]], scales=[1.0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        generate(make_model(), [ImageFile(tmp_path / "dark.png", 4095)], [[1]], scales=[1.0])
        generate(make_model(), [ImageFile(tmp_path / "dark.png")], [[1]], scales=[1.0])


def test_mappings_of_a_loader_are_named():
    loader = DataLoader([{"image": torch.randn(3, 48, 64)}] * 2, 2)
    with pytest.raises(PPLTypeError, match="mappings with the keys 'image': pass the images alone"):
        generate(make_model(), loader, [[0]] * 2)
