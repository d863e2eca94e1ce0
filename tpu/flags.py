"""Slices of Cloud TPU by their names, and the XLA flags for each kind of chip.

Meaning of the names: "TPU v4", "TPU v5e", "TPU v5p" and "TPU v6e" of the Cloud TPU documentation; runtime versions:
"TPU software versions"; names of node pools: "Plan TPUs in GKE"; shapes of slices of 64 chips and more, and names of
TPU7x: the same pages and AI-Hypercomputer/xpk (`src/xpk/core/system_characteristics.py`). The flags: the library of
flags of AI-Hypercomputer/maxtext (`benchmarks/xla_flags_library.py`); the purpose of each is given beside it.
"""

import dataclasses
import re

from scaling.core.errors import UserError

# Named bundles in the form of LIBTPU_INIT_ARGS. Every combination below compiles in tests/tpu/test_flags.py; the
# compiler ends the process on a flag it does not know.
BUNDLES = {
    # all-gathers overlap with matrix products, all-reduces with other work: needed for FSDP
    "collectives": (
        "--xla_tpu_enable_async_collective_fusion=true",
        "--xla_tpu_enable_async_collective_fusion_fuse_all_gather=true",
        "--xla_tpu_enable_async_collective_fusion_multiple_steps=true",
        "--xla_tpu_overlap_compute_collective_tc=true",
        "--xla_enable_async_all_gather=true",
        "--xla_enable_async_all_reduce=true",
    ),
    # all-reduces overlap with matrix products too
    "fused": ("--xla_tpu_enable_async_collective_fusion_fuse_all_reduce=true",),
    # no overlap: with it a product of width 4096 or more needs 16.5 of the 16 MiB of vector memory of a v4 core
    "apart": ("--xla_tpu_enable_async_collective_fusion_fuse_all_reduce=false",),
    # gradient sums over `replica` are pipelined, also across slices
    "replicas": (
        "--xla_tpu_enable_data_parallel_all_reduce_opt=true",
        "--xla_tpu_data_parallel_opt_different_sized_ops=true",
    ),
    # one operation may use 96 of the 128 MiB of vector memory; the rest prefetches for the next
    "vmem": ("--xla_tpu_scoped_vmem_limit_kib=98304",),
}


@dataclasses.dataclass(frozen=True)
class Chip:
    """One generation.

    Attributes:
      prefix: prefix of its accelerator types; the number after it counts TensorCores if `cores` is 2.
      cores: contribution of one chip to the number in an accelerator type.
      single_host: sizes in chips of the slices with a single host; larger ones have four chips per host.
      largest: chips of the largest slice.
      torus: dimensions of the interconnect.
      runtime: runtime version of its virtual machines; empty if the Cloud TPU API does not offer it.
      gke: name of its node pools.
      bundles: names of BUNDLES.
      devices: JAX devices of a chip.
    """

    prefix: str
    cores: int
    single_host: tuple[int, ...]
    largest: int
    torus: int
    runtime: str
    gke: str
    bundles: tuple[str, ...]
    devices: int = 1

    @property
    def init_args(self) -> str:
        """The value of LIBTPU_INIT_ARGS."""
        return " ".join(flag for bundle in self.bundles for flag in BUNDLES[bundle])


CUBE = 64  # chips, 4x4x4: the unit of larger slices of a three-dimensional torus
LONGEST = 244  # chips along the longest side of a slice of whole cubes
_ALL = ("collectives", "fused", "replicas")
CHIPS = {
    "v4": Chip("v4-", 2, (4,), 4096, 3, "tpu-ubuntu2204-base", "tpu-v4-podslice", ("collectives", "apart", "replicas")),
    "v5e": Chip("v5litepod-", 1, (1, 4, 8), 256, 2, "v2-alpha-tpuv5-lite", "tpu-v5-lite-podslice", _ALL),
    "v5p": Chip("v5p-", 2, (4,), 6144, 3, "v2-alpha-tpuv5", "tpu-v5p-slice", _ALL),
    "v6e": Chip("v6e-", 1, (1, 4, 8), 256, 2, "v2-alpha-tpuv6e", "tpu-v6e-slice", (*_ALL, "vmem")),
    "tpu7x": Chip("tpu7x-", 2, (4,), 6144, 3, "", "tpu7x", _ALL, devices=2),
}


@dataclasses.dataclass(frozen=True)
class Accelerator:
    """A slice: its accelerator type, kind of chip, number of chips and hosts, and topology like `4x4x8`."""

    name: str
    chip: Chip
    chips: int
    hosts: int
    topology: str

    @property
    def devices(self) -> int:
        """Number of JAX devices."""
        return self.chips * self.chip.devices


def accelerator(name: str) -> Accelerator:
    """The slice of that accelerator type.

    Raises:
      UserError: unknown type; the message lists those of the generation, or the generations.
    """
    for chip in CHIPS.values():
        if not re.fullmatch(re.escape(chip.prefix) + r"(0|[1-9][0-9]*)", name):
            continue
        chips, rest = divmod(int(name.removeprefix(chip.prefix)), chip.cores)
        whole = chip.torus == 3 and chips % CUBE == 0 and CUBE <= chips <= chip.largest
        whole = whole and int(_cubic(chips).rpartition("x")[2]) <= LONGEST
        if rest or not (whole or chips in _sizes(chip)):
            known = ", ".join(f"{chip.prefix}{n * chip.cores}" for n in _sizes(chip))
            cubes = (
                f" and multiples of {CUBE * chip.cores} up to {chip.prefix}{chip.largest * chip.cores} with no side "
                f"above {LONGEST} chips"
            )
            raise UserError(f"--accelerator={name}: must be one of {known}{cubes if chip.torus == 3 else ''}; give one")
        hosts = 1 if chips in chip.single_host else chips // 4
        return Accelerator(name, chip, chips, hosts, _cubic(chips) if whole else _topology(chips, chip.torus))
    raise UserError(
        f"--accelerator={name or '(none)'}: is not known; give one like v4-64, v5litepod-256, v5p-256, v6e-256 or "
        "tpu7x-128"
    )


def _sizes(chip: Chip) -> list[int]:
    """Chips of the slices that are not whole cubes: powers of two, of which 2 is too small for a torus."""
    powers = [2**k for k in range(2, 13) if 2**k <= (chip.largest if chip.torus == 2 else CUBE / 2)]
    return sorted({*powers, *chip.single_host})


def _cubic(chips: int) -> str:
    """The shape that Cloud TPU gives a slice of whole cubes: the most even one with sides of whole cubes."""
    cubes = chips // CUBE
    shapes = [
        (a, b, cubes // (a * b)) for a in range(1, cubes + 1) for b in range(a, cubes // a + 1) if cubes % (a * b) == 0
    ]
    return "x".join(str(4 * side) for side in sorted(min(shapes, key=sum)))


def _topology(chips: int, torus: int) -> str:
    """The shape of the slice: as even as powers of two can be, `4x8`, `4x4x8`, and `2x2x1`."""
    k = chips.bit_length() - 1
    sides = [2 ** ((k + i) // torus) for i in range(torus)]
    return "x".join(map(str, sorted(sides, key=lambda side: (side == 1, side))))
