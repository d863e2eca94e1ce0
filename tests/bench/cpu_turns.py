"""Sides of a comparison that take turns on a CPU: wall and processor seconds of a step, as a table."""

import statistics
import time
from collections.abc import Callable

import jax

Step = Callable[[], float]

COUNTED = 2  # steps of a turn


def seconds(function: Callable[..., object], *arguments: object) -> float:
    """Seconds of a call until its result is available."""
    began = time.perf_counter()
    jax.block_until_ready(function(*arguments))
    return time.perf_counter() - began


def alternate(sides: dict[str, Step], repeats: int) -> dict[str, list[tuple[float, float]]]:
    """(wall, processor) seconds of the steps that count; sides take turns."""
    seconds: dict[str, list[tuple[float, float]]] = {side: [] for side in sides}
    for _ in range(repeats):
        for side, step in sides.items():
            step()
            for _ in range(COUNTED):
                wall, cpu = time.perf_counter(), time.process_time()
                step()
                seconds[side].append((time.perf_counter() - wall, time.process_time() - cpu))
    return seconds


def table(seconds: dict[str, list[tuple[float, float]]], batch: int) -> None:
    """One row per side: seconds a step and images a second, and how often torch's rate that is."""
    print(f"{'':8}{'wall s: median':>15}{'min':>8}{'cpu s: median':>15}{'min':>8}{'images/s':>10}{'per cpu s':>11}")
    for side, pairs in seconds.items():
        wall, cpu = zip(*pairs, strict=True)
        medians = statistics.median(wall), statistics.median(cpu)
        print(
            f"{side:8}{medians[0]:15.3f}{min(wall):8.3f}{medians[1]:15.3f}{min(cpu):8.3f}"
            f"{batch / medians[0]:10.2f}{batch / medians[1]:11.2f}"
        )
    ours, theirs = (list(zip(*seconds[side], strict=True)) for side in ("ours", "torch"))
    for what, pick in (("median", statistics.median), ("min", min)):
        wall, cpu = (pick(t) / pick(o) for t, o in zip(theirs, ours, strict=True))
        print(f"images/s, ours / torch, by {what}: {wall:.2f} (wall), {cpu:.2f} (processor)")
