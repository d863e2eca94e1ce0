"""The time of a step by the peaks of the chips, and the operations that remat repeats."""

import dataclasses

import pytest

from tpu.compiler import table
from tpu.compiler.roofline import recomputed_flops, roofline
from tpu.compiler.step import train_step_for
from tpu.compiler.topology import parse

pytestmark = pytest.mark.usefixtures("compiler")


def test_the_roofline_takes_the_longest_of_three_times():
    c, place = table.load("vit_b.py"), parse("v5e:16x16")
    train_step = train_step_for(c, place)
    fast, slow = (roofline(train_step, [], traffic, place) for traffic in (0, 819 * 10**9))
    assert (fast.binding, slow.binding, slow.hbm) == ("compute", "hbm", 1.0)
    assert fast.mfu_bound == pytest.approx(fast.flops / fast.executed)
    assert slow.mfu_bound == pytest.approx(slow.flops / place.peak)


def test_full_remat_repeats_the_blocks_but_their_last_product_and_dots_the_attention_products():
    c, place = table.load("vit_b.py"), parse("v5e:16x16")
    none, dots, full = (
        train_step_for(dataclasses.replace(c, model=dataclasses.replace(c.model, remat=policy)), place)
        for policy in ("none", "dots", "full")
    )
    forward = roofline(none, [], 0, place).flops / c.batch_size / 3
    assert recomputed_flops(none) == 0
    encoder, decoder = 12 * 2 * 2 * 50**2 * 768, 8 * 2 * 2 * 197**2 * 512  # layers, products, 2, tokens^2, width
    assert recomputed_flops(dots) == encoder + decoder
    assert 0.6 * forward < recomputed_flops(full) < 0.7 * forward  # 8 of the 12 d^2, and attention
