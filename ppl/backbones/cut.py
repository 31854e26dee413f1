"""Cut a backbone after any of its stages and resume it from there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ppl.backbones.dry_run import inspect_backbone, with_size_multiple
from ppl.backbones.errors import UnsupportedBackboneError
from ppl.backbones.hooked import HookedBackbone
from ppl.backbones.identities import verify
from ppl.backbones.image_sizes import refusal_of
from ppl.backbones.names import last_leaf, stage_names
from ppl.backbones.stages import find_stage
from ppl.backbones.timm_support import is_tested
from ppl.errors import PPLTypeError, PPLValueError
from ppl.layers.grid import Grid
from ppl.layers.padding import check_padding

__all__ = ["CutBackbone", "refuse_data_parallel"]


class CutBackbone:
    """A backbone that can be stopped after some of its stages and resumed from there, with other features.

    To resume, the model's own forward runs on a tiny dummy image, and a forward hook on the stage's last block replaces
    the block's output. Only hooks are added to the model; the keys of its `state_dict` stay.

    Several threads can run one model in eval mode, patched or not: the state of a pass belongs to its thread. A
    `CutBackbone` is no Module and holds no parameters. It can be copied (together with its model) and pickled.

    Args:
        model: a timm model or any module that takes images (B,3,H,W).
        cuts: stages after which to cut, by name or by index into the stages. A name may also be that of a block
            between the ends of stages ("layer3.1"); such cuts are tried on a small image first.
        stages: dotted names of the stages of a model without `feature_info`; the last stage returns the final map.
        padding: values that the layers after the cut see beyond the border of a patch: "zeros" (the layers as they
            are), "replicate" or "reflect".
        halo: cells of real context that each patch keeps on every side; they are cropped from the result. A multiple
            of the stride of the layers after the cut. Meant for convolutions: beyond the image there is no context,
            and attention would look at the filling.
        input_size: (H,W) for a model that takes no other size and does not declare it.

    Attributes:
        model: the backbone itself.
        stages: its stages, shallow to deep, without the blocks that only `cuts` name.
        cuts: the stages after which the model is cut, in the order given.
        num_features: channels of the final map.
        stride: input pixels per cell of the final map.
        min_size: the smallest (H,W) that is known to run and leave a cell.
        unpadded: whether convolutions without padding need more room than a cell.
        size_multiple: heights and widths of images must be multiples of it.

    Raises:
        PPLValueError: unknown or last stage as a cut, unknown padding, or a halo that is no multiple of the stride.
        PPLTypeError: `model` is no module, or a parallel or compiled wrapper of a module.
        UnsupportedBackboneError: the model, or the cut, is refused; the message names the reason and the fix. Models
            that no test covers, and all models of a timm newer than the tests, are tried on a small image first.
        PPLError: the model does not run, or a stage does not run exactly once.

    Source:
        The cut of Progressive Patch Learning (Li et al., IEEE TMM 2022), figures 2 and 5.

    Example:
        >>> import timm, torch
        >>> cutter = CutBackbone(timm.create_model("test_resnet").eval(), cuts=["layer2"])
        >>> final, features = cutter.forward_features(torch.zeros(2, 3, 96, 96), taps=[0])
        >>> torch.equal(cutter.resume(0, features[0]), final)
        True
        >>> cutter.patched(0, features[0], grid=2, size=final.shape[-2:]).shape == final.shape
        True
    """

    def __init__(
        self,
        model: nn.Module,
        cuts: Sequence[str | int] = (),
        *,
        stages: Sequence[str] | None = None,
        padding: str = "zeros",
        halo: int = 0,
        input_size: tuple[int, int] | None = None,
    ) -> None:
        _check_module(model)
        if isinstance(cuts, (str, int)):
            raise PPLTypeError(f"cuts must be a list, got {cuts!r}: write [{cuts!r}]")
        blocks = [cut for cut in cuts if isinstance(cut, str)]
        info = with_size_multiple(model, inspect_backbone(model, stages, input_size, blocks))
        ends = {last_leaf(model, name) for name in stage_names(model, stages)}
        own = [stage for stage in info.stages if stage.module in ends]
        indices = [
            info.stages.index(own[find_stage(own, cut)]) if isinstance(cut, int) else find_stage(info.stages, cut)
            for cut in cuts
        ]
        if len(set(indices)) < len(indices):
            raise PPLValueError(f"cuts name a stage twice: {list(cuts)!r}")
        self.model = model
        self.stages = tuple(own)
        self.cuts = tuple(info.stages[index] for index in indices)
        self.num_features = info.final.channels
        self.stride = info.final.reduction
        # A model that runs on 32x32 pixels runs on any image that leaves a cell of the final map.
        self.unpadded = info.fixed is None and min(info.dummy) > 32
        self.min_size = info.dummy if self.unpadded else (self.stride, self.stride)
        self.size_multiple = info.multiple
        self.padding = check_padding(padding)
        self.halo = int(halo)
        for index in range(len(self.cuts)):
            self._check_halo(index)
        self._sizes = {info.probe}
        self._hooked = HookedBackbone(model, info, indices, self.padding, self.halo)
        if not is_tested(model) or not set(self.cuts) <= set(own):
            try:
                verify(self._hooked)
            except Exception:
                self.remove_hooks()
                raise

    def __repr__(self) -> str:
        return f"CutBackbone({type(self.model).__name__}, cuts={[stage.name for stage in self.cuts]})"

    def remove_hooks(self) -> None:
        """Remove the hooks from the model, which cannot be resumed afterwards."""
        self._hooked.remove_hooks()

    def tail_stride(self, cut_index: int) -> int:
        """Return the stride of the layers after a cut: cells of the cut's map per cell of the final map."""
        return max(1, self.stride // self.cuts[cut_index].reduction)

    def forward_features(self, x: Tensor, taps: Sequence[int] = ()) -> tuple[Tensor, dict[int, Any]]:
        """Run the whole model once.

        Args:
            x: images (B,3,H,W).
            taps: indices into `cuts` whose features are kept.

        Returns:
            The final map (B,C,h,w), and per tap the stage's output in its own layout.

        Raises:
            PPLError: if a tapped stage does not run exactly once.
        """
        for index in taps:
            self._check_cut(index)
        return self._hooked.features(x, taps)

    def tapped_features(self, x: Tensor, taps: Sequence[int]) -> dict[int, Any]:
        """Run the model up to the deepest of some stages.

        Args:
            x: images (B,3,H,W).
            taps: indices into `cuts` whose features are returned.

        Returns:
            Per tap the stage's output in its own layout, as `forward_features` returns it.

        Raises:
            PPLError: if a tapped stage does not run.
        """
        for index in taps:
            self._check_cut(index)
        return self._hooked.tapped(x, taps)

    def resume(
        self,
        cut_index: int,
        features: Any,
        size: tuple[int, int] | None = None,
        image_size: tuple[int, int] | None = None,
    ) -> Tensor:
        """Run only the layers after a cut.

        Args:
            cut_index: index into `cuts`.
            features: output of the stage, in its own layout, of any batch size.
            size: (h,w) of the final map, for models of tokens whose map is not square.
            image_size: (H,W) of the images, for models of tokens: `size` alone can fit several grids.

        Returns:
            The final map (B',C,h',w') of those features.

        Raises:
            PPLError: if the cut's stage does not run exactly once.
        """
        self._check_cut(cut_index)
        return self._hooked.resume(cut_index, features, size, image_size)

    def patched(
        self,
        cut_index: int,
        features: Any,
        grid: Grid,
        size: tuple[int, int],
        image_size: tuple[int, int] | None = None,
    ) -> Tensor:
        """Cut the features into patches, run each alone through the layers after the cut, and merge the results.

        The sides of a patch are multiples of the stride of those layers (features are zero-padded at the bottom and on
        the right), so the merged map lies cell on cell over the un-patched map.

        Args:
            cut_index: index into `cuts`.
            features: features of that cut, from `forward_features`; detach them for a branch without gradient.
            grid: rows and columns of patches.
            size: (h,w) of the un-patched final map.
            image_size: (H,W) of the images, for models of tokens: `size` alone can fit several grids.

        Returns:
            The merged final map (B,C,h,w).

        Raises:
            PPLValueError: if the grid is larger than the map, or "reflect" padding larger than a patch.
        """
        self._check_cut(cut_index)
        hooked = self._hooked
        patches, tiling = hooked.cut(cut_index, features, grid, size, image_size)
        if self.padding != "zeros" and torch.is_grad_enabled() and self._checkpoints():
            raise UnsupportedBackboneError(
                f"{type(self.model).__name__} runs blocks again under timm's gradient checkpointing, where padding "
                f"{self.padding!r} cannot reach them: call its set_grad_checkpointing(False) and use the "
                "set_grad_checkpointing() of PPLNet"
            )
        return hooked.merge(hooked.run_patches(cut_index, patches, tiling), tiling, size)

    def check_input_size(self, height: int, width: int) -> None:
        """Raise UnsupportedBackboneError unless the model takes images of that size.

        Models of a fixed size are tried on a black image; other models are not.

        Args:
            height: height of the image, in pixels.
            width: width of the image, in pixels.

        Example:
            >>> import timm
            >>> CutBackbone(timm.create_model("test_resnet")).check_input_size(123, 321)
        """
        info = self._hooked.info
        fits = height % info.multiple == 0 == width % info.multiple
        free = fits and info.fixed is None and self._hooked.family.window is None
        if free or (height, width) in self._sizes:
            return
        error = refusal_of(self.model, (height, width))  # Other sizes run too, if strides happen to agree.
        if error is not None:
            raise UnsupportedBackboneError(self._size_refusal(height, width)) from error
        self._sizes.add((height, width))

    def _size_refusal(self, height: int, width: int) -> str:
        name, info = type(self.model).__name__, self._hooked.info
        if info.multiple > 1:
            wanted = [-(-side // info.multiple) * info.multiple for side in (height, width)]
            return (
                f"{name} takes images whose sides are multiples of {info.multiple}, not {height}x{width}: "
                f"use {wanted[0]}x{wanted[1]}"
            )
        native = "x".join(str(side) for side in info.probe)
        return (
            f"{name} was built for images of {native} and does not take {height}x{width}: "
            f"resize to {native}, use the scale 1.0 alone, or take a backbone of any input size (swin, convnext)"
        )

    def _checkpoints(self) -> bool:
        return any(getattr(module, "grad_checkpointing", False) for module in self.model.modules())

    def _check_cut(self, index: int) -> None:
        if not 0 <= index < len(self.cuts):
            raise PPLValueError(f"there is no cut of index {index}: the backbone is cut {len(self.cuts)} times")

    def _check_halo(self, index: int) -> None:
        stride = self.tail_stride(index)
        if self.halo < 0 or self.halo % stride:
            raise PPLValueError(
                f"halo must be a multiple of the stride {stride} after {self.cuts[index].name!r}, got {self.halo}: "
                f"use {-(-max(self.halo, 1) // stride) * stride}"
            )


def refuse_data_parallel(module: nn.Module) -> None:
    """Raise PPLTypeError if `module` is a replica that `nn.DataParallel` made.

    Replicas share the hooks of the original but not its weights.

    Args:
        module: the module whose forward uses a `CutBackbone`.

    Example:
        >>> import torch
        >>> refuse_data_parallel(torch.nn.Identity())
    """
    if getattr(module, "_is_replica", False):
        raise PPLTypeError(
            f"{type(module).__name__} cannot run under nn.DataParallel, whose replicas share one set of hooks: "
            "use torch.nn.parallel.DistributedDataParallel"
        )


def _check_module(model: Any) -> None:
    if not isinstance(model, nn.Module):
        raise PPLTypeError(f"the backbone must be a torch.nn.Module, got {type(model).__name__}: create it first")
    if isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
        raise PPLTypeError(
            f"the backbone is wrapped in {type(model).__name__}: give the module inside and wrap the result"
        )
    if hasattr(model, "_orig_mod"):
        raise PPLTypeError("the backbone is compiled already: give the plain module and compile the result")
