from __future__ import annotations

import pytest

from ppl.errors import PPLValueError
from ppl.train.schedules import PLAIN, SCHEDULES, build_schedule, split_epochs


@pytest.mark.parametrize(
    ("epochs", "stages", "expected"), [(6, 3, [2, 2, 2]), (7, 3, [2, 2, 3]), (3, 3, [1, 1, 1]), (5, 1, [5])]
)
def test_epochs_are_shared_equally_and_the_rest_goes_to_deeper_stages(epochs, stages, expected):
    assert split_epochs(epochs, stages) == expected


def test_progressive_trains_one_stage_after_the_other():
    schedule = build_schedule("progressive", num_stages=3, epochs=6)
    assert [schedule(epoch, 5) for epoch in range(6)] == [(0,), (0,), (1,), (1,), (2,), (2,)]


def test_progressive_follows_the_epochs_given_per_stage_after_the_warm_up():
    schedule = build_schedule("progressive", num_stages=2, epochs=6, epochs_per_stage=[1, 3], warmup_epochs=2)
    assert [schedule(epoch, 0) for epoch in range(6)] == [(PLAIN,), (PLAIN,), (0,), (1,), (1,), (1,)]


@pytest.mark.parametrize("name", sorted(set(SCHEDULES) - {"progressive"}))
def test_epochs_per_stage_are_no_matter_of_other_schedules(name):
    schedule = build_schedule(name, num_stages=1, epochs=4, epochs_per_stage=[2, 2])
    assert [schedule(epoch, 0) for epoch in range(4)] == [(0,)] * 4


@pytest.mark.parametrize(("epochs", "share"), [(8, [2, 2, 3]), (4, [1, 1, 1]), (3, [])])
def test_a_schedule_of_ones_own_is_told_each_stages_share_of_the_epochs(epochs, share, monkeypatch):
    told = []
    mine = {"mine": lambda epoch, batch, *, num_stages, epochs: told.append(epochs) or (num_stages - 1,)}
    monkeypatch.setattr("ppl.train.schedules.SCHEDULES", mine)
    schedule = build_schedule("mine", num_stages=3, epochs=epochs, warmup_epochs=1)
    assert schedule(1, 0) == (2,)
    assert told == [share]


def test_within_batch_gives_every_stage_a_step_on_every_batch():
    schedule = build_schedule("within_batch", num_stages=3, epochs=1)
    assert schedule(0, 0) == schedule(0, 9) == (0, 1, 2)


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_schedule_stays_within_the_models_stages_and_reaches_the_last(name):
    schedule = build_schedule(name, num_stages=3, epochs=3)
    seen = {stage for epoch in range(3) for batch in range(6) for stage in schedule(epoch, batch)}
    assert seen <= {0, 1, 2}
    assert 2 in seen


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_model_with_one_stage_trains_it_whatever_the_schedule(name):
    assert build_schedule(name, num_stages=1, epochs=1)(0, 3) == (0,)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("progresive", {}, "choose one of progressive"),
        ("progressive", {"epochs": 2}, "too few for 3 stages"),
        ("last", {"warmup_epochs": 6}, "leaves none of 6 epochs"),
        ("progressive", {"epochs_per_stage": [2, 2]}, "one number per stage"),
        ("progressive", {"epochs_per_stage": [2, 2, 3]}, "add up to 6"),
        ("progressive", {"epochs_per_stage": [6, 1, -1]}, "each 1 or more"),
        ("progressive", {"epochs_per_stage": [3, 0, 3]}, "each 1 or more"),
    ],
)
def test_what_cannot_be_scheduled_is_refused_with_the_way_out(name, options, message):
    with pytest.raises(PPLValueError, match=message):
        build_schedule(name, **{"num_stages": 3, "epochs": 6, **options})
