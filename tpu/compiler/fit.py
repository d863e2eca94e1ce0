"""Searches for the fastest variant of a config that fits a slice, or for the smallest slice that it fits.

The global batch is part of the experiment and is not changed. The search varies the remat policy, the images that a
chip holds at once (through `accumulate`) and, if more than the matrix products binds, the mesh: all change memory and
speed, and gradients only by rounding.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator

from scaling.core.errors import UserError
from scaling.parallel.mesh import MESH_AXES, check_batch, mesh_shape
from tpu.compiler.preflight_rows import PreflightRow
from tpu.compiler.step import Config, state_bytes, train_step_for
from tpu.compiler.topology import CHIPS, Topology, parse

POLICIES = ("none", "dots", "full")  # from the fewest operations and the most memory to the reverse
Attempt = Callable[[Config, Topology], PreflightRow]


Tried = tuple[Config, PreflightRow]


def fastest(c: Config, place: Topology, attempt: Attempt) -> tuple[Config, list[PreflightRow]]:
    """The variant with the shortest step by its roofline among those that fit.

    Each policy is tried with fewer and fewer images at once until it fits. Once one fits with a whole batch, policies
    that recompute more are skipped: they would save memory that is not needed. From the fastest of these, halved fsdp
    is tried with twice the replicas, and with heads and hidden units over twice the chips, as long as that is faster
    and links or memory bind.

    Args:
      c, place: the config and the slice.
      attempt: compiles a variant, `tpu.compiler.preflight_rows.preflight` with its name given.

    Returns:
      The best variant, and a row for every compiled one.

    Raises:
      UserError: no variant fits.
    """
    tried: list[Tried] = []
    for policy in POLICIES:
        variant = dataclasses.replace(c, model=dataclasses.replace(c.model, remat=policy))
        tried += _until_it_fits(variant, place, attempt)
        if tried and tried[-1][1]["fits"] and tried[-1][1]["accumulate"] == 1:
            break
    if not any(row["fits"] for _, row in tried):
        raise UserError(
            f"nothing fits on {place.name}, not even one image per chip with remat full; choose a larger slice"
        )
    best = before = _quickest(tried)
    while best[1]["binding"] != "compute":
        for variant in _other_meshes(best[0], place):
            tried += _until_it_fits(variant, place, attempt)
        best = _quickest(tried)
        if best is before:
            break
        before = best
    return best[0], [row for _, row in tried]


def _quickest(tried: list[Tried]) -> Tried:
    """The first with the shortest step."""
    return min((x for x in tried if x[1]["fits"]), key=lambda x: max(x[1]["seconds"].values()))


def _other_meshes(c: Config, place: Topology) -> Iterator[Config]:
    """Half the parts that parameters are split into, for twice the replicas or twice the parts of a layer's width."""
    replica, fsdp, tensor = mesh_shape(c.mesh, len(place.devices))
    if fsdp % 2:
        return
    yield _with_mesh(c, 2 * replica, fsdp // 2, tensor)
    if c.model.heads * c.model.branches % (2 * tensor) == 0:
        yield _with_mesh(c, replica, fsdp // 2, 2 * tensor)


def _with_mesh(c: Config, replica: int, fsdp: int, tensor: int) -> Config:
    return dataclasses.replace(c, mesh=dataclasses.replace(c.mesh, replica=replica, fsdp=fsdp, tensor=tensor))


def smallest(c: Config, kind: str, attempt: Attempt) -> list[PreflightRow]:
    """Compiles a config for the slices of a generation, from the smallest, until one fits.

    Args:
      c: the config; tried on each slice that its mesh and batch divide over, with fewer and fewer images at once.
      kind: one of `tpu.compiler.topology.CHIPS`.
      attempt: see `fastest`.

    Returns:
      A row for every slice and number of microbatches that was compiled; the last fits.

    Raises:
      UserError: no slice of the generation is large enough.
    """
    rows: list[PreflightRow] = []
    impossible = ""
    for shape in CHIPS[kind].shapes:
        place = parse(f"{kind}:{shape}")
        try:
            check_batch(c.batch_size, mesh_shape(c.mesh, len(place.devices)))
        except UserError as e:
            impossible = f"; {place.name}: {e}"
            continue
        rows += [row for _, row in _until_it_fits(c, place, attempt)]
        if rows and rows[-1]["fits"]:
            return rows
    raise UserError(f"no slice of {kind} that Cloud TPU offers is large enough{impossible}")


def _until_it_fits(c: Config, place: Topology, attempt: Attempt) -> Iterator[tuple[Config, PreflightRow]]:
    """Yields the config with fewer and fewer images at once, and its rows, until it fits; nothing if not even the state
    fits.

    Memory has a constant part, such as parameters and optimizer, and a part proportional to the images of a microbatch.
    The compiler's figures for some numbers of microbatches therefore rule out others, which are not compiled.
    """
    train_step, limit, enough = train_step_for(dataclasses.replace(c, accumulate=1), place), place.hbm_limit, 1.0
    refused: list[tuple[int, int]] = []
    for accumulate in _accumulations(c, place):
        if accumulate < enough or state_bytes(train_step, accumulate) > limit:
            continue
        variant = dataclasses.replace(c, accumulate=accumulate)
        row = attempt(variant, place)
        yield variant, row
        if row["fits"]:
            return
        if row["hbm_per_chip_bytes"]:
            refused.append((accumulate, row["hbm_per_chip_bytes"]))
            enough = _enough(refused, state_bytes(train_step, 2), limit)


def _enough(refused: list[tuple[int, int]], fixed: float, limit: int) -> float:
    """Lower bound of the number of microbatches.

    Args:
      refused: numbers of microbatches with the bytes they need, which exceed the limit.
      fixed: lower bound of the bytes needed with any number, refined if there are two figures.
      limit: bytes available.
    """
    parts, needed = refused[-1]
    if len(refused) > 1:
        before, more = refused[-2]
        fixed = max(fixed, needed - (more - needed) / (parts / before - 1))
    return parts * (needed - fixed) / (limit - fixed) if fixed < limit else math.inf


def _accumulations(c: Config, place: Topology) -> list[int]:
    """1, 2, 4, ... as long as every chip gets whole images."""
    replica, fsdp, _ = mesh_shape(c.mesh, len(place.devices))
    per_chip = c.batch_size // (replica * fsdp)
    return [n for n in (2**i for i in range(per_chip.bit_length())) if per_chip % n == 0]


def overrides(c: Config) -> str:
    """Flags of `scaling.train` for the values found by the search, and for the mesh if it was varied."""
    flags = {"model.remat": c.model.remat, "accumulate": c.accumulate}
    sizes = {f"mesh.{axis}": getattr(c.mesh, axis) for axis in MESH_AXES}
    flags |= sizes if -1 not in sizes.values() else {}
    return " ".join(f"--config.{name}={value}" for name, value in flags.items())
