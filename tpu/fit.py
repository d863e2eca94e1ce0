"""Searches the fastest way to run a config on a slice that fits, without changing what it computes.

The global batch is part of the experiment and stays. Searched are the remat policy and the images a chip holds at once,
through `accumulate`: both change memory and speed, neither changes the gradients beyond rounding.
"""

import dataclasses
from collections.abc import Callable

from scaling.errors import UserError
from scaling.parallel.mesh import check_batch, make_mesh
from scaling.training.config import TrainConfig
from tpu.report import Row
from tpu.topology import Topology

POLICIES = ("none", "dots", "full")  # from the fewest operations and the most memory to the reverse


def fit(c: TrainConfig, topology: Topology, attempt: Callable[[TrainConfig], Row]) -> tuple[TrainConfig, list[Row]]:
    """The variant with the shortest step by its roofline among those that fit.

    Each policy is tried with ever fewer images at once until it fits. Once one fits with a whole batch, those that
    repeat more are not tried: they save memory that is not needed.

    Args:
      c, topology: what is to run where.
      attempt: compiles a variant, `tpu.report.preflight` with its name and topology given.

    Returns:
      The best variant, and a row for every one that was compiled.

    Raises:
      UserError: none fits.
    """
    tried: list[tuple[TrainConfig, Row]] = []
    for policy in POLICIES:
        for accumulate in _accumulations(c, topology):
            variant = dataclasses.replace(c, accumulate=accumulate, model=dataclasses.replace(c.model, remat=policy))
            row = attempt(variant)
            tried.append((variant, row))
            if row["fits"]:
                break
        if tried[-1][1]["fits"] and tried[-1][1]["accumulate"] == 1:
            break
    fitting = [(max(row["seconds"].values()), i) for i, (_, row) in enumerate(tried) if row["fits"]]
    if not fitting:
        raise UserError(f"nothing fits on {topology.name}, not even one image per chip with remat full: take more")
    return tried[min(fitting)[1]][0], [row for _, row in tried]


def _accumulations(c: TrainConfig, topology: Topology) -> list[int]:
    """1, 2, 4, ... as long as every chip still gets whole images."""
    mesh = make_mesh(c.mesh, topology.devices)
    check_batch(c.batch_size, mesh)
    per_chip = c.batch_size // (mesh.shape["replica"] * mesh.shape["fsdp"])
    return [n for n in (2**i for i in range(per_chip.bit_length())) if per_chip % n == 0]


def overrides(c: TrainConfig) -> str:
    """The flags of `scaling.train` for what was searched."""
    return f"--config.model.remat={c.model.remat} --config.accumulate={c.accumulate}"
