"""TPU slices by name, without a TPU: `v5e:16x16` -> the devices that the compiler compiles for.

Links between the ends of a slice close its dimensions to rings: all three of a v4, v5p or TPU7x slice of whole 4x4x4
cubes, and a side of 16 of v5e and v6e ("TPU system architecture" of Google Cloud; `TPU_TOPOLOGY_WRAP` on a slice).
Without rings the compiler makes a different program: it replaces large all-gathers by all-reduces. The Cloud TPU API
twists the torus of v5p slices of n x n x 2n and n x 2n x 2n; `4x4x8_untwisted` is the variant on GKE.

Published figures of the interconnect, per JAX device (a TPU7x chip is two of them). Sources: Google Cloud's pages on
the system architecture of TPU v4, v5e, v5p, v6e and TPU7x: bidirectional ICI bandwidth per chip (half of it is one way;
v4's page gives 2400 Gbps one way) and ICI ports. Peak rates and memory bandwidth are in `scaling.compute.hardware`; the
HBM available to a program is queried from the compiler, which reserves a part.
"""

import dataclasses
import functools
import importlib.metadata
import math
import os
import re
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import topologies

from scaling.compute import hardware
from scaling.core.errors import UserError, first_line
from tpu.flags import LONGEST

SQUARES = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
CUBES = ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8", "8x8x16", "8x16x16", "16x16x16")


@dataclasses.dataclass(frozen=True)
class Chip:
    """A TPU generation, per JAX device.

    Attributes:
      kind: JAX's name of the device, also used in `scaling.compute.hardware`.
      ici_bandwidth: bytes per second that leave (and that enter) the device over all its ports together.
      ports: ICI links of a device, two in each dimension of the torus.
      shapes: slices that Cloud TPU offers, or the usual ones.
      ring: a dimension whose size is a multiple of this is closed to a ring.
      per_chip: JAX devices in a chip.
      options: options that the compiler needs beside the name.
      largest: number of chips up to which any shape of whole 4x4x4 cubes is offered too.
      twists: whether Cloud TPU twists the torus of shapes that allow it.
    """

    kind: str
    ici_bandwidth: float
    ports: int
    shapes: tuple[str, ...]
    ring: int
    per_chip: int = 1
    options: tuple[tuple[str, Any], ...] = ()
    largest: int = 0
    twists: bool = False

    @property
    def hbm_bandwidth(self) -> float:
        """Bytes per second of one device."""
        return hardware.CHIPS[self.kind].bandwidth

    def offers(self, shape: str) -> bool:
        """Whether Cloud TPU offers a slice of this shape."""
        sides = [int(side) for side in re.findall(r"(?:^|x)([1-9]\d*)(?=x|$)", shape)]
        whole = len(sides) == 3 and "x".join(map(str, sorted(sides))) == shape and all(side % 4 == 0 for side in sides)
        return shape in self.shapes or (whole and math.prod(sides) <= self.largest and max(sides) <= LONGEST)


CHIPS = {
    "v4": Chip(
        "TPU v4", 300e9, 6, CUBES, 4,
        options=(("chip_config_name", "megacore"), ("chips_per_host_bounds", (2, 2, 1))), largest=4096,
    ),
    "v5e": Chip("TPU v5 lite", 200e9, 4, SQUARES, 16),
    "v5p": Chip("TPU v5", 600e9, 6, (*CUBES, "16x16x24"), 4, largest=6144, twists=True),
    "v6e": Chip("TPU v6 lite", 400e9, 4, SQUARES, 16),
    "tpu7x": Chip("TPU7x", 300e9, 6, CUBES, 4, per_chip=2, largest=6144),
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Topology:
    """A slice: its name, chips and shape; `twisted`: whether its torus is twisted."""

    name: str
    chip: Chip
    shape: tuple[int, ...]
    twisted: bool = False

    @property
    def chips(self) -> int:
        return math.prod(self.shape)

    @property
    def peak(self) -> float:
        """Dense bfloat16 operations per second of all devices together."""
        return hardware.CHIPS[self.chip.kind].peak_flops * self.chips * self.chip.per_chip

    @functools.cached_property
    def devices(self) -> list[jax.Device]:
        """Abstract devices, good for compiling only, in the order in which a program on the slice sees them.

        Raises:
          UserError: libtpu, which contains the compiler, is not installed, or does not know the slice.
        """
        _prepare()
        try:
            found = topologies.get_topology_desc(self._description, platform="tpu", **self._options)
        except Exception as e:
            raise UserError(f"--topology={self.name}: the installed compiler refuses it ({first_line(e)})") from e
        return list(found.devices)

    @property
    def wrap(self) -> tuple[bool, ...]:
        """Whether each of its three dimensions is a ring; False for the third of a two-dimensional slice."""
        return tuple(self._closes(side) for side in self.shape) + (False,) * (3 - len(self.shape))

    @property
    def _description(self) -> str:
        return self.name.partition("_")[0] + ("_twisted" if self.twisted else "")

    @property
    def _options(self) -> dict[str, Any]:
        alone = (
            {"chips_per_host_bounds": (1, 1, 1)} if self.chips == 1 else {}
        )  # by default it expects four on every host
        rings = {"wrap": self.wrap} if any(self.wrap) else {}
        return dict(self.chip.options) | alone | rings

    def ici_bandwidth(self, group: Sequence[jax.Device]) -> float:
        """Bytes per second that enter each device when a group exchanges data along every dimension it spans at once.

        Two links per dimension that the group fills and that is closed to a ring, one per dimension it fills in part or
        that is open (the device at the end of a line has one). The links inside a TPU7x chip are taken as free.
        """
        coords = [device.coords for device in group]
        links = 0
        for dimension, size in enumerate(self.shape):
            spanned = len({c[dimension] for c in coords})
            closed = spanned == size and self._closes(size)
            links += 0 if spanned == 1 else 2 if closed else 1
        return links * self.chip.ici_bandwidth / self.chip.ports if links else math.inf

    def _closes(self, size: int) -> bool:
        """Whether a dimension with that many chips has links between its ends; in three dimensions all have, or
        none.
        """
        sides = self.shape if len(self.shape) == 3 else (size,)
        return all(side % self.chip.ring == 0 for side in sides)

    @functools.cached_property
    def hbm_limit(self) -> int:
        """Bytes of HBM per device available to a program, as reported by the compiler for a program far too large."""
        sharding = jax.sharding.SingleDeviceSharding(self.devices[0])
        huge = jax.ShapeDtypeStruct((2**20, 2**20), jnp.float32, sharding=sharding)
        try:
            jax.jit(lambda x: x + 1).lower(huge).compile()
        except jax.errors.JaxRuntimeError as e:
            return memory_figures(str(e))[1]
        raise AssertionError("the compiler accepted four tebibytes")


def parse(name: str) -> Topology:
    """`v5e:16x16` as a Topology, checked before anything is compiled.

    Raises:
      UserError: no such chip or shape; the message lists the right ones.
    """
    kind, _, shape = name.partition(":")
    shape, plain = shape.removesuffix("_untwisted"), shape.endswith("_untwisted")
    if kind not in CHIPS:
        raise UserError(f"--topology={name}: must begin with one of {', '.join(CHIPS)}, for example v5e:16x16")
    chip = CHIPS[kind]
    if not chip.offers(shape):
        more = (
            f" and others of whole 4x4x4 cubes, smallest side first, up to {chip.largest} chips and {LONGEST} along a "
            "side"
            if chip.largest
            else ""
        )
        raise UserError(f"--topology={name}: the shapes of {kind} are {', '.join(chip.shapes)}{more}")
    sides = tuple(int(n) for n in shape.split("x"))
    can = chip.twists and len(sides) == 3 and sides[0] % 4 == 0 and tuple(n // sides[0] for n in sides) in _TWISTED
    if plain and not can:
        raise UserError(f"--topology={name}: that torus is never twisted; give {kind}:{shape}")
    return Topology(name, chip, sides, can and not plain)


_TWISTED = ((1, 1, 2), (1, 2, 2))  # shapes of a torus that can be twisted


def memory_figures(message: str) -> tuple[int, int, str]:
    """Bytes needed, bytes available and the kind of memory (`hbm`; `vmem` on the chip), from the compiler's message for
    a program that does not fit.

    Raises:
      ValueError: the message has no such figures.
    """
    _, _, what = message.partition("Ran out of memory")
    figures = re.findall(r"(\d+(?:\.\d+)?)([KMGTP])\b", what)
    if len(figures) < 2:
        raise ValueError(f"no memory figures in {message!r}")
    space = re.search(r"memory space (\w+)", what)
    needed, limit = (round(float(number) * 2 ** (10 * (1 + "KMGTP".index(unit)))) for number, unit in figures[:2])
    return needed, limit, space[1] if space else "hbm"


def compiler_version() -> str:
    """Version of the compiler. Raises UserError if there is none."""
    try:
        return importlib.metadata.version("libtpu")
    except importlib.metadata.PackageNotFoundError as e:
        raise UserError("the TPU compiler, libtpu, is not installed: pip install -e '.[tpu]' in the checkout") from e


def _prepare() -> None:
    """Settings under which libtpu compiles on a machine without a TPU; they must precede its first use."""
    compiler_version()
    jax.config.update("jax_platforms", "cpu")
    settings = {
        "TPU_SKIP_MDS_QUERY": "1",  # do not ask the metadata server of Google Cloud
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # another process may be compiling too
        "TPU_ACCELERATOR_TYPE": "v5litepod-4",  # this and the next one avoid warnings
        "TPU_WORKER_HOSTNAMES": "localhost",
        "TPU_STDERR_LOG_LEVEL": "3",
        "TPU_MIN_LOG_LEVEL": "3",
    }
    for name, value in settings.items():
        os.environ.setdefault(name, value)
