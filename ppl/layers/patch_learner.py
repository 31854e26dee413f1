"""Run any layers patch by patch: cut, tail, merge."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ppl.errors import PPLValueError
from ppl.layers.grid import Grid, as_grid, check_grid_fits, check_map
from ppl.layers.patch_destruct import patch_destruct
from ppl.layers.patch_merge import patch_merge

__all__ = ["PatchLearner"]

# The stride is read off how much the output grows when the input grows by this much: a multiple of all usual strides.
# Tensors without data may be as large as one likes; those of zeros, for tails that need numbers, may not.
_SPAN = 192 * 5 * 7
_SPAN_OF_ZEROS = 192


class PatchLearner(nn.Module):
    """Cut a map into patches, send each on its own through `tail`, and stitch the results together.

    The output has exactly the size that `tail(x)` has, and lies over the same pixels: patches are padded (with zeros,
    at the bottom and on the right of the map) to a multiple of the stride left in the tail. That size is found
    once per input size on tensors without data, so neither BatchNorm statistics nor random numbers are touched.

    Args:
        tail: layers that turn a map (B,C,H,W) into a map (B,D,H',W'), with padding where they would lose cells at the
            edges: every patch would lose them, and its neighbours move up.
        grid: rows and columns of patches, an integer or a pair.

    Source:
        One patch branch (P, blocks i+1..N, M) of Progressive Patch Learning (Li et al., IEEE TMM 2022), figure 2.

    Example:
        >>> import torch
        >>> tail = torch.nn.Conv2d(3, 8, 3, stride=2, padding=1)
        >>> learner, x = PatchLearner(tail, grid=(4, 2)), torch.randn(1, 3, 15, 23)
        >>> learner(x).shape == tail(x).shape
        True
    """

    def __init__(self, tail: nn.Module, grid: Grid) -> None:
        super().__init__()
        self.tail = tail
        self.grid = as_grid(grid)
        self._plans: dict[tuple[int, int, int], tuple[tuple[int, int], tuple[int, int]]] = {}

    def forward(self, x: Tensor) -> Tensor:
        """Map (B,C,H,W) to (B,D,H',W'), the shape of `tail(x)`.

        Raises:
            PPLValueError: if `x` is not 4-dimensional, the grid is larger than the map, or the tail's output is no map
                or loses cells at the edges of a patch.
        """
        check_map(x)
        check_grid_fits(self.grid, x.shape[-2], x.shape[-1])
        # operator.index: under torch.compile with dynamic shapes it turns a symbol into the number that is needed here.
        size, stride = self._plan(*map(operator.index, x.shape[1:]))
        patches = patch_destruct(x, self.grid, multiple=stride)
        maps = self.tail(patches)
        _check_cells(patches, maps, stride)
        return patch_merge(maps, self.grid, size)

    def extra_repr(self) -> str:
        """Show the grid."""
        return f"grid={self.grid}"

    @torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
    def _plan(self, channels: int, height: int, width: int) -> tuple[tuple[int, int], tuple[int, int]]:
        """Size of `tail(x)` and stride of the tail for an input (B,channels,height,width)."""
        key = (channels, height, width)
        if key not in self._plans:
            size, grown, span = _output_sizes(self.tail, channels, height, width)
            if grown[0] <= size[0] or grown[1] <= size[1]:
                raise PPLValueError(
                    f"tail gives {size[0]}x{size[1]} for a {height}x{width} map and {grown[0]}x{grown[1]} for a "
                    f"{height + span}x{width + span} one, so its output is no map: leave pooling and head out of it"
                )
            # A tail that enlarges has no stride left to align with. Rounded, for strides that do not divide the span.
            strides = (round(span / (more - less)) for more, less in zip(grown, size, strict=True))
            rows, columns = (max(1, stride) for stride in strides)
            self._plans[key] = size, (rows, columns)
        return self._plans[key]


def _check_cells(patches: Tensor, maps: Tensor, stride: tuple[int, int]) -> None:
    """Raise PPLValueError if a tail without padding gives less of a patch than the cells that it stands for."""
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
    """Height and width of what `tail` makes of a (1,channels,height,width) input, of a larger one, and how much so."""
    state = {**dict(tail.named_parameters()), **dict(tail.named_buffers())}
    example = next((tensor for tensor in state.values() if tensor.is_floating_point()), torch.empty(0))
    meta = {name: tensor.detach().to("meta") for name, tensor in state.items()}

    def without_data(more: int) -> tuple[int, int]:
        shape = (1, channels, height + more, width + more)
        x = torch.empty(shape, dtype=example.dtype, device="meta")
        return _size(torch.func.functional_call(tail, meta, (x,)), shape)

    def of_zeros(more: int) -> tuple[int, int]:
        shape = (1, channels, height + more, width + more)
        return _size(tail(torch.zeros(shape, dtype=example.dtype, device=example.device)), shape)

    with _untouched(tail, example.device):
        try:
            return without_data(0), without_data(_SPAN), _SPAN
        # Whatever a layer may raise when it needs real numbers: then it gets zeros.
        except Exception:
            return of_zeros(0), of_zeros(_SPAN_OF_ZEROS), _SPAN_OF_ZEROS


def _size(output: object, shape: tuple[int, ...]) -> tuple[int, int]:
    """Height and width of a tail's output for an input of that shape."""
    if not isinstance(output, Tensor) or output.ndim != 4:
        found = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise PPLValueError(f"tail must return a map (B,C,H,W), got {found} for an input of shape {shape}")
    return output.shape[2], output.shape[3]


@contextmanager
def _untouched(module: nn.Module, device: torch.device) -> Iterator[None]:
    """Run `module` without leaving a trace: no gradients, BatchNorm and Dropout in eval mode, random state restored."""
    modes = [(part, part.training) for part in module.modules()]
    devices = [device] if device.type == "cuda" else []
    try:
        for part, _ in modes:
            part.training = False
        with torch.no_grad(), torch.random.fork_rng(devices=devices):
            yield
    finally:
        for part, mode in modes:
            part.training = mode
