from __future__ import annotations

import pytest
from pydantic import Field, ValidationError

from ppl.config import Config
from ppl.errors import PPLValueError


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


def test_a_fault_in_a_section_has_a_dotted_key_and_the_nearest_known_one():
    with pytest.raises(PPLValueError, match=r"unknown key blur\.radios; did you mean 'radius'\?"):
        FilterConfig.checked(blur={"radios": 2})


def test_named_values_win_over_a_mapping():
    assert BlurConfig.checked({"radius": 2}, radius=5).radius == 5
