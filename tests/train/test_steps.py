from __future__ import annotations

import pytest

from ppl.train import TrainConfig
from ppl.train.schedules import build_schedule
from ppl.train.steps import Course


def course(name="progressive", *, epochs=4, updates=5, num_stages=2, **options):
    schedule = build_schedule(name, num_stages=num_stages, epochs=epochs)
    return Course(schedule, TrainConfig(epochs=epochs, **options), updates)


def test_every_step_of_every_stage_counts():
    assert course().total == 20
    assert course("within_batch").total == 40
    assert course("alternate").total == 20


def test_the_rate_falls_over_the_whole_run_by_default():
    factors = [course().factor(step, step // 5) for step in range(20)]
    assert factors == pytest.approx([(1 - step / 20) ** 0.9 for step in range(20)])


def test_the_rate_can_restart_with_every_stage():
    restarted = course(restart_lr=True)
    factors = [restarted.factor(step, step // 5) for step in range(20)]
    assert factors == pytest.approx([(1 - step / 10) ** 0.9 for step in range(10)] * 2)
    assert course("within_batch", restart_lr=True).factor(39, 3) == pytest.approx((1 / 40) ** 0.9)


def test_warm_up_is_at_the_start_of_the_run_only():
    restarted = course(restart_lr=True, warmup_steps=4)
    assert restarted.factor(0, 0) == pytest.approx(0.2)
    assert restarted.factor(10, 2) == 1.0
