from __future__ import annotations

import pytest
import yaml

from ppl.engine import RUNTIME_KEYS
from ppl.errors import PPLValueError
from ppl.train import TrainConfig


def test_every_key_has_a_description():
    assert all(field.description for field in TrainConfig.model_fields.values())
    assert set(TrainConfig.model_fields) >= RUNTIME_KEYS


def test_settings_survive_json():
    config = TrainConfig(size=(64, 48), auxiliary={"patches": {"weight": 0.5, "pool": "max"}}, clip_grad=1.0)
    assert TrainConfig.model_validate_json(config.model_dump_json()) == config


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epoch": 3}, "unknown key"),
        ({"epochs": 0}, "greater than or equal to 1"),
        ({"schedule": "progresive"}, "no schedule named 'progresive'; did you mean 'progressive'"),
        ({"loss": "softmax"}, "no loss named 'softmax'; there are: .* import the module, or name it in `plugins`"),
        ({"loss_options": {"gamma": 2}}, "has no option 'gamma'"),
        ({"auxiliary": {"consistancy": 1.0}}, "no auxiliary loss named 'consistancy'; did you mean 'consistency'"),
        ({"auxiliary": {"patches": {"pol": "max"}}}, "has no option 'pol'; it knows pool, sharpness"),
        ({"epochs": 3, "warmup_epochs": 3}, "leaves none of 3 epochs"),
        ({"precision": "half"}, "'no', 'bf16' or 'fp16'"),
        ({"epochs_per_phase": [3, 0]}, "must give every phase at least one epoch"),
        ({"lr": float("inf")}, "finite number"),
        (
            {"loss": "bce", "loss_options": {"label_smoothing": 1.5}},
            "bce: label_smoothing=1.5 .* less than or equal to 1",
        ),
        ({"loss": "asymmetric", "loss_options": {"gamma_neg": -1}}, "gamma_neg=-1 .* greater than or equal to 0"),
        ({"loss": "asymmetric", "loss_options": {"clip": 1}}, "clip=1 .* less than 1"),
        ({"auxiliary": {"patches": {"sharpness": 0}}}, "patches: sharpness=0 .* greater than 0"),
        ({"auxiliary": {"patches": {"sharpness": float("inf")}}}, "sharpness=inf .* finite number"),
        ({"auxiliary": {"patches": {"pool": "mean"}}}, "pool='mean' .* 'max' or 'lse'"),
        ({"auxiliary": {"every_patch": {"grid": 0}}}, "every_patch: grid=0"),
        ({"auxiliary": {"equivariance": {"scale": 0}}}, "equivariance: scale=0 .* greater than 0"),
        ({"auxiliary": {"patches": -1.0}}, "weight of auxiliary loss 'patches' must be a number, 0 or more, got -1"),
        ({"auxiliary": {"patches": {"weight": None}}}, "0 or more, got None"),
        ({"auxiliary": {"patches": {"weight": float("nan")}}}, "0 or more, got nan"),
        ({"optimizer": "sgd", "momentum": 0, "nesterov": True}, "nesterov needs a momentum above 0"),
        ({"jitter": 2.0}, "less than or equal to 1.5"),
        ({"seed": 2**32}, "less than 4294967296"),
    ],
)
def test_invalid_settings_are_refused_with_the_reason(options, message):
    with pytest.raises(PPLValueError, match=message):
        TrainConfig(**options)


def test_an_unquoted_no_of_yaml_means_no_mixed_precision():
    assert TrainConfig(**yaml.safe_load("precision: no")).precision == "no"
