"""A `PPLNet` as CAM methods use it."""

from __future__ import annotations

from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ppl.backbones.stages import Stage
from ppl.cam.classifier import Classifier
from ppl.cam.readings import ClassMaps, LayerReading
from ppl.cam.sizes import SizeRule, net_sizes
from ppl.errors import PPLTypeError, PPLValueError

__all__ = ["NetClassifier"]


class NetClassifier(Classifier):
    """A `PPLNet`, or a module with the same `class_maps`, `pool`, `min_size` and `check_input_size`."""

    multi_label = True

    def __init__(
        self, model: Any, branch: Literal["unpatched", "all"] = "unpatched", layer: str | nn.Module | None = None
    ) -> None:
        super().__init__(model, branch, layer)
        self.backbone = getattr(model, "backbone", model)

    @cached_property
    def num_classes(self) -> int:
        """The number of classes K."""
        return int(self.model.num_classes)

    @cached_property
    def data_config(self) -> dict[str, Any]:
        """The "mean", "std" and "input_size" of the images."""
        return dict(self.model.data_config)

    @cached_property
    def sizes(self) -> SizeRule:
        """The sizes of images that the model takes."""
        return net_sizes(self.model)

    @property
    def has_class_maps(self) -> bool:
        """True: the logits are pooled class maps."""
        return True

    @property
    def default_layer(self) -> str:
        """The last layer of the backbone with a map that the logits depend on."""
        found = super().default_layer
        inside = [name for name in self.dry_run.layouts if name.startswith("backbone.")]
        return found if found.startswith("backbone.") or not inside else inside[-1]

    def check_method(self, method: str) -> None:
        """Raise PPLValueError if the model has no class maps or layer for a method, or the branch has no gradients."""
        if method not in ("auto", "cam") or self.layer is not None:
            self._check_branch()
        super().check_method(method)

    def logits(self, x: Tensor) -> Tensor:
        """Return the logits (B,K) of the branch."""
        return self.read_class_maps(x).logits

    def read_class_maps(self, x: Tensor) -> ClassMaps:
        """Return logits and class maps of the branch.

        The logits of the un-patched branch are those of all branches' classifiers on the un-patched map.
        """
        if self.branch == "unpatched" and hasattr(self.model, "unpatched_class_maps"):
            branches = self.model.unpatched_class_maps(x)
            maps, logits = branches[-1], self.model.pool(torch.stack(branches).sum(0))
        else:
            maps = self.model.class_maps(x)
            logits = self.model.pool(maps)
        return ClassMaps(logits, (maps.shape[2], maps.shape[3]), lambda images, classes: maps[images, classes])

    def read_layer(self, x: Tensor, *, class_maps: bool = False) -> LayerReading:
        """Return the output of a layer of the un-patched branch; see :meth:`Classifier.read_layer`.

        Raises:
            PPLValueError: if all branches are asked for, in which a layer runs more than once.
        """
        self._check_branch()
        return super().read_layer(x, class_maps=class_maps)

    def _check_branch(self) -> None:
        if self.branch == "all" and hasattr(self.model, "unpatched_class_maps"):
            raise PPLValueError(
                "gradients are read off the un-patched branch alone, since in the others a layer runs more than once: "
                "use branch='unpatched', or method='cam' for the maps of all branches"
            )

    def _output(self, model: nn.Module, x: Tensor) -> Any:
        return NetClassifier(model).read_class_maps(x).logits

    def _stages(self) -> tuple[Stage, ...]:
        if not hasattr(self.model, "stages"):
            raise PPLTypeError(
                f"method 'sharpened_cam' needs the stages of a backbone, and {type(self.model).__name__} names none: "
                "use method='cam'"
            )
        return tuple(self.model.stages)
