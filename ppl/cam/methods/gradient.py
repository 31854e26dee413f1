"""Maps from the features of a layer and the gradients of a class's logit."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from itertools import zip_longest
from typing import TYPE_CHECKING, TypeAlias

import torch
from torch import Tensor

from ppl.cam.methods.registry import CamMethod, Reading
from ppl.errors import PPLValueError

if TYPE_CHECKING:
    from ppl.cam.classifier import Classifier

__all__ = [
    "GradientRule",
    "backward_passes",
    "gradcam",
    "gradcam_plus_plus",
    "gradient_maps",
    "gradient_method",
    "hirescam",
    "layercam",
]

GradientRule: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""From features (n,C,h,w) and gradients (n,C,h,w) of n pairs of image and class to signed maps (n,h,w)."""

_EPS = 1e-6  # as in pytorch-grad-cam


def gradcam(features: Tensor, gradients: Tensor) -> Tensor:
    """Weigh every channel by the sum of its gradients over the map.

    Source:
        Grad-CAM (Selvaraju et al., ICCV 2017), equations 1 and 2. The sum in place of the mean lets maps of different
        scales be added.

    Example:
        >>> features = torch.tensor([[[[1.0, 2.0]], [[4.0, 0.0]]]])
        >>> gradients = torch.tensor([[[[1.0, 1.0]], [[0.0, -1.0]]]])
        >>> gradcam(features, gradients).tolist()
        [[[-2.0, 4.0]]]
    """
    return torch.einsum("nc,nchw->nhw", gradients.sum(dim=(2, 3)), features)


def gradcam_plus_plus(features: Tensor, gradients: Tensor) -> Tensor:
    """Weigh every channel by its positive gradients, of which cells with a large share count more.

    Source:
        Grad-CAM++ (Chattopadhyay et al., WACV 2018), equations 5 and 19, for an exponential of the logit.
    """
    squared = gradients.square()
    sums = features.sum(dim=(2, 3), keepdim=True)
    shares = squared / (2 * squared + sums * squared * gradients + _EPS)
    weights = (shares * gradients.relu()).sum(dim=(2, 3))
    return torch.einsum("nc,nchw->nhw", weights, features)


def hirescam(features: Tensor, gradients: Tensor) -> Tensor:
    """Multiply features and gradients cell by cell.

    For a head of global average pooling and a linear layer this is the class activation map. Gradients of a mean are
    smaller on larger maps: the factor of h*w lets maps of different scales be added.

    Source:
        Use HiResCAM instead of Grad-CAM (Draelos and Carin, 2020), equation 3.
    """
    return (features * gradients).sum(dim=1) * features[0, 0].numel()


def layercam(features: Tensor, gradients: Tensor) -> Tensor:
    """Multiply features and positive gradients cell by cell.

    Source:
        LayerCAM (Jiang et al., IEEE TIP 2021), equations 6 to 8; the factor of h*w as for :func:`hirescam`.
    """
    return (features * gradients.relu()).sum(dim=1) * features[0, 0].numel()


def gradient_method(rule: GradientRule) -> CamMethod:
    """Make a CAM method of a rule; negative values of the maps become 0.

    The method reads the layer that `generate(..., layer=...)` names, by default the last one with a map. The gradients
    are those of the logit; no backward pass goes below the layer, and all classes of an image share the forward pass.

    Args:
        rule: from features and gradients (n,C,h,w), both float32, to maps (n,h,w).

    Returns:
        The method, for :func:`ppl.cam.register_method`.
    """

    def method(classifier: Classifier, x: Tensor) -> Reading:
        found = classifier.read_layer(x)

        def logits_of(images: Tensor, classes: Tensor) -> Tensor:
            return found.logits.float()[images, classes]

        def maps(images: Tensor, classes: Tensor) -> Tensor:
            return gradient_maps(rule, found.root, found.as_map, logits_of, images, classes).relu()

        return Reading(found.logits.detach(), found.size, maps, has_scale=False)

    # The registry tells methods apart by these.
    method.__module__, method.__qualname__, method.__doc__ = rule.__module__, rule.__qualname__, rule.__doc__
    return method


def gradient_maps(
    rule: GradientRule,
    root: Tensor,
    as_map: Callable[[Tensor], Tensor],
    values_of: Callable[[Tensor, Tensor], Tensor],
    images: Tensor,
    classes: Tensor,
) -> Tensor:
    """Apply a rule to pairs of image and class.

    Args:
        rule: the rule.
        root: output of the layer, where the graph of gradients begins; the graph is kept.
        as_map: makes a map (B,C,h,w) of a tensor that lies as the root does.
        values_of: from images (n,) and classes (n,) to the values whose gradients are taken, summed over n.
        images: (n,) index 0..B-1 of each pair.
        classes: (n,) class 0..K-1 of each pair.

    Returns:
        (n,h,w) float32, of both signs.

    Example:
        >>> root = torch.tensor([[[[1.0, 2.0]]]], requires_grad=True)
        >>> logits = torch.cat([root.sum(dim=(2, 3)), -root.sum(dim=(2, 3))], dim=1)
        >>> rule = lambda features, gradients: (features * gradients.relu()).sum(1)
        >>> pairs = torch.tensor([0, 0]), torch.tensor([0, 1])
        >>> gradient_maps(rule, root, lambda x: x, lambda i, c: logits[i, c], *pairs).flatten().tolist()
        [1.0, 2.0, 0.0, 0.0]
    """
    features = as_map(root.detach())
    found = features.new_zeros((len(images), *features.shape[2:]), dtype=torch.float32)
    for chosen in backward_passes(images):
        own = images[chosen]
        with torch.inference_mode(False), torch.enable_grad():
            # Clones, since tensors of inference mode cannot take part in a graph.
            total = values_of(own.clone(), classes[chosen].clone()).sum()
            (gradient,) = torch.autograd.grad(total, root, retain_graph=True, allow_unused=True)
        if gradient is None:
            raise PPLValueError("the logits do not depend on the output of this layer: choose another one")
        # Pass by pass: the features of all pairs at once would take gigabytes.
        found[chosen] = rule(features[own].float(), as_map(gradient)[own].float())
    return found


def backward_passes(images: Tensor) -> list[Tensor]:
    """Group the positions of pairs by backward pass: one pass serves one class of every image.

    The groups are made on the CPU in one go, since a device would be waited for at every pass.
    """
    places = defaultdict(list)
    for place, image in enumerate(images.tolist()):
        places[image].append(place)
    passes = zip_longest(*places.values())
    return [torch.tensor([place for place in one if place is not None], device=images.device) for one in passes]
