"""Sides of a comparison that take turns on one device."""

import dataclasses
import time
from collections.abc import Callable, Mapping

LONGEST = 50  # steps of a turn


@dataclasses.dataclass(frozen=True)
class Side:
    """One side of a comparison of training steps.

    Attributes:
      step: begins one step, which may still be running when this returns.
      wait: waits until all steps are done; returns the last loss.
      memory: peak memory in bytes; None if unknown.
      compile_seconds: seconds of compilation, before the first step.
    """

    step: Callable[[], None]
    wait: Callable[[], float]
    memory: Callable[[], int | None]
    compile_seconds: float


def alternate(
    sides: Mapping[str, tuple[Callable[[], None], Callable[[], object]]], repeats: int, turn: float
) -> dict[str, list[float]]:
    """Seconds of a step, `repeats` numbers a side.

    A side's turn is about `turn` seconds of steps of which only the last is waited for, as in training; the step before
    them is not counted.

    Args:
      sides: name -> how a step is begun, and how all are waited for.
    """
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    steps = {}
    for name, (step, wait) in sides.items():
        for _ in range(2):  # the first may still compile or choose kernels
            began = time.perf_counter()
            step()
            wait()
        steps[name] = min(max(round(turn / (time.perf_counter() - began)), 2), LONGEST)
    for _ in range(repeats):
        for name, (step, wait) in sides.items():
            step()
            wait()
            began = time.perf_counter()
            for _ in range(steps[name]):
                step()
            wait()
            seconds[name].append((time.perf_counter() - began) / steps[name])
    return seconds


def out_of_memory(e: BaseException) -> bool:
    """Whether it is JAX's or torch's way to say so."""
    return "RESOURCE_EXHAUSTED" in str(e) or type(e).__name__ == "OutOfMemoryError"
