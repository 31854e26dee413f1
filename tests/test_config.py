from __future__ import annotations

import copy
import inspect
import pickle

import pytest
from pydantic import Field, ValidationError

from ppl.config import Config
from ppl.errors import PPLValueError
from ppl.train import TrainConfig


class BlurConfig(Config):
    radius: int = Field(3, ge=1)
    sigma: float = 1.0


class FilterConfig(Config):
    blur: BlurConfig = BlurConfig()
    passes: int = 1


def test_settings_do_not_change_after_they_are_made():
    with pytest.raises(ValidationError):
        BlurConfig().radius = 4


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_must_be_finite(value):
    with pytest.raises(PPLValueError, match="sigma"):
        BlurConfig.checked(sigma=value)


def test_every_fault_is_named_with_its_value():
    with pytest.raises(PPLValueError, match=r"radius: .*greater than or equal to 1 \(got 0\); sigma: .*\(got 'wide'\)"):
        BlurConfig.checked({"radius": 0}, sigma="wide")


@pytest.mark.parametrize("make", [BlurConfig.checked, BlurConfig])
def test_a_call_of_the_class_and_checked_say_the_same(make):
    with pytest.raises(PPLValueError, match=r"^radius: Input should be a valid integer, .* \(got 'many'\)$"):
        make(radius="many")
    with pytest.raises(PPLValueError, match=r"^unknown key radios; did you mean 'radius'\?$"):
        make(radios=1)


def test_the_allowed_values_are_named():
    with pytest.raises(ValueError, match=r"^precision: Input should be 'no', .* or 'fp16' \(got 'half'\)$"):
        TrainConfig(precision="half")
    with pytest.raises(PPLValueError, match=r"^epochs: .*valid integer.* \(got 'many'\)$"):
        TrainConfig(epochs="many")


def test_a_section_that_is_called_keeps_dotted_keys():
    with pytest.raises(PPLValueError, match=r"^blur\.radius: .* \(got 0\)$"):
        FilterConfig(blur={"radius": 0})
    assert FilterConfig(blur={"radius": 5}).blur == BlurConfig(radius=5)
    with pytest.raises(PPLValueError, match=r"^passes: .* \(got None\); unknown key pases"):
        FilterConfig(passes=None, pases=1)


def test_settings_are_copied_and_pickled():
    config = FilterConfig(blur=BlurConfig(sigma=2.0))
    assert copy.deepcopy(config) == pickle.loads(pickle.dumps(config)) == config
    assert list(inspect.signature(FilterConfig).parameters) == ["blur", "passes"]


def test_a_fault_in_a_section_has_a_dotted_key_and_the_nearest_known_one():
    with pytest.raises(PPLValueError, match=r"unknown key blur\.radios; did you mean 'radius'\?"):
        FilterConfig.checked(blur={"radios": 2})


def test_named_values_win_over_a_mapping():
    assert BlurConfig.checked({"radius": 2}, radius=5).radius == 5
