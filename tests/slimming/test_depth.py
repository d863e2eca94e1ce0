"""Rules that choose blocks, on matrices whose scores are known by hand."""

import numpy as np
import pytest

from scaling.core.errors import UserError
from scaling.slimming.depth import RULES, States, check_blocks, interval, shortgpt, simpler, suffix_scores, variation


def framed(states):
    """Adds a state 0 that resembles none of the others."""
    return np.pad(states, ((1, 0), (1, 0)), constant_values=0.1)


def groups(first, second, across=0.3):
    s = np.full((first + second, first + second), across)
    s[:first, :first] = s[first:, first:] = 1
    return s


def drift(steps):
    t = np.cumsum(steps)
    return np.exp(-np.abs(t[:, None] - t))


def test_the_variation_is_the_mean_difference_of_consecutive_rows():
    s = np.array([[1.0, 0.5, 0.2], [0.5, 1.0, 0.4], [0.2, 0.4, 1.0]])
    assert variation(s) == pytest.approx((0.5 + 0.5 + 0.2 + 0.3 + 0.6 + 0.6) / 6)
    assert variation(np.ones((4, 4))) == 0


def test_a_jump_is_passed_by_one_block():
    """Both parts are constant at the jump itself; one behind it the first is [[1] * 5 and 0.3], the second constant."""
    kept, g = suffix_scores(groups(5, 7))
    assert kept == tuple(range(2, 11))
    by_cut = dict(zip(kept, g, strict=True))
    assert by_cut[5] == 0
    assert by_cut[6] == pytest.approx(0.7 * 6 / (5 * 6))  # one of five row differences, in all of its six places
    assert by_cut[7] == pytest.approx(0.7 * 7 / (6 * 7))
    assert by_cut[4] == pytest.approx(-0.7 * 8 / (7 * 8))
    assert simpler(framed(groups(5, 7))).keep == tuple(range(6))


@pytest.mark.parametrize("steps", [np.full(12, 0.2), 1 / np.arange(1, 13)], ids=["uniform", "largest at first"])
def test_smooth_drift_collapses_to_two_blocks(steps):
    assert simpler(framed(drift(steps))).keep == (0, 1)


def test_without_any_difference_as_many_stay_as_can():
    decision = simpler(framed(np.ones((9, 9))))
    assert decision.keep == tuple(range(7))
    np.testing.assert_array_equal(decision.scores, 0)


def test_the_input_may_be_a_state_of_its_own():
    s = framed(groups(5, 7))
    with_input = simpler(s, with_input=True)
    assert with_input.candidates == tuple(range(1, 11))
    kept, scores = suffix_scores(s)
    assert [c - 1 for c in kept] == list(with_input.candidates)
    np.testing.assert_array_equal(scores, with_input.scores)


def test_blocks_that_turn_little_go_wherever_they_are():
    between = np.array([0.2, 0.9, 0.5, 0.99, 0.4])  # cosines of consecutive states
    cosine = np.ones((6, 6))
    for i, x in enumerate(between):
        cosine[i, i + 1] = cosine[i + 1, i] = x
    decision = shortgpt(cosine, 3)
    assert decision.keep == (0, 2, 4)
    np.testing.assert_allclose(decision.scores, 1 - between)
    assert shortgpt(np.ones((6, 6)), 2).keep == (0, 1)


def test_the_interval_of_least_distance_goes():
    distance = 1 - drift([1, 1, 0.1, 0.1, 1, 1])  # six states, five blocks
    decision = interval(distance, 3, "angular")
    assert decision.candidates == (0, 1, 2, 3)
    np.testing.assert_allclose(decision.scores, [distance[i, i + 2] for i in range(4)])
    assert decision.keep == (0, 3, 4)
    assert interval(np.zeros((6, 6)), 3, "angular").keep == (0, 1, 2)  # of equal ones the last


@pytest.mark.parametrize("rule", [name for name in RULES if name != "simpler"])
@pytest.mark.parametrize("blocks", [0, 5, 6, -1])
def test_how_many_stay_must_be_said(rule, blocks):
    states = States(*(drift(np.ones(6)) for _ in range(3)))
    with pytest.raises(
        UserError, match=rf"blocks={blocks}: must be the number of blocks that {rule} keeps, from 1 to 4 of 5"
    ):
        RULES[rule](states, blocks, False)


def test_three_blocks_are_too_few_to_be_divided():
    with pytest.raises(UserError, match="rule=simpler: needs at least four states, but the encoder has 3"):
        simpler(np.eye(4))


@pytest.mark.parametrize(
    ("blocks", "message"),
    [
        ([], "--keep is empty"),
        ([0, 3], "there is no block 3; the encoder has 0 to 2"),
        ([1, 0], "once, in increasing order"),
        ([1, 1], "once, in increasing order"),
    ],
)
def test_blocks_that_cannot_stay(blocks, message):
    with pytest.raises(UserError, match=message):
        check_blocks(blocks, 3)
