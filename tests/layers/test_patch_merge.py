from __future__ import annotations

import pytest
import torch

from ppl.errors import PPLValueError
from ppl.layers import PatchMerge, patch_destruct, patch_merge


@pytest.mark.parametrize("grid", [1, 2, (4, 2), (1, 5)])
@pytest.mark.parametrize("size", [(8, 8), (15, 23), (7, 5)])
def test_merge_undoes_destruct(grid, size):
    x = torch.randn(3, 2, *size)
    assert torch.equal(patch_merge(patch_destruct(x, grid), grid, size), x)


def test_every_patch_lands_in_its_cell():
    patches = torch.arange(2 * 6.0).reshape(12, 1, 1, 1).expand(12, 1, 2, 3)
    merged = patch_merge(patches, (3, 2))
    assert merged.shape == (2, 1, 6, 6)
    assert merged[1, 0, 4, 3] == 6 + 2 * 2 + 1
    assert merged[0, 0, 1, 2] == 0


def test_module_is_the_function():
    patches = torch.randn(8, 3, 4, 4)
    assert torch.equal(PatchMerge((2, 4))(patches, (7, 15)), patch_merge(patches, (2, 4), (7, 15)))


def test_channels_last_is_kept():
    patches = torch.randn(8, 3, 4, 4)
    merged = patch_merge(patches.to(memory_format=torch.channels_last), 2)
    assert merged.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(merged, patch_merge(patches, 2))


def test_gradient():
    x = torch.randn(8, 2, 2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: patch_merge(x, 2, (3, 5)), x)


def test_compiles_in_one_graph():
    patches = torch.randn(8, 3, 4, 4)
    compiled = torch.compile(patch_merge, fullgraph=True, backend="eager")
    assert torch.equal(compiled(patches, 2, (7, 8)), patch_merge(patches, 2, (7, 8)))


def test_patches_of_another_grid_are_an_error():
    with pytest.raises(PPLValueError, match=r"6 patches, which is no multiple of the 4"):
        patch_merge(torch.zeros(6, 1, 2, 2), 2)


def test_size_larger_than_the_merged_map_is_an_error():
    with pytest.raises(PPLValueError, match=r"size \(5,4\) is larger than the merged map of 4x4"):
        patch_merge(torch.zeros(4, 1, 2, 2), 2, (5, 4))


def test_wrong_shape_is_named():
    with pytest.raises(PPLValueError, match=r"got \(4, 8\)"):
        patch_merge(torch.zeros(4, 8), 2)
