"""The class activation map itself, and the methods that start from it."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

from torch import Tensor

from ppl.cam.capture import captured_output, only_output
from ppl.cam.layouts import first_tensor
from ppl.cam.methods.gradient import gradient_maps, gradient_method, hirescam
from ppl.cam.methods.registry import Reading

if TYPE_CHECKING:
    from ppl.cam.classifier import Classifier

__all__ = ["auto", "cam", "propagated_cam", "sharpened_cam"]


def auto(classifier: Classifier, x: Tensor) -> Reading:
    """Read the class activation map where it is exact, else HiResCAM, which equals it there and is faithful elsewhere.

    HiResCAM reads the last map: its gradients go through the head alone.
    """
    return cam(classifier, x) if classifier.layer is None and classifier.has_class_maps else _hirescam(classifier, x)


_hirescam = gradient_method(hirescam)


def cam(classifier: Classifier, x: Tensor) -> Reading:
    """Read the class activation map: ReLU of the class maps, forward only.

    Source:
        Learning Deep Features for Discriminative Localization (Zhou et al., CVPR 2016).
    """
    found = classifier.read_class_maps(x)
    return Reading(found.logits, found.size, lambda images, classes: found.maps(images, classes).float().relu())


def sharpened_cam(classifier: Classifier, x: Tensor) -> Reading:
    """Multiply the class activation map by the square root of LayerCAM of a finer layer.

    Cells of the last map have seen most of the image, and their values spread over the surroundings of an object. Cells
    of a layer of the stage before have seen less. The gradients are those of the sum of the class map. Every class of
    an image takes one backward pass, down to that layer.

    Source:
        LayerCAM (Jiang et al., IEEE TIP 2021). Its product with the class activation map, in place of the maximum over
        several layers, is ours.
    """
    found = classifier.read_layer(x, class_maps=True)
    class_maps = found.class_maps
    assert class_maps is not None

    def maps(images: Tensor, classes: Tensor) -> Tensor:
        return class_maps(images, classes).detach().float().relu()

    def sums(images: Tensor, classes: Tensor) -> Tensor:
        return class_maps(images, classes).float().sum(dim=(1, 2))

    def evidence(images: Tensor, classes: Tensor) -> Tensor:
        return gradient_maps(_positive, found.root, found.as_map, sums, images, classes).relu()

    return Reading(found.logits.detach(), found.class_map_size, maps, evidence)


def propagated_cam(classifier: Classifier, x: Tensor) -> Reading:
    """Propagate the sharpened class activation map between cells with similar features.

    The features are those of the last two default cuts, at the largest scale. The map then covers the whole object,
    and its values fall into two groups, which the background rule "auto" separates: see :func:`ppl.cam.propagate`.
    """
    layers = classifier.similarity_layers
    with ExitStack() as stack:
        captured = [stack.enter_context(captured_output(classifier.model.get_submodule(layer))) for layer in layers]
        reading = sharpened_cam(classifier, x)
    features = []
    for layer, outputs in zip(layers, captured, strict=True):
        output = first_tensor(only_output(outputs, layer))
        assert output is not None
        features.append(classifier.layer_map(layer, output.detach(), (x.shape[2], x.shape[3])))
    return replace(reading, features=tuple(features))


def _positive(features: Tensor, gradients: Tensor) -> Tensor:
    return (gradients.relu() * features).sum(dim=1)
