"""Bytes to and from HBM: on-chip arrays are free, and a slice costs only what it reads."""

from tests.tpu.programs import LOOP
from tpu.compiler import hlo
from tpu.compiler.traffic import hbm_bytes

KERNEL = 64 * 256 * 2


def test_a_step_by_hand():
    turn = (
        16 * 256 * 4 + 4  # one layer of the stack is read, and the counter; the narrow copy stays on the chip
        + KERNEL  # the gathered kernel is written once, however many fusions it passes
        + KERNEL  # the reduce-scatter reads it and keeps its part on the chip
        + 12  # counter and constant are read, the sum is written
    )  # fmt: skip
    condition = 4 + 4 + 1
    init = 400 + 4 + KERNEL + 12 * 16 * 256 * 4
    outside = 2 * 400 + 2 * 400  # the all-reduce, the permutation
    assert hbm_bytes(hlo.parse(LOOP)) == 12 * (turn + condition) + init + outside


def program(*fusion: str, result: str) -> int:
    body = "\n  ".join(fusion)
    text = f"""HloModule step

%fused (stack: f32[10,128], x: f32[128], i: s32[]) -> f32[128] {{
  %stack = f32[10,128]{{1,0}} parameter(0)
  %x = f32[128]{{0:S(1)}} parameter(1)
  %i = s32[]{{:S(6)}} parameter(2)
  {body}
}}

ENTRY %main (a: f32[10,128], b: f32[128], c: s32[]) -> f32[128] {{
  %a = f32[10,128]{{1,0}} parameter(0)
  %b = f32[128]{{0:S(1)}} parameter(1)
  %c = s32[]{{:S(6)}} parameter(2)
  ROOT %out = {result} fusion(%a, %b, %c), kind=kLoop, calls=%fused
}}
"""
    return hbm_bytes(hlo.parse(text))


def test_an_update_in_place_writes_its_part():
    update = "ROOT %u = f32[10,128]{1,0} dynamic-update-slice(%stack, %row, %i, %i)"
    row = "%row = f32[1,128]{1,0} bitcast(%x)"
    assert program(row, update, result="f32[10,128]{1,0}") == 128 * 4


def test_a_parameter_that_is_also_used_whole_is_read_whole():
    part = "%part = f32[1,128]{1,0} dynamic-slice(%stack, %i, %i)"
    whole = "%sum = f32[128]{0} reduce(%stack, %x)"
    out = "ROOT %out2 = (f32[1,128]{1,0}, f32[128]{0:S(1)}) tuple(%part, %sum)"
    assert program(part, whole, out, result="(f32[1,128]{1,0}, f32[128]{0:S(1)})") == 10 * 128 * 4 + 128 * 4


def test_what_is_handed_through_costs_nothing():
    out = "ROOT %out2 = (f32[10,128]{1,0}, f32[128]{0:S(1)}) tuple(%stack, %x)"
    assert program(out, result="(f32[10,128]{1,0}, f32[128]{0:S(1)})") == 0
