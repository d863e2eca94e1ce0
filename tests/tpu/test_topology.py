"""Slices by name, the links between their chips, and the compiler's figures on memory."""

import math

import pytest

from scaling.core.errors import UserError
from tpu.compiler.topology import CHIPS, memory_figures, parse


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("v9:2x2", "must begin with one of v4, v5e, v5p, v6e, tpu7x"),
        ("v5e", "the shapes of v5e are 1x1, 2x2, 2x4"),
        ("v5e:3x5", "the shapes of v5e are 1x1, 2x2, 2x4"),
        ("v5p:16x16", "the shapes of v5p are 2x2x1, 2x2x2"),
    ],
)
def test_a_wrong_slice_lists_the_right_ones(name, message):
    with pytest.raises(UserError, match=message):
        parse(name)


@pytest.mark.usefixtures("compiler")
@pytest.mark.parametrize("chip", CHIPS)
def test_every_slice_of_the_table_is_known_to_the_compiler(chip):
    for shape in CHIPS[chip].shapes[:5]:
        place = parse(f"{chip}:{shape}")
        assert len(place.devices) == place.chips * CHIPS[chip].per_chip
        assert place.devices[0].device_kind == CHIPS[chip].kind
        assert place.peak > 1e14


@pytest.mark.usefixtures("compiler")
@pytest.mark.parametrize(
    ("name", "group", "links"),
    [
        ("v5e:16x16", range(256), 4),  # two closed rings
        ("v5e:16x16", range(16), 2),
        ("v5e:8x8", range(64), 2),  # open lines: one link at each end
        ("v5p:4x4x8", range(128), 6),
        ("v4:2x2x1", range(4), 2),
        ("v4:2x2x4", range(16), 3),  # below a cube of 4x4x4 nothing is closed
        ("v5p:2x4x4", range(32), 3),
    ],
)
def test_bandwidth_is_that_of_the_links_a_group_can_use(name, group, links):
    place = parse(name)
    assert place.ici_bandwidth([place.devices[i] for i in group]) == links * place.chip.ici_bandwidth / place.chip.ports


@pytest.mark.parametrize(
    ("name", "wrap", "twisted"),
    [
        ("v4:4x4x8", (True, True, True), False),
        ("v4:2x2x4", (False, False, False), False),
        ("v5p:4x4x4", (True, True, True), False),
        ("v5p:4x4x8", (True, True, True), True),  # as the Cloud TPU API gives it
        ("v5p:4x4x8_untwisted", (True, True, True), False),
        ("v5p:4x8x8", (True, True, True), True),
        ("v5p:4x4x12", (True, True, True), False),
        ("v5p:2x4x4", (False, False, False), False),
        ("v5e:16x16", (True, True, False), False),
        ("v6e:8x16", (False, True, False), False),
        ("v5e:8x8", (False, False, False), False),
        ("tpu7x:4x4x8", (True, True, True), False),
    ],
)
def test_rings_are_where_the_machine_has_them(name, wrap, twisted):
    """The rule of Google's pages, and for these shapes the tables of AI-Hypercomputer/maxtext (#790)."""
    assert (parse(name).wrap, parse(name).twisted) == (wrap, twisted)


def test_what_is_never_twisted_cannot_be_untwisted():
    with pytest.raises(UserError, match="v5p:4x4x4_untwisted: that torus is never twisted; give v5p:4x4x4"):
        parse("v5p:4x4x4_untwisted")


@pytest.mark.usefixtures("compiler")
def test_the_two_halves_of_a_chip_need_no_link():
    place = parse("tpu7x:2x2x1")
    assert math.isinf(place.ici_bandwidth(place.devices[:2]))


@pytest.mark.usefixtures("compiler")
@pytest.mark.parametrize("shape", ["1x1", "2x2"])
def test_the_compiler_tells_how_much_memory_there_is(shape):
    assert parse(f"v5e:{shape}").hbm_limit == 15.75 * 2**30


@pytest.mark.parametrize(
    ("message", "figures"),
    [
        (
            "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO temporaries (22.68G) "
            "exceeds available HBM (15.75G).",
            (22.68, 15.75, "hbm"),
        ),
        (
            "XLA: Ran out of memory in memory space hbm. Used 40.50G of 31.25G hbm. Exceeded by 9.25G.",
            (40.5, 31.25, "hbm"),
        ),
        (
            "XLA: Ran out of memory in memory space vmem. Used 16.46M of 16.00M vmem. Exceeded by 476.0K.",
            (16.46 / 1024, 16 / 1024, "vmem"),
        ),
    ],
    ids=["HBM, in words", "HBM", "VMEM"],
)
def test_memory_figures_are_read_from_the_compilers_message(message, figures):
    needed, limit, space = figures
    assert memory_figures(message) == (round(needed * 2**30), round(limit * 2**30), space)


def test_another_message_is_no_memory_message():
    with pytest.raises(ValueError, match="no memory figures"):
        memory_figures("INTERNAL: 3 of 4 things failed")
