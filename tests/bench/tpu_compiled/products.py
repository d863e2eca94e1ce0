"""Matrix products of a TPU program, which represents them as convolutions whose window determines the product.

A batched product has a spatial dimension for every batch axis, with a dilated operand, so that each output meets one
element of the window; a sum over two axes has one of them as a spatial dimension as long as its window.
"""

import dataclasses
import math
import re
from collections.abc import Iterator

from tpu.compiler.hlo import Computation, Instruction, Module


@dataclasses.dataclass(frozen=True)
class Product:
    """Attributes:
    flops: two for every multiplication of elements that are not padding.
    batched: whether it is a product for every element of some axes, as those of attention are.
    """

    flops: int
    batched: bool


def products(module: Module, where: Computation, x: Instruction) -> Iterator[Product]:
    """The products in an instruction, including those inside fusions."""
    if x.opcode == "convolution":
        yield _convolution(where, x)
    elif x.opcode == "fusion":
        inside = module.computations[x.called["calls"]]
        for y in inside.instructions.values():
            yield from products(module, inside, y)


def _convolution(where: Computation, x: Instruction) -> Product:
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", x.attributes)
    window = re.search(r"window=\{([^}]*)\}", x.attributes)
    assert labels is not None
    fields = dict(field.split("=") for field in window[1].split()) if window else {}
    image, kernel = (where.instructions[name].results[0].shape for name in x.operands)
    sizes = [dict(zip(label, shape, strict=True)) for label, shape in
             zip(labels.groups(), (image, kernel, x.results[0].shape), strict=True)]  # fmt: skip
    spatial = sorted(d for d in sizes[0] if d.isdigit())
    per_axis = math.prod(
        _hits(sizes[0][d], sizes[1][d], sizes[2][d], {k: v.split("x")[int(d)] for k, v in fields.items()})
        for d in spatial
    )
    flops = 2 * sizes[2]["b"] * sizes[2]["f"] * sizes[1]["i"] * per_axis
    return Product(flops, "lhs_dilate" in fields)


def _hits(size: int, window: int, outputs: int, how: dict[str, str]) -> int:
    """Pairs of an output and a place in the window that meet an element, along one spatial dimension."""
    stride, dilated, apart = (int(how.get(name, 1)) for name in ("stride", "lhs_dilate", "rhs_dilate"))
    low = int(how["pad"].split("_")[0]) if "pad" in how else 0
    places = (o * stride + w * apart - low for o in range(outputs) for w in range(window))
    return sum(0 <= place <= (size - 1) * dilated and place % dilated == 0 for place in places)
