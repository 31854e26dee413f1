from __future__ import annotations

from collections.abc import Callable

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import nn

from ppl.backbones import CutBackbone, UnsupportedBackboneError
from ppl.errors import PPLValueError


def two_convs(tail: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), tail)


def same_conv() -> nn.Module:
    from timm.layers import Conv2dSame

    return Conv2dSame(4, 5, 3)  # type: ignore[no-any-return]


def std_conv() -> nn.Module:
    from timm.layers import ScaledStdConv2d

    return ScaledStdConv2d(4, 5, 3, padding=1)  # type: ignore[no-any-return]


@pytest.mark.parametrize("mode", ["replicate", "reflect"])
@pytest.mark.parametrize(
    "tail", [lambda: nn.Conv2d(4, 5, 3, padding=1), lambda: nn.Conv2d(4, 5, 3, padding="same"), same_conv, std_conv]
)
def test_convolutions_of_the_tail_pad_with_the_border_of_the_patch(tail: Callable[[], nn.Module], mode: str) -> None:
    model = two_convs(tail())
    cutter = CutBackbone(model, ["0"], stages=["0", "1"], padding=mode)
    with torch.no_grad():
        final, features = cutter.forward_features(torch.randn(1, 3, 8, 12), [0])
        merged = cutter.patched(0, features[0], 2, final.shape[-2:])
        corner = F.pad(features[0][..., 4:, 6:], (1, 1, 1, 1), mode=mode)
        # The interior of an explicitly padded patch equals the result of the mode.
        expected = model[1](corner)[..., 1:-1, 1:-1]
    torch.testing.assert_close(merged[..., 4:, 6:], expected)


def test_average_pools_exclude_their_padding() -> None:
    model = two_convs(nn.AvgPool2d(3, stride=1, padding=1))
    cutter = CutBackbone(model, ["0"], stages=["0", "1"], padding="replicate")
    ones = torch.ones(1, 4, 8, 8)
    assert torch.equal(cutter.patched(0, ones, 2, (8, 8)), ones)
    assert not torch.equal(model[1](ones), ones)  # outside the pass the pool is unchanged


def test_max_pools_do_not_see_padding() -> None:
    pool = nn.MaxPool2d(3, stride=1, padding=1)
    cutter = CutBackbone(two_convs(pool), ["0"], stages=["0", "1"], padding="replicate")
    x = -torch.rand(1, 4, 8, 8) - 1
    expected = torch.cat([torch.cat([pool(c) for c in r.chunk(2, -1)], -1) for r in x.chunk(2, -2)], -2)
    assert torch.equal(cutter.patched(0, x, 2, (8, 8)), expected)


def test_the_unpatched_pass_and_the_model_keep_zero_padding() -> None:
    model = timm.create_model("test_resnet", pretrained=False, num_classes=0).eval()
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        before = model.forward_features(x)
        cutter = CutBackbone(model, ["layer2"], padding="replicate")
        final, features = cutter.forward_features(x, [0])
        cutter.patched(0, features[0], 2, final.shape[-2:])
        with pytest.raises(RuntimeError):
            cutter.patched(0, features[0][:, :5], 2, final.shape[-2:])
        assert torch.equal(model.forward_features(x), before) and torch.equal(final, before)


def test_a_constant_map_stays_constant_under_replicate() -> None:
    cutter = CutBackbone(timm.create_model("resnet18", pretrained=False).eval(), ["layer2"], padding="replicate")
    with torch.no_grad():
        flat = torch.rand(1, 128, 1, 1).expand(1, 128, 16, 16)
        merged = cutter.patched(0, flat, 2, (4, 4))
    torch.testing.assert_close(merged, merged[..., :1, :1].expand_as(merged))


def test_a_patch_too_small_to_reflect_is_an_error_that_names_the_fix() -> None:
    model = two_convs(nn.Conv2d(4, 5, 7, padding=3))
    cutter = CutBackbone(model, ["0"], stages=["0", "1"], padding="reflect")
    with pytest.raises(PPLValueError, match="cannot reflect 3 cells of a 2x2 map: use padding='replicate'"):
        cutter.patched(0, torch.randn(1, 4, 4, 4), 2, (4, 4))


@pytest.mark.parametrize("size", [(16, 24), (15, 23)])
@pytest.mark.parametrize("grid", [2, (4, 2)])
def test_a_halo_wider_than_the_receptive_field_gives_the_unpatched_map(size: tuple[int, int], grid: object) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.Sequential(nn.Conv2d(4, 5, 3, padding=1), nn.Conv2d(5, 6, 3, 2, padding=1))
    )
    plain = CutBackbone(model, ["0"], stages=["0", "1"])
    cutter = CutBackbone(model, ["0"], stages=["0", "1"], halo=4)
    with torch.no_grad():
        final, features = cutter.forward_features(torch.randn(2, 3, *size), [0])
        merged = cutter.patched(0, features[0], grid, final.shape[-2:])  # type: ignore[arg-type]
        bare = plain.patched(0, features[0], grid, final.shape[-2:])  # type: ignore[arg-type]
    # The outermost cells differ: beyond the image the first convolution turns zeros into its bias.
    torch.testing.assert_close(merged[..., 1:-1, 1:-1], final[..., 1:-1, 1:-1])
    assert (bare - final)[..., 1:-1, 1:-1].abs().max() > 1e-3


def test_a_halo_keeps_the_channels_last_layout_of_features() -> None:
    cutter = CutBackbone(timm.create_model("test_mambaout", pretrained=False).eval(), [1], halo=4)
    with torch.no_grad():
        final, features = cutter.forward_features(torch.randn(1, 3, 96, 96), [0])
        assert cutter.patched(0, features[0], 2, final.shape[-2:]).shape == final.shape


class NamesItsArguments(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2, 3, 3, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.conv2d(input=x, weight=self.weight, padding=1)


def test_layers_that_name_their_arguments_are_padded_too() -> None:
    model = nn.Sequential(nn.Identity(), NamesItsArguments(), nn.Identity())
    cutter = CutBackbone(model, ["0"], stages=["0", "1", "2"], padding="replicate")
    assert torch.equal(cutter.patched(0, torch.ones(1, 3, 8, 8), 2, (8, 8)), torch.full((1, 2, 8, 8), 27.0))


@pytest.mark.parametrize("halo", [0, 2])
def test_a_compiled_training_step_repeats_the_border_without_torchs_own_replicate_padding(halo: int) -> None:
    # The default compiler is slow, and fails only on the gradient of that padding, whose strides are wrong.
    from functorch.compile import make_boxed_func
    from torch._dynamo.backends.common import aot_autograd

    torch._dynamo.reset()
    cutter = CutBackbone(
        two_convs(nn.Conv2d(4, 5, 5, padding=(1, 2))), ["0"], stages=["0", "1"], padding="replicate", halo=halo
    )
    operations: list[str] = []

    def note(graph: torch.fx.GraphModule, inputs: object) -> Callable[..., torch.Tensor]:
        operations.extend(str(node.target) for node in graph.graph.nodes)
        return make_boxed_func(graph.forward)  # type: ignore[no-any-return]

    def gradient(run: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        x = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0), requires_grad=True)
        run(x).square().sum().backward()
        assert x.grad is not None
        return x.grad

    def run(x: torch.Tensor) -> torch.Tensor:
        return cutter.patched(0, x, 2, (8, 8))

    compiled = torch.compile(run, backend=aot_autograd(fw_compiler=note), fullgraph=True)
    torch.testing.assert_close(gradient(compiled), gradient(run))
    assert sum("convolution" in name for name in operations) == 2  # forward and backward
    assert not any("replication_pad" in name for name in operations)


def test_timms_gradient_checkpointing_is_refused_with_the_alternative() -> None:
    model = timm.create_model("test_resnet", num_classes=0)
    model.set_grad_checkpointing(True)
    cutter = CutBackbone(model, ["layer2"], padding="replicate")
    final, features = cutter.forward_features(torch.randn(2, 3, 64, 64), [0])
    with pytest.raises(UnsupportedBackboneError, match=r"'replicate' cannot reach them.*of PPLNet"):
        cutter.patched(0, features[0], 2, final.shape[-2:])
    with torch.no_grad():  # nothing runs again without gradients
        assert cutter.patched(0, features[0], 2, final.shape[-2:]).shape == final.shape
