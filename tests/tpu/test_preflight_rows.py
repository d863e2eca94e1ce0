"""Rows of preflight, and what is said of them."""

import dataclasses

import pytest

from tests.tpu.examples import ROW
from tpu.compiler import preflight_rows, table
from tpu.compiler.topology import parse


def test_the_schedule_is_arithmetic():
    got = preflight_rows.scheduled(ROW, mfu=0.5, price=2.0)["schedule"]
    hours = 1000 * 1e15 / (0.5 * 256 * 197e12) / 3600
    assert got == pytest.approx(
        {"mfu": 0.5, "hours": hours, "chip_hours": 256 * hours, "price": 2.0, "cost": 512 * hours}
        | {"images_per_second": 1000 * ROW["batch_size"] / (3600 * hours)}
    )


def test_the_report_says_what_is_asked(capsys):
    preflight_rows.show(preflight_rows.scheduled(ROW, mfu=0.4, price=1.2))
    out = capsys.readouterr().out
    for words in (
        "vit_x fits on v5e:16x16: 256 chips, replica 1, fsdp 256, tensor 1, 4096 images a step, remat full",
        "3.00 GiB of HBM per chip: 1.00 parameters and optimizer, 2.00 temporaries; 13.00 of 16.00 stay free",
        "24 all-gather, 10.00 GB per chip and step (10.00 GB is what FSDP needs), 75% of it beside other work",
        "compute 20.0 ms, HBM traffic 30.0 ms, interconnect 10.0 ms (20.0 GB to and from HBM)",
        "MFU at most 66.0%; bottleneck: HBM traffic",
        "1,000 steps: 0.0 hours at 40% MFU, 4 chip-hours, 4 USD at 1.2 an hour",
        "1,291 images/s and 53 MB/s for each of 64 hosts, at 41 KB an image: more than a bucket gives at once (5,000",
    ):
        assert words in out


def test_one_chip_sends_nothing(capsys):
    row = ROW | {"topology": "v5e:1x1", "chips": 1, "collectives": {}, "collective_bytes": 0, "fsdp_bytes": 0}
    preflight_rows.show(preflight_rows.scheduled(row, mfu=0.4, price=None))
    out = capsys.readouterr().out
    assert "vit_x fits on v5e:1x1: 1 chip, " in out
    assert "sent     nothing\n" in out


def test_no_schedule_is_faster_than_its_bound():
    assert preflight_rows.scheduled(ROW | {"mfu_bound": 0.3}, mfu=0.4, price=None)["schedule"]["mfu"] == 0.3


@pytest.mark.usefixtures("compiler")
def test_what_cannot_run_is_a_row_with_a_reason_and_with_what_the_axes_tell():
    c = table.load("vit_b.py")
    row = preflight_rows.preflight("vit_b", dataclasses.replace(c, batch_size=100), parse("v5e:16x16"))
    assert not row["fits"]
    assert row["why"].startswith("vit_b on v5e:16x16: batch_size=100 is not divisible")
    promised = "config topology chips fits hbm_per_chip_bytes hbm_limit_bytes compile_seconds flops_per_step"
    assert set(f"{promised} collective_bytes mfu_bound binding".split()) <= set(row)
    assert preflight_rows.cells(row)[:6] == ["vit_b", "v5e:16x16", "", "none", "no", ""]
