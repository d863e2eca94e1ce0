"""Lower bound of the time of a compiled step on a slice, and the resulting upper bound of the MFU.

Three kinds of work each proceed at no more than a published rate: the matrix products (model operations plus those that
remat recomputes in the backward pass, counted analytically), the traffic to HBM (`tpu.compiler.traffic`) and the
traffic between chips (`tpu.compiler.collectives`). With perfect overlap the step would take the longest of the three,
so that

    MFU <= model operations / (peak x longest).

Not counted, so that it remains a bound: imperfect overlap, latencies, padding to tiles, vector operations, input.
"""

import dataclasses
from typing import Any

from scaling.compute import counting
from scaling.training.step import TrainStep
from tpu.compiler.collectives import Collective
from tpu.compiler.topology import Topology


@dataclasses.dataclass(frozen=True)
class Roofline:
    """Seconds of one step at the published rates.

    Attributes:
      flops: model operations of the whole step, `full` convention, as counted by MFU.
      executed: model operations and recomputed ones.
      compute, hbm, ici: seconds.
      mfu_bound: see above.
    """

    flops: int
    executed: int
    compute: float
    hbm: float
    ici: float
    mfu_bound: float

    @property
    def seconds(self) -> float:
        return max(self.compute, self.hbm, self.ici)

    @property
    def binding(self) -> str:
        return max(("compute", "hbm", "ici"), key=lambda term: getattr(self, term))


def roofline(train_step: TrainStep, found: list[Collective], hbm_bytes: int, topology: Topology) -> Roofline:
    """The lower bounds of a compiled step.

    Args:
      train_step: the compiled step.
      found: its collectives.
      hbm_bytes: bytes moved to and from HBM, per device and step.
      topology: the slice.
    """
    c, flops = train_step.config, step_flops(train_step)
    executed = flops + c.batch_size * recomputed_flops(train_step)
    seconds = executed / topology.peak
    hbm = hbm_bytes / topology.chip.hbm_bandwidth
    devices = train_step.mesh.devices.flat  # in the order in which a program numbers them
    ici = sum(x.times * x.bytes / topology.ici_bandwidth([devices[i] for i in x.group]) for x in found)
    longest = max(seconds, hbm, ici)
    return Roofline(flops, executed, seconds, hbm, ici, flops / topology.peak / longest)


def step_flops(train_step: TrainStep) -> int:
    """Model operations of one step on all devices together, `full` convention."""
    c = train_step.config
    return c.batch_size * train_step.flops_per_image()


def recomputed_flops(train_step: TrainStep) -> int:
    """Operations of one image that the backward pass repeats.

    With remat `full`, the forward pass of every block except its last product, whose result no gradient needs. With
    `dots`, the two products of attention, which have a batch dimension and are not saved.
    """
    c = train_step.config.model
    if c.remat == "none":
        return 0
    total = 0
    tokens = train_step.config.objective.tokens(c)
    for network, groups in train_step.names.items():
        if "blocks" in groups:
            names, shapes = (tree[network]["blocks"] for tree in (train_step.names, train_step.abstract.params))
            if c.remat == "full":
                total += _of_blocks(names, shapes, tokens)
            else:
                total += _of_attention(names, shapes, tokens, network)
    return total


def _of_blocks(names: Any, shapes: Any, tokens: counting.Tokens) -> int:
    if "mlp_scale" not in names:  # its gradient needs what the last product computes
        names, shapes = ({group: x for group, x in tree.items() if group != "mlp_out"} for tree in (names, shapes))
    return sum(counting.components(counting.flops(names, shapes, tokens)["full"]).values())


def _of_attention(names: Any, shapes: Any, tokens: counting.Tokens, network: str) -> int:
    """Operations of the attention products: two for every multiply-accumulate that only the `full` convention
    counts.
    """
    network = "" if network == "encoder" else network
    counts = (counting.flops(names, shapes, tokens, explicit_attention=n)["published"] for n in ((network,), ()))
    with_products, without = (sum(counting.components(parts).values()) for parts in counts)
    return 2 * (with_products - without)
