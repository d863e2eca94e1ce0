"""The shortest time that a step could take on a mesh, estimated before anything is compiled.

Counted is what no program can do without: the matrix products; the kernels that fsdp gathers and whose gradients it
scatters; gradients summed over replicas, and activations summed over parts of a layer's width; the state of the
optimizer, read and written once. The rest of the traffic to HBM, of activations and kernels, is known only from a
compiled program, here of another mesh: taken over unchanged if the layers are split over as many chips, and otherwise
as if splitting a layer also split all of it.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from scaling import axes
from scaling.compute import counting
from scaling.training.state import bytes_per_device
from scaling.training.step import TrainStep
from tpu.compiler.preflight_rows import PreflightRow
from tpu.compiler.roofline import recomputed_flops, step_flops
from tpu.compiler.step import fsdp_bytes, state_bytes
from tpu.compiler.topology import Topology


@dataclasses.dataclass(frozen=True)
class Known:
    """Traffic to HBM of a compiled program.

    Attributes:
      seconds: time of all of it.
      state: time of the state alone.
      tensor: parts of a layer's width.
    """

    seconds: float
    state: float
    tensor: int

    @classmethod
    def of(cls, train_step: TrainStep, row: PreflightRow, place: Topology) -> "Known":
        return cls(row["seconds"]["hbm"], _state(train_step, place), train_step.mesh.shape["tensor"])

    def on(self, train_step: TrainStep, place: Topology) -> float:
        """Seconds on another mesh."""
        parts = sorted((self.tensor, train_step.mesh.shape["tensor"]))
        return _state(train_step, place) + max(0.0, self.seconds - self.state) * parts[0] / parts[1]


def floor(train_step: TrainStep, place: Topology, known: Known | None = None) -> float:
    """Seconds of the longest of matrix products, traffic between chips and, if some of it is known, to HBM."""
    flops = step_flops(train_step) + train_step.config.batch_size * recomputed_flops(train_step)
    hbm = known.on(train_step, place) if known else 0.0
    return max(flops / place.peak, _links(train_step, place), hbm)


def _state(train_step: TrainStep, place: Topology) -> float:
    return 2 * state_bytes(train_step) / place.chip.hbm_bandwidth


def _links(train_step: TrainStep, place: Topology) -> float:
    """Seconds of the traffic between chips, one kind after the other as in `tpu.compiler.roofline`."""
    devices = train_step.mesh.devices
    replica, _, tensor = devices.shape
    item = jnp.dtype(train_step.config.dtype).itemsize
    params, shardings = train_step.abstract.params, train_step.shardings.params
    elements = bytes_per_device(params, shardings) // 4
    sent = (
        (fsdp_bytes(train_step), devices[0, :, 0]),
        (2 * (replica - 1) / replica * elements * item, devices[:, 0, 0]),
        (2 * (tensor - 1) / tensor * _summed(train_step) * item, devices[0, 0, :]),
    )
    return sum(bytes_ / place.ici_bandwidth(list(group)) for bytes_, group in sent if bytes_)


def _summed(train_step: TrainStep) -> float:
    """Elements of activations that the parts of a layer's width must sum: the output of each kernel that contracts what
    is split, forward, and the gradient of the input of each kernel that produces it, backward.
    """
    c, total = train_step.config, 0
    for network, groups in train_step.names.items():
        if "blocks" in groups:
            trees = (train_step.names, train_step.abstract.params, train_step.shardings.params)
            split = _split_kernels(*(tree[network]["blocks"] for tree in trees))
            counted = counting.flops(*split, c.objective.tokens(c.model))["published"]
            total += sum(counting.components(counted).values())
    replica, fsdp, _ = train_step.mesh.devices.shape
    return c.batch_size * total / (replica * fsdp)


def _split_kernels(names: Any, shapes: Any, shardings: Any) -> tuple[Any, Any]:
    """Names and shapes of the kernels that are split over `tensor`, with one unit of everything but layers and width:
    a multiply-accumulate of such a kernel is an element of the residual stream.
    """
    found = [
        group for group, tree in names.items() if "kernel" in tree and "tensor" in str(shardings[group]["kernel"].spec)
    ]
    kept = {group: {"kernel": names[group]["kernel"]} for group in found}
    small = {
        group: {
            "kernel": jax.ShapeDtypeStruct(
                tuple(
                    size if axes.split(name)[1] in ("layers", "embed") else 1
                    for name, size in zip(names[group]["kernel"], shapes[group]["kernel"].shape, strict=True)
                ),
                jnp.float32,
            )
        }
        for group in found
    }
    return kept, small
