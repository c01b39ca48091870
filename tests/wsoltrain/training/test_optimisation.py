"""Learning rates follow their formulas, once an epoch or at each step."""

from __future__ import annotations

import math

import pytest

from trained import recipe
from wsoltrain.training.optimisation import Moment, rate


def rates(epochs, *moments, **keys):
    given = recipe(epochs=epochs, lr=0.4, **keys)
    return pytest.approx([rate(given, moment, epochs) for moment in moments])


def test_step_falls_by_its_factor_every_few_epochs():
    moments = [Moment(epoch, 3, 5) for epoch in range(6)]
    assert rates(6, *moments, lr_step=2, lr_gamma=0.5) == [0.4, 0.4, 0.2, 0.2, 0.1, 0.1]


def test_multi_step_falls_at_its_milestones():
    moments = [Moment(epoch) for epoch in range(5)]
    assert rates(5, *moments, schedule="multi_step", milestones=[1, 3], lr_gamma=0.1) == [0.4, 0.04, 0.04, 0.004, 0.004]


def test_epochs_that_are_counted_from_one_fall_an_epoch_sooner():
    moments = [Moment(epoch) for epoch in range(5)]
    assert rates(5, *moments, lr_step=2, lr_gamma=0.5, count_from=1) == [0.4, 0.2, 0.2, 0.1, 0.1]
    given = {"schedule": "multi_step", "milestones": [3], "lr_gamma": 0.1}
    assert rates(5, *moments, **given, count_from=1) == [0.4, 0.4, 0.04, 0.04, 0.04]


def test_polynomial_falls_to_zero_by_its_power():
    moments = [Moment(epoch) for epoch in range(4)]
    wanted = [0.4 * (1 - epoch / 4) ** 0.9 for epoch in range(4)]
    assert rates(4, *moments, schedule="polynomial") == wanted
    assert rates(4, Moment(4), schedule="polynomial", lr_power=2, lr_min=0) == [0.0]


def test_cosine_ends_at_zero_and_moves_within_an_epoch_where_asked():
    assert rates(4, Moment(0), Moment(2, 4, 5), schedule="cosine") == [0.4, 0.2]
    within = [0.4 * 0.5 * (1 + math.cos(math.pi * done / 4)) for done in (0, 2.4, 3.8)]
    moments = Moment(0, 0, 5), Moment(2, 2, 5), Moment(3, 4, 5)
    assert rates(4, *moments, schedule="cosine", schedule_by="step") == within


def test_warm_up_rises_linearly_at_each_step_below_any_schedule():
    moments = [Moment(epoch, step, 2) for epoch in range(3) for step in range(2)]
    assert rates(3, *moments, schedule="constant", warmup=2) == [0.1, 0.2, 0.3, 0.4, 0.4, 0.4]


def test_rate_does_not_fall_below_its_floor():
    assert rate(recipe(epochs=4, lr=1e-7, lr_step=1), Moment(4), 4) == 1e-8
    assert rate(recipe(epochs=4, schedule="cosine", lr_min=0.001), Moment(4), 4) == 0.001
