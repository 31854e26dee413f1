"""The image sizes that a backbone takes, found by trial."""

from __future__ import annotations

from torch import nn

from ppl.backbones.data_config import data_config
from ppl.backbones.dummy import call_backbone, make_dummy, trial
from ppl.backbones.size_errors import size_error

__all__ = ["native_size", "refusal_of", "runs_on", "size_multiple"]

_MULTIPLES = (1, 2, 4, 8, 16, 32, 64)
_ODD_SIZES = ((97, 99), (151, 203))  # Odd from the start, and odd after strides that round down.


def native_size(model: nn.Module) -> tuple[int, int]:
    """Return the (H,W) for which a model was built.

    The size stands in `img_size` (timm), `image_size` (torchvision), `config` (transformers) or the data's settings.
    """
    embeds = [module for name, module in model.named_children() if name.endswith("embed")]
    declared = [getattr(owner, "img_size", None) for owner in (*embeds, model)]
    declared += [getattr(owner, "image_size", None) for owner in (model, getattr(model, "config", None))]
    for size in declared:
        if isinstance(size, int):
            return size, size
        if isinstance(size, (tuple, list)) and len(size) == 2:
            return int(size[0]), int(size[1])
    height, width = data_config(model)["input_size"][1:]
    return int(height), int(width)


def runs_on(model: nn.Module, size: tuple[int, int]) -> bool:
    """Tell whether a model takes a black image of that size; the model stays as it was."""
    return refusal_of(model, size) is None


def refusal_of(model: nn.Module, size: tuple[int, int]) -> Exception | None:
    """Return the error by which a model refuses a black image of that size, or None; the model stays as it was."""
    with trial(model) as twin:
        return size_error(lambda: call_backbone(twin, make_dummy(twin, size)))


def size_multiple(model: nn.Module, least: int = 32) -> int:
    """Return the number of which heights and widths of images must be multiples.

    Networks that add maps of several strides (HRNet, DLA), or that embed their input in steps, need multiples.
    Candidates are tried on images of odd multiples, whose maps become odd as early as possible.

    Args:
        model: the model; it stays as it was.
        least: a side that is known to be large enough; all sides that are tried are larger.

    Returns:
        A power of two from 1 to 64; 1 too if the model fails at every size that is tried.

    Example:
        >>> import timm
        >>> size_multiple(timm.create_model("test_resnet").eval())
        1
    """
    for multiple in _MULTIPLES:
        more = -(-max(0, least - 64) // 64) * 64  # A multiple of every candidate, so odd multiples stay odd.
        sides = [[(side + more) // multiple | 1 for side in size] for size in _ODD_SIZES]
        sizes = [(multiple * height, multiple * width) for height, width in sides]
        if all(runs_on(model, size) for size in sizes):
            return multiple
    return 1
