"""Cut maps into grids of patches (P in the paper's figure 2)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ppl.layers.grid import Grid, as_grid, check_grid_fits, check_map

__all__ = ["PatchDestruct", "patch_destruct"]


def patch_destruct(x: Tensor, grid: Grid, *, multiple: Grid = 1) -> Tensor:
    """Cut every map of a batch into a grid of equal patches and stack them along the batch.

    Maps are zero-padded at the bottom and on the right if the grid does not divide their size.

    Args:
        x: maps (B,C,H,W) of any dtype; the channels_last memory format is kept.
        grid: rows and columns of patches, `gh x gw`.
        multiple: round the height and width of a patch up to a multiple of this number. With the stride of the layers
            that follow, the results of patches lie exactly over the results of the whole map.

    Returns:
        Patches (B*gh*gw,C,h,w), image-major: row `b*gh*gw + r*gw + c` is patch (r,c) of image b.

    Raises:
        PPLTypeError: if `grid` is neither an integer nor a pair of integers.
        PPLValueError: if `x` is not 4-dimensional, or the grid is larger than the map.

    Source:
        Patch operation P, Progressive Patch Learning (Li et al., IEEE TMM 2022), figure 2.

    Example:
        >>> import torch
        >>> x = torch.arange(16.0).reshape(1, 1, 4, 4)
        >>> patch_destruct(x, grid=2)[1, 0]
        tensor([[2., 3.],
                [6., 7.]])
        >>> patch_destruct(torch.zeros(2, 8, 15, 23), grid=(4, 2)).shape
        torch.Size([16, 8, 4, 12])
    """
    rows, columns = as_grid(grid)
    check_map(x)
    height, width = x.shape[-2:]
    check_grid_fits((rows, columns), height, width)
    unit_h, unit_w = as_grid(multiple)
    pad_h = -height % (rows * unit_h)
    pad_w = -width % (columns * unit_w)
    if pad_h or pad_w:
        x = F.pad(x, (0, pad_w, 0, pad_h))
    if is_channels_last(x):
        patches = rearrange(x, "b c (gh h) (gw w) -> (b gh gw) h w c", gh=rows, gw=columns)
        return rearrange(patches, "n h w c -> n c h w")
    return rearrange(x, "b c (gh h) (gw w) -> (b gh gw) c h w", gh=rows, gw=columns)


class PatchDestruct(nn.Module):
    """Module of :func:`patch_destruct`.

    Args:
        grid: rows and columns of patches, an integer or a pair.

    Example:
        >>> import torch
        >>> PatchDestruct(2)(torch.zeros(1, 3, 8, 8)).shape
        torch.Size([4, 3, 4, 4])
    """

    def __init__(self, grid: Grid) -> None:
        super().__init__()
        self.grid = as_grid(grid)

    def forward(self, x: Tensor) -> Tensor:
        """Cut (B,C,H,W) into (B*gh*gw,C,h,w)."""
        return patch_destruct(x, self.grid)

    def extra_repr(self) -> str:
        """Show the grid."""
        return f"grid={self.grid}"


def is_channels_last(x: Tensor) -> bool:
    """Tell whether a map lies in memory as (B,H,W,C) and not also as (B,C,H,W)."""
    return x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
