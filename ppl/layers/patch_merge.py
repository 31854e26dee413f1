"""Merge patches into maps (M in the paper's figure 2)."""

from __future__ import annotations

from einops import rearrange
from torch import Tensor, nn

from ppl.errors import PPLValueError
from ppl.layers.grid import Grid, as_grid, check_map
from ppl.layers.patch_destruct import is_channels_last

__all__ = ["PatchMerge", "patch_merge"]


def patch_merge(x: Tensor, grid: Grid, size: tuple[int, int] | None = None) -> Tensor:
    """Merge the patches of every image into one map: the inverse of :func:`ppl.layers.patch_destruct`.

    Args:
        x: patches (B*gh*gw,C,h,w), image-major; the channels_last memory format is kept.
        grid: rows and columns of patches, `gh x gw`.
        size: (H,W) of the result, cropped at the bottom and on the right; None keeps (gh*h,gw*w).

    Returns:
        Maps (B,C,H,W).

    Raises:
        PPLTypeError: if `grid` is neither an integer nor a pair of integers.
        PPLValueError: if `x` is not 4-dimensional, the number of patches is no multiple of gh*gw, or `size` is larger
            than the merged map.

    Source:
        Merge operation M, Progressive Patch Learning (Li et al., IEEE TMM 2022), figure 2.

    Example:
        >>> import torch
        >>> from ppl.layers import patch_destruct
        >>> x = torch.randn(2, 3, 15, 23)
        >>> torch.equal(patch_merge(patch_destruct(x, (4, 2)), (4, 2), size=(15, 23)), x)
        True
    """
    rows, columns = as_grid(grid)
    check_map(x)
    if x.shape[0] % (rows * columns):
        raise PPLValueError(
            f"x of shape {tuple(x.shape)} has {x.shape[0]} patches, which is no multiple of the "
            f"{rows * columns} of a {rows}x{columns} grid: merge with the grid of the cut"
        )
    if is_channels_last(x):
        merged = rearrange(x, "(b gh gw) c h w -> b (gh h) (gw w) c", gh=rows, gw=columns)
        merged = rearrange(merged, "b h w c -> b c h w")
    else:
        merged = rearrange(x, "(b gh gw) c h w -> b c (gh h) (gw w)", gh=rows, gw=columns)
    if size is None:
        return merged
    height, width = size
    if height > merged.shape[-2] or width > merged.shape[-1]:
        raise PPLValueError(
            f"size ({height},{width}) is larger than the merged map of {merged.shape[-2]}x{merged.shape[-1]}: "
            "the layers between cutting and merging lost pixels (convolutions without padding?)"
        )
    return merged[..., :height, :width]


class PatchMerge(nn.Module):
    """Module of :func:`patch_merge`.

    Args:
        grid: rows and columns of patches, an integer or a pair.

    Example:
        >>> import torch
        >>> PatchMerge(2)(torch.zeros(4, 3, 4, 4)).shape
        torch.Size([1, 3, 8, 8])
    """

    def __init__(self, grid: Grid) -> None:
        super().__init__()
        self.grid = as_grid(grid)

    def forward(self, x: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """Merge (B*gh*gw,C,h,w) into (B,C,H,W)."""
        return patch_merge(x, self.grid, size)

    def extra_repr(self) -> str:
        """Show the grid."""
        return f"grid={self.grid}"
