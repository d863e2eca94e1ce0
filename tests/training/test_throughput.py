"""The definitions of the rates. Nothing here depends on the speed of the machine."""

import time
import types

import jax
import pytest

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


@pytest.mark.parametrize(("kind", "peak"), [("TPU v5 lite", 197e12), ("NVIDIA H100 80GB HBM3", 989e12)])
def test_utilisation_is_of_the_peak_of_the_device(monkeypatch, kind, peak):
    monkeypatch.setattr(jax, "devices", lambda: [types.SimpleNamespace(device_kind=kind)])
    clock = Clock(batch_size=32, flops_per_image=10**12)
    clock.restart(0, 0.0)
    rates = clock.rates(4, 0.0)
    assert rates["mfu"] == pytest.approx(rates["images_per_second_per_device"] * 1e12 / peak)


def test_utilisation_follows_what_the_steps_compute(monkeypatch):
    monkeypatch.setattr(jax, "devices", lambda: [types.SimpleNamespace(device_kind="TPU v5 lite")])
    clock = Clock(batch_size=32, flops_per_image=[(0, 10**12), (10, 3 * 10**12)])
    for first, last, mean in ((0, 10, 1e12), (8, 12, 2e12), (10, 14, 3e12), (4, 12, 1.5e12)):
        clock.restart(first, 0.0)
        rates = clock.rates(last, 0.0)
        assert rates["mfu"] == pytest.approx(rates["images_per_second_per_device"] * mean / 197e12)


def test_a_device_of_an_unknown_kind_has_no_utilisation(monkeypatch):
    monkeypatch.setattr(jax, "devices", lambda: [types.SimpleNamespace(device_kind="NVIDIA L40")])
    assert "mfu" not in Clock(batch_size=1, flops_per_image=1).rates(1, 0.0)
