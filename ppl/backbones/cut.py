"""Cut a backbone after any of its stages and resume it from there."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ppl.backbones.errors import UnsupportedBackboneError
from ppl.backbones.families import Place, family_of
from ppl.backbones.families.override import overridden, passing_through
from ppl.backbones.identities import verify
from ppl.backbones.padding import TailPadding, check_padding
from ppl.backbones.patches import cut_features, map_size, merge_maps, to_map
from ppl.backbones.plan import Plan, StageHook
from ppl.backbones.stages import find_stage
from ppl.backbones.state import eval_mode, make_dummy, untouched
from ppl.backbones.trace import call_backbone, image_grid, tensors_of, trace_model
from ppl.backbones.variants import is_known
from ppl.errors import PPLTypeError, PPLValueError
from ppl.layers.grid import Grid, as_grid, check_grid_fits

__all__ = ["CutBackbone", "refuse_data_parallel"]


class CutBackbone:
    """A backbone that can be stopped after some of its stages and resumed from there, with other features.

    A forward hook on a stage's last block replaces what the block returns, while the model's own forward runs on a
    tiny dummy image: all before the hook costs next to nothing, all after it is the model's own code and weights.
    Nothing is added to the model but the hooks, so the keys of its `state_dict` stay as they are.

    Not a Module: it holds no parameters. It can be copied (together with its model) and pickled.

    Args:
        model: a timm model or any module that takes images (B,3,H,W).
        cuts: stages after which to cut, by name or by index into the stages.
        stages: dotted names of the stages of a model that does not name them itself.
        padding: what the layers after the cut see beyond the edge of a patch: "zeros", as the figure draws it,
            "replicate" or "reflect" (the paper says nothing; the default is ours).
        halo: cells of real context that each patch keeps on every side through the layers after the cut; they are
            cropped from the result. A multiple of the stride that is left after the cut. Meant for convolutions: beyond
            the image there is no context, and attention would look at what fills the halo there.
        input_size: (H,W) for a model that takes no other and does not say so itself.

    Attributes:
        model: the backbone itself.
        stages: all its stages.
        cuts: the stages after which it is cut, in the order given.
        num_features: channels of the final map.
        stride: input pixels per cell of the final map.

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
        trace = trace_model(model, stages, input_size)
        self.model = model
        self.stages = trace.stages
        self._family = family_of(model)
        indices = [find_stage(trace.stages, cut) for cut in cuts]
        if len(set(indices)) < len(indices):
            raise PPLValueError(f"cuts name a stage twice: {list(cuts)!r}")
        self.cuts = tuple(trace.stages[index] for index in indices)
        self.num_features = trace.final.channels
        self.stride = trace.final.reduction
        self.padding = check_padding(padding)
        self.halo = int(halo)
        self._trace = trace
        self._sizes: set[tuple[int, int]] = set()
        self._prefixes = tuple(tuple(model.get_submodule(name) for name in trace.prefixes[i]) for i in indices)
        self._skipped = tuple(self._blocks_in(prefix) for prefix in self._prefixes)
        self._names = dict(enumerate(stage.name for stage in self.cuts))
        for index in range(len(self.cuts)):
            self._check_halo(index)

        self._plan = Plan()
        hooked = dict(enumerate(self.cuts))
        if not trace.has_map:
            hooked[-1] = self.stages[-1]
        handles = []
        for index, stage in hooked.items():
            overwritten, wrapped = stage.name in trace.overwritten, stage.name in trace.wrapped
            hook = StageHook(self._plan, index, overwritten=overwritten, wrapped=wrapped)
            handles.append(model.get_submodule(stage.module).register_forward_hook(hook))
        if not is_known(model):
            try:
                verify(self)
            except UnsupportedBackboneError:
                for handle in handles:
                    handle.remove()
                raise

    def __repr__(self) -> str:
        return f"CutBackbone({type(self.model).__name__}, cuts={[stage.name for stage in self.cuts]})"

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
        output, features = self._run(x, taps=tuple(taps))
        size = None
        if self._trace.final.layout == "NLC":
            count = output.shape[1] - self._trace.final.prefix_tokens
            size = image_grid(count, (int(x.shape[-2]), int(x.shape[-1])), self.stride)
        return self._final_map(output, size), features

    def resume(self, cut_index: int, features: Any, size: tuple[int, int] | None = None) -> Tensor:
        """Run only what comes after a cut.

        Args:
            cut_index: index into `cuts`.
            features: what the stage would return, in its own layout, of any batch.
            size: (h,w) of the final map, for models of tokens whose map is not square.

        Returns:
            The final map (B',C,h',w') of those features.

        Raises:
            PPLError: if the cut's stage does not run exactly once.
        """
        self._check_cut(cut_index)
        stride = self.tail_stride(cut_index)
        whole = map_size(features, self.cuts[cut_index], size, stride)
        images = len(tensors_of(features)[-1])
        place = Place(images, (1, 1), whole, 0, whole, self.cuts[cut_index].reduction, stride)
        size = size or (-(-whole[0] // stride), -(-whole[1] // stride))
        return self._final_map(self._resume(cut_index, features, place), size)

    def patched(self, cut_index: int, features: Any, grid: Grid, size: tuple[int, int]) -> Tensor:
        """Cut the features into patches, run each on its own through what comes after the cut, stitch the results.

        The height and width of a patch are multiples of the stride that is left (features are zero-padded at the
        bottom and on the right), so that the stitched map lies cell on cell over the un-patched one.

        Args:
            cut_index: index into `cuts`.
            features: features of that cut, from `forward_features`; detach them for a branch without gradient.
            grid: rows and columns of patches.
            size: (h,w) of the un-patched final map.

        Returns:
            The stitched final map (B,C,h,w).

        Raises:
            PPLValueError: if the grid is larger than the map, or "reflect" padding larger than a patch.
        """
        self._check_cut(cut_index)
        patches, place = self._destruct(cut_index, features, grid, size)
        if not self._family.replays and torch.is_grad_enabled() and self._checkpoints():
            raise UnsupportedBackboneError(
                f"{type(self.model).__name__} cannot be cut under gradient checkpointing, which would run its blocks "
                "again without the positions of the patches: call set_grad_checkpointing(False)"
            )
        tokens = (place.cells[0] // place.stride, place.cells[1] // place.stride)
        maps = self._final_map(self._resume(cut_index, patches, place, self.padding), tokens)
        return self._merge(maps, place, size)

    def check_input_size(self, height: int, width: int) -> None:
        """Raise UnsupportedBackboneError unless the model takes images of that size.

        Models that take any size pass at once; one that was built for a single size is tried on a black image.

        Args:
            height: of the image, in pixels.
            width: of the image, in pixels.

        Example:
            >>> import timm
            >>> CutBackbone(timm.create_model("test_resnet")).check_input_size(123, 321)
        """
        free = self._trace.fixed is None and self._family.window is None
        if free or (height, width) in (self._trace.probe, *self._sizes):
            return
        try:
            with untouched(self.model):
                call_backbone(self.model, make_dummy(self.model, (height, width)))
        except Exception as error:  # any: models say "not this size" in many ways
            native = "x".join(str(side) for side in self._trace.probe)
            raise UnsupportedBackboneError(
                f"{type(self.model).__name__} was built for images of {native} and does not take {height}x{width}: "
                f"resize to {native}, use the scale 1.0 alone, or take a backbone of any input size (swin, convnext)"
            ) from error
        self._sizes.add((height, width))

    def _destruct(self, cut_index: int, features: Any, grid: Grid, size: tuple[int, int]) -> tuple[Any, Place]:
        stage, stride = self.cuts[cut_index], self.tail_stride(cut_index)
        rows, columns = as_grid(grid)
        whole = map_size(features, stage, size, stride)
        check_grid_fits((rows, columns), *whole)
        if self._family.window is not None:
            self._check_window(whole, (rows, columns), stage.reduction, stride)
        cut = cut_features if self._family.cut is None else partial(self._family.cut, self.model)
        patches, cells = cut(features, stage, (rows, columns), stride, size=size, halo=self.halo, padding=self.padding)
        images = len(tensors_of(features)[-1])
        cells = (cells[0] + 2 * self.halo, cells[1] + 2 * self.halo)
        return patches, Place(images, (rows, columns), cells, self.halo, whole, stage.reduction, stride)

    def _merge(self, maps: Tensor, place: Place, size: tuple[int, int]) -> Tensor:
        inner = (place.cells[0] - 2 * place.halo, place.cells[1] - 2 * place.halo)
        return merge_maps(maps, place.grid, inner, place.stride, place.halo, size)

    def _resume(self, cut_index: int, features: Any, place: Place, padding: str = "zeros") -> Any:
        family, prefix = self._family, self._prefixes[cut_index]
        size = self._trace.dummy
        if family.sized_dummy or self.cuts[cut_index].name in self._trace.wrapped:
            size = (place.cells[0] * place.reduction, place.cells[1] * place.reduction)
        with ExitStack() as stack:
            stack.enter_context(eval_mode(prefix))
            if padding != "zeros":
                stack.enter_context(TailPadding(padding, self._plan))
            if family.positions is not None:
                done = set(prefix)
                tail = [module for module in self.model.modules() if module not in done]
                stack.enter_context(family.positions(self.model, tail, place))
            if family.blocks and (family.positions is not None or family.batched_dummy or max(size) > 32):
                stack.enter_context(overridden(passing_through(self._skipped[cut_index])))
            batch = len(tensors_of(features)[-1]) if family.batched_dummy else 1
            dummy = make_dummy(self.model, size, batch)
            output, _ = self._run(dummy, resume_at=cut_index, replacement=features)
        return output

    def _blocks_in(self, prefix: Sequence[nn.Module]) -> tuple[nn.Module, ...]:
        modules = dict(self.model.named_modules())
        lists = [modules[name] for name in self._family.blocks if name in modules]
        for entry in lists:  # a list of lists is searched too
            lists += [child for child in entry.children() if isinstance(child, nn.ModuleList)]
        return tuple(block for entry in lists for block in entry.children() if block in prefix)

    def _checkpoints(self) -> bool:
        return any(getattr(module, "grad_checkpointing", False) for module in self.model.modules())

    def _check_window(self, whole: tuple[int, int], grid: tuple[int, int], reduction: int, stride: int) -> None:
        window = self._family.window(self.model) if self._family.window else 1
        units = (grid[0] * window * stride, grid[1] * window * stride)
        if whole[0] % units[0] or whole[1] % units[1]:
            wanted = [-(-whole[axis] // units[axis]) * units[axis] * reduction for axis in (0, 1)]
            raise UnsupportedBackboneError(
                f"{type(self.model).__name__} attends within windows of {window} cells, and a {grid[0]}x{grid[1]} grid "
                f"over a {whole[0]}x{whole[1]} map leaves patches that are no multiple of them: "
                f"use images of {wanted[0]}x{wanted[1]} or a smaller grid"
            )

    def _final_map(self, output: Any, size: tuple[int, int] | None) -> Tensor:
        return to_map(output, self._trace.final, size)

    def _run(self, x: Tensor, **plan: Any) -> tuple[Any, dict[int, Any]]:
        if not self._trace.has_map:
            plan["taps"] = (*plan.get("taps", ()), -1)
        self._plan.begin(**plan)
        try:
            output = call_backbone(self.model, x)
            self._plan.check_visits({**self._names, -1: self.stages[-1].name})
            features = self._plan.features
        finally:
            self._plan.end()
        if not self._trace.has_map:
            output = features.pop(-1)
        elif self._family.final is not None:
            output = self._family.final(output)
        return output, features

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
