from __future__ import annotations

import math

from ppl.engine.record import RunRecord


def book(record, scores, **options):
    return [record.close_epoch({"loss": 0.5, "val_mAP": score}, score, **options) for score in scores]


def test_an_epoch_is_the_best_when_its_score_is_higher_than_all_before():
    record = RunRecord()
    assert book(record, [0.3, 0.5, 0.5, 0.4, 0.6]) == [True, True, False, False, True]
    assert (record.best_score, record.best_epoch, record.epoch) == (0.6, 4, 5)


def test_of_losses_the_lowest_is_the_best():
    record = RunRecord()
    assert book(record, [0.5, 0.6, 0.4], greater_is_better=False) == [True, False, True]
    assert (record.best_score, record.best_epoch) == (0.4, 2)


def test_without_validation_the_last_epoch_is_the_best():
    record = RunRecord()
    assert book(record, [None, None]) == [True, True]
    assert (record.best_score, record.best_epoch) == (None, 1)


def test_a_score_of_nan_is_the_best_only_until_there_is_a_number():
    record = RunRecord()
    assert book(record, [math.nan, 0.2, math.nan]) == [True, True, False]
    assert record.best_score == 0.2


def test_epochs_of_earlier_phases_are_neither_best_nor_counted_towards_stopping():
    record = RunRecord()
    assert book(record, [0.9, 0.8, 0.7], may_be_best=False, patience=1) == [False] * 3
    assert not record.stopped
    assert book(record, [0.5, 0.4], patience=1) == [True, False]
    assert record.stopped


def test_the_title_tells_how_the_last_epoch_ended():
    record = RunRecord()
    assert record.title(3, "val_mAP") == "epoch 1/3"
    book(record, [0.25])
    assert record.title(3, "val_mAP") == "epoch 2/3 (loss 0.500, val_mAP 0.250)"
    book(record, [None])
    assert record.title(3, "val_mAP") == "epoch 3/3 (loss 0.500)"
