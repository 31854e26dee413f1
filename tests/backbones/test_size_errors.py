"""Refusals of a size are recognised; all other errors are raised."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from ppl.backbones import CutBackbone, UnsupportedBackboneError, check_backbone, resolve_stages
from ppl.backbones.size_errors import size_error
from ppl.errors import PPLError
from ppl.models import PPLNet


class Raises(nn.Module):
    """A backbone of 32x32 images whose forward raises an error at other sizes."""

    img_size = 32

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.stem, self.tail, self.error = nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 4, 3, 2, 1), error

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-1] % 32 or x.shape[-2:] != (32, 32):
            raise self.error
        return self.tail(self.stem(x))  # type: ignore[no-any-return]


OF_LAYERS = [RuntimeError("shape"), ValueError("size"), AssertionError("size"), IndexError("dim")]
OTHERS = [
    torch.OutOfMemoryError("CUDA out of memory"),
    RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
    MemoryError(),
    AttributeError("no such attribute"),
    NameError("no such name"),
    KeyError("key"),
    TypeError("forward() takes 2 arguments"),
]
NAMES = [type(error).__name__ for error in OTHERS]


def fail(error: Exception) -> None:
    raise error


@pytest.mark.parametrize("error", OF_LAYERS, ids=lambda error: type(error).__name__)
def test_errors_of_layers_mean_another_size(error: Exception) -> None:
    assert size_error(lambda: fail(error)) is error
    cutter = CutBackbone(Raises(error), ["stem"], stages=["stem", "tail"])
    with pytest.raises(UnsupportedBackboneError, match="was built for images of 32x32"):
        cutter.check_input_size(48, 48)


@pytest.mark.parametrize("error", OTHERS, ids=NAMES)
def test_other_errors_are_raised_wherever_sizes_are_tried(error: Exception) -> None:
    kind = type(error)
    with pytest.raises(kind):
        size_error(lambda: fail(error))
    with pytest.raises(kind):
        resolve_stages(Raises(error), ["stem", "tail"])
    with pytest.raises(kind):
        CutBackbone(Raises(error), ["stem"], stages=["stem", "tail"])
    with pytest.raises(kind):
        check_backbone(Raises(error), stages=["stem", "tail"])


@pytest.mark.parametrize("error", OTHERS, ids=NAMES)
def test_other_errors_are_raised_by_checks_of_a_built_model(error: Exception) -> None:
    backbone = Raises(RuntimeError())
    model = PPLNet(backbone, 2, cuts=["stem"], stages=["stem", "tail"], padding="reflect")
    backbone.error = error
    with pytest.raises(type(error)):
        model.check_input_size(48, 48)


def test_a_model_that_runs_on_no_size_names_the_last_error() -> None:
    model = Raises(ValueError("only 7x7"))
    model.img_size = 64
    with pytest.raises(PPLError, match="fails on images of 64x96, 128x192, 64x64: ValueError: only 7x7; give the size"):
        resolve_stages(model, ["stem", "tail"])
