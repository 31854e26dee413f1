"""Classifiers as CAM methods use them: logits, class maps and layers of any module."""

from __future__ import annotations

from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ppl.backbones import data_config, default_cuts, resolve_stages
from ppl.backbones.dummy import make_dummy
from ppl.backbones.families import family_of
from ppl.backbones.stages import Stage
from ppl.cam.capture import captured_output, graph_from, only_output
from ppl.cam.class_token import short_copy
from ppl.cam.dry_run import DryRun, dry_run, logits_of
from ppl.cam.layouts import first_tensor, to_map
from ppl.cam.linear_head import LinearHead, close
from ppl.cam.readings import ClassMaps, LayerReading
from ppl.cam.sizes import SizeRule, classifier_sizes
from ppl.errors import PPLTypeError, PPLValueError, nearest

__all__ = ["Classifier"]

# The largest number of layers in an error message.
_LISTED = 12


class Classifier:
    """A module that returns logits, as CAM methods use it.

    Attributes:
        model: the module.
        name: its name, for messages.
        layer: name of the layer that gradient methods read, or None.
        num_classes: K.
        classes: names of the classes, or None.
        multi_label: whether more than one class is predicted for an image, unless `generate` is told otherwise.
        data_config: "mean", "std" and "input_size" of the images.
    """

    multi_label = False

    def __init__(
        self, model: Any, branch: Literal["unpatched", "all"] = "unpatched", layer: str | nn.Module | None = None
    ) -> None:
        self.model = model
        self.branch = branch
        self.name = (getattr(model, "pretrained_cfg", None) or {}).get("architecture") or type(model).__name__
        self.backbone: nn.Module = model
        self.layer = None if layer is None else self._name_of(layer)
        self._head_is_checked = False
        self._short: nn.Module | None = None

    @cached_property
    def num_classes(self) -> int:
        """K.

        Raises:
            PPLValueError: if the model was created without a classifier.
        """
        if getattr(self.model, "num_classes", None) == 0:
            raise PPLValueError(f"{self.name!r} was created with num_classes=0 and has no classifier: give it one")
        return self.dry_run.num_classes

    @cached_property
    def classes(self) -> tuple[str, ...] | None:
        """Names of the classes: those of the attribute `classes` or of Hugging Face's `config.id2label`."""
        names = getattr(self.model, "classes", None)
        if names is None:
            table = getattr(getattr(self.model, "config", None), "id2label", None)
            names = [table[index] for index in sorted(table)] if isinstance(table, dict) else None
        if isinstance(names, (tuple, list)) and len(names) == self.num_classes:
            return tuple(map(str, names))
        return None

    @cached_property
    def data_config(self) -> dict[str, Any]:
        """The "mean", "std" and "input_size" of the images."""
        config = data_config(self.model)
        channels = make_dummy(self.model, (1, 1)).shape[1]
        return {**config, "input_size": (channels, *config["input_size"][1:])}

    @cached_property
    def sizes(self) -> SizeRule:
        """The sizes of images that the model takes."""
        return classifier_sizes(self.model, self.name, fixed=self.dry_run.fixed)

    @cached_property
    def dry_run(self) -> DryRun:
        """The maps of the model, found by one pass on a small image."""
        return dry_run(self.model, self._output)

    @property
    def has_class_maps(self) -> bool:
        """Whether the logits are linear over the pooled map of a layer, so that class maps are exact."""
        return self.dry_run.head is not None

    @property
    def default_layer(self) -> str:
        """The last layer with a map that the logits depend on.

        Raises:
            PPLValueError: if there is none.
        """
        if self.dry_run.features is None:
            raise PPLValueError(f"{self.name!r} has no layer whose output is a map that its logits depend on")
        return self.dry_run.features

    @cached_property
    def finer_layer(self) -> str:
        """The last layer of the stage before the last: the last of the default cuts.

        Raises:
            PPLValueError: if the stages of the model are not known, or there is no such stage.
        """
        layers = self._cut_layers
        if not layers:
            raise PPLValueError(
                f"method 'sharpened_cam' reads a stage before the last, and {self.name!r} has none: use method='cam' "
                "or name a layer"
            )
        name, layout = layers[-1]
        if layout == "list":
            raise PPLValueError(
                f"method 'sharpened_cam' reads one map, and layer {name!r} of {self.name!r} returns several: use "
                "method='cam' or name a layer"
            )
        return name

    @cached_property
    def similarity_layers(self) -> tuple[str, ...]:
        """The layers whose features tell which cells are alike: the finer layer, after that of the stage before it.

        Raises:
            PPLValueError: if there is no finer layer.
        """
        last = self.layer or self.finer_layer
        if self.layer is not None:
            return (last,)
        return (*(name for name, layout in self._cut_layers[-2:-1] if layout != "list"), last)

    @cached_property
    def _cut_layers(self) -> list[tuple[str, str]]:
        """Name and layout of the last layer of each stage of the default cuts."""
        stages = {stage.name: stage for stage in self._stages()}
        cuts = [stages[name] for name in default_cuts(tuple(stages.values()))]
        return [(self._name_of(self.backbone.get_submodule(stage.module)), stage.layout) for stage in cuts]

    def check_method(self, method: str) -> None:
        """Raise PPLValueError if the model has no class maps or layer for a method; no image is needed."""
        if method in ("cam", "sharpened_cam", "propagated_cam"):
            self.check_class_maps()
        if method == "sharpened_cam":
            self._layout_of(self.layer or self.finer_layer)
        elif method == "propagated_cam":
            for layer in self.similarity_layers:
                self._layout_of(layer)
        elif method == "cam" or (method == "auto" and self.layer is None and self.has_class_maps):
            return
        else:
            self._layout_of(self.layer or self.default_layer)

    def check_class_maps(self) -> None:
        """Raise PPLValueError if the model has no exact class maps."""
        if not self.has_class_maps:
            raise PPLValueError(
                f"{self.name!r} has no exact class maps, since more than global pooling and one linear layer stands "
                f"between its last map ({self.dry_run.last}) and its logits: use method='auto', or a gradient method"
            )

    def logits(self, x: Tensor) -> Tensor:
        """Return the logits (B,K) of images (B,C,H,W)."""
        return logits_of(self._output(self.model, x), len(x))

    def read_class_maps(self, x: Tensor) -> ClassMaps:
        """Return logits and class maps, exact and forward only.

        Raises:
            PPLValueError: if the model has no such maps.
        """
        self.check_class_maps()
        head = self._head
        with captured_output(self.model.get_submodule(head.layer)) as outputs:
            logits = self.logits(x)
        return self._class_maps(x, logits, only_output(outputs, head.layer))

    def read_layer(self, x: Tensor, *, class_maps: bool = False) -> LayerReading:
        """Return the output of the layer as the root of a graph, and the logits.

        Args:
            x: images (B,C,H,W).
            class_maps: also give class maps with their graph; the layer is then by default a finer one.

        Raises:
            PPLValueError: if the layer has no map or runs more than once.
        """
        if class_maps:
            self.check_class_maps()
        layer = self.layer or (self.finer_layer if class_maps else self.default_layer)
        self._layout_of(layer)
        model = self.model if class_maps else self._short_model(layer)
        with graph_from(model.get_submodule(layer)) as roots:
            images = x.clone() if x.is_inference() else x
            if class_maps:
                found = self.read_class_maps(images)
            else:
                found = ClassMaps(logits_of(self._output(model, images), len(images)), (0, 0), _no_maps)
        root = only_output(roots, layer)
        image_size = (x.shape[2], x.shape[3])

        def as_map(features: Tensor) -> Tensor:
            return self.layer_map(layer, features, image_size)

        size = as_map(root.detach()).shape[2:]
        own = (int(size[0]), int(size[1]))
        if not class_maps:
            return LayerReading(root, as_map, own, found.logits, None, own)
        return LayerReading(root, as_map, own, found.logits, found.maps, found.size)

    def layer_map(self, layer: str, features: Tensor, image_size: tuple[int, int]) -> Tensor:
        """Return the map (B,C,h,w) in the output of a layer.

        Args:
            layer: name of the layer.
            features: its output, or a tensor of the same layout.
            image_size: (H,W) of the images.
        """
        layout = self._layout_of(layer)
        return to_map(self._in_rows(features, layer, layout.size, image_size), layout, image_size)

    def _output(self, model: nn.Module, x: Tensor) -> Any:
        """Return what the model, or a copy of the model, makes of images."""
        return model(x)

    def _short_model(self, layer: str) -> nn.Module:
        """Return the copy that is fast behind a layer if there is one, else the model."""
        if not self.dry_run.short or layer != self.dry_run.features:
            return self.model  # type: ignore[no-any-return]
        if self._short is None:
            self._short = short_copy(self.model, layer, self._layout_of(layer).prefix_tokens)
        return self.model if self._short is None else self._short

    @property
    def _head(self) -> LinearHead:
        head = self.dry_run.head
        assert head is not None
        return head

    def _class_maps(self, x: Tensor, logits: Tensor, output: Any) -> ClassMaps:
        """Return the class maps of the output of the layer that the head reads."""
        head, tensor = self._head, first_tensor(output)
        assert tensor is not None
        features = to_map(tensor, self.dry_run.layouts[head.layer], (x.shape[2], x.shape[3]))
        if not self._head_is_checked:
            with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
                if logits.isfinite().all() and not close(head.logits(self.model, features), logits):
                    raise PPLValueError(
                        f"pooled class maps of {self.name!r} differ from its logits on images of "
                        f"{x.shape[2]}x{x.shape[3]}: use method='hirescam'"
                    )
            self._head_is_checked = True

        def maps(images: Tensor, classes: Tensor) -> Tensor:
            wanted, places = torch.unique(classes, return_inverse=True)
            return head.class_maps(self.model, features, wanted)[images, places]

        return ClassMaps(logits, (features.shape[2], features.shape[3]), maps)

    def _stages(self) -> tuple[Stage, ...]:
        if not getattr(self.model, "feature_info", None):
            names = _listed(list(self.dry_run.layouts))
            raise PPLValueError(
                f"method 'sharpened_cam' reads a layer with a finer map, and {type(self.model).__name__} names no "
                f"stages: say layer=...; layers with a map are {names}"
            )
        return resolve_stages(self.model)

    def _in_rows(self, features: Tensor, layer: str, native: tuple[int, int], image_size: tuple[int, int]) -> Tensor:
        """Return tokens row by row; Hiera keeps them in the order of its mask units."""
        order = family_of(self.backbone).order
        if order is None or not layer.rpartition(".")[2].isdigit():
            return features
        stride = self.dry_run.size[0] / native[0]
        size = (round(image_size[0] / stride), round(image_size[1] / stride))
        stage = Stage(layer, layer, "NLC", features.shape[-1], round(stride))
        return features[:, order(self.backbone, stage, size, features.device)]

    def _layout_of(self, layer: str) -> Any:
        layouts = self.dry_run.layouts
        if layer not in layouts:
            raise PPLValueError(
                f"layer {layer!r} of {self.name!r} returns no map in one call per pass; layers with a map are "
                f"{_listed(list(layouts))}"
            )
        return layouts[layer]

    def _name_of(self, layer: Any) -> str:
        modules: dict[str, nn.Module] = dict(self.model.named_modules())
        if isinstance(layer, nn.Module):
            found = next((name for name, module in modules.items() if module is layer), None)
            if not found:
                raise PPLValueError(f"layer is a {type(layer).__name__} that is no part of {self.name!r}")
            return found
        if not isinstance(layer, str):
            raise PPLTypeError(f"layer must be a module or the name of one, got {type(layer).__name__}")
        for name in (layer, f"backbone.{layer}"):
            if name in modules and name:
                return name
        raise PPLValueError(f"{self.name!r} has no layer {layer!r}{nearest(layer, modules)}")


def _no_maps(images: Tensor, classes: Tensor) -> Tensor:
    raise NotImplementedError


def _listed(names: list[str]) -> str:
    """Return the last of the names: maps are mostly read from the last layers."""
    return ", ".join(names[-_LISTED:]) + (f" and {len(names) - _LISTED} before them" if len(names) > _LISTED else "")
