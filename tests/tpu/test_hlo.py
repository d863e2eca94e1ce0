"""HLO text to computations, buffers and how often each computation runs."""

import pytest

from tests.tpu.programs import LOOP
from tpu.compiler import hlo


def test_every_computation_of_the_control_flow_runs_as_often_as_its_loop_turns():
    runs = {computation.name: times for computation, times in hlo.parse(LOOP).runs()}
    assert runs == {"main": 1, "body": 12, "condition": 12}


def test_the_compilers_own_trip_count_goes_before_the_condition():
    text = LOOP.replace("body=%body", 'body=%body, backend_config={"known_trip_count":{"n":"7"}}')
    assert {c.name: times for c, times in hlo.parse(text).runs()}["body"] == 7


def test_a_loop_that_depends_on_data_counts_once():
    text = LOOP.replace("%limit = s32[] constant(12)", "%limit = s32[] get-tuple-element(%p), index=1")
    assert {c.name: times for c, times in hlo.parse(text).runs()}["body"] == 1


def test_loops_inside_loops_multiply():
    inner = LOOP.split("ENTRY")[0].replace("body", "inner").replace("condition", "inner_condition")
    inner = inner.replace("HloModule step\n", "").replace("fused", "inner_fused").replace("12)", "5)")
    call = "  %nested = (s32[], bf16[64,256]) while(%p), condition=%inner_condition, body=%inner\n"
    header = "%body (p: (s32[], bf16[64,256])) -> (s32[], bf16[64,256]) {\n"
    outer = LOOP.replace(header, header + call)
    text = outer.replace("HloModule step\n", "HloModule step\n" + inner)
    assert {c.name: times for c, times in hlo.parse(text).runs()}["inner"] == 60


def test_of_a_conditional_in_a_loop_one_branch_runs_in_every_turn():
    choice = """
%wide (w: s32[]) -> s32[] {
  ROOT %w = s32[] parameter(0)
}

%thin (t: s32[]) -> s32[] {
  ROOT %t = s32[] parameter(0)
}

%body"""
    call = "  %one_of = s32[] conditional(%n, %n, %n), branch_computations={%wide, %thin}\n"
    text = LOOP.replace("\n%body", choice, 1).replace(
        "  %one = s32[] constant(1)\n", call + "  %one = s32[] constant(1)\n"
    )
    runs = {c.name: times for c, times in hlo.parse(text).runs()}
    assert (runs["body"], runs["wide"], runs["thin"]) == (12, 6, 6)


@pytest.mark.parametrize(
    ("shape", "sizes", "in_hbm"),
    [
        ("f32[3,256]{1,0:T(4,128)}", [3 * 256 * 4], [True]),
        ("bf16[16,5]{1,0:T(8,128)(2,1)S(1)}", [160], [False]),
        ("(pred[8]{0}, s4[8]{0}, f8e4m3fn[8]{0:S(2)}, u32[])", [8, 4, 8, 4], [True, True, False, True]),
        ("token[]", [0], [True]),
    ],
)
def test_buffers_have_bytes_and_a_memory(shape, sizes, in_hbm):
    found = hlo.buffers(shape)
    assert [b.size for b in found] == sizes
    assert [b.in_hbm for b in found] == in_hbm


def test_text_that_is_no_program_is_refused():
    with pytest.raises(ValueError, match="without an ENTRY"):
        hlo.parse("HloModule step\n")
