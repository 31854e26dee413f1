from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from ppl.errors import PPLValueError
from ppl.layers import GranularityFusion


def make_maps(channels, dtype=torch.float32):
    return [torch.randn(2, c, 5, 7, dtype=dtype) for c in channels]


@pytest.mark.parametrize("channels", [(6,), (6, 6), (4, 6, 3)])
def test_fusion_is_the_wide_convolution_of_the_concatenation(channels):
    """Identity 1."""
    fusion = GranularityFusion(channels, 9)
    maps = make_maps(channels)
    wide = torch.cat([classifier.weight for classifier in fusion.classifiers], dim=1)
    expected = F.conv2d(torch.cat(maps, dim=1), wide)
    torch.testing.assert_close(fusion.class_maps(maps), expected)
    torch.testing.assert_close(fusion(maps), expected.mean((2, 3)))


def test_branches_sum_to_the_whole():
    fusion = GranularityFusion((4, 6), 3)
    maps = make_maps((4, 6))
    first, second = fusion.branch_class_maps(maps)
    torch.testing.assert_close(first + second, fusion.class_maps(maps))


def test_keys_are_stable_and_free_of_bias():
    state = GranularityFusion((4, 6), 3).state_dict()
    assert {key: tuple(value.shape) for key, value in state.items()} == {
        "classifiers.0.weight": (3, 4, 1, 1),
        "classifiers.1.weight": (3, 6, 1, 1),
    }


def test_weights_start_as_those_of_the_wide_convolution():
    torch.manual_seed(0)
    fusion = GranularityFusion((300, 100), 20)
    for weight in fusion.parameters():
        assert 0.9 / 20 < weight.abs().max() <= 1 / 20


def test_gradient():
    fusion = GranularityFusion((2, 3), 2).double()
    maps = [m.requires_grad_() for m in make_maps((2, 3), torch.float64)]
    assert torch.autograd.gradcheck(lambda *maps: fusion(maps), maps)


def test_compiles_in_one_graph():
    fusion, maps = GranularityFusion((4, 6), 3), make_maps((4, 6))
    torch.testing.assert_close(torch.compile(fusion, fullgraph=True, backend="eager")(maps), fusion(maps))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype):
    fusion = GranularityFusion((4, 6), 3).to(dtype)
    assert fusion(make_maps((4, 6), dtype)).dtype == dtype


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ([(2, 4, 5, 7)], "one map per branch, 2 in all, got 1"),
        ([(2, 4, 5, 7), (2, 4, 5, 7)], r"C = \(4, 6\)"),
        ([(2, 4, 5, 7), (2, 6, 5, 6)], "one size"),
        ([(2, 4), (2, 6)], r"\(B,C,h,w\)"),
    ],
)
def test_maps_that_do_not_fit_are_an_error(shapes, message):
    with pytest.raises(PPLValueError, match=message):
        GranularityFusion((4, 6), 3)([torch.zeros(shape) for shape in shapes])


@pytest.mark.parametrize(("channels", "classes"), [((), 3), ((4, 0), 3), ((4,), 0)])
def test_impossible_sizes_are_an_error(channels, classes):
    with pytest.raises(PPLValueError, match=r"positive integer|at least 1"):
        GranularityFusion(channels, classes)
