"""Checkpoints by the clock, in steps that all processes know."""

import itertools

from scaling.training.saving import SaveSchedule


def saved(every, minutes, seconds_per_step, steps, start=0):
    """The steps that a run saves whose steps take so long; seconds_per_step(step)."""
    now = [0.0]
    schedule = SaveSchedule(every, minutes, start, clock=lambda: now[0])
    found = []
    for step in range(start + 1, start + steps + 1):
        now[0] += 300.0 if step == start + 1 else seconds_per_step(step)  # the first is compiled
        if schedule.due(step):
            found.append(step)
            schedule.saved(step)
    return found


def test_without_minutes_every_so_many_steps_are_saved():
    assert saved(10, 0.0, lambda step: 60.0, 35) == [10, 20, 30]


def test_the_time_between_two_is_at_most_so_many_minutes():
    assert saved(1000, 5.0, lambda step: 10.0, 100, start=2000) == [2031, 2061, 2091]


def test_it_follows_a_rate_that_changes():
    found = saved(1000, 5.0, lambda step: 10.0 if step < 50 else 20.0, 120)
    assert found[:2] == [31, 61]
    assert {b - a for a, b in itertools.pairwise(found[2:])} == {15}


def test_steps_longer_than_the_minutes_are_all_saved():
    assert saved(1000, 1.0, lambda step: 90.0, 14) == [9, 10, 11, 12, 13, 14]


def test_what_is_saved_by_steps_begins_the_minutes_anew():
    assert saved(25, 5.0, lambda step: 10.0, 80) == [25, 50, 75]
