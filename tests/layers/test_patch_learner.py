from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn

from ppl.backbones import CutBackbone
from ppl.errors import PPLValueError
from ppl.layers import PatchLearner, patch_destruct


def conv_tail(stride=1):
    return nn.Sequential(
        nn.Conv2d(4, 6, 3, stride=stride, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 5, 3, padding=1)
    )


@pytest.mark.parametrize("grid", [1, 2, (4, 2), (3, 5)])
@pytest.mark.parametrize("size", [(8, 8), (15, 23)])
@pytest.mark.parametrize("stride", [1, 2, 3, 5, 7])
def test_pointwise_tail_is_unaffected_by_patching(grid, size, stride):
    """Identity 2: with 1x1 operations only, merged == un-patched, for any stride of the tail."""
    tail = nn.Sequential(nn.Conv2d(4, 6, 1, stride=stride), nn.ReLU(), nn.Conv2d(6, 5, 1))
    x = torch.randn(2, 4, *size)
    torch.testing.assert_close(PatchLearner(tail, grid)(x), tail(x))


def test_patches_are_independent():
    """Identity 3: a patch processed alone == that patch of the batch."""
    tail = conv_tail().eval()
    x = torch.randn(2, 4, 15, 23)
    merged = PatchLearner(tail, (4, 2))(x)
    patches = patch_destruct(x, (4, 2))
    for image, row, column in [(0, 0, 0), (0, 3, 1), (1, 2, 0)]:
        number = image * 8 + row * 2 + column
        alone = tail(patches[number : number + 1])[0]
        cell = merged[image, :, row * 4 : (row + 1) * 4, column * 12 : (column + 1) * 12]
        torch.testing.assert_close(cell, alone[:, : cell.shape[1], : cell.shape[2]])


@pytest.mark.parametrize(
    "tail",
    [
        conv_tail(2),
        conv_tail(4),
        nn.Conv2d(4, 5, 7, stride=2, padding=3),
        nn.MaxPool2d(2),
        nn.MaxPool2d(3, stride=2, padding=1),
        nn.MaxPool2d(2, ceil_mode=True),
        nn.Conv2d(4, 5, 3, stride=(2, 1), padding=1),
        nn.Upsample(scale_factor=2),
        nn.Identity(),
    ],
    ids=lambda tail: type(tail).__name__,
)
@pytest.mark.parametrize("size", [(16, 16), (15, 23), (9, 10)])
def test_output_has_the_size_of_the_unpatched_map(tail, size):
    x = torch.randn(2, 4, *size)
    assert PatchLearner(tail, (4, 2))(x).shape == tail(x).shape


def test_the_inside_of_a_patch_equals_the_unpatched_map():
    """Away from the seams, a strided 3x3 tail gives the numbers of the un-patched map."""
    tail = nn.Conv2d(4, 5, 3, stride=2, padding=1)
    x = torch.randn(1, 4, 30, 46)
    merged, whole = PatchLearner(tail, 2)(x), tail(x)
    assert merged.shape == whole.shape == (1, 5, 15, 23)
    seam_free = torch.ones(15, 23, dtype=torch.bool)
    seam_free[8, :] = seam_free[:, 12] = False  # first row and column of the second patches: 16/2 and 24/2
    torch.testing.assert_close(merged[..., seam_free], whole[..., seam_free])
    assert not torch.allclose(merged[..., 8, :], whole[..., 8, :])


def test_tail_runs_once_per_call():
    tail = conv_tail()
    learner, x = PatchLearner(tail, 2), torch.randn(1, 4, 8, 8)
    learner(x)
    calls = []
    tail[0].register_forward_hook(lambda *_: calls.append(1))
    learner(x)
    assert len(calls) == 1


def test_measuring_the_size_changes_neither_modes_nor_statistics_nor_random_state():
    tail = nn.Sequential(conv_tail(2), nn.Dropout(0.5)).train()
    tail[0][1].eval()
    before = copy.deepcopy(tail.state_dict())
    torch.manual_seed(0)
    state = torch.get_rng_state()
    PatchLearner(tail, 2)._size_and_stride(4, 15, 23)
    assert torch.equal(torch.get_rng_state(), state)
    assert tail.training
    assert tail[1].training
    assert not tail[0][1].training
    assert all(torch.equal(value, before[name]) for name, value in tail.state_dict().items())


class NeedsNumbers(nn.Module):
    """A tail that needs real numbers: it reads a value."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(4)

    def forward(self, x):
        return self.norm(x)[..., ::2, ::2] * (1 if x.sum().item() > 0 else 2) + 0 * torch.rand(1)


def test_tail_that_needs_numbers_is_measured_on_zeros():
    tail = NeedsNumbers().train()
    before, state = copy.deepcopy(tail.state_dict()), torch.get_rng_state()
    learner = PatchLearner(tail, 2)
    assert learner._size_and_stride(4, 15, 23) == ((8, 12), (2, 2))
    assert tail.training
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in tail.state_dict().items())


@pytest.mark.parametrize("stride", [5, 6, 7, 10, 11, 13, 14, 32])
def test_strides_are_measured_correctly_at_any_size(stride):
    learner = PatchLearner(nn.Conv2d(1, 1, stride, stride=stride), 2)
    assert {learner._size_and_stride(1, size, size)[1] for size in range(2 * stride, 4 * stride)} == {(stride, stride)}


def test_mode_is_restored_when_the_tail_raises():
    tail = nn.Sequential(nn.Conv2d(3, 3, 1)).train()
    with pytest.raises(RuntimeError):
        PatchLearner(tail, 2)(torch.randn(1, 4, 8, 8))
    assert tail.training


def test_gradient():
    tail = nn.Sequential(nn.Conv2d(2, 3, 3, stride=2, padding=1), nn.Tanh()).double()
    x = torch.randn(1, 2, 7, 9, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(PatchLearner(tail, 2), x)


def test_compiles_in_one_graph():
    learner = PatchLearner(conv_tail(2).eval(), (4, 2))
    compiled = torch.compile(learner, fullgraph=True, backend="eager")
    for size in [(15, 23), (16, 16), (21, 40)]:
        x = torch.randn(2, 4, *size)
        torch.testing.assert_close(compiled(x), learner(x))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype):
    learner = PatchLearner(conv_tail(2).eval().to(dtype), 2)
    out = learner(torch.randn(1, 4, 15, 23, dtype=dtype))
    assert out.shape == (1, 5, 8, 12)
    assert out.dtype == dtype


def test_autocast():
    learner = PatchLearner(conv_tail(2).eval(), 2)
    x = torch.randn(1, 4, 15, 23)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = learner(x)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.float(), learner(x), rtol=0.1, atol=0.1)


def test_copies_and_pickles():
    learner, x = PatchLearner(conv_tail(2).eval(), 2), torch.randn(1, 4, 15, 23)
    expected = learner(x)
    assert torch.equal(copy.deepcopy(learner)(x), expected)
    assert torch.equal(pickle.loads(pickle.dumps(learner))(x), expected)
    assert all(key.startswith("tail.") for key in learner.state_dict())


@pytest.mark.parametrize(
    ("tail", "message"),
    [
        (nn.AdaptiveAvgPool2d(1), "leave pooling and head out"),
        (nn.Flatten(), r"must return a map \(B,C,H,W\), got \(1, 256\)"),
        (nn.Conv2d(4, 4, 3), "2x2 cells of a 4x4 patch that stands for 4x4: its layers lost pixels"),
    ],
)
def test_a_tail_whose_output_is_no_map_is_an_error(tail, message):
    with pytest.raises(PPLValueError, match=message):
        PatchLearner(tail, 2)(torch.randn(1, 4, 8, 8))


@pytest.mark.parametrize(
    "tail",
    [
        nn.MaxPool2d(3, 2),
        nn.AvgPool2d(3, 2),
        nn.Conv2d(4, 5, 3, 2),
        nn.Conv2d(4, 5, (1, 3), (1, 2)),
        nn.MaxPool2d(2, 1),
    ],
    ids=lambda tail: type(tail).__name__,
)
def test_a_tail_that_loses_cells_is_refused_even_if_the_merged_map_has_the_right_size(tail):
    """9 cells are padded to 12: two patches together have enough cells, at wrong positions."""
    with pytest.raises(PPLValueError, match="lost pixels at the edges; give them padding"):
        PatchLearner(tail, 2)(torch.randn(1, 4, 9, 9))


def test_grid_larger_than_the_map_names_both():
    with pytest.raises(PPLValueError, match=r"grid 9x9 is larger than the 8x8 map"):
        PatchLearner(conv_tail(), 9)(torch.randn(1, 4, 8, 8))


@pytest.mark.parametrize("mode", ["replicate", "reflect"])
def test_padding_repeats_or_mirrors_the_patchs_own_cells(mode):
    conv = nn.Conv2d(4, 5, 3, padding=1)
    x = torch.randn(2, 4, 8, 12)
    merged = PatchLearner(conv, 2, padding=mode)(x)
    for row, column in [(0, 0), (1, 1)]:
        patch = x[..., row * 4 : row * 4 + 4, column * 6 : column * 6 + 6]
        padded = nn.functional.pad(patch, (1, 1, 1, 1), mode=mode)
        expected = nn.functional.conv2d(padded, conv.weight, conv.bias)
        torch.testing.assert_close(merged[..., row * 4 : row * 4 + 4, column * 6 : column * 6 + 6], expected)


def test_a_halo_as_wide_as_the_receptive_field_gives_the_unpatched_map():
    tail = nn.Sequential(nn.Conv2d(4, 5, 3, padding=1), nn.Conv2d(5, 6, 3, stride=2, padding=1))
    x = torch.randn(2, 4, 15, 23)
    whole = tail(x)
    merged, bare = PatchLearner(tail, 2, halo=4)(x), PatchLearner(tail, 2)(x)
    # The outermost cells differ: beyond the image the first convolution turns zeros into its bias.
    torch.testing.assert_close(merged[..., 1:-1, 1:-1], whole[..., 1:-1, 1:-1])
    assert (bare - whole)[..., 1:-1, 1:-1].abs().max() > 1e-3


def test_a_learner_equals_the_patched_pass_of_a_cut_backbone():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), conv_tail(2)).eval()
    features = model[0](torch.randn(1, 3, 18, 26))
    for options in ({}, {"padding": "replicate"}, {"padding": "reflect", "halo": 2}, {"halo": 4}):
        cutter = CutBackbone(model, ["0"], stages=["0", "1"], **options)
        expected = cutter.patched(0, features, 2, (9, 13))
        torch.testing.assert_close(PatchLearner(model[1], 2, **options)(features), expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"padding": "wrap"}, "zeros, replicate, reflect"),
        ({"halo": -1}, "halo must be 0 or more cells, got -1"),
        ({"halo": 3}, r"multiple of the tail's stride \(2, 2\), got 3"),
        ({"padding": "reflect", "grid": 8}, "cannot reflect"),
    ],
)
def test_invalid_padding_and_halo_are_named_in_the_error(options, message):
    tail = nn.Conv2d(4, 5, 7, stride=2, padding=3)
    with pytest.raises(PPLValueError, match=message):
        PatchLearner(tail, **{"grid": 2, **options})(torch.randn(1, 4, 16, 16))


def test_padding_compiles_in_one_graph():
    learner = PatchLearner(conv_tail(2).eval(), 2, padding="replicate")
    x = torch.randn(2, 4, 16, 16)
    torch.testing.assert_close(torch.compile(learner, fullgraph=True, backend="eager")(x), learner(x))


def test_hooks_on_the_tail_see_the_passes_of_images_alone_and_are_not_copied():
    class Recorder:
        def __init__(self):
            self.outputs = []

        def __call__(self, module, args, output):
            self.outputs.append(output)

        def __deepcopy__(self, memo):
            raise TypeError("this hook cannot be copied")

    recorder = Recorder()
    tail = nn.Conv2d(2, 3, 3, stride=2, padding=1)
    tail.register_forward_hook(recorder)
    PatchLearner(tail, 2)(torch.randn(1, 2, 8, 12))
    assert [tuple(output.shape) for output in recorder.outputs] == [(4, 3, 2, 3)]
