"""One global order: every epoch a permutation, nothing held out is ever trained on."""

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
