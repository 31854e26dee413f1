"""The classifier of the paper's figures: one backbone, its cuts and one fusion of the branches."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, get_args

import torch
from torch import Tensor, nn

from ppl.backbones import CutBackbone, Stage, data_config, default_cuts, refuse_data_parallel, resolve_stages
from ppl.backbones.dummy import make_dummy, trial
from ppl.backbones.size_errors import size_error
from ppl.errors import PPLTypeError, PPLValueError
from ppl.layers import GranularityFusion
from ppl.layers.grid import Grid, as_grid
from ppl.models.config import Mode, ModelConfig
from ppl.models.from_classifier import from_classifier
from ppl.models.hub import HubMixin
from ppl.models.recompute import checkpointed

__all__ = ["PPLNet"]

_MODES: tuple[Mode, ...] = get_args(Mode)
_DEFAULTS = ModelConfig()

_MOST_ROOM = 512
"""Pixels beyond the minimum that are tried when the smallest image size is searched."""


class PPLNet(HubMixin, nn.Module):
    """Classify images by the maps of several branches of one backbone: patched maps and the un-patched map.

    The modes differ in their branches; every mode has the un-patched branch:

    * ``baseline``: the un-patched map only, an ordinary CAM classifier.
    * ``control``: the un-patched map twice. As many parameters as ``progressive``, no patches.
    * ``progressive`` (figure 2): the map patched after one cut, and the un-patched map. :meth:`set_phase` moves the
      cut; all phases share backbone and fusion, and no gradient is stopped.
    * ``explicit`` (figure 5): the maps patched after every cut, and the un-patched map. The features of each patch
      branch are detached before the cut, the features of the un-patched branch are not.

    Layers before a cut run once per image, for any number of branches. In training, BatchNorm layers after a cut see
    every branch in turn, with patches as a batch. Several threads can run one model in eval mode.

    Args:
        backbone: a timm model or any module (B,3,H,W) -> (B,C,h,w).
        num_classes: K, the number of classes.
        mode: one of the four modes above.
        cuts: stages after which the map is cut, by name or index, or blocks by name, in the order of the schedule.
            None: the last three stages before the final one. Ignored in modes without patches.
        grids: rows and columns of patches: an integer or a tuple `(rows, columns)` for all cuts, or a list with one
            entry per cut.
        stages: names of the backbone's stages, if it has no `feature_info`.
        padding: values that convolutions after a cut see beyond a patch: "zeros", "replicate" or "reflect".
        halo: cells of real context that each patch keeps on every side.
        pooling: from class maps to logits: "average", "max", "generalised_mean:POWER", "log_sum_exp:SHARPNESS" or
            "ngwp:POWER".
        bias: add a number per class to the logits; class maps have no bias.

    The figures show a 2x2 grid and name neither cuts nor padding: all defaults are ours.

    Attributes:
        backbone: the backbone.
        fusion: the `GranularityFusion` of the branches.
        mode: the mode.
        cuts: names of the stages after which the map is cut; empty without patches.
        grids: the grid `(rows, columns)` of each cut.
        classes: names of the classes, or None; stored in checkpoints.

    Raises:
        PPLValueError: unknown mode, unknown cut, no cut where one is needed, grids that do not fit the cuts.
        PPLTypeError: `backbone` is no module, or a grid is no integer or pair.

    Source:
        Progressive Patch Learning (Li et al., IEEE TMM 2022), figures 2 and 5.

    Example:
        >>> import timm, torch
        >>> backbone = timm.create_model("test_resnet", num_classes=0)
        >>> model = PPLNet(backbone, 5, mode="progressive", cuts=["layer2", "layer3"])
        >>> model(torch.zeros(2, 3, 96, 64)).shape, model.class_maps(torch.zeros(2, 3, 96, 64)).shape
        (torch.Size([2, 5]), torch.Size([2, 5, 3, 2]))
        >>> model.num_phases, model.phase
        (2, 1)
    """

    def __init__(
        self,
        backbone: nn.Module,
        num_classes: int,
        *,
        mode: str = _DEFAULTS.mode,
        cuts: Sequence[str | int] | None = _DEFAULTS.cuts,
        grids: Grid | Sequence[Grid] = _DEFAULTS.grids,
        stages: Sequence[str] | None = None,
        padding: str = _DEFAULTS.padding,
        halo: int = _DEFAULTS.halo,
        pooling: str = _DEFAULTS.pooling,
        bias: bool = False,
    ) -> None:
        super().__init__()
        if mode not in _MODES:
            raise PPLValueError(f"mode must be one of {', '.join(_MODES)}, got {mode!r}")
        if not isinstance(backbone, nn.Module):
            raise PPLTypeError(
                f"backbone must be a torch.nn.Module, got {type(backbone).__name__}: ppl.create_model takes names"
            )
        patched = mode in ("progressive", "explicit")
        if not patched:
            cuts = ()
        elif cuts is None:
            cuts = default_cuts(resolve_stages(backbone, stages))
        if patched and not cuts:
            raise PPLValueError(
                f"mode {mode!r} needs at least one cut: name a stage in cuts=[...] or use mode='baseline'"
            )
        self.grids = _grid_per_cut(grids, len(cuts)) if patched else ()
        self._cutter = CutBackbone(backbone, cuts, stages=stages, padding=padding, halo=halo)
        self.backbone = backbone
        self.mode = mode
        self.cuts = tuple(stage.name for stage in self._cutter.cuts)
        branches = {"baseline": 1, "control": 2, "progressive": 2, "explicit": len(self.cuts) + 1}[mode]
        try:
            self.fusion = GranularityFusion((self._cutter.num_features,) * branches, num_classes, pooling, bias=bias)
        except Exception:
            self._cutter.remove_hooks()  # The backbone belongs to the caller.
            raise
        self.classes: tuple[str, ...] | None = None
        self._stages = None if stages is None else list(stages)
        self._phase = self.num_phases - 1
        self.source: dict[str, Any] | None = None
        self._recompute = False

    @classmethod
    def from_classifier(cls, model: nn.Module, *, stages: Sequence[str] | None = None, **settings: Any) -> PPLNet:
        """Build a model from a trained classifier, with the weights and the bias of its head.

        The head must be average pooling and one linear layer or 1x1 convolution, in either order. The un-patched branch
        gets the head's weights; patch branches start at zero. So the new model has the classifier's logits, which is
        checked on images of noise.

        Args:
            model: a classifier (B,3,H,W) -> (B,K) of timm or any other library; it is copied.
            stages: dotted names of the stages of a model without `feature_info`; the last stage returns the map that
                is pooled.
            **settings: further arguments of the class, such as `mode` and `cuts`.

        Returns:
            The model. Save it with `save_model`; loading needs `load_model(path, backbone=...)`.

        Raises:
            PPLTypeError: if `model` is no module, or has no linear layer or 1x1 convolution.
            UnsupportedBackboneError: if the head is of another kind, or the backbone cannot be cut.

        Example:
            >>> import timm, torch
            >>> classifier = timm.create_model("test_resnet", num_classes=5).eval()
            >>> net, x = PPLNet.from_classifier(classifier, cuts=["layer2"]).eval(), torch.randn(1, 3, 64, 64)
            >>> torch.allclose(net(x), classifier(x), atol=1e-5)
            True
        """
        net: PPLNet = from_classifier(cls, model, {"stages": stages, **settings})
        return net

    @property
    def num_classes(self) -> int:
        """Number of classes K."""
        return self.fusion.num_classes

    @property
    def num_phases(self) -> int:
        """Number of training phases: one per cut in mode ``progressive``, otherwise 1."""
        return len(self.cuts) if self.mode == "progressive" else 1

    @property
    def phase(self) -> int:
        """The current training phase, from 0; initially the last one, where figure 2 reads the CAM."""
        return self._phase

    def set_phase(self, phase: int) -> None:
        """Move the cut of mode ``progressive``.

        Args:
            phase: 0 is the first cut of the schedule, `num_phases - 1` the last.

        Raises:
            PPLValueError: if there is no such phase.
        """
        if not 0 <= phase < self.num_phases:
            raise PPLValueError(f"phase must be in 0..{self.num_phases - 1} in mode {self.mode!r}, got {phase}")
        self._phase = int(phase)

    @property
    def stages(self) -> tuple[Stage, ...]:
        """Stages of the backbone, shallow to deep, without blocks that only a cut names."""
        return self._cutter.stages

    @property
    def stride(self) -> int:
        """Input pixels per cell of the class maps, along one axis."""
        return self._cutter.stride

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Compute patch branches a second time in the backward pass instead of keeping their activations.

        Memory then holds the activations of the un-patched branch and of one patched branch at a time. Results stay
        the same, except for dropout if no BatchNorm statistics are updated: a batch is then processed in two halves
        with random numbers of their own.
        """
        self._recompute = enable

    @property
    def grad_checkpointing(self) -> bool:
        """Whether patch branches are computed a second time in the backward pass."""
        return self._recompute

    @property
    def data_config(self) -> dict[str, Any]:
        """Mean, std, input_size and interpolation that the backbone was trained with."""
        return data_config(self.backbone)

    @property
    def config(self) -> dict[str, Any]:
        """Everything that is needed to build the model again, except its weights, as JSON values.

        `source` holds the arguments of `create_model` for the backbone; None if the backbone was given as a module.
        """
        return {
            "num_classes": self.num_classes,
            "mode": self.mode,
            "cuts": list(self.cuts),
            "grids": [list(grid) for grid in self.grids],
            "stages": self._stages,
            "padding": self._cutter.padding,
            "halo": self._cutter.halo,
            "pooling": self.fusion.pooling,
            "bias": self.fusion.bias is not None,
            "source": self.source,
        }

    @property
    def size_multiple(self) -> int:
        """Heights and widths of images must be multiples of it: 1 for most backbones, 32 for HRNet and DLA."""
        return self._cutter.size_multiple

    @cached_property
    def min_size(self) -> tuple[int, int]:
        """Smallest (H,W) of images: one cell of the final map, and one cell of every cut map for each patch."""
        cuts = [(cut.reduction, grid) for cut, grid in zip(self._cutter.cuts, self.grids, strict=True)]
        heights = [reduction * grid[0] for reduction, grid in cuts]
        widths = [reduction * grid[1] for reduction, grid in cuts]
        smallest = self._cutter.min_size
        least = max([smallest[0], *heights]), max([smallest[1], *widths])
        # Convolutions without padding, and reflections, need more room than a cell; larger sizes are tried.
        if cuts and (self._cutter.unpadded or self._cutter.padding == "reflect"):
            larger = ((least[0] + room, least[1] + room) for room in range(0, _MOST_ROOM, self.stride))
            return next((size for size in larger if self._runs_on(size)), least)
        return least

    def _runs_on(self, size: tuple[int, int]) -> bool:
        """Tell whether every phase takes a black image of that size."""

        def all_phases() -> None:
            for phase in range(twin.num_phases):
                twin.set_phase(phase)
                twin._branches(make_dummy(twin.backbone, size))

        with trial(self) as twin:
            return size_error(all_phases) is None

    def check_input_size(self, height: int, width: int) -> None:
        """Raise UnsupportedBackboneError (a PPLValueError) if the backbone was built for images of another size."""
        self._cutter.check_input_size(height, width)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B,K) of images (B,3,H,W): the pooled :meth:`class_maps`.

        Raises:
            PPLValueError: if a grid is larger than its map.
        """
        return self.fusion(self._branches(x))  # type: ignore[no-any-return]

    def class_maps(self, x: Tensor) -> Tensor:
        """Return class maps (B,K,h,w) of images (B,3,H,W), before ReLU; CAMs are read from them."""
        return self.fusion.class_maps(self._branches(x))

    def branch_class_maps(self, x: Tensor) -> list[Tensor]:
        """Return class maps (B,K,h,w) of every branch, the un-patched branch last; they sum to :meth:`class_maps`."""
        return self.fusion.branch_class_maps(self._branches(x))

    def unpatched_class_maps(self, x: Tensor) -> list[Tensor]:
        """Return class maps (B,K,h,w) of every branch, computed from the un-patched map.

        A patched map differs from the un-patched map only near the borders of patches, so the sum of the result is
        close to :meth:`class_maps` at the cost of a single pass. The last entry is the un-patched branch's own map.
        """
        refuse_data_parallel(self)
        whole, _ = self._cutter.forward_features(x)
        return self.fusion.branch_class_maps([whole] * len(self.fusion.in_channels))

    def pool(self, class_maps: Tensor) -> Tensor:
        """Return logits (B,K) of class maps (B,K,h,w): the second half of :meth:`forward`."""
        return self.fusion.pool(class_maps)

    def extra_repr(self) -> str:
        """Show mode, cuts, grids and phase."""
        return f"mode={self.mode!r}, cuts={self.cuts}, grids={self.grids}, phase={self.phase}"

    def _branches(self, x: Tensor) -> list[Tensor]:
        refuse_data_parallel(self)
        if self.mode == "progressive":
            taps: tuple[int, ...] = (self._phase,)
        else:
            taps = tuple(range(len(self.cuts)))
        whole, features = self._cutter.forward_features(x, taps)
        if self.mode == "control":
            return [whole, whole]
        size, image_size = (whole.shape[-2], whole.shape[-1]), (x.shape[-2], x.shape[-1])
        explicit = self.mode == "explicit"
        run = checkpointed(self._cutter) if self._recompute and torch.is_grad_enabled() else self._cutter.patched
        patched = [
            run(tap, _detach(features[tap]) if explicit else features[tap], self.grids[tap], size, image_size)
            for tap in taps
        ]
        return [*patched, whole]


def _detach(features: Any) -> Any:
    """Stop the gradient of a stage's output, a tensor or a list of tensors."""
    if isinstance(features, Tensor):
        return features.detach()
    return type(features)(_detach(member) for member in features)


def _grid_per_cut(grids: Grid | Sequence[Grid], count: int) -> tuple[tuple[int, int], ...]:
    pair = isinstance(grids, tuple) and len(grids) == 2 and all(hasattr(number, "__index__") for number in grids)
    if pair or not isinstance(grids, (list, tuple)):
        return (as_grid(grids),) * count  # type: ignore[arg-type]
    if len(grids) != count:
        raise PPLValueError(
            f"grids must be an integer or a pair (rows, columns) for all cuts, or a list with one entry for each of "
            f"{count} cuts, got {grids!r}"
        )
    return tuple(as_grid(grid) for grid in grids)
