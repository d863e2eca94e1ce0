"""The least time of a step, from what it must move."""

import dataclasses

import pytest

from tpu.compiler import table
from tpu.compiler.floor import Known, floor
from tpu.compiler.step import fsdp_bytes, train_step_for
from tpu.compiler.topology import parse

pytestmark = pytest.mark.usefixtures("compiler")


def test_nothing_is_faster_than_the_least_that_must_be_done():
    c, place = table.load("vit_b.py"), parse("v6e:16x16")
    whole, dots = (train_step_for(table.Cell("vit_b", place.name, policy).config, place) for policy in ("none", "dots"))
    mesh = dataclasses.replace(c.mesh, replica=4, fsdp=32, tensor=2)
    split = train_step_for(dataclasses.replace(c, mesh=mesh), place)
    links = {"fsdp": (fsdp_bytes(whole), 200e9), "replicas": (2 * 15 / 16 * 2 * 111.6e6 / 16, 200e9)}
    assert floor(whole, place) == pytest.approx(sum(sent / rate for sent, rate in links.values()), rel=0.01)
    # 32 images, 4 sums of bfloat16 over two chips in each block of the encoder and of the decoder, on one link
    sums = 32 * 4 * 2 * (12 * 50 * 768 + 8 * 197 * 512) / 100e9
    assert floor(split, place) == pytest.approx(fsdp_bytes(split) / 300e9 + sums, rel=0.02)
    known = Known(seconds=0.02, state=0.001, tensor=1)
    assert floor(dots, place, known) == pytest.approx(0.019, rel=0.01)
    assert floor(split, place, known) == pytest.approx(0.0095, rel=0.01)
