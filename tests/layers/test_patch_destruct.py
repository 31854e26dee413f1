from __future__ import annotations

import pytest
import torch

from ppl.errors import PPLTypeError, PPLValueError
from ppl.layers import PatchDestruct, patch_destruct


def cut_by_loops(x, rows, columns, unit=1):
    """Cut by definition: zero-pad at the bottom and on the right, then slice patch by patch."""
    batch, channels, height, width = x.shape
    h = -(-height // (rows * unit)) * unit
    w = -(-width // (columns * unit)) * unit
    padded = torch.zeros(batch, channels, h * rows, w * columns, dtype=x.dtype)
    padded[:, :, :height, :width] = x
    patches = [
        padded[b, :, r * h : (r + 1) * h, c * w : (c + 1) * w]
        for b in range(batch)
        for r in range(rows)
        for c in range(columns)
    ]
    return torch.stack(patches)


@pytest.mark.parametrize("grid", [1, 2, 3, (4, 2), (1, 5), [3, 1]])
@pytest.mark.parametrize("size", [(8, 8), (15, 23), (7, 5)])
@pytest.mark.parametrize("batch", [1, 3])
def test_patches_are_slices_in_image_major_order(grid, size, batch):
    x = torch.randn(batch, 2, *size)
    rows, columns = (grid, grid) if isinstance(grid, int) else grid
    assert torch.equal(patch_destruct(x, grid), cut_by_loops(x, rows, columns))


def test_patch_size_is_rounded_up_to_the_multiple():
    x = torch.randn(2, 3, 15, 23)
    assert torch.equal(patch_destruct(x, (4, 2), multiple=8), cut_by_loops(x, 4, 2, unit=8))


def test_grid_of_one_returns_the_map():
    x = torch.randn(2, 3, 5, 7)
    assert torch.equal(patch_destruct(x, 1), x)


def test_module_is_the_function():
    x = torch.randn(2, 3, 15, 23)
    assert torch.equal(PatchDestruct((4, 2))(x), patch_destruct(x, (4, 2)))
    assert "grid=(4, 2)" in repr(PatchDestruct((4, 2)))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.uint8])
def test_dtype_is_kept(dtype):
    x = torch.ones(1, 2, 5, 5).to(dtype)
    assert patch_destruct(x, 2).dtype == dtype


def test_channels_last_is_kept():
    x = torch.randn(2, 8, 15, 23)
    patches = patch_destruct(x.to(memory_format=torch.channels_last), (4, 2))
    assert patches.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(patches, patch_destruct(x, (4, 2)))


def test_empty_batch_gives_no_patches():
    assert patch_destruct(torch.empty(0, 3, 8, 8), 2).shape == (0, 3, 4, 4)


def test_gradient():
    x = torch.randn(2, 2, 5, 7, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: patch_destruct(x, (2, 3)), x)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_compiles_in_one_graph(memory_format):
    x = torch.randn(2, 4, 15, 23).to(memory_format=memory_format)
    compiled = torch.compile(patch_destruct, fullgraph=True, backend="eager")
    assert torch.equal(compiled(x, (4, 2)), patch_destruct(x, (4, 2)))


def test_grid_larger_than_the_map_names_both():
    with pytest.raises(PPLValueError, match=r"grid 4x2 is larger than the 3x9 map"):
        patch_destruct(torch.zeros(1, 1, 3, 9), (4, 2))


@pytest.mark.parametrize("grid", [0, -1, (2, 0)])
def test_empty_grid_is_an_error(grid):
    with pytest.raises(PPLValueError, match="at least one row"):
        PatchDestruct(grid)


@pytest.mark.parametrize("grid", [2.0, "2", None, (2, 2, 2), (2, 1.5), True])
def test_grid_of_another_type_is_an_error(grid):
    with pytest.raises(PPLTypeError, match="grid must be an integer or a pair"):
        PatchDestruct(grid)


def test_wrong_shape_is_named():
    with pytest.raises(PPLValueError, match=r"\(B,C,H,W\), got \(3, 8, 8\)"):
        patch_destruct(torch.zeros(3, 8, 8), 2)
