from __future__ import annotations

import pytest

from ppl.parallel import spread


@pytest.mark.parametrize(("length", "count"), [(0, 3), (1, 1), (2, 5), (7, 3), (10, 6), (1464, 1000), (1000, 7)])
def test_items_stand_at_equal_distances_from_the_first_to_the_last(length: int, count: int) -> None:
    chosen = spread(range(length), count)
    assert len(chosen) == min(length, count) and len(set(chosen)) == len(chosen)
    if len(chosen) > 1:
        assert (chosen[0], chosen[-1]) == (0, length - 1)
        distance = (length - 1) / (len(chosen) - 1)
        assert all(abs(item - place * distance) <= 0.5 for place, item in enumerate(chosen))


@pytest.mark.parametrize("length", [600, 1464, 4000])
def test_a_choice_from_a_choice_is_the_choice(length: int) -> None:
    chosen = spread(range(length), 500)
    assert spread(chosen, 500) == chosen
