"""From a width to a plan."""

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scaling.core.errors import UserError
from scaling.slimming.widths import PUBLISHED_WIDTHS, keep, mode_axes, mode_plan, width_plan

SIZES = {"layers": 12, "branch": 4, "embed": 768, "heads": 12, "head_dim": 64, "mlp": 3072, "decoder/mlp": 2048}


@given(st.sampled_from(PUBLISHED_WIDTHS), st.integers(1, 20_000))
def test_the_published_rule_in_exact_arithmetic(width, size):
    assert keep(size, width) == max(1, math.floor(Fraction(str(width)) * size))


@pytest.mark.parametrize(
    ("size", "width", "kept"), [(100, 0.29, 29), (3, 1 / 3, 1), (10, 0.1 + 0.2, 3), (64, 0.001, 1)]
)
def test_rounding_of_floats_never_costs_a_unit(size, width, kept):
    assert keep(size, width) == kept


def test_the_published_widths():
    assert len(PUBLISHED_WIDTHS) == len(set(PUBLISHED_WIDTHS)) == 31
    assert list(PUBLISHED_WIDTHS) == sorted(PUBLISHED_WIDTHS)
    # a head size of 64 and a hidden width of 1536 leave 30 different networks (slimming of a ViT-S)
    assert len({tuple(mode_plan({"head_dim": 64, "mlp": 1536}, s).items()) for s in PUBLISHED_WIDTHS}) == 30


@pytest.mark.parametrize(
    ("mode", "plan"),
    [
        ("inner", {"head_dim": 6, "mlp": 307}),
        ("token", {"head_dim": 6, "mlp": 307, "embed": 76}),
        ("heads", {"heads": 1}),
        ("branch", {"branch": 1}),
        ("heads+mlp", {"heads": 1, "mlp": 307}),
    ],
)
def test_what_each_mode_keeps_at_a_tenth(mode, plan):
    assert mode_plan(SIZES, 0.1, mode) == plan


def test_every_axis_can_have_a_width_of_its_own():
    assert width_plan(SIZES, {"heads": 0.5, "mlp": 0.25, "embed": 1.0}) == {"heads": 6, "mlp": 768, "embed": 768}


@pytest.mark.parametrize("width", [0.0, -0.1, 1.5, math.nan])
def test_widths_lie_between_0_and_1(width):
    with pytest.raises(UserError, match=f"width_ratio={width}: must be above 0 and at most 1"):
        mode_plan(SIZES, width)


def test_a_mode_that_cannot_cut_is_refused():
    with pytest.raises(
        UserError, match="unknown slimming mode 'depth'; the modes are inner, token, heads, branch, or a"
    ):
        mode_axes("depth")
    with pytest.raises(UserError, match="the network has one branch, which cannot be cut; choose"):
        mode_plan(SIZES | {"branch": 1}, 0.5, "branch")
    assert mode_plan(SIZES | {"branch": 1}, 1.0, "branch") == {"branch": 1}
