from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from ppl.engine.loss_meter import LossMeter, NonFiniteLossError, check_weights


def test_means_are_over_updates_since_the_last_reset():
    meter = LossMeter(("loss", "part"), torch.device("cpu"))
    for step in range(4):
        meter.update({"loss": torch.tensor(float(step), requires_grad=True), "part": torch.tensor(1.0)}, step)
    assert meter.compute() == {"loss": 1.5, "part": 1.0}
    meter.reset()
    assert meter.compute() == {"loss": 0.0, "part": 0.0}


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_the_first_step_with_an_infinite_loss_is_named(bad):
    meter = LossMeter(("loss", "part"), torch.device("cpu"))
    meter.update({"loss": torch.tensor(1.0), "part": torch.tensor(1.0)}, 5)
    meter.check(0)
    meter.update({"loss": torch.tensor(1.0), "part": torch.tensor(bad)}, 6)
    meter.update({"loss": torch.tensor(bad), "part": torch.tensor(bad)}, 7)
    with pytest.raises(NonFiniteLossError, match=r"since step 6 \(epoch 2\): lower lr"):
        meter.check(2)


def test_a_restored_state_continues_the_mean():
    meter, other = (LossMeter(("loss",), torch.device("cpu")) for _ in range(2))
    meter.update({"loss": torch.tensor(3.0)}, 0)
    other.load_state_dict(meter.state_dict())
    other.update({"loss": torch.tensor(1.0)}, 1)
    assert other.compute() == {"loss": 2.0}


def test_weights_that_are_not_finite_are_found():
    layer = nn.Linear(3, 2)
    check_weights(layer, 0, 0)
    with torch.no_grad():
        layer.weight[1, 2] = math.nan
    with pytest.raises(NonFiniteLossError, match="after step 3"):
        check_weights(layer, 3, 1)
