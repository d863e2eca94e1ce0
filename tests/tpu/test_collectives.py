"""Every collective of a program once, in every disguise, with the bytes a chip sends."""

import pytest

from tests.tpu.programs import LOOP
from tpu.compiler import hlo
from tpu.compiler.collectives import collectives, first_group, totals

KERNEL, PART = 64 * 256 * 2, 16 * 256 * 2


@pytest.fixture(scope="module")
def found():
    return collectives(hlo.parse(LOOP), devices=8)


def of(found, kind):
    return [c for c in found if c.kind == kind]


def test_a_chain_over_several_fusions_is_one_gather_in_every_turn(found):
    chain, alone = of(found, "all-gather")
    assert (chain.times, chain.bytes, chain.group, chain.overlaps) == (12, KERNEL * 3 // 4, (0, 1, 2, 3), True)
    assert (alone.times, alone.bytes, alone.group, alone.overlaps) == (12, PART, (0, 4), False)


def test_an_all_reduce_whose_parts_are_kept_is_a_reduce_scatter(found):
    (scatter,) = of(found, "reduce-scatter")
    assert (scatter.times, scatter.bytes, scatter.group) == (12, KERNEL * 3 // 4, (0, 1, 2, 3))


def test_start_and_done_are_one_and_an_all_reduce_sends_twice(found):
    (reduce,) = of(found, "all-reduce")
    assert (reduce.times, reduce.bytes, reduce.group, reduce.overlaps) == (1, 2 * 400 * 7 // 8, tuple(range(8)), True)


def test_a_permutation_sends_what_it_holds(found):
    (permutation,) = of(found, "collective-permute")
    assert (permutation.bytes, permutation.group) == (400, (0, 5))


def test_totals_are_of_the_whole_step(found):
    assert totals(found) == {
        "all-gather": {"count": 24, "bytes": 12 * (KERNEL * 3 // 4 + PART)},
        "reduce-scatter": {"count": 12, "bytes": 12 * KERNEL * 3 // 4},
        "all-reduce": {"count": 1, "bytes": 700},
        "collective-permute": {"count": 1, "bytes": 400},
    }


def test_a_scatter_of_its_own_counts_what_goes_in():
    text = LOOP.replace("all-reduce-start(%x0)", "all-to-all-start(%x0)").replace("all-reduce-done", "all-to-all-done")
    assert of(collectives(hlo.parse(text), 8), "all-to-all")[0].bytes == 400 * 7 // 8


@pytest.mark.parametrize(
    ("written", "group"),
    [
        ("replica_groups={{0,3},{1,2}}", (0, 3)),
        ("replica_groups=[2,4]<=[8]", (0, 1, 2, 3)),
        ("replica_groups=[4,2]<=[2,4]T(1,0)", (0, 4)),
        ("replica_groups=mesh['a'=2,'b'=4] {'a'}", (0, 4)),
        ("replica_groups=mesh['a'=2,'b'=4] {'a','b'}", tuple(range(8))),
        ("replica_groups=mesh['a'=8] {'a':(1)2}", (0, 4)),
        ("replica_groups=mesh['a'=8] {'a':(2)2}", (0, 2)),
        ("replica_groups=mesh['a'=4,'b'=2], device_ids=([2,4]T(1,0)) {'a'}", (0, 1, 2, 3)),
        ("replica_groups=mesh['a'=4,'b'=2], device_ids=([2,4]T(1,0)) {'b'}", (0, 4)),
        ("replica_groups=mesh['a'=2,'b'=4], device_ids=(0,2,4,6,1,3,5,7) {'b'}", (0, 2, 4, 6)),
        ("replica_groups={}", tuple(range(8))),
    ],
)
def test_groups_in_every_notation(written, group):
    assert first_group(f"channel_id=1, {written}, dimensions={{0}}", 8) == group


def test_groups_in_an_unknown_notation_are_not_taken_for_all_devices():
    with pytest.raises(ValueError, match="in no known notation"):
        first_group("channel_id=1, replica_groups=grid(2,4), dimensions={0}", 8)
