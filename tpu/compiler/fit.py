"""Searches for the fastest variant of a config that fits a slice, or for the smallest slice that it fits.

The global batch is part of the experiment and is not changed. The search varies the remat policy, the images that a
chip holds at once (through `accumulate`) and, if more than the matrix products binds, the mesh: all change memory and
speed, and gradients only by rounding.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator

from scaling.core.errors import UserError
from scaling.parallel.mesh import MESH_AXES, check_batch, mesh_shape
from tpu.compiler.floor import Known, floor
from tpu.compiler.preflight_rows import PreflightRow
from tpu.compiler.step import Config, state_bytes, train_step_for
from tpu.compiler.topology import CHIPS, Topology, parse

POLICIES = ("none", "dots", "full")  # from the fewest operations and the most memory to the reverse
WORTHWHILE = 0.95  # of the shortest step so far: what cannot be faster than that is not compiled
Attempt = Callable[[Config, Topology], PreflightRow]


Tried = tuple[Config, PreflightRow]


def fastest(
    c: Config, place: Topology, attempt: Attempt, other_meshes: bool = True
) -> tuple[Config, list[PreflightRow]]:
    """The variant with the shortest step by its roofline among those that fit.

    On the mesh of the config each policy is tried with fewer and fewer images at once until it fits; then, with the
    fastest policy, all other meshes. What could not be faster even by the optimistic estimate of
    `tpu.compiler.floor` is not compiled: usually all but a few.

    Args:
      c, place: the config and the slice.
      attempt: compiles a variant, `tpu.compiler.preflight_rows.preflight` with its name given.
      other_meshes: whether to vary the mesh.

    Returns:
      The best variant, and a row for every compiled one.

    Raises:
      UserError: no variant fits.
    """
    tried: list[Tried] = []
    for policy in POLICIES:
        variant = dataclasses.replace(c, model=dataclasses.replace(c.model, remat=policy))
        if _may_be_faster(floor(train_step_for(_whole(variant), place), place), tried):
            tried += _until_it_fits(variant, place, attempt)
    if not any(row["fits"] for _, row in tried):
        raise UserError(
            f"nothing fits on {place.name}, not even one image per chip with remat full; choose a larger slice"
        )
    best, row = _quickest(tried)
    if other_meshes and row["binding"] != "compute":
        known = Known.of(train_step_for(best, place), row, place)
        for least, variant in _other_meshes(best, place, known):
            if _may_be_faster(least, tried):
                tried += _until_it_fits(variant, place, attempt)
    return _quickest(tried)[0], [row for _, row in tried]


def _quickest(tried: list[Tried]) -> Tried:
    """The first with the shortest step."""
    return min((x for x in tried if x[1]["fits"]), key=lambda x: _seconds(x[1]))


def _seconds(row: PreflightRow) -> float:
    return max(row["seconds"].values())


def _may_be_faster(least: float, tried: list[Tried]) -> bool:
    """Whether a step that takes at least so long could be noticeably shorter than those that fit."""
    return all(least < WORTHWHILE * _seconds(row) for _, row in tried if row["fits"])


def _whole(c: Config) -> Config:
    return dataclasses.replace(c, accumulate=1)


def _other_meshes(c: Config, place: Topology, known: Known) -> list[tuple[float, Config]]:
    """All other meshes of powers of two, with the least seconds of a step on each; the shortest first.

    fsdp is at most as large as the config permits if it leaves the size open: parts of a kernel that are too thin are
    sent whole (`scaling.parallel.mesh.widest_fsdp`).
    """
    devices, own = len(place.devices), mesh_shape(c.mesh, len(place.devices))
    widest = c.mesh.max_fsdp or devices
    units = c.model.heads * c.model.branches
    sizes = [2**i for i in range(devices.bit_length())]
    found = []
    for fsdp, tensor in itertools.product(sizes, sizes):
        replica = devices // (fsdp * tensor)
        shape = replica, fsdp, tensor
        whole = replica * fsdp * tensor == devices and c.batch_size % (replica * fsdp) == 0
        if whole and shape != own and units % tensor == 0 and fsdp <= max(widest, own[1]):
            variant = _with_mesh(c, *shape)
            found.append((floor(train_step_for(_whole(variant), place), place, known), variant))
    return sorted(found, key=lambda x: x[0])


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
