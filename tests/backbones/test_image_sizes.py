"""Images of any size: they are padded to a size that the backbone accepts, and tokens keep their rows."""

from __future__ import annotations

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ppl.backbones import CutBackbone, UnsupportedBackboneError
from ppl.backbones.image_sizes import size_multiple
from ppl.cam import generate
from ppl.models import PPLNet, create_model
from ppl.refine.affinity_network import AffinityNetwork


class TwoResolutions(nn.Module):
    """A network that adds an enlarged coarse map to a fine map, like HRNet and DLA: sides are multiples of 8."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.fine = nn.Conv2d(8, 8, 3, stride=2, padding=1)
        self.coarse = nn.Conv2d(8, 8, 3, stride=2, padding=1)
        self.last = nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        fine = self.fine(self.stem(x))
        return self.last(fine + F.interpolate(self.coarse(fine), scale_factor=2.0))  # type: ignore[no-any-return]


class Unpadded(nn.Module):
    """A network that loses two cells on every side, by two convolutions without padding after the cut."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 8, stride=8)
        self.tail = nn.Sequential(nn.Conv2d(8, 8, 5), nn.ReLU(), nn.Conv2d(8, 8, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.tail(self.stem(x))  # type: ignore[no-any-return]


def two_resolutions(**kwargs: object) -> PPLNet:
    torch.manual_seed(0)
    settings: dict[str, object] = {"cuts": ["stem"], "stages": ["stem", "last"], **kwargs}
    return PPLNet(TwoResolutions(), 2, **settings).eval()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "expected"), [("test_resnet", 1), ("test_efficientnet", 1), ("hrnet_w18_small", 32), ("csatv2", 8)]
)
def test_the_multiple_of_image_sides_is_found(name: str, expected: int) -> None:
    assert size_multiple(timm.create_model(name, pretrained=False).eval()) == expected


def test_images_are_padded_to_the_next_size_that_the_backbone_accepts() -> None:
    model, image = two_resolutions(), torch.randn(3, 50, 67)
    assert model.size_multiple == 8
    padded = F.pad(image, (0, 72 - 67, 0, 56 - 50))[None]
    for branch, read in (("all", model.class_maps), ("unpatched", lambda x: model.branch_class_maps(x)[-1])):
        (result,) = generate(model, [image], [[1]], scales=[1.0], flip=False, branch=branch)
        with torch.no_grad():
            cells = read(padded)[:, 1:, :13, :17].relu()
        expected = F.interpolate(cells, (50, 67), mode="bilinear", align_corners=False)[0]
        torch.testing.assert_close(result.maps, expected / (expected.amax() + 1e-5))


def test_a_plain_classifier_gets_padded_images_too() -> None:
    model = timm.create_model("dla34", pretrained=False, num_classes=2).eval()
    (result,) = generate(model, [torch.randn(3, 75, 100)], [[0]], scales=[1.0])
    assert result.maps.shape == (1, 75, 100)


def test_an_affinity_network_takes_images_of_any_size() -> None:
    torch.manual_seed(0)
    network = AffinityNetwork(TwoResolutions(), stages=["stem", "last"], stride=4)
    with torch.no_grad():
        logits = network(torch.rand(1, 3, 50, 67))
    assert logits.shape == (1, 1, 13, 17)


def test_crops_of_unsupported_size_are_refused_and_the_next_size_is_named() -> None:
    with pytest.raises(UnsupportedBackboneError, match="multiples of 8, not 50x64: use 56x64"):
        two_resolutions().check_input_size(50, 64)


def test_smallest_size_leaves_room_for_convolutions_without_padding() -> None:
    model = PPLNet(Unpadded(), 2, cuts=["stem"], stages=["stem", "tail"], grids=2).eval()
    height, width = model.min_size
    with torch.no_grad():
        assert model(torch.zeros(1, 3, height, width)).shape == (1, 2)
        with pytest.raises(RuntimeError, match="Kernel size"):
            model(torch.zeros(1, 3, height - model.stride, width - model.stride))
    assert generate(model, [torch.randn(3, 90, 60)], [[0]], scales=[1.0, 0.5])[0].maps.shape == (1, 90, 60)


def test_smallest_size_leaves_room_for_reflections() -> None:
    model = create_model("test_resnet", 2, padding="reflect", pretrained=False).eval()
    phase = model.phase
    with torch.no_grad():
        model(torch.zeros(1, 3, *model.min_size))
    assert model.phase == phase
    assert generate(model, [torch.randn(3, 40, 30)], [[0]], scales=[1.0])[0].maps.shape == (1, 40, 30)


@pytest.mark.parametrize("size", [(208, 224), (224, 208), (80, 96)])
def test_tokens_of_oblong_maps_keep_their_rows(size: tuple[int, int]) -> None:
    cutter = CutBackbone(
        timm.create_model("mvitv2_tiny", pretrained=False, num_classes=0).eval(), ["stages.2.blocks.4"]
    )
    with torch.no_grad():
        final, features = cutter.forward_features(torch.randn(1, 3, *size), [0])
        assert torch.equal(cutter.resume(0, features[0], final.shape[-2:], size), final)
        _, tiling = cutter._hooked.cut(0, features[0], 1, final.shape[-2:], size)
    assert tiling.whole == (size[0] // 16, size[1] // 16)


def test_tokens_may_be_rounded_down() -> None:
    model = create_model("twins_pcpvt_small", 2, pretrained=False).eval()
    assert generate(model, [torch.randn(3, 151, 201)], [[0]], scales=[1.0])[0].maps.shape == (1, 151, 201)


def test_patches_that_a_backbone_would_enlarge_are_refused_and_a_size_is_named() -> None:
    model = create_model("mobilevitv2_050", 2, pretrained=False).eval()
    with torch.no_grad():
        assert model(torch.zeros(1, 3, 128, 256)).shape == (1, 2)
        with pytest.raises(UnsupportedBackboneError, match="use images of 256x256"):
            model(torch.zeros(1, 3, 150, 200))


def test_a_backbone_with_a_minimum_size_needs_no_multiples() -> None:
    class Roomy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Sequential(nn.Conv2d(3, 4, 11, 4), nn.Conv2d(4, 4, 5, 2))
            self.tail = nn.Sequential(nn.Conv2d(4, 4, 5, 2), nn.Conv2d(4, 4, 4))

        def forward(self, x: Tensor) -> Tensor:
            return self.tail(self.stem(x))  # type: ignore[no-any-return]

    model = PPLNet(Roomy(), 2, mode="baseline", stages=["stem", "tail"])
    assert model.size_multiple == 1
    model.check_input_size(225, 301)


def test_a_size_that_runs_by_chance_is_accepted() -> None:
    model = PPLNet(TwoResolutions(), 2, mode="baseline", stages=["stem", "last"]).eval()
    model.check_input_size(63, 64)  # 16 cells, as of 64
    with torch.no_grad():
        assert model(torch.zeros(1, 3, 63, 64)).shape == (1, 2)


def test_the_multiple_of_a_classifier_is_measured_once() -> None:
    model = timm.create_model("test_resnet", pretrained=False, num_classes=2).eval()
    generate(model, [torch.randn(3, 128, 128)], [[0]], scales=[1.0])
    calls: list[torch.Size] = []
    model.conv1.register_forward_pre_hook(lambda _, args: calls.append(args[0].shape))
    generate(model, [torch.randn(3, 128, 128)], [[0]], scales=[1.0])
    assert calls == [torch.Size((2, 3, 128, 128))]
