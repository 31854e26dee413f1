from __future__ import annotations

import pytest

from ppl.errors import PPLValueError
from ppl.train.schedules import PLAIN, SCHEDULES, build_schedule, register_schedule, split_epochs


@pytest.mark.parametrize(
    ("epochs", "phases", "expected"), [(6, 3, [2, 2, 2]), (7, 3, [2, 2, 3]), (3, 3, [1, 1, 1]), (5, 1, [5])]
)
def test_epochs_are_shared_equally_and_the_rest_goes_to_deeper_phases(epochs, phases, expected):
    assert split_epochs(epochs, phases) == expected


def test_progressive_trains_one_phase_after_the_other():
    schedule = build_schedule("progressive", num_phases=3, epochs=6)
    assert [schedule(epoch, 5) for epoch in range(6)] == [(0,), (0,), (1,), (1,), (2,), (2,)]


def test_progressive_follows_the_epochs_given_per_phase_after_the_warm_up():
    schedule = build_schedule("progressive", num_phases=2, epochs=6, epochs_per_phase=[1, 3], warmup_epochs=2)
    assert [schedule(epoch, 0) for epoch in range(6)] == [(PLAIN,), (PLAIN,), (0,), (1,), (1,), (1,)]


@pytest.mark.parametrize("name", sorted(set(SCHEDULES) - {"progressive"}))
def test_other_schedules_ignore_the_epochs_per_phase(name):
    schedule = build_schedule(name, num_phases=1, epochs=4, epochs_per_phase=[2, 2])
    assert [schedule(epoch, 0) for epoch in range(4)] == [(0,)] * 4


@pytest.mark.parametrize(("epochs", "share"), [(8, [2, 2, 3]), (4, [1, 1, 1]), (3, [])])
def test_a_registered_schedule_gets_the_epochs_of_each_phase(epochs, share, monkeypatch):
    given = []

    def mine(epoch, update, *, num_phases, epochs):
        given.append(epochs)
        return (num_phases - 1,)

    monkeypatch.setattr(SCHEDULES, "_parts", {})
    register_schedule("mine", mine)
    schedule = build_schedule("mine", num_phases=3, epochs=epochs, warmup_epochs=1)
    assert schedule(1, 0) == (2,)
    assert given == [share]


def test_within_batch_gives_every_phase_a_step_on_every_batch():
    schedule = build_schedule("within_batch", num_phases=3, epochs=1)
    assert schedule(0, 0) == schedule(0, 9) == (0, 1, 2)


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_schedule_stays_within_the_models_phases_and_reaches_the_last(name):
    schedule = build_schedule(name, num_phases=3, epochs=3)
    seen = {phase for epoch in range(3) for update in range(6) for phase in schedule(epoch, update)}
    assert seen <= {0, 1, 2}
    assert 2 in seen


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_schedule_trains_the_only_phase_of_a_model(name):
    assert build_schedule(name, num_phases=1, epochs=1)(0, 3) == (0,)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("progresive", {}, "no schedule named 'progresive'; did you mean 'progressive'"),
        ("progressive", {"epochs": 2}, "too few for 3 phases"),
        ("last", {"warmup_epochs": 6}, "leaves none of 6 epochs"),
        ("progressive", {"epochs_per_phase": [2, 2]}, "one number per phase"),
        ("progressive", {"epochs_per_phase": [2, 2, 3]}, "add up to 6"),
        ("progressive", {"epochs_per_phase": [6, 1, -1]}, "each 1 or more"),
        ("progressive", {"epochs_per_phase": [3, 0, 3]}, "each 1 or more"),
    ],
)
def test_impossible_schedules_are_refused_with_the_fix(name, options, message):
    with pytest.raises(PPLValueError, match=message):
        build_schedule(name, **{"num_phases": 3, "epochs": 6, **options})
