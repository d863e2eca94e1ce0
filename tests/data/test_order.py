"""One global order: every epoch is a permutation, and held-out images are never trained on."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scaling.data.order import Order


@st.composite
def orders(draw):
    total = draw(st.integers(2, 60))
    return Order(total, draw(st.integers(0, total - 1)), draw(st.integers(0, 2**31)))


@given(orders(), st.integers(0, 10**9))
def test_each_epoch_shows_each_training_record_once(order, epoch):
    shown = [order.training(epoch * order.epoch + i) for i in range(order.epoch)]
    held_out = [order.evaluation(i) for i in range(order.held_out)]
    assert sorted(shown + held_out) == list(range(order.total))


def test_epochs_and_seeds_differ_but_the_held_out_part_does_not():
    order, other = Order(500, 50, seed=1), Order(500, 50, seed=2)
    first, second = ([order.training(epoch * 450 + i) for i in range(450)] for epoch in range(2))
    assert first != second
    assert first != [other.training(i) for i in range(450)]
    assert [order.evaluation(i) for i in range(50)] == [other.evaluation(i) for i in range(50)]


@given(orders(), st.integers(0, 1000))
def test_stand_ins_go_once_through_the_epoch(order, position):
    assert len({order.training(position, shift) for shift in range(order.epoch)}) == order.epoch


@pytest.mark.parametrize("total", [2**16 - 1, 2**16, 2**16 + 7])
def test_large_sets_are_permuted_too(total):
    order = Order(total, 10)
    shown = [order.training(i) for i in range(order.epoch)] + [order.evaluation(i) for i in range(10)]
    np.testing.assert_array_equal(np.sort(shown), np.arange(total))
