"""Run layers patch by patch: cut, tail, merge."""

from __future__ import annotations

import operator

import torch
from torch import Tensor, nn

from ppl.errors import PPLValueError
from ppl.layers.grid import Grid, as_grid, check_grid_fits, check_map
from ppl.layers.padding import border_padding, check_padding
from ppl.layers.shared_copy import shared_copy
from ppl.layers.shared_state import store_once
from ppl.layers.tiling import cut_patches, merge_patches

__all__ = ["PatchLearner"]

# The stride of a tail is measured by the growth of its output when the input grows by this many cells, a multiple of
# all usual strides. Meta tensors cost nothing at any size; tensors of zeros do.
_GROWTH = 192 * 5 * 7
_GROWTH_OF_ZEROS = 192


class PatchLearner(nn.Module):
    """Cut a map into patches, run `tail` on each patch alone, and merge the results.

    The output has the size of `tail(x)` and lies over the same pixels: patches are zero-padded (at the bottom and on
    the right of the map) to a multiple of the tail's stride. Size and stride are measured once per input size on
    tensors without data, so BatchNorm statistics and random numbers stay as they are.

    If a model holds the tail under another name too, its `state_dict` holds the weights once.

    Args:
        tail: layers from a map (B,C,H,W) to a map (B,D,H',W'). Convolutions need padding: without padding every patch
            loses cells at its border.
        grid: rows and columns of patches, an integer or a pair.
        padding: values that convolutions of the tail see beyond the border of a patch: "zeros" (the tail as it is),
            "replicate" (the patch's outermost cells) or "reflect".
        halo: cells of real context that each patch keeps on every side; they are cropped from the result. A multiple
            of the tail's stride.

    Raises:
        PPLTypeError: if `grid` is neither an integer nor a pair of integers.
        PPLValueError: if `padding` is unknown or `halo` negative.

    Source:
        One patch branch (P, blocks i+1..N, M) of Progressive Patch Learning (Li et al., IEEE TMM 2022), figure 2.

    Example:
        >>> import torch
        >>> tail = torch.nn.Conv2d(3, 8, 3, stride=2, padding=1)
        >>> learner, x = PatchLearner(tail, grid=(4, 2), padding="replicate"), torch.randn(1, 3, 15, 23)
        >>> learner(x).shape == tail(x).shape
        True
    """

    def __init__(self, tail: nn.Module, grid: Grid, *, padding: str = "zeros", halo: int = 0) -> None:
        super().__init__()
        self.tail = tail
        self.grid = as_grid(grid)
        self.padding = check_padding(padding)
        self.halo = operator.index(halo)
        if self.halo < 0:
            raise PPLValueError(f"halo must be 0 or more cells, got {halo}")
        self._sizes: dict[tuple[int, int, int], tuple[tuple[int, int], tuple[int, int]]] = {}
        store_once(tail)

    def forward(self, x: Tensor) -> Tensor:
        """Return the map (B,D,H',W') of `x` (B,C,H,W), of the shape of `tail(x)`.

        Raises:
            PPLValueError: if `x` is not 4-dimensional, the grid is larger than the map, the halo is no multiple of the
                tail's stride, or the tail's output is no map or loses cells at the border of a patch.
        """
        check_map(x)
        check_grid_fits(self.grid, x.shape[-2], x.shape[-1])
        # operator.index: under torch.compile with dynamic shapes it turns a symbol into the number that is needed here.
        size, stride = self._size_and_stride(*map(operator.index, x.shape[1:]))
        if self.halo % stride[0] or self.halo % stride[1]:
            raise PPLValueError(f"halo must be a multiple of the tail's stride {stride}, got {self.halo}")
        patches = cut_patches(x, self.grid, stride, (self.halo, self.halo), self.padding)
        with border_padding(self.padding):
            maps = self.tail(patches)
        _check_cells(patches, maps, stride)
        halo = (self.halo // stride[0], self.halo // stride[1])
        cells = (maps.shape[-2] - 2 * halo[0], maps.shape[-1] - 2 * halo[1])
        return merge_patches(maps, self.grid, cells, halo, size)

    def extra_repr(self) -> str:
        """Show the settings."""
        return f"grid={self.grid}, padding={self.padding!r}, halo={self.halo}"

    @torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
    def _size_and_stride(self, channels: int, height: int, width: int) -> tuple[tuple[int, int], tuple[int, int]]:
        """Return the size of `tail(x)` and the tail's stride for an input (B,channels,height,width)."""
        key = (channels, height, width)
        if key not in self._sizes:
            size, grown, growth = _output_sizes(self.tail, channels, height, width)
            if grown[0] <= size[0] or grown[1] <= size[1]:
                raise PPLValueError(
                    f"tail gives {size[0]}x{size[1]} for a {height}x{width} map and {grown[0]}x{grown[1]} for a "
                    f"{height + growth}x{width + growth} one, so its output is no map: leave pooling and head out of it"
                )
            # An enlarging tail has stride 1. Strides that do not divide the growth are rounded.
            strides = (round(growth / (more - less)) for more, less in zip(grown, size, strict=True))
            rows, columns = (max(1, stride) for stride in strides)
            self._sizes[key] = size, (rows, columns)
        return self._sizes[key]


def _check_cells(patches: Tensor, maps: Tensor, stride: tuple[int, int]) -> None:
    """Raise PPLValueError if a tail without padding makes fewer cells of a patch than the patch stands for."""
    height, width = patches.shape[-2:]
    cells = (height // stride[0], width // stride[1])
    if maps.shape[-2] < cells[0] or maps.shape[-1] < cells[1]:
        raise PPLValueError(
            f"tail makes {maps.shape[-2]}x{maps.shape[-1]} cells of a {height}x{width} patch that stands for "
            f"{cells[0]}x{cells[1]}: its layers lost pixels at the edges; give them padding=kernel_size // 2"
        )


def _output_sizes(
    tail: nn.Module, channels: int, height: int, width: int
) -> tuple[tuple[int, int], tuple[int, int], int]:
    """Return the output sizes of a (1,channels,height,width) input and of an enlarged one, and the enlargement."""
    tensors = [*tail.parameters(), *tail.buffers()]
    example = next((tensor for tensor in tensors if tensor.is_floating_point()), torch.empty(0))

    def sizes(device: torch.device | str, growth: int) -> tuple[tuple[int, int], tuple[int, int], int]:
        twin = shared_copy(tail, tail, "meta" if device == "meta" else None, hooks=False)
        shapes = [(1, channels, height + more, width + more) for more in (0, growth)]
        size, grown = (_size(twin(torch.zeros(*s, dtype=example.dtype, device=device)), s) for s in shapes)
        return size, grown, growth

    with torch.no_grad(), torch.random.fork_rng(devices=[example.device] if example.is_cuda else []):
        try:
            return sizes("meta", _GROWTH)
        except Exception:  # Fall back to real zeros if meta tensors fail; a fault of the tail shows there again.
            return sizes(example.device, _GROWTH_OF_ZEROS)


def _size(output: object, shape: tuple[int, ...]) -> tuple[int, int]:
    """Return height and width of the tail's output for an input of that shape."""
    if not isinstance(output, Tensor) or output.ndim != 4:
        found = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise PPLValueError(f"tail must return a map (B,C,H,W), got {found} for an input of shape {shape}")
    return output.shape[2], output.shape[3]
