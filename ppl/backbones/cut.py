"""Cut a backbone after any of its stages and resume it from there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ppl.backbones.errors import UnsupportedBackboneError
from ppl.backbones.identities import verify
from ppl.backbones.names import last_leaf, stage_names
from ppl.backbones.padding import check_padding
from ppl.backbones.runner import Runner
from ppl.backbones.stages import find_stage
from ppl.backbones.state import make_dummy, untouched
from ppl.backbones.trace import call_backbone, trace_model, with_size_multiple
from ppl.backbones.variants import is_known
from ppl.errors import PPLTypeError, PPLValueError
from ppl.layers.grid import Grid

__all__ = ["CutBackbone", "refuse_data_parallel"]


class CutBackbone:
    """A backbone that can be stopped after some of its stages and resumed from there, with other features.

    To resume, a forward hook on a stage's last block replaces what the block returns, while the model's own forward
    runs on a tiny dummy image. Nothing is added to the model but the hooks: the keys of its `state_dict` stay as they
    are.

    Not a Module: it holds no parameters. It can be copied (together with its model) and pickled.

    Args:
        model: a timm model or any module that takes images (B,3,H,W).
        cuts: stages after which to cut, by name or by index into the stages. A name may also be that of a block
            between the ends of stages ("layer3.1"); whether the model can be cut there is tried on a small image first.
        stages: dotted names of the stages of a model that does not name them itself; what the last one returns is the
            final map.
        padding: what the layers after the cut see beyond the edge of a patch: "zeros", as the figure draws it,
            "replicate" or "reflect" (the paper says nothing; the default is ours).
        halo: cells of real context that each patch keeps on every side through the layers after the cut; they are
            cropped from the result. A multiple of the stride that is left after the cut. Meant for convolutions: beyond
            the image there is no context, and attention would look at what fills the halo there.
        input_size: (H,W) for a model that takes no other and does not say so itself.

    Attributes:
        model: the backbone itself.
        stages: its stages, shallow to deep, without the blocks that only `cuts` name.
        cuts: the stages after which it is cut, in the order given.
        num_features: channels of the final map.
        stride: input pixels per cell of the final map.
        min_size: the smallest (H,W) that is known to run and leave a cell.
        unpadded: it has convolutions without padding, which need more room than a cell.
        size_multiple: heights and widths of images must be multiples of it.

    Raises:
        PPLValueError: unknown or last stage as a cut, unknown padding, a halo that is no multiple of the stride left.
        PPLTypeError: `model` is no module, or a parallel or compiled wrapper of one.
        UnsupportedBackboneError: the model cannot be cut, or not there; the message says why and what to take instead.
            Models of no known family are tried on a small image first.
        PPLError: the model does not run, or a stage of it does not run exactly once.

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
        trace = with_size_multiple(model, trace_model(model, stages, input_size, blocks))
        ends = {last_leaf(model, name) for name in stage_names(model, stages)}
        own = [stage for stage in trace.stages if stage.module in ends]
        indices = [
            trace.stages.index(own[find_stage(own, cut)]) if isinstance(cut, int) else find_stage(trace.stages, cut)
            for cut in cuts
        ]
        if len(set(indices)) < len(indices):
            raise PPLValueError(f"cuts name a stage twice: {list(cuts)!r}")
        self.model = model
        self.stages = tuple(own)
        self.cuts = tuple(trace.stages[index] for index in indices)
        self.num_features = trace.final.channels
        self.stride = trace.final.reduction
        # nearly all run on images of 32x32, and on smaller ones as long as there is a cell
        self.unpadded = trace.fixed is None and min(trace.dummy) > 32
        self.min_size = trace.dummy if self.unpadded else (self.stride, self.stride)
        self.size_multiple = trace.multiple
        self.padding = check_padding(padding)
        self.halo = int(halo)
        for index in range(len(self.cuts)):
            self._check_halo(index)
        self._sizes = {trace.probe}
        self._runner = Runner(model, trace, indices, self.padding, self.halo)
        if not is_known(model) or not set(self.cuts) <= set(own):
            try:
                verify(self._runner)
            except Exception:
                self.remove_hooks()
                raise

    def __repr__(self) -> str:
        return f"CutBackbone({type(self.model).__name__}, cuts={[stage.name for stage in self.cuts]})"

    def remove_hooks(self) -> None:
        """Take the hooks off the model, which cannot be resumed any more."""
        self._runner.remove_hooks()

    def tail_stride(self, cut_index: int) -> int:
        """The stride that is left after a cut: cells of the cut's map per cell of the final map."""
        return max(1, self.stride // self.cuts[cut_index].reduction)

    def forward_features(self, x: Tensor, taps: Sequence[int] = ()) -> tuple[Tensor, dict[int, Any]]:
        """One ordinary pass of the whole model.

        Args:
            x: images (B,3,H,W).
            taps: indices into `cuts` whose features are wanted.

        Returns:
            The final map (B,C,h,w), and per tap the features as the stage returned them (in its own layout).

        Raises:
            PPLError: if a tapped stage does not run exactly once.
        """
        for index in taps:
            self._check_cut(index)
        return self._runner.features(x, taps)

    def resume(
        self,
        cut_index: int,
        features: Any,
        size: tuple[int, int] | None = None,
        image_size: tuple[int, int] | None = None,
    ) -> Tensor:
        """Run only what comes after a cut.

        Args:
            cut_index: index into `cuts`.
            features: what the stage would return, in its own layout, of any batch.
            size: (h,w) of the final map, for models of tokens whose map is not square.
            image_size: (H,W) of the images, for models of tokens: from `size` alone their grid is guessed.

        Returns:
            The final map (B',C,h',w') of those features.

        Raises:
            PPLError: if the cut's stage does not run exactly once.
        """
        self._check_cut(cut_index)
        return self._runner.resume(cut_index, features, size, image_size)

    def patched(
        self,
        cut_index: int,
        features: Any,
        grid: Grid,
        size: tuple[int, int],
        image_size: tuple[int, int] | None = None,
    ) -> Tensor:
        """Cut the features into patches, run each on its own through what comes after the cut, stitch the results.

        The height and width of a patch are multiples of the stride that is left (features are zero-padded at the
        bottom and on the right), so that the stitched map lies cell on cell over the un-patched one.

        Args:
            cut_index: index into `cuts`.
            features: features of that cut, from `forward_features`; detach them for a branch without gradient.
            grid: rows and columns of patches.
            size: (h,w) of the un-patched final map.
            image_size: (H,W) of the images, for models of tokens: from `size` alone their grid is guessed.

        Returns:
            The stitched final map (B,C,h,w).

        Raises:
            PPLValueError: if the grid is larger than the map, or "reflect" padding larger than a patch.
        """
        self._check_cut(cut_index)
        runner = self._runner
        patches, place = runner.destruct(cut_index, features, grid, size, image_size)
        if not runner.family.replays and torch.is_grad_enabled() and self._checkpoints():
            raise UnsupportedBackboneError(
                f"{type(self.model).__name__} cannot be cut under gradient checkpointing, which would run its blocks "
                "again without the positions of the patches: call set_grad_checkpointing(False)"
            )
        return runner.merge(runner.run_patches(cut_index, patches, place), place, size)

    def check_input_size(self, height: int, width: int) -> None:
        """Raise UnsupportedBackboneError unless the model takes images of that size.

        Models that take any size, or any multiple of some cells, pass at once; one that was built for a single size is
        tried on a black image.

        Args:
            height: of the image, in pixels.
            width: of the image, in pixels.

        Example:
            >>> import timm
            >>> CutBackbone(timm.create_model("test_resnet")).check_input_size(123, 321)
        """
        trace = self._runner.trace
        fits = height % trace.multiple == 0 == width % trace.multiple
        free = fits and trace.fixed is None and self._runner.family.window is None
        if free or (height, width) in self._sizes:
            return
        try:  # other sizes run, too, where strides happen to agree
            with untouched(self.model):
                call_backbone(self.model, make_dummy(self.model, (height, width)))
        except Exception as error:  # any: models say "not this size" in many ways
            raise UnsupportedBackboneError(self._size_refusal(height, width)) from error
        self._sizes.add((height, width))

    def _size_refusal(self, height: int, width: int) -> str:
        name, trace = type(self.model).__name__, self._runner.trace
        if trace.multiple > 1:
            wanted = [-(-side // trace.multiple) * trace.multiple for side in (height, width)]
            return (
                f"{name} takes images whose sides are multiples of {trace.multiple}, not {height}x{width}: "
                f"use {wanted[0]}x{wanted[1]}"
            )
        native = "x".join(str(side) for side in trace.probe)
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

    Replicas share the hooks of the one original and would overwrite each other's features.

    Args:
        module: the module whose forward uses a `CutBackbone`.

    Example:
        >>> import torch
        >>> refuse_data_parallel(torch.nn.Identity())
    """
    if getattr(module, "_is_replica", False):
        raise PPLTypeError(
            f"{type(module).__name__} cannot run under nn.DataParallel, whose threads share one set of hooks: "
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
