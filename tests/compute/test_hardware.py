"""The one table of chips."""

import ast
from pathlib import Path

import pytest

from scaling.compute.hardware import CHIPS, peak_flops
from tpu.compiler import topology

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("kind", "peak"),
    [
        ("TPU v5 lite", 197e12),
        ("TPU v5p", 459e12),
        ("TPU v5", 459e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA H200", 989e12),
        ("NVIDIA H200 NVL", 835e12),
        ("NVIDIA L4", 121e12),
        ("NVIDIA L40S", 362e12),
    ],
)
def test_a_device_has_the_peak_of_its_own_name(kind, peak):
    assert peak_flops(kind) == peak


@pytest.mark.parametrize(
    "kind",
    [
        *("cpu", "", "TPU v4 lite", "TPU v9", "NVIDIA H100", "NVIDIA L40", "NVIDIA GeForce RTX 4090 Laptop GPU"),
        *("NVIDIA A100-SXM4-40GB MIG 3g.20gb", "NVIDIA A100-SXM-64GB", "NVIDIA H20"),
    ],
)
def test_what_is_like_a_chip_of_the_table_is_not_taken_for_it(kind):
    assert peak_flops(kind) is None


@pytest.mark.parametrize(("kind", "chip"), CHIPS.items())
def test_figures_are_in_their_units(kind, chip):
    assert 2e13 < chip.peak_flops < 1e16
    assert 8 <= chip.memory / 2**30 <= 300
    assert 1e11 < chip.bandwidth < 1e13
    assert 60 < chip.peak_flops / chip.bandwidth < 600  # operations per byte: neither is off by ten


def test_slices_of_tpu_have_their_figures_in_the_table():
    assert {chip.kind for chip in topology.CHIPS.values()} <= set(CHIPS)
    assert topology.CHIPS["v5e"].hbm_bandwidth == 819e9
    assert topology.parse("v5e:2x2").peak == 4 * 197e12
    assert topology.parse("tpu7x:2x2x1").peak == 8 * 1153.5e12


def test_no_other_file_has_a_rate_of_a_chip():
    rates = {rate for chip in CHIPS.values() for rate in (chip.peak_flops, chip.bandwidth) if rate > 6e11}
    for folder in ("scaling", "tpu"):  # at most 600 GB/s join two chips, in `tpu.compiler.topology`
        for path in (ROOT / folder).rglob("*.py"):
            numbers = {x.value for x in ast.walk(ast.parse(path.read_text())) if isinstance(x, ast.Constant)}
            assert not {x for x in numbers if isinstance(x, float)} & rates, path
