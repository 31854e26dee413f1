from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn

from ppl.backbones import CutBackbone, UnsupportedBackboneError, check_backbone, data_config, resolve_stages
from ppl.errors import PPLError, PPLTypeError


def convnext() -> nn.Module:
    from torchvision.models.convnext import CNBlockConfig, ConvNeXt

    return ConvNeXt(
        [CNBlockConfig(8, 16, 1), CNBlockConfig(16, 16, 1), CNBlockConfig(16, 16, 2), CNBlockConfig(16, None, 1)]
    )


def swin() -> nn.Module:
    return torchvision.models.SwinTransformer([4, 4], 8, [1, 1, 2, 1], [1, 1, 2, 2], [7, 7])


FEATURES = ["features.1", "features.3", "features.5", "features.7"]
TORCHVISION: dict[str, tuple[Callable[[], nn.Module], list[str], list[str]]] = {
    "resnet18": (torchvision.models.resnet18, ["layer1", "layer2", "layer3", "layer4"], ["NCHW"] * 4),
    "convnext": (convnext, FEATURES, ["NCHW"] * 4),
    "swin": (swin, FEATURES, ["NHWC"] * 4),
}


@pytest.mark.parametrize("name", TORCHVISION)
def test_torchvision_models_are_cut_by_the_names_of_their_stages(name: str) -> None:
    builder, stages, layouts = TORCHVISION[name]
    torch.manual_seed(0)
    model = builder().eval()
    keys = list(model.state_dict())
    assert [stage.layout for stage in resolve_stages(model, stages)] == layouts
    cutter = CutBackbone(model, [stages[2]], stages=stages)
    assert cutter.stride == 32
    with torch.no_grad():
        final, features = cutter.forward_features(torch.randn(1, 3, 128, 128), [0])
        assert final.shape == (1, cutter.num_features, 4, 4)
        assert torch.equal(cutter.resume(0, features[0]), final)
        assert cutter.patched(0, features[0], 2, (4, 4)).shape == final.shape
    assert list(model.state_dict()) == keys


def test_every_identity_is_checked_on_a_hand_written_chain() -> None:
    chain = nn.Sequential(*(nn.Sequential(nn.Conv2d(c, 8, 3, 2, 1), nn.ReLU()) for c in (3, 8, 8)))
    before = [p.clone() for p in chain.parameters()]
    report = check_backbone(chain, grid=(2, 1), input_size=(64, 48), stages=["0", "1", "2"])
    assert report.supported and report.tier == 2 and report.cuts == ("0", "1")
    assert report.name == "Sequential" and report.stride == 8
    assert not any(module._forward_hooks for module in chain.modules())
    assert all(torch.equal(a, b) for a, b in zip(before, chain.parameters(), strict=True))


class Skip(nn.Module):
    """A network whose last stage also reads the first stage's output, across the cut after the second stage."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.second = nn.Conv2d(4, 4, 3, padding=1)
        self.third = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        first = self.first(x)
        pooled = first.mean(dim=(2, 3), keepdim=True)  # a map of one cell, which broadcasts without an error
        return self.third(self.second(first) + pooled)  # type: ignore[no-any-return]


def test_a_skip_connection_across_the_cut_is_refused() -> None:
    stages, model = ["first", "second", "third"], Skip()
    with pytest.raises(UnsupportedBackboneError, match="Skip cannot be cut after 'second': resuming is not the plain"):
        CutBackbone(model, ["second"], stages=stages)
    assert not model.second._forward_hooks
    CutBackbone(Skip(), ["first"], stages=stages)
    report = check_backbone(Skip(), stages=stages, input_size=(32, 32))
    assert report.tier == 3 and report.cuts == ("first",)
    assert "after second: resuming is not the plain forward" in report.reason


def test_a_layer_that_mixes_the_batch_is_refused() -> None:
    class Mixing(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + x.flip(0)

    model = nn.Sequential(nn.Conv2d(3, 4, 1), Mixing())
    with pytest.raises(UnsupportedBackboneError, match="patches are not independent"):
        CutBackbone(model, ["0"], stages=["0", "1"])


def test_stages_that_run_twice_or_return_no_map_are_named() -> None:
    shared = nn.ReLU()
    model = nn.Sequential(nn.Conv2d(3, 4, 1), shared, nn.Conv2d(4, 4, 1), shared, nn.Flatten())
    with pytest.raises(PPLError, match="'1' runs 2 times"):
        resolve_stages(model, ["0", "1"])
    with pytest.raises(PPLError, match="'4' of Sequential returns no map but"):
        resolve_stages(model, ["0", "4"])
    with pytest.raises(PPLTypeError, match="write \\['0'\\]"):
        resolve_stages(model, "0")


def test_lazy_modules_must_have_run() -> None:
    model = nn.Sequential(nn.LazyConv2d(4, 3), nn.Conv2d(4, 4, 1))
    with pytest.raises(PPLTypeError, match=r"lazy modules.*run it on one image first"):
        resolve_stages(model, ["0", "1"])
    model(torch.zeros(1, 3, 8, 8))
    assert [stage.channels for stage in resolve_stages(model, ["0", "1"])] == [4, 4]


def test_the_error_of_a_model_that_fails_at_every_size_names_the_sizes() -> None:
    class Fussy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Conv2d(3, 3, 1)

        def forward(self, x: Tensor) -> Tensor:
            if tuple(x.shape[-2:]) != (50, 70):
                raise ValueError("only 50x70")
            return self.layer(x)  # type: ignore[no-any-return]

    with pytest.raises(PPLError, match=r"64x96, 128x192, 224x224: ValueError: only 50x70; give the size.*input_size"):
        resolve_stages(Fussy(), ["layer"])
    assert resolve_stages(Fussy(), ["layer"], input_size=(50, 70))[0].reduction == 1
    saying = Fussy()
    saying.img_size = (50, 70)  # type: ignore[assignment]
    assert resolve_stages(saying, ["layer"])[0].reduction == 1


def test_data_config_comes_from_the_model_or_from_imagenet() -> None:
    import timm

    own = data_config(timm.create_model("test_vit"))
    assert own["input_size"] == (3, 160, 160) and own["mean"] == (0.5, 0.5, 0.5)
    assert data_config(nn.Identity())["mean"] == (0.485, 0.456, 0.406)


def test_double_precision_gradients_pass_through_cut_and_merge() -> None:
    model: Any = nn.Sequential(nn.Conv2d(3, 2, 1), nn.Conv2d(2, 2, 3, 2, 1)).double()
    cutter = CutBackbone(model, ["0"], stages=["0", "1"])
    raw = torch.randn(1, 2, 5, 7, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda features: cutter.patched(0, features, 2, (3, 4)), (raw,))


def test_a_batchnorm_that_is_used_before_and_after_a_cut_is_refused() -> None:
    norm = nn.BatchNorm2d(4)
    model = nn.Sequential(nn.Conv2d(3, 4, 1), norm, nn.Conv2d(4, 4, 1), norm, nn.Conv2d(4, 4, 1))
    with pytest.raises(UnsupportedBackboneError, match=r"cannot cut after '2': '1' runs before and after.*'0' \(0\)"):
        CutBackbone(model, ["2"], stages=["0", "2", "4"])
    CutBackbone(model, ["0"], stages=["0", "2", "4"])


def test_a_swin_of_hugging_face_runs_its_stages_on_every_patch() -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.SwinConfig(embed_dim=16, depths=[2, 2, 2], num_heads=[1, 2, 4], window_size=4)
    model = transformers.SwinBackbone(config).eval()
    stages = ["swin.encoder.layers.0", "swin.encoder.layers.1", "hidden_states_norms.stage3"]
    cutter = CutBackbone(model, stages[:1], stages=stages)
    with torch.no_grad():
        x = torch.randn(2, 3, 128, 96)
        final, features = cutter.forward_features(x, [0])
        torch.testing.assert_close(final, model(x).feature_maps[-1])
        merged = cutter.patched(0, features[0], 2, (8, 6))
        grid = features[0].reshape(2, 16, 12, 32)
        for row in range(2):
            for column in range(2):
                tokens = grid[:, 8 * row : 8 * row + 8, 6 * column : 6 * column + 6].reshape(2, 48, 32)
                layers = model.swin.encoder.layers
                tokens = layers[1](tokens, (8, 6), always_partition=True)[0]
                tokens = model.hidden_states_norms["stage3"](layers[2](tokens, (4, 3), always_partition=True)[0])
                expected = tokens.reshape(2, 4, 3, 64).permute(0, 3, 1, 2)
                ours = merged[:, :, 4 * row : 4 * row + 4, 3 * column : 3 * column + 3]
                torch.testing.assert_close(ours, expected)


class Remembering(nn.Module):
    """A network whose result depends on the smallest image that it has seen."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.tail, self.reach = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1), 1000

    def forward(self, x: Tensor) -> Tensor:
        self.reach = min(self.reach, x.shape[-1])
        return self.tail(self.stem(x) * self.reach)  # type: ignore[no-any-return]


def test_state_that_depends_on_the_image_size_is_restored_or_the_model_refused() -> None:
    model = Remembering()
    resolve_stages(model, ["stem", "tail"])
    assert model.reach == 1000
    with pytest.raises(UnsupportedBackboneError, match="cannot be cut after 'stem'"):
        CutBackbone(model, ["stem"], stages=["stem", "tail"])
    assert model.reach == 1000 and not model.stem._forward_hooks


def test_a_stage_that_returns_a_tuple_with_its_map_first_is_cut() -> None:
    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Conv2d(3, 4, 3, 2, 1)

        def forward(self, x: Tensor) -> tuple[Tensor, None]:
            return self.layer(x), None

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = Pair(), nn.Conv2d(4, 4, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            return self.second(self.first(x)[0])  # type: ignore[no-any-return]

    model = Model()
    cutter = CutBackbone(model, ["first"], stages=["first", "second"])
    with torch.no_grad():
        final, features = cutter.forward_features(torch.randn(1, 3, 16, 16), [0])
        merged = cutter.patched(0, features[0], 2, (8, 8))
        assert torch.equal(cutter.resume(0, features[0]), final)
        torch.testing.assert_close(merged[..., :4, :4], model.second(features[0][..., :4, :4]))


class Gain(nn.Module):
    """A network with a factor that does not depend on the image and is used after the cut."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1)
        self.blocks = nn.ModuleList([nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)])
        self.factor, self.gain = nn.Linear(4, 4), nn.Parameter(torch.randn(4))

    def forward(self, x: Tensor) -> Tensor:
        gain = self.factor(self.gain)
        x = self.first(x)
        for block in self.blocks:
            x = block(x)
        return self.second(x) * gain[:, None, None]  # type: ignore[no-any-return]


def test_the_dummy_image_skips_blocks_but_not_modules_that_do_not_depend_on_it() -> None:
    model, ran = Gain(), []
    cutter = CutBackbone(model, ["blocks.1"], stages=["first", "blocks.1", "second"])
    final, features = cutter.forward_features(torch.randn(1, 3, 8, 8), [0])
    convolve = nn.Conv2d._conv_forward

    def counted(self: nn.Conv2d, *args: Any) -> Tensor:
        ran.append(self)
        return convolve(self, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nn.Conv2d, "_conv_forward", counted)
        assert torch.equal(cutter.resume(0, features[0]), final)
    assert [id(conv.weight) for conv in ran] == [id(model.first.weight), id(model.second.weight)]


def test_entries_of_dry_runs_are_removed_from_dictionaries_of_the_caller() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 4, 3, 2, 1), nn.Conv2d(4, 4, 3, 2, 1))
    seen: dict[str, Any] = {}
    model.seen = seen
    model[1].register_forward_hook(lambda module, args, output: seen.__setitem__("b", tuple(output.shape)))
    CutBackbone(model, ["0"], stages=["0", "1", "2"])
    assert seen == {}
    model(torch.zeros(1, 3, 40, 48))
    assert model.seen is seen and seen == {"b": (1, 4, 10, 12)}


class Counter:
    """A caller's own hook, whose state cannot be copied."""

    def __init__(self) -> None:
        self.lock, self.calls = threading.Lock(), 0

    def count(self, *_: object) -> None:
        with self.lock:
            self.calls += 1


def test_hooks_of_the_caller_need_not_be_copyable() -> None:
    counter = Counter()
    model = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 4, 3, 2, 1), nn.Conv2d(4, 4, 3, 2, 1))
    model[1].register_forward_hook(counter.count)
    cutter = CutBackbone(model, ["0"], stages=["0", "1", "2"])
    counter.calls = 0
    final, features = cutter.forward_features(torch.zeros(1, 3, 32, 32), [0])
    cutter.patched(0, features[0], 2, final.shape[-2:])
    assert counter.calls == 2
