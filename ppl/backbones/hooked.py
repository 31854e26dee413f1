"""Run a backbone up to some of its stages, and resume it from there."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ppl.backbones.dry_run import BackboneInfo
from ppl.backbones.dummy import call_backbone, make_dummy
from ppl.backbones.errors import UnsupportedBackboneError
from ppl.backbones.eval_mode import EvalMode
from ppl.backbones.families import Tiling, family_of
from ppl.backbones.families.sizes import SizeHook
from ppl.backbones.passes import CurrentPass, Pass, StageHook, Stopped
from ppl.backbones.patches import cut_features, image_grid, map_size, tensors_of, to_map
from ppl.backbones.stages import Stage
from ppl.backbones.view import Changes, modules_outside, view_of, with_ancestors
from ppl.layers.grid import Grid, as_grid, check_grid_fits
from ppl.layers.padding import BorderPadding
from ppl.layers.tiling import merge_patches

__all__ = ["HookedBackbone"]


class HookedBackbone:
    """A backbone with a forward hook at each of its cuts.

    To resume after a cut, the model runs on a tiny dummy image, and the hook on the stage's last block replaces the
    block's output. Layers before the cut cost next to nothing; layers after it are the model's own code and weights.

    The hooks read the pass of their own thread, and a pass that needs other attributes runs on a view of the model.
    So several threads can run one model, patched or not, and an exception leaves nothing behind.

    Args:
        model: the model of the dry run; hooks are added to it.
        info: the result of the dry run.
        cuts: indices into the stages of `info`.
        padding: "zeros", "replicate" or "reflect", at the borders of patches.
        halo: cells of context around every patch.
    """

    def __init__(self, model: nn.Module, info: BackboneInfo, cuts: Sequence[int], padding: str, halo: int) -> None:
        self.model = model
        self.info = info
        self.family = family_of(model)
        self.cuts = tuple(info.stages[index] for index in cuts)
        self.prefixes = tuple(info.prefixes[index] for index in cuts)
        self.padding = padding
        self.halo = halo
        # Modules without an effect on shapes need not run on the dummy image.
        self._skipped: tuple[Changes, ...] = tuple(
            {name: {"forward": _first_argument} for name in info.idle[index]} for index in cuts
        )
        self._outside = modules_outside(model)
        self._measuring = tuple(name for name, module in model.named_modules() if _has_size_hook(module))
        self._paths = tuple(with_ancestors((*prefix, *self._outside, *self._measuring)) for prefix in self.prefixes)
        self._current = CurrentPass()
        hooked = dict(enumerate(self.cuts))
        if not info.has_map:
            hooked[-1] = info.stages[-1]
        self._names = {index: stage.name for index, stage in hooked.items()}
        self._handles = [self._hook(index, stage) for index, stage in hooked.items()]

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the family, some of whose functions cannot be pickled."""
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
        """Return the cells of the cut's map per cell of the final map."""
        return max(1, self.info.final.reduction // self.cuts[index].reduction)

    def features(self, x: Tensor, taps: Sequence[int]) -> tuple[Tensor, dict[int, Any]]:
        """Return the final map (B,C,h,w) of images, and the outputs of the stages of the cuts `taps`."""
        model = self._view({}) if self._measuring else self.model
        output, features = self._run(model, x, taps=tuple(taps))
        final, size = self.info.final, None
        if final.layout == "NLC":
            count = output.shape[1] - final.prefix_tokens
            size = image_grid(count, (int(x.shape[-2]), int(x.shape[-1])), final.reduction)
        return to_map(output, final, size), features

    def tapped(self, x: Tensor, taps: Sequence[int]) -> dict[int, Any]:
        """Return the outputs of the stages of the cuts `taps`; the layers after the last of them do not run."""
        if not taps:
            return {}
        model = self._view({}) if self._measuring else self.model
        run = Pass(tuple(taps), stops=True)
        with suppress(Stopped):
            self._call(model, x, run)
        run.check_visits(self._names)
        return run.features

    def resume(
        self, index: int, features: Any, size: tuple[int, int] | None = None, image_size: tuple[int, int] | None = None
    ) -> Tensor:
        """Return the final map of whole maps; `size` is its (h,w), by default the cut's size over the stride."""
        stride = self.tail_stride(index)
        whole = map_size(features, self.cuts[index], size, stride, image_size)
        images = len(tensors_of(features)[-1])
        tiling = Tiling(images, (1, 1), whole, 0, whole, self.cuts[index].reduction, stride)
        size = size or (-(-whole[0] // stride), -(-whole[1] // stride))
        return to_map(self._resume(index, features, tiling, "zeros"), self.info.final, size)

    def cut(
        self, index: int, features: Any, grid: Grid, size: tuple[int, int], image_size: tuple[int, int] | None = None
    ) -> tuple[Any, Tiling]:
        """Return the patches, as the stage would return them, and their tiling; `size` is the final map's (h,w)."""
        stage, stride = self.cuts[index], self.tail_stride(index)
        rows, columns = as_grid(grid)
        whole = map_size(features, stage, size, stride, image_size)
        check_grid_fits((rows, columns), *whole)
        if self.family.window is not None:
            self._check_window(whole, (rows, columns), stage.reduction, stride)
        cut = cut_features if self.family.cut is None else partial(self.family.cut, self.model)
        # Patches of whole cells of the final map, and of sizes that the tail takes.
        unit = max(stride, self.info.multiple // stage.reduction)
        patches, cells = cut(features, stage, (rows, columns), unit, whole=whole, halo=self.halo, padding=self.padding)
        images = len(tensors_of(features)[-1])
        cells = (cells[0] + 2 * self.halo, cells[1] + 2 * self.halo)
        return patches, Tiling(images, (rows, columns), cells, self.halo, whole, stage.reduction, stride)

    def run_patches(self, index: int, patches: Any, tiling: Tiling) -> Tensor:
        """Return the final map of every patch."""
        size = (tiling.cells[0] // tiling.stride, tiling.cells[1] // tiling.stride)
        return to_map(self._resume(index, patches, tiling, self.padding), self.info.final, size)

    def merge(self, maps: Tensor, tiling: Tiling, size: tuple[int, int]) -> Tensor:
        """Merge the final maps of patches and crop the result to `size`."""
        halo = tiling.halo // tiling.stride
        cells = (tiling.cells[0] // tiling.stride - 2 * halo, tiling.cells[1] // tiling.stride - 2 * halo)
        return merge_patches(maps, tiling.grid, cells, (halo, halo), size)

    def _hook(self, key: int, stage: Stage) -> Any:
        overwritten, wrapped = stage.name in self.info.overwritten, stage.name in self.info.wrapped
        hook = StageHook(self._current, key, overwritten=overwritten, wrapped=wrapped)
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

    def _resume(self, index: int, features: Any, tiling: Tiling, padding: str) -> Any:
        prefix, size = self.prefixes[index], self.info.dummy
        if self.family.sized_dummy or self.cuts[index].name in self.info.wrapped:
            size = (tiling.cells[0] * tiling.reduction, tiling.cells[1] * tiling.reduction)
        batch = len(tensors_of(features)[-1]) if self.family.batched_dummy else 1
        dummy = make_dummy(self.model, size, batch)
        if torch.compiler.is_compiling() and self.family.positions is None and not self._measuring:
            # Old versions of torch cannot trace a view. An assignment that is traced reaches no other thread, and
            # the compiler drops the layers before the cut.
            with EvalMode(self.model.get_submodule(name) for name in sorted(prefix)):
                return self._run_padded(self.model, dummy, index, features, padding)
        changes = self._skipped[index]
        if self.family.positions is not None:
            tail = {name: module for name, module in self.model.named_modules() if name not in prefix}
            changes = {**changes, **self.family.positions(self.model, tail, tiling)}
        return self._run_padded(self._view(changes, prefix, self._paths[index]), dummy, index, features, padding)

    def _run_padded(self, model: nn.Module, dummy: Tensor, index: int, features: Any, padding: str) -> Any:
        if padding == "zeros":
            return self._run(model, dummy, resume_at=index, replacement=features)[0]
        mode = BorderPadding(padding, active=False)  # The hook activates it, so the dummy image is padded as usual.
        with mode:
            return self._run(model, dummy, resume_at=index, replacement=features, padding=mode)[0]

    def _view(
        self, changes: Changes, in_eval: frozenset[str] = frozenset(), paths: frozenset[str] = frozenset()
    ) -> nn.Module:
        measuring: dict[str, dict[str, Any]] = {name: {} for name in self._measuring}
        return view_of(self.model, {**measuring, **changes}, in_eval, self._outside, paths)

    def _run(self, model: nn.Module, x: Tensor, **pass_arguments: Any) -> tuple[Any, dict[int, Any]]:
        if not self.info.has_map:
            pass_arguments["taps"] = (*pass_arguments.get("taps", ()), -1)
        run = Pass(**pass_arguments)
        output = self._call(model, x, run)
        run.check_visits(self._names)
        if not self.info.has_map:
            output = run.features.pop(-1)
        elif self.family.final is not None:
            output = self.family.final(output)
        return output, run.features

    def _call(self, model: nn.Module, x: Tensor, run: Pass) -> Any:
        self._current.value = run
        try:
            return call_backbone(model, x)
        finally:
            self._current.value = None


def _first_argument(x: Any, *args: Any, **kwargs: Any) -> Any:
    return x


def _has_size_hook(module: nn.Module) -> bool:
    return any(isinstance(hook, SizeHook) for hook in module._forward_pre_hooks.values())
