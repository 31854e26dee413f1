from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
from torch import nn

from ppl.backbones import CutBackbone, Stage, UnsupportedBackboneError, check_backbone, default_cuts, resolve_stages
from ppl.backbones.families import family_of
from ppl.backbones.families.orders import hiera_order
from ppl.backbones.image_sizes import native_size
from ppl.backbones.timm_support import NEWEST_TIMM


def swin(version: str = "", **kwargs: Any) -> nn.Module:
    module = __import__(f"timm.models.swin_transformer{version}", fromlist=["x"])
    kind = getattr(
        module, {"": "SwinTransformer", "_v2": "SwinTransformerV2", "_v2_cr": "SwinTransformerV2Cr"}[version]
    )
    settings: dict[str, Any] = {
        "img_size": 128,
        "embed_dim": 16,
        "depths": (2, 2),
        "num_heads": (2, 2),
        "window_size": 4,
    }
    return kind(num_classes=0, **{**settings, **kwargs})  # type: ignore[no-any-return]


def twins(**kwargs: Any) -> nn.Module:
    from timm.models.twins import Twins

    return Twins(  # type: ignore[no-any-return]
        img_size=128, embed_dims=(16, 32), num_heads=(1, 2), mlp_ratios=(2, 2), depths=(2, 2), sr_ratios=(2, 1),
        num_classes=0, **kwargs,
    )  # fmt: skip


def tnt() -> nn.Module:
    from timm.models.tnt import TNT

    return TNT(img_size=64, embed_dim=32, inner_dim=8, depth=3, num_heads_inner=2, num_heads_outer=2, num_classes=0)  # type: ignore[no-any-return]


def hiera() -> nn.Module:
    from timm.models.hiera import Hiera

    return Hiera(img_size=(224, 224), embed_dim=8, num_heads=1, stages=(1, 1, 2, 1), num_classes=0)  # type: ignore[no-any-return]


def maxvit() -> nn.Module:
    from timm.models.maxxvit import MaxxVit, MaxxVitCfg, MaxxVitTransformerCfg

    transformer = MaxxVitTransformerCfg(dim_head=8, window_size=(2, 2), grid_size=(2, 2))
    config = MaxxVitCfg(
        embed_dim=(8, 16), depths=(1, 1), block_type=("M", "M"), stem_width=8, transformer_cfg=transformer
    )
    return MaxxVit(config, img_size=64, num_classes=0)  # type: ignore[no-any-return]


def volo() -> nn.Module:
    from timm.models.volo import VOLO

    return VOLO(  # type: ignore[no-any-return]
        layers=[1, 1, 1, 1], img_size=224, embed_dims=(16, 32, 32, 32), num_heads=(2, 2, 2, 2), mlp_ratio=(2, 2, 2, 2),
        use_mix_token=False, num_classes=0,
    )  # fmt: skip


SPECIAL: dict[str, Callable[[], Any]] = {
    "vit": lambda: "test_vit",
    "vit relpos": lambda: "test_vit_relpos",
    "swin": swin,
    "swin v2": lambda: swin("_v2"),
    "swin v2 cr": lambda: swin("_v2_cr"),
    "twins pcpvt": twins,
    "twins svt": lambda: twins(wss=(4, 4)),
    "tnt": tnt,
    "hiera": hiera,
    "maxvit": maxvit,
    "volo": volo,
    "pit": lambda: "pit_ti_224",
    "coat": lambda: "coat_lite_tiny",
    "efficientvim": lambda: "efficientvim_m1",
    "xcit": lambda: "xcit_nano_12_p16_224",
    "edgenext": lambda: "edgenext_xx_small",
    "levit": lambda: "levit_128s",
    "hrnet": lambda: "hrnet_w18_small",
}


newest_timm = pytest.mark.skipif(
    not timm.__version__.startswith(NEWEST_TIMM), reason="older releases lack the model or refuse it"
)
NEW = {"vit relpos", "coat", "efficientvim", "xcit"}


@pytest.mark.parametrize("name", [pytest.param(name, marks=newest_timm if name in NEW else ()) for name in SPECIAL])
def test_every_identity_holds_at_the_default_cuts(name: str) -> None:
    model = SPECIAL[name]()
    built = timm.create_model(model, num_classes=0) if isinstance(model, str) else model
    report = check_backbone(model, cuts=default_cuts(resolve_stages(built)))
    assert report.supported and not report.reason, str(report)
    assert all(cut.resume_error == 0.0 for cut in report.stages)


@pytest.mark.parametrize("make", [twins, maxvit])
def test_cutters_of_special_families_are_pickled(make: Callable[[], nn.Module]) -> None:
    cutter = CutBackbone(make().eval(), [0])
    twin = pickle.loads(pickle.dumps(cutter))
    with torch.no_grad():
        final, features = cutter.forward_features(torch.randn(1, 3, 128, 128), [0])
        size = final.shape[-2:]
        assert torch.equal(twin.patched(0, features[0], 2, size), cutter.patched(0, features[0], 2, size))


@pytest.mark.parametrize("version", ["", "_v2", "_v2_cr"])
def test_swin_keeps_its_map_when_cut(version: str) -> None:
    torch.manual_seed(0)
    model = swin(version).eval()
    x = torch.randn(2, 3, 128, 128)
    with torch.no_grad():
        before = model.forward_features(x)  # type: ignore[operator]
        CutBackbone(model, [0])
        assert torch.equal(model.forward_features(x), before)  # type: ignore[operator]


def test_a_vit_keeps_its_map_when_cut_and_then_accepts_other_sizes() -> None:
    model = timm.create_model("test_vit", num_classes=0).eval()
    x = torch.randn(1, 3, 160, 160)
    with torch.no_grad():
        before = model.forward_features(x)
        cutter = CutBackbone(model, [2])
        assert torch.equal(model.forward_features(x), before)
        final, features = cutter.forward_features(torch.randn(1, 3, 90, 170), [0])
        assert final.shape[-2:] == (6, 11)
        assert cutter.patched(0, features[0], 2, (6, 11)).shape == final.shape


def test_prefix_tokens_go_with_every_patch() -> None:
    cutter = CutBackbone(timm.create_model("test_vit", num_classes=0).eval(), [2])
    assert cutter.cuts[0].layout == "NLC" and cutter.cuts[0].prefix_tokens == 1
    with torch.no_grad():
        final, features = cutter.forward_features(torch.randn(2, 3, 160, 160), [0])
        patches, tiling = cutter._hooked.cut(0, features[0], 2, (10, 10))
        assert patches.shape == (8, 26, 64) and tiling.cells == (5, 5)
        assert torch.equal(patches[:, 0], features[0][:, 0].repeat_interleave(4, dim=0))
        cells = features[0][:, 1:].reshape(2, 10, 10, 64)
        assert torch.equal(patches[6, 1:], cells[1, 5:, :5].reshape(25, 64))
        assert final.shape == (2, 64, 10, 10)


def test_lists_of_maps_are_cut_at_the_same_places() -> None:
    class Pyramid(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.split, self.join = Split(), Join()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.join(self.split(x))  # type: ignore[no-any-return]

    class Split(nn.Module):
        def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
            return [x, x[..., ::2, ::2], x[..., ::4, ::4]]

    class Join(nn.Module):
        def forward(self, maps: list[torch.Tensor]) -> torch.Tensor:
            return torch.cat([maps[0][..., ::4, ::4], maps[1][..., ::2, ::2], maps[2]], dim=1)

    cutter = CutBackbone(Pyramid(), ["split"], stages=["split", "join"])
    assert cutter.cuts[0].layout == "list"
    for size in ((32, 32), (30, 41)):
        final, features = cutter.forward_features(torch.randn(2, 3, *size), [0])
        assert torch.equal(cutter.patched(0, features[0], 2, final.shape[-2:]), final)


def test_hiera_tokens_are_sorted_row_by_row() -> None:
    model: Any = hiera()
    stage = Stage("blocks.0", "blocks.0", "NLC", 96, 4)
    index = torch.arange(56 * 56, dtype=torch.float32).reshape(1, -1, 1)
    assert torch.equal(model.unroll(index).flatten()[hiera_order(model, stage, (56, 56))], index.flatten())


def test_errors_about_windows_name_an_image_size_that_fits() -> None:
    cutter = CutBackbone(maxvit().eval(), [0])
    with torch.no_grad():
        final, features = cutter.forward_features(torch.randn(1, 3, 64, 64), [0])
        with pytest.raises(
            UnsupportedBackboneError, match=r"windows of 2 cells.*use images of 96x96 or a smaller grid"
        ):
            cutter.patched(0, features[0], 3, final.shape[-2:])


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("gmlp_ti16_224", "matrix of fixed size.*take poolformer_s12"),
        ("mixer_s32_224", "matrix of fixed size"),
        ("resmlp_12_224", "matrix of fixed size"),
        ("crossvit_tiny_240", "two token grids"),
        ("gcvit_xxtiny", "global queries"),
        ("nest_tiny", "number of squares that is fixed"),
        ("bat_resnext26ts", "7x7 blocks.*take seresnet33ts"),
        ("lamhalobotnet50ts_256", "halo windows with positions of one map size"),
        ("efficientformerv2_s0", "one size it was built for.*take efficientformer_l1"),
    ],
)
def test_unsupported_families_are_refused_with_a_reason_and_an_alternative(name: str, reason: str) -> None:
    with torch.device("meta"):
        model = timm.create_model(name, num_classes=0)
    with pytest.raises(UnsupportedBackboneError, match=f"cannot be cut into patches: .*{reason}"):
        CutBackbone(model, [0])
    with pytest.raises(UnsupportedBackboneError, match="take "):
        resolve_stages(model)


@newest_timm
def test_unsupported_cuts_are_refused_by_name_and_are_no_default_cuts() -> None:
    model = timm.create_model("coat_tiny", num_classes=0, embed_dims=[16] * 4, parallel_depth=1).eval()
    stages = resolve_stages(model)
    assert default_cuts(stages) == ("serial_blocks1.1",)
    with pytest.raises(
        UnsupportedBackboneError, match=r"'serial_blocks2.1': the parallel blocks.*'serial_blocks1.1' \(0\)"
    ):
        CutBackbone(model, ["serial_blocks2.1"])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("legacy_xception", ["act2", "block1", "block2", "block11", "act4"]),
        ("hrnet_w18_small", ["act2", "layer1", "stage2", "stage3", "stage4"]),
    ],
)
def test_wrong_names_of_feature_info_are_corrected(name: str, expected: list[str]) -> None:
    assert [stage.name for stage in resolve_stages(timm.create_model(name, num_classes=0))] == expected


@newest_timm
def test_other_image_sizes_of_a_fixed_size_model_are_refused_by_name() -> None:
    free = CutBackbone(timm.create_model("test_resnet"))
    free.check_input_size(77, 131)
    fixed = CutBackbone(timm.create_model("test_vit_relpos", num_classes=0))
    fixed.check_input_size(160, 160)
    with pytest.raises(
        UnsupportedBackboneError, match=r"VisionTransformerRelPos was built for images of 160x160.*320x320"
    ):
        fixed.check_input_size(320, 320)
    windows = CutBackbone(maxvit())
    windows.check_input_size(128, 128)
    with pytest.raises(UnsupportedBackboneError, match="multiples of 16, not 68x68: use 80x80"):
        windows.check_input_size(68, 68)


def test_mobilenetv5_fuses_patches_at_their_size_and_keeps_its_map() -> None:
    from timm.models.mobilenetv5 import MobileNetV5

    def make() -> nn.Module:
        torch.manual_seed(0)
        blocks = [["ds_r1_k3_s2_e1_c8"], ["ir_r1_k3_s2_e2_c8"], ["ir_r1_k3_s2_e2_c16"], ["ir_r1_k3_s2_e2_c16"]]
        from timm.models._efficientnet_builder import decode_arch_def

        return MobileNetV5(  # type: ignore[no-any-return]
            decode_arch_def(blocks), num_classes=0, stem_size=8, num_features=32, msfa_output_resolution=14
        ).eval()

    x = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        expected = make().forward_features(x)  # type: ignore[operator]
        cutter = CutBackbone(make(), [1])
        assert cutter.stride == 16
        assert torch.equal(cutter.forward_features(x)[0], expected)
        for size in ((64, 96), (100, 180)):  # The final map has stride 16 at any image size.
            final, features = cutter.forward_features(torch.randn(1, 3, *size), [0])
            assert final.shape[-2:] == (-(-size[0] // 16), -(-size[1] // 16))
            assert cutter.patched(0, features[0], 2, final.shape[-2:]).shape == final.shape


@pytest.mark.parametrize("make", [hiera, maxvit])
def test_a_special_family_is_found_in_a_wrapper_and_in_a_subclass(make: Callable[[], nn.Module]) -> None:
    model = make().eval()
    kind = type(model).__name__
    names = [f"1.{stage.name}" for stage in resolve_stages(make())]
    with pytest.raises(
        UnsupportedBackboneError, match=f"Sequential wraps a {kind} of timm \\('1'\\).*hand over that module"
    ):
        CutBackbone(nn.Sequential(nn.Identity(), model), names[:1], stages=names)
    x = torch.randn(1, 3, *native_size(model))
    with torch.no_grad():
        mine = copy.deepcopy(model)
        mine.__class__ = type("Mine", (type(model),), {})
        maps = []
        for each in (model, mine):
            cutter = CutBackbone(each, [0])
            final, features = cutter.forward_features(x, [0])
            maps.append(cutter.patched(0, features[0], 2, final.shape[-2:]))
    assert torch.equal(*maps)


@pytest.mark.parametrize(
    ("name", "refused"),
    [("halonet26t", False), ("botnet26t_256", False), ("halo2botnet50ts_256", True), ("lamhalobotnet50ts_256", True)],
)
def test_halo_attention_is_supported_but_not_its_mixtures(name, refused):
    with torch.device("meta"):
        model = timm.create_model(name)
    assert (family_of(model).refuse is not None) is refused
