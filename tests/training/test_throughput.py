"""What the rates mean. Nothing here depends on how fast the machine is."""

import time

import jax
import pytest

from scaling.compute.hardware import peak_flops
from scaling.training.throughput import Clock, memory_bytes


def test_rates_are_consistent_with_each_other():
    clock = Clock(batch_size=32, flops_per_image=10)
    clock.restart(10, 0.0)
    time.sleep(0.02)
    rates = clock.rates(14, waited=0.01)
    assert 0 < rates["images_per_second"] <= 4 * 32 / 0.02
    assert rates["images_per_second_per_device"] == rates["images_per_second"] / jax.device_count()
    assert 0 < rates["data_wait"] <= 0.5
    assert "mfu" not in rates  # no peak is known for these devices


def test_what_is_not_training_counts_for_goodput_only():
    clock = Clock(batch_size=1, flops_per_image=1)
    clock.restart(0, 0.0)
    with clock.overhead():
        time.sleep(0.2)
    rates = clock.rates(1, 0.0)
    assert rates["images_per_second"] > 1 / 0.2
    assert rates["goodput"] < 0.5


def test_a_new_row_forgets_the_one_before():
    clock = Clock(batch_size=8, flops_per_image=1)
    clock.restart(0, 0.0)
    clock.restart(5, 3.0)
    rates = clock.rates(5, 3.0)
    assert rates["images_per_second"] == 0
    assert rates["data_wait"] == 0


def test_memory_is_that_of_this_process_on_cpus():
    assert 2**26 < memory_bytes() < 2**40


@pytest.mark.parametrize(
    ("kind", "peak"), [("TPU v5 lite", 197e12), ("TPU v5p", 459e12), ("TPU v5", 459e12), ("cpu", None)]
)
def test_the_longest_name_that_fits_gives_the_peak(kind, peak):
    assert peak_flops(kind) == peak
