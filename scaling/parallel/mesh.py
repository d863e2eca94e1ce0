"""The mesh (replica, fsdp, tensor): one device is the same program as a pod."""

import dataclasses
import math
from collections.abc import Sequence

import jax
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from scaling.core.errors import UserError

MESH_AXES = ("replica", "fsdp", "tensor")


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """Sizes of the mesh axes; one of them may be -1, which takes the remaining devices.

    Attributes:
      replica: data parallelism with whole copies of the parameters.
      fsdp: data parallelism with parameters and optimizer state split over the devices.
      tensor: branches, heads and hidden units split over the devices.
      min_shard_elements: arrays with fewer elements per layer are replicated over fsdp, which costs less than gathering
        them.
      max_fsdp: maximum size of fsdp if it is -1; the remaining devices become replicas. 0 for no limit. See
        `widest_fsdp`.
    """

    replica: int = 1
    fsdp: int = -1
    tensor: int = 1
    min_shard_elements: int = 192 * 192  # the smallest kernel of ViT-Ti
    max_fsdp: int = 0


def mesh_shape(config: MeshConfig, devices: int) -> tuple[int, ...]:
    """Resolves the -1.

    Raises:
      UserError: the sizes do not multiply to the number of devices.
    """
    sizes = [getattr(config, axis) for axis in MESH_AXES]
    named = ", ".join(f"mesh.{axis}={size}" for axis, size in zip(MESH_AXES, sizes, strict=True))
    known = math.prod(size for size in sizes if size != -1)
    if sizes.count(-1) > 1 or any(size < 1 and size != -1 for size in sizes):
        raise UserError(f"{named}: sizes must be positive, except that one may be -1")
    if devices % known or (-1 not in sizes and known != devices):
        raise UserError(f"{named} must multiply to the {devices} devices; set one of them to -1")
    replica, fsdp, tensor = (devices // known if size == -1 else size for size in sizes)
    if config.fsdp == -1 and config.max_fsdp:
        most = max(n for n in range(1, min(fsdp, config.max_fsdp) + 1) if fsdp % n == 0)
        replica, fsdp = replica * fsdp // most, most
    return replica, fsdp, tensor


def widest_fsdp(width: int) -> int:
    """The largest power of two that splits a residual stream of this width into at least 32 rows per device, for TPUs.

    A TPU lays bfloat16 matrices out in tiles of 16 rows. If a device's part of a kernel fills whole tiles, the compiler
    gathers parts and scatters gradients as they are; otherwise it pads them, and for small parts it sends whole
    zero-padded kernels through an all-reduce: twice the bytes, and not overlapped with other work. Observed in compiled
    programs: at 5 and 8 rows on v5e:16x16 and at 16 rows on v5p:4x4x8, never at 32, 40, 52 or 64.
    """
    return max([2**i for i in range(width.bit_length()) if width % 2**i == 0 and width >> i >= 32], default=1)


def make_mesh(config: MeshConfig, devices: list[jax.Device] | None = None) -> Mesh:
    """The mesh over all devices (or those given), with Auto axes: the compiler propagates shardings.

    Neighbours in the mesh are neighbours in the torus; a mesh axis may take part of a torus axis.
    """
    devices = jax.devices() if devices is None else devices
    shape = mesh_shape(config, len(devices))
    grid = mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)
    return Mesh(grid, MESH_AXES, axis_types=(AxisType.Auto,) * 3)


def replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Sharding of images: split over all mesh axes but `tensor`."""
    return NamedSharding(mesh, PartitionSpec(("replica", "fsdp")))


def check_batch(batch_size: int, mesh: Sequence[int], accumulate: int = 1) -> None:
    """Raises UserError unless every device gets the same number of images in every accumulation step.

    mesh: the sizes of MESH_AXES.
    """
    replica, fsdp, _ = mesh
    parts = replica * fsdp * accumulate
    if batch_size % parts:
        raise UserError(
            f"batch_size={batch_size} is not divisible by replica x fsdp x accumulate = {replica} x {fsdp} x "
            f"{accumulate}; the nearest that is: {max(round(batch_size / parts), 1) * parts}"
        )
