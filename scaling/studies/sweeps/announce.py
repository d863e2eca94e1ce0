"""The summary printed before a sweep starts."""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from rich import box
from rich.table import Column, Table

from scaling.core.console import console
from scaling.core.rows import Row
from scaling.studies.sweeps.plan import PlannedRun
from scaling.training.throughput import timed


def show(
    study: str, chosen: Sequence[PlannedRun], states: Mapping[str, str], todo: Sequence[PlannedRun], rows: Sequence[Row]
) -> None:
    """Prints the selected runs and the cost of those still to be trained.

    Args:
      study: name of the sweep.
      chosen, todo: selected runs, and those of them still to be trained.
      states: state of every run, by name.
      rows: rows of the finished runs.
    """
    rate, why = operations_per_second(rows)
    numbers = ("embed", "layers", "params", "images", "TFLOP", "minutes")
    columns = [Column(name, justify="right", no_wrap=True) for name in numbers]
    table = Table(Column("run", overflow="fold"), *columns, Column("", no_wrap=True), box=box.SIMPLE_HEAD)
    for run in chosen:
        r = run.row
        minutes = f"{r.train_flops / rate / 60:,.1f}"
        cells = (r.embed, r.layers, f"{r.params:,}", f"{r.samples_seen:,}", f"{r.train_flops / 1e12:,.1f}", minutes)
        table.add_row(run.name, *map(str, cells), states[run.name])
    operations = sum(run.row.train_flops for run in todo)
    out = console()
    out.print(table)
    out.print(
        f"{study}: {len(chosen)} run{'s' * (len(chosen) != 1)}, {len(todo)} to train: {operations / 1e12:,.1f} TFLOP "
        f"(full convention), {operations / rate / 60:,.1f} minutes {why}; compiling and evaluating come on top"
    )


def operations_per_second(rows: Sequence[Row]) -> tuple[float, str]:
    """Expected operations per second of this machine, and the basis of the estimate: finished runs, else a matrix
    product.
    """
    rates = [row.train_flops / row.value for row in rows if row.metric == "train_seconds" and row.value]
    if rates:
        return float(np.median(rates)), f"as fast as the {len(rates)} finished runs"
    size = 1024
    x = jnp.ones((size, size), jnp.float32 if jax.default_backend() == "cpu" else jnp.bfloat16)
    product = jax.jit(jnp.matmul)
    seconds = timed(lambda: product(x, x).block_until_ready())
    return 0.3 * 2 * size**3 * jax.device_count() / seconds, "at 30 % of the rate of a matrix product here"
