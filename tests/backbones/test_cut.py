from __future__ import annotations

import copy
import pickle
import re
from collections.abc import Callable

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ppl.backbones import CutBackbone, UnsupportedBackboneError, refuse_data_parallel
from ppl.errors import PPLError, PPLTypeError, PPLValueError

TINY = ["test_resnet", "test_efficientnet", "test_convnext", "test_byobnet", "test_mambaout", "test_nfnet"]
SMALL = ["resnet18", "regnety_002", "mobilenetv2_050", "mobilenetv3_small_050", "densenet121"]


def make(name: str, **kwargs: object) -> nn.Module:
    torch.manual_seed(0)
    model: nn.Module = timm.create_model(name, pretrained=False, num_classes=0, **kwargs).eval()
    for module in model.modules():  # Use statistics that differ from the identity, and no branches that start at zero.
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1)  # type: ignore[arg-type]
            nn.init.uniform_(module.running_var, 0.5, 1.5)  # type: ignore[arg-type]
            nn.init.uniform_(module.weight, 0.5, 1.5)
    return model


def cut_everywhere(model: nn.Module, **kwargs: object) -> CutBackbone:
    count = len(CutBackbone(copy.deepcopy(model)).stages)
    return CutBackbone(model, list(range(count - 1)), **kwargs)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", TINY + SMALL)
def test_resuming_after_any_stage_gives_the_plain_forward_exactly(name: str) -> None:
    model = make(name, **({"block_config": (2, 2, 2, 2)} if name == "densenet121" else {}))
    cutter = cut_everywhere(model)
    x = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        plain = model.forward_features(x)  # type: ignore[operator]
        if name == "test_mambaout":
            plain = plain.permute(0, 3, 1, 2)
        final, features = cutter.forward_features(x, range(len(cutter.cuts)))
        assert torch.equal(final, plain)
        assert final.shape[1] == cutter.num_features
        assert final.shape[-2:] == (64 // cutter.stride, 96 // cutter.stride)
        for index, raw in features.items():
            assert torch.equal(cutter.resume(index, raw), plain)


def test_patches_equal_running_the_stages_by_hand_on_every_patch() -> None:
    model = make("resnet18")
    cutter = CutBackbone(model, ["layer1", "layer2", "layer3"])
    x = torch.randn(2, 3, 128, 128)
    with torch.no_grad():
        final, features = cutter.forward_features(x, [0, 1, 2])
        for index, tail in enumerate(
            (
                nn.Sequential(model.layer2, model.layer3, model.layer4),  # type: ignore[arg-type]
                nn.Sequential(model.layer3, model.layer4),  # type: ignore[arg-type]
                model.layer4,
            )
        ):
            merged = cutter.patched(index, features[index], 2, final.shape[-2:])
            raw = features[index]
            h, w = raw.shape[-2] // 2, raw.shape[-1] // 2
            rows = []
            for r in range(2):
                quarter = [raw[:, :, r * h : (r + 1) * h, c * w : (c + 1) * w] for c in range(2)]
                rows.append(torch.cat([tail(patch) for patch in quarter], dim=3))  # type: ignore[operator]
            torch.testing.assert_close(merged, torch.cat(rows, dim=2))


@pytest.mark.parametrize("name", ["test_resnet", "test_mambaout", "test_efficientnet"])
@pytest.mark.parametrize("size", [(60, 92), (64, 64), (33, 97)])
@pytest.mark.parametrize("grid", [1, 2, (2, 1), (1, 3)])
def test_the_merged_map_has_the_unpatched_maps_size(name: str, size: tuple[int, int], grid: object) -> None:
    cutter = cut_everywhere(make(name))
    with torch.no_grad():
        final, features = cutter.forward_features(torch.randn(1, 3, *size), range(len(cutter.cuts)))
        for index in features:
            cells = features[index].shape[1:3] if name == "test_mambaout" else features[index].shape[2:]
            if min(cells) < 3:
                continue
            assert cutter.patched(index, features[index], grid, final.shape[-2:]).shape == final.shape  # type: ignore[arg-type]


class Pointwise(nn.Module):
    """A stem and a tail of 1x1 operations with stride 2: patches cannot differ from the whole."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.tail = nn.Conv2d(4, 8, 1, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.tail(self.stem(x))  # type: ignore[no-any-return]


@pytest.mark.parametrize("size", [(15, 23), (64, 96), (9, 10), (7, 3)])
@pytest.mark.parametrize("grid", [1, 2, (4, 2), (3, 3)])
def test_pointwise_tail_of_stride_two_is_aligned_cell_on_cell(size: tuple[int, int], grid: object) -> None:
    cutter = CutBackbone(Pointwise(), ["stem"], stages=["stem", "tail"])
    final, features = cutter.forward_features(torch.randn(2, 3, *size), [0])
    merged = cutter.patched(0, features[0], grid, final.shape[-2:])  # type: ignore[arg-type]
    torch.testing.assert_close(merged, final)


def test_patches_are_independent() -> None:
    cutter = CutBackbone(make("test_resnet"), ["layer2"])
    with torch.no_grad():
        final, features = cutter.forward_features(torch.randn(1, 3, 128, 128), [0])
        whole = cutter.patched(0, features[0], 2, final.shape[-2:])
        changed = features[0].clone()
        changed[:, :, :8, :8] += 1.0
        other = cutter.patched(0, changed, 2, final.shape[-2:])
    assert not torch.equal(whole[..., :2, :2], other[..., :2, :2])
    assert torch.equal(whole[..., 2:], other[..., 2:]) and torch.equal(whole[..., 2:, :2], other[..., 2:, :2])


def test_layers_before_the_cut_see_the_image_once_for_any_number_of_branches() -> None:
    model = make("test_resnet")
    cutter = CutBackbone(model, ["layer1", "layer2", "layer3"])
    pixels = []
    model.conv1.register_forward_hook(lambda m, args, out: pixels.append(args[0].numel()))  # type: ignore[union-attr]
    x = torch.randn(4, 3, 96, 96)
    final, features = cutter.forward_features(x, [0, 1, 2])
    for index in range(3):
        cutter.patched(index, features[index], 2, final.shape[-2:])
    assert pixels[0] == x.numel() and len(pixels) == 4
    assert sum(pixels[1:]) <= 3 * 3 * 32 * 32


@pytest.mark.parametrize("name", [*TINY, "densenet121", "test_vit"])
def test_layers_after_the_deepest_tapped_stage_do_not_run(name: str) -> None:
    model = make(name)
    cutter = cut_everywhere(model)
    x = torch.randn(2, 3, *cutter._hooked.info.probe)
    ran = 0

    def count(*_: object) -> None:
        nonlocal ran
        ran += 1

    for module in model.modules():
        module.register_forward_hook(count)
    with torch.no_grad():
        _, expected = cutter.forward_features(x, range(len(cutter.cuts)))
        whole, before = ran, 0
        for deepest in range(len(cutter.cuts)):
            ran = 0
            features = cutter.tapped_features(x, [deepest, 0])
            assert set(features) == {0, deepest}
            assert all(torch.equal(features[index], expected[index]) for index in features)
            assert before < ran < whole
            before = ran
        assert cutter.tapped_features(x, []) == {}


def test_batchnorm_before_the_cut_never_sees_the_dummy_image() -> None:
    model = make("test_resnet").train()
    reference = copy.deepcopy(model)
    cutter = CutBackbone(model, ["layer2"])
    x = torch.randn(4, 3, 64, 64)
    final, features = cutter.forward_features(x, [0])
    cutter.patched(0, features[0], 2, final.shape[-2:])
    torch.testing.assert_close(reference.forward_features(x), final)  # type: ignore[operator]
    ours, theirs = dict(model.named_buffers()), dict(reference.named_buffers())
    prefix = [key for key in ours if not key.startswith(("layer3", "layer4"))]
    assert len(prefix) > 6
    assert all(torch.equal(ours[key], theirs[key]) for key in prefix)
    # The tail sees the whole image and its patches.
    assert ours["layer4.0.bn1.num_batches_tracked"] == theirs["layer4.0.bn1.num_batches_tracked"] + 1
    assert all(module.training for module in model.modules())


def test_dropout_before_the_cut_draws_no_random_numbers_for_the_dummy_image() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Dropout(0.5), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1))
    cutter = CutBackbone(model, ["2"], stages=["2", "3"])
    _, features = cutter.forward_features(torch.randn(1, 3, 8, 8), [0])
    before = torch.get_rng_state()
    cutter.patched(0, features[0], 2, (8, 8))
    assert torch.equal(before, torch.get_rng_state())


def test_construction_changes_neither_modes_nor_random_state_nor_statistics() -> None:
    model = make("test_resnet").train()
    model.layer1.eval()  # type: ignore[union-attr]
    modes = [module.training for module in model.modules()]
    state = {key: value.clone() for key, value in model.state_dict().items()}
    before = torch.get_rng_state()
    CutBackbone(model, ["layer2"])
    assert torch.equal(before, torch.get_rng_state())
    assert modes == [module.training for module in model.modules()]
    assert list(state) == list(model.state_dict())
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in state.items())


def test_mode_and_hooks_are_restored_after_an_exception() -> None:
    model = make("test_resnet").train()
    cutter = CutBackbone(model, ["layer2"])
    with pytest.raises(RuntimeError):
        cutter.resume(0, torch.randn(1, 7, 8, 8))  # no stage has seven channels
    assert all(module.training for module in model.modules())
    x = torch.randn(2, 3, 64, 64)
    assert torch.equal(model.eval().forward_features(x), cutter.forward_features(x)[0])  # type: ignore[operator]


def test_gradient_reaches_the_stem_except_from_a_detached_branch() -> None:
    model = make("test_resnet")
    cutter = CutBackbone(model, ["layer2"])
    final, features = cutter.forward_features(torch.randn(1, 3, 64, 64), [0])
    cutter.patched(0, features[0].detach(), 2, final.shape[-2:]).sum().backward()
    assert model.layer3[0].conv1.weight.grad.abs().sum() > 0  # type: ignore[index, union-attr]
    assert model.conv1[0].weight.grad is None  # type: ignore[index, union-attr]
    cutter.patched(0, features[0], 2, final.shape[-2:]).sum().backward()
    assert model.conv1[0].weight.grad.abs().sum() > 0  # type: ignore[index, union-attr]


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet", "test_convnext", "test_mambaout"])
def test_gradient_checkpointing_changes_neither_values_nor_gradients(name: str) -> None:
    x = torch.randn(2, 3, 64, 64)
    gradients = []
    for checkpointing in (False, True):
        model = make(name)
        model.set_grad_checkpointing(checkpointing)  # type: ignore[operator]
        cutter = CutBackbone(model, [1, 2])
        final, features = cutter.forward_features(x, [0, 1])
        maps = [cutter.patched(index, features[index], 2, final.shape[-2:]) for index in (0, 1)]
        (final.square().mean() + maps[0].square().mean() + maps[1].square().mean()).backward()
        gradients.append({key: p.grad for key, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys() and len(gradients[0]) > 10
    for key, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][key])


def test_copies_and_pickles_work_and_do_not_share_state() -> None:
    cutter = CutBackbone(make("test_resnet"), ["layer2"])
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        final, features = cutter.forward_features(x, [0])
        merged = cutter.patched(0, features[0], 2, final.shape[-2:])
        for twin in (copy.deepcopy(cutter), pickle.loads(pickle.dumps(cutter))):
            assert twin.model is not cutter.model and twin._hooked._current is not cutter._hooked._current
            other, tapped = twin.forward_features(x, [0])
            assert torch.equal(other, final)
            assert torch.equal(twin.patched(0, tapped[0], 2, final.shape[-2:]), merged)
            twin.model.layer1.train()
            assert not cutter.model.layer1.training  # type: ignore[union-attr]


def test_two_cutters_on_one_model_do_not_disturb_each_other() -> None:
    model = make("test_resnet")
    first, second = CutBackbone(model, ["layer2"]), CutBackbone(model, ["layer2", "layer3"])
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        final, features = first.forward_features(x, [0])
        assert torch.equal(second.resume(0, features[0]), final)
        assert torch.equal(first.resume(0, features[0]), final)


@pytest.mark.parametrize("name", ["test_resnet", "test_convnext"])
def test_torch_compile_takes_the_whole_patched_pass(name: str) -> None:
    torch._dynamo.reset()
    cutter = CutBackbone(make(name), [1])

    def run(x: Tensor) -> Tensor:
        final, features = cutter.forward_features(x, [0])
        return final + cutter.patched(0, features[0], 2, final.shape[-2:])

    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = run(x)
        compiled = torch.compile(run, backend="eager", fullgraph=True)
        torch.testing.assert_close(compiled(x), expected)
        torch.testing.assert_close(compiled(2 * x), run(2 * x))


def test_a_compiled_pass_drops_the_layers_before_the_cut():
    from torch._dynamo.backends.common import aot_autograd

    torch._dynamo.reset()
    model = make("test_resnet")
    cutter, found = CutBackbone(model, ["layer3"]), []

    def count(graph: torch.fx.GraphModule, inputs: object) -> Callable[..., Tensor]:
        found.append(sum("convolution" in str(node.target) for node in graph.graph.nodes))
        return graph.forward

    final, features = cutter.forward_features(torch.randn(1, 3, 64, 64), [0])

    def run(x: Tensor) -> Tensor:
        return cutter.patched(0, x, 2, final.shape[-2:])

    with torch.no_grad():
        compiled = torch.compile(run, backend=aot_autograd(fw_compiler=count), fullgraph=True)
        torch.testing.assert_close(compiled(features[0].detach()), run(features[0].detach()))
    assert found == [sum(isinstance(layer, nn.Conv2d) for layer in model.layer4.modules())]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast(dtype: torch.dtype) -> None:
    cutter = CutBackbone(make("test_resnet"), ["layer2"])
    with torch.no_grad(), torch.autocast("cpu", dtype=dtype):
        final, features = cutter.forward_features(torch.randn(1, 3, 64, 64), [0])
        assert features[0].dtype == dtype
        merged = cutter.patched(0, features[0], 2, final.shape[-2:])
    assert merged.dtype == final.dtype and merged.isfinite().all()


def test_channels_last_is_kept_and_changes_nothing() -> None:
    model = make("test_resnet")
    cutter = CutBackbone(model, ["layer2"])
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        final, features = cutter.forward_features(x, [0])
        expected = cutter.patched(0, features[0], 2, final.shape[-2:])
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        final, features = cutter.forward_features(x.contiguous(memory_format=torch.channels_last), [0])
        merged = cutter.patched(0, features[0], 2, final.shape[-2:])
    assert features[0].is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(merged, expected, atol=1e-4, rtol=1e-4)


def test_an_output_that_a_later_layer_overwrites_is_copied() -> None:
    class Double(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.mul_(2)

    model = nn.Sequential(nn.Conv2d(3, 4, 1), Double(), nn.Conv2d(4, 4, 1))
    cutter = CutBackbone(model, ["0"], stages=["0", "2"])
    x = torch.randn(1, 3, 8, 8)
    with torch.no_grad():
        final, features = cutter.forward_features(x, [0])
        torch.testing.assert_close(features[0], F.conv2d(x, model[0].weight, model[0].bias))
        for _ in range(2):  # The given features are not overwritten either.
            torch.testing.assert_close(cutter.resume(0, features[0]), final)


def test_the_output_stride_of_timm_is_respected() -> None:
    cutter = CutBackbone(make("resnet18", output_stride=16), ["layer2", "layer3"])
    assert cutter.stride == 16 and [cutter.tail_stride(index) for index in (0, 1)] == [2, 1]
    with torch.no_grad():
        final, features = cutter.forward_features(torch.randn(1, 3, 120, 72), [0, 1])
        for index in (0, 1):
            assert cutter.patched(index, features[index], 2, final.shape[-2:]).shape == final.shape


@pytest.mark.parametrize(
    ("cut", "message"),
    [
        (
            "layer9",
            r"no stage 'layer9'.*'act1' \(0\), 'layer1' \(1\), 'layer2' \(2\), 'layer3' \(3\).*nearest is 'layer",
        ),
        ("layer4", "last stage"),
        (4, "last stage"),
        (17, "no stage of index 17"),
        (-1, "no stage of index -1"),
    ],
)
def test_an_unknown_cut_lists_the_valid_ones(cut: object, message: str) -> None:
    with pytest.raises(PPLValueError, match=message):
        CutBackbone(make("test_resnet"), [cut])  # type: ignore[list-item]


def test_bad_arguments_are_named() -> None:
    model = make("test_resnet")
    with pytest.raises(PPLValueError, match="larger than the 4x4 map"):
        cutter = CutBackbone(model, ["layer3"])
        cutter.patched(0, cutter.forward_features(torch.randn(1, 3, 64, 64), [0])[1][0], 5, (2, 2))
    with pytest.raises(PPLTypeError, match="write \\['layer2'\\]"):
        CutBackbone(model, "layer2")
    with pytest.raises(PPLTypeError, match="stage's name or index"):
        CutBackbone(model, [1.5])  # type: ignore[list-item]
    with pytest.raises(PPLValueError, match="twice"):
        CutBackbone(model, ["layer2", 2])
    with pytest.raises(PPLValueError, match="zeros, replicate, reflect"):
        CutBackbone(model, ["layer2"], padding="circular")
    with pytest.raises(PPLValueError, match=r"multiple of the stride 4 .*use 4"):
        CutBackbone(model, ["layer2"], halo=3)
    with pytest.raises(PPLValueError, match="no cut of index 1"):
        CutBackbone(model, ["layer2"]).resume(1, torch.zeros(1))


def test_wrappers_are_refused_by_name() -> None:
    model = make("test_resnet")
    with pytest.raises(PPLTypeError, match="DataParallel"):
        CutBackbone(nn.DataParallel(model), [0])
    with pytest.raises(PPLTypeError, match="compiled"):
        CutBackbone(torch.compile(model), [0])  # type: ignore[arg-type]
    with pytest.raises(PPLTypeError, match="str"):
        CutBackbone("resnet50", [0])  # type: ignore[arg-type]
    with pytest.raises(PPLTypeError, match="DistributedDataParallel"):
        refuse_data_parallel(model._replicate_for_data_parallel())  # type: ignore[operator]


def test_a_stage_that_is_bypassed_is_an_error() -> None:
    class Fickle(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.skip = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1), False

        def forward(self, x: Tensor) -> Tensor:
            return self.second(x if self.skip else self.first(x))  # type: ignore[no-any-return]

    model = Fickle()
    cutter = CutBackbone(model, ["first"], stages=["first", "second"])
    model.skip = True
    with pytest.raises(PPLError, match=re.escape("'first' ran 0 times")):
        cutter.forward_features(torch.randn(1, 3, 8, 8), [0])
    with pytest.raises(PPLError, match=re.escape("'first' ran 0 times")):
        cutter.tapped_features(torch.randn(1, 3, 8, 8), [0])


def test_custom_modules_need_their_stages_named() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1))
    with pytest.raises(PPLValueError, match=r"stages=\[\.\.\.\]; its modules are 0, 1"):
        CutBackbone(model, [0])
    with pytest.raises(PPLValueError, match="'body' is no module"):
        CutBackbone(model, [0], stages=["body", "1"])


@pytest.mark.parametrize(
    ("name", "block"),
    [("resnet18", "layer3.0"), ("mobilenetv2_050", "blocks.3"), ("convnext_atto", "stages.2.blocks.2")],
)
def test_a_block_between_the_ends_of_stages_can_be_named_as_a_cut(name, block):
    model = timm.create_model(name, num_classes=0).eval()
    cutter = CutBackbone(model, [block, 0])
    assert [cut.name for cut in cutter.cuts] == [block, CutBackbone(model, [0]).cuts[0].name]
    with torch.no_grad():
        final, features = cutter.forward_features(torch.randn(2, 3, 64, 96), [0])
        assert torch.equal(cutter.resume(0, features[0]), final)


@pytest.mark.parametrize("block", ["layer3.0.conv1", "layer3.0.bn2"])
def test_a_module_parallel_to_a_shortcut_is_refused_as_a_cut(block):
    with pytest.raises(UnsupportedBackboneError, match=f"cannot be cut after '{block}'"):
        CutBackbone(timm.create_model("test_resnet", num_classes=0).eval(), [block])


def test_the_last_block_of_a_stage_is_the_stage_itself():
    model = timm.create_model("resnet18", num_classes=0).eval()
    assert CutBackbone(model, ["layer2.1", 3]).cuts[1].name == "layer3"
    with pytest.raises(PPLValueError, match="twice"):
        CutBackbone(model, ["layer2.1", 2])
