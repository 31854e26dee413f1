"""Run a model up to some of its stages, and from there on."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ppl.backbones.errors import UnsupportedBackboneError
from ppl.backbones.families import Place, family_of
from ppl.backbones.families.override import Overridden, passing_through
from ppl.backbones.padding import TailPadding
from ppl.backbones.patches import cut_features, image_grid, map_size, merge_maps, to_map
from ppl.backbones.plan import Plan, StageHook
from ppl.backbones.stages import Stage
from ppl.backbones.state import EvalMode, make_dummy
from ppl.backbones.trace import Trace, call_backbone, tensors_of
from ppl.layers.grid import Grid, as_grid, check_grid_fits

__all__ = ["Runner"]


class Runner:
    """A model with a hook at each of its cuts.

    A hook on a stage's last block replaces what the block returns, while the model's own forward runs on a tiny dummy
    image: all before the hook costs next to nothing, all after it is the model's own code and weights.

    Args:
        model: the model that was traced; hooks are added to it.
        trace: what the dry run told.
        cuts: indices into the trace's stages.
        padding: "zeros", "replicate" or "reflect", at the edges of patches.
        halo: cells of context around every patch.
    """

    def __init__(self, model: nn.Module, trace: Trace, cuts: Sequence[int], padding: str, halo: int) -> None:
        self.model = model
        self.trace = trace
        self.family = family_of(model)
        self.cuts = tuple(trace.stages[index] for index in cuts)
        self.prefixes = tuple(tuple(model.get_submodule(name) for name in trace.prefixes[index]) for index in cuts)
        self.padding = padding
        self.halo = halo
        self._idle = tuple(tuple(model.get_submodule(name) for name in trace.idle[index]) for index in cuts)
        self._plan = Plan()
        hooked = dict(enumerate(self.cuts))
        if not trace.has_map:
            hooked[-1] = trace.stages[-1]
        self._names = {index: stage.name for index, stage in hooked.items()}
        self._handles = [self._hook(index, stage) for index, stage in hooked.items()]

    def __getstate__(self) -> dict[str, Any]:
        """All but the family, whose functions cannot all be pickled."""
        return {name: value for name, value in vars(self).items() if name != "family"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Look the family up again."""
        vars(self).update(state)
        self.family = family_of(self.model)

    def remove_hooks(self) -> None:
        """Leave the model as it was."""
        for handle in self._handles:
            handle.remove()

    def tail_stride(self, index: int) -> int:
        """Cells of the cut's map per cell of the final map."""
        return max(1, self.trace.final.reduction // self.cuts[index].reduction)

    def features(self, x: Tensor, taps: Sequence[int]) -> tuple[Tensor, dict[int, Any]]:
        """The final map (B,C,h,w) of images, and what the stages of the cuts `taps` returned."""
        output, features = self._run(x, taps=tuple(taps))
        final, size = self.trace.final, None
        if final.layout == "NLC":
            count = output.shape[1] - final.prefix_tokens
            size = image_grid(count, (int(x.shape[-2]), int(x.shape[-1])), final.reduction)
        return to_map(output, final, size), features

    def resume(
        self, index: int, features: Any, size: tuple[int, int] | None = None, image_size: tuple[int, int] | None = None
    ) -> Tensor:
        """The final map of whole maps; `size` is its (h,w), by default as the stride says."""
        stride = self.tail_stride(index)
        whole = map_size(features, self.cuts[index], size, stride, image_size)
        images = len(tensors_of(features)[-1])
        place = Place(images, (1, 1), whole, 0, whole, self.cuts[index].reduction, stride)
        size = size or (-(-whole[0] // stride), -(-whole[1] // stride))
        return to_map(self._resume(index, features, place, "zeros"), self.trace.final, size)

    def destruct(
        self, index: int, features: Any, grid: Grid, size: tuple[int, int], image_size: tuple[int, int] | None = None
    ) -> tuple[Any, Place]:
        """Patches, as the stage would return them, and where they lie; `size` is the un-patched final map's."""
        stage, stride = self.cuts[index], self.tail_stride(index)
        rows, columns = as_grid(grid)
        whole = map_size(features, stage, size, stride, image_size)
        check_grid_fits((rows, columns), *whole)
        if self.family.window is not None:
            self._check_window(whole, (rows, columns), stage.reduction, stride)
        cut = cut_features if self.family.cut is None else partial(self.family.cut, self.model)
        # patches of which the tail can make whole cells, and of sizes that it takes
        unit = max(stride, self.trace.multiple // stage.reduction)
        patches, cells = cut(features, stage, (rows, columns), unit, whole=whole, halo=self.halo, padding=self.padding)
        images = len(tensors_of(features)[-1])
        cells = (cells[0] + 2 * self.halo, cells[1] + 2 * self.halo)
        return patches, Place(images, (rows, columns), cells, self.halo, whole, stage.reduction, stride)

    def run_patches(self, index: int, patches: Any, place: Place) -> Tensor:
        """The final map of every patch."""
        size = (place.cells[0] // place.stride, place.cells[1] // place.stride)
        return to_map(self._resume(index, patches, place, self.padding), self.trace.final, size)

    def merge(self, maps: Tensor, place: Place, size: tuple[int, int]) -> Tensor:
        """Final maps of patches, stitched and cropped to `size`."""
        inner = (place.cells[0] - 2 * place.halo, place.cells[1] - 2 * place.halo)
        return merge_maps(maps, place.grid, inner, place.stride, place.halo, size)

    def _hook(self, index: int, stage: Stage) -> Any:
        overwritten, wrapped = stage.name in self.trace.overwritten, stage.name in self.trace.wrapped
        hook = StageHook(self._plan, index, overwritten=overwritten, wrapped=wrapped)
        return self.model.get_submodule(stage.module).register_forward_hook(hook)

    def _check_window(self, whole: tuple[int, int], grid: tuple[int, int], reduction: int, stride: int) -> None:
        window = self.family.window(self.model) if self.family.window else 1
        units = (grid[0] * window * stride, grid[1] * window * stride)
        if whole[0] % units[0] or whole[1] % units[1]:
            wanted = [-(-whole[axis] // units[axis]) * units[axis] * reduction for axis in (0, 1)]
            raise UnsupportedBackboneError(
                f"{type(self.model).__name__} attends within windows of {window} cells, and a {grid[0]}x{grid[1]} grid "
                f"over a {whole[0]}x{whole[1]} map leaves patches that are no multiple of them: "
                f"use images of {wanted[0]}x{wanted[1]} or a smaller grid"
            )

    def _resume(self, index: int, features: Any, place: Place, padding: str) -> Any:
        family, prefix = self.family, self.prefixes[index]
        size = self.trace.dummy
        if family.sized_dummy or self.cuts[index].name in self.trace.wrapped:
            size = (place.cells[0] * place.reduction, place.cells[1] * place.reduction)
        batch = len(tensors_of(features)[-1]) if family.batched_dummy else 1
        dummy = make_dummy(self.model, size, batch)
        padded = TailPadding(padding, self._plan) if padding != "zeros" else nullcontext()
        # a compiled graph drops by itself what comes before the replaced output
        idle = () if torch.compiler.is_compiling() else self._idle[index]
        with EvalMode(prefix), padded, self._positions(prefix, place), Overridden(passing_through(idle)):
            output, _ = self._run(dummy, resume_at=index, replacement=features)
        return output

    def _positions(self, prefix: Sequence[nn.Module], place: Place) -> AbstractContextManager[None]:
        """Lets the tail give every patch the positions of its own pixels, in families that need it."""
        if self.family.positions is None:
            return nullcontext()
        done = set(prefix)
        tail = [module for module in self.model.modules() if module not in done]
        return self.family.positions(self.model, tail, place)

    def _run(self, x: Tensor, **plan: Any) -> tuple[Any, dict[int, Any]]:
        if not self.trace.has_map:
            plan["taps"] = (*plan.get("taps", ()), -1)
        self._plan.begin(**plan)
        try:
            output = call_backbone(self.model, x)
            self._plan.check_visits(self._names)
            features = self._plan.features
        finally:
            self._plan.end()
        if not self.trace.has_map:
            output = features.pop(-1)
        elif self.family.final is not None:
            output = self.family.final(output)
        return output, features
