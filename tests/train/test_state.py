from __future__ import annotations

import math

from ppl.train.state import RunState


def book(state, scores, stages=(0,), num_stages=1, patience=None):
    return [state.close_epoch({"loss": 0.5, "val_map": score}, list(stages), num_stages, patience) for score in scores]


def test_an_epoch_is_the_best_when_its_score_is_higher_than_all_before():
    state = RunState()
    assert book(state, [0.3, 0.5, 0.5, 0.4, 0.6]) == [True, True, False, False, True]
    assert (state.best_map, state.best_epoch, state.epoch) == (0.6, 4, 5)


def test_without_validation_the_last_epoch_is_the_best():
    state = RunState()
    assert book(state, [None, None]) == [True, True]
    assert (state.best_map, state.best_epoch) == (None, 1)


def test_a_score_that_is_no_number_is_kept_only_until_there_is_one():
    state = RunState()
    assert book(state, [math.nan, 0.2, math.nan]) == [True, True, False]
    assert state.best_map == 0.2


def test_epochs_of_earlier_stages_are_neither_best_nor_counted_towards_stopping():
    state = RunState()
    assert book(state, [0.9, 0.8, 0.7], stages=(0,), num_stages=2, patience=1) == [False] * 3
    assert not state.stopped
    assert book(state, [0.5, 0.4], stages=(1,), num_stages=2, patience=1) == [True, False]
    assert state.stopped


def test_the_title_says_how_the_last_epoch_ended():
    state = RunState()
    assert state.title(3) == "epoch 1/3"
    book(state, [0.25])
    assert state.title(3) == "epoch 2/3 (loss 0.500, mAP 0.250)"
    book(state, [None])
    assert state.title(3) == "epoch 3/3 (loss 0.500)"
