"""Rates: images per second, utilisation, waiting for data, goodput, memory."""

import contextlib
import resource
import time
from collections.abc import Callable, Iterator, Sequence

import jax

from scaling.compute.hardware import peak_flops


class Clock:
    """Measures rates between two rows of metrics, excluding compilation, evaluation and saving.

    Args:
      batch_size: images per step, over all devices.
      flops_per_image: operations in a training step, `full` convention; if they change over a run, pairs of a step and
        the operations of one image in each step after it.
    """

    def __init__(self, batch_size: int, flops_per_image: int | Sequence[tuple[int, int]]):
        self._batch_size = batch_size
        self._flops = ((0, flops_per_image),) if isinstance(flops_per_image, int) else tuple(flops_per_image)
        self._peak = peak_flops(jax.devices()[0].device_kind)
        self._began = self._row_began = time.perf_counter()
        self._overhead = self._row_overhead = self._row_waited = 0.0
        self._row_step = 0

    @contextlib.contextmanager
    def overhead(self) -> Iterator[None]:
        """Context whose time does not count as training."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self._overhead += time.perf_counter() - began

    def restart(self, step: int, waited: float) -> None:
        """Begins a new row behind `step`; `waited` are the seconds spent waiting for data so far."""
        self._row_step, self._row_began = step, time.perf_counter()
        self._row_overhead, self._row_waited = self._overhead, waited

    def rates(self, step: int, waited: float) -> dict[str, float]:
        """The rates since `restart`: images per second, shares of one, and GiB; `elapsed` is the seconds since the
        start.
        """
        now = time.perf_counter()
        seconds = max(now - self._row_began - (self._overhead - self._row_overhead), 1e-9)
        per_second = (step - self._row_step) * self._batch_size / seconds
        per_device = per_second / jax.device_count()
        rates = {
            "images_per_second": per_second,
            "images_per_second_per_device": per_device,
            "data_wait": min((waited - self._row_waited) / seconds, 1.0),
            "goodput": 1 - self._overhead / (now - self._began),
            "memory_gib": memory_bytes() / 2**30,
            "elapsed": now - self._began,
        }
        if self._peak:
            rates["mfu"] = per_device * self._flops_per_image(step) / self._peak
        return rates

    def _flops_per_image(self, step: int) -> float:
        """The mean over the steps since `restart`."""
        begins, flops = zip(*self._flops, strict=True)
        ends = (*begins[1:], max(step, begins[-1]))
        steps = [max(min(step, end) - max(self._row_step, begin), 0) for begin, end in zip(begins, ends, strict=True)]
        return sum(n * each for n, each in zip(steps, flops, strict=True)) / max(sum(steps), 1)


def memory_bytes() -> int:
    """Peak memory of the fullest local device; on CPUs, of this process."""
    stats = [device.memory_stats() or {} for device in jax.local_devices()]
    peaks = [s["peak_bytes_in_use"] for s in stats if "peak_bytes_in_use" in s]
    return max(peaks, default=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)


def timed(function: Callable[[], object], repeats: int = 5) -> float:
    """Seconds of the fastest of several calls, after one that compiles."""
    function()
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - began)
    return min(seconds)
