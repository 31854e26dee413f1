from __future__ import annotations

import pytest

from ppl.errors import PPLTypeError, PPLValueError
from ppl.registry import Registry


def blur(image):
    return image


def test_a_registered_part_is_found_by_its_name():
    filters = Registry("filter")
    filters.register("blur", blur)
    assert filters.find("blur") is filters["blur"] is blur
    assert list(filters) == ["blur"] and len(filters) == 1


def test_an_unknown_name_is_an_error_with_the_nearest_one():
    filters = Registry("filter")
    filters.register("blur", blur)
    with pytest.raises(PPLValueError, match="no filter named 'blurr'; did you mean 'blur'"):
        filters.find("blurr")
    with pytest.raises(KeyError):
        filters["blurr"]


def test_another_part_cannot_take_a_name_but_the_same_one_may_come_twice():
    filters = Registry("filter")
    filters.register("blur", blur)
    filters.register("blur", blur)
    with pytest.raises(PPLValueError, match="a filter named 'blur' exists already"):
        filters.register("blur", lambda image: image)
    assert filters["blur"] is blur


@pytest.mark.parametrize(("name", "error"), [(3, PPLTypeError), ("", PPLValueError)])
def test_names_are_texts(name, error):
    with pytest.raises(error, match="name of a filter"):
        Registry("filter").register(name, blur)
