"""Layers of a head declared as data: parameters, axis names, statistics and counts follow from one table."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Protocol

import jax
import jax.numpy as jnp

from scaling import axes
from scaling.models import parameters
from scaling.models.heads.norms import Norms, Statistics
from scaling.models.heads.spatial import convolve
from scaling.models.parameters import Declaration, Initializer, Table

NETWORK = "head"  # prefix of the axes


class HeadSizes(Protocol):
    """Sizes that determine the layers of a head: width and grid of the encoder, channels of the head, classes."""

    @property
    def width(self) -> int: ...
    @property
    def grid(self) -> tuple[int, int]: ...
    @property
    def classes(self) -> int: ...
    @property
    def channels(self) -> int: ...


@dataclasses.dataclass(frozen=True)
class Layer:
    """A kernel with its bias and norm.

    Attributes:
      inputs, outputs: channels.
      places: number of places of one image at which the kernel is applied.
      size: rows and columns of the kernel.
      norm: whether a norm of the outputs follows.
      bias: whether outputs have a bias.
      bias_start: its value before the first step.
      deviation: standard deviation of the kernel's initial normal distribution; 0 for sqrt(2 / (outputs size^2)), which
        preserves the size of gradients (He et al., 1502.01852).
      of_encoder, to_classes: whether inputs are tokens of the encoder, and outputs classes.
    """

    inputs: int
    outputs: int
    places: int
    size: int = 1
    norm: bool = False
    bias: bool = False
    deviation: float = 0.0
    of_encoder: bool = False
    to_classes: bool = False
    bias_start: float = 0.0

    def table(self, name: str) -> Table:
        """Its parameters: group -> name -> declaration. Except for the encoder's width and the classes, its axes are
        not shared with other layers, since every axis name has one size.
        """
        reads = "/embed" if self.of_encoder else f"{name}/inputs"
        makes = "/classes" if self.to_classes else f"{name}/channels"
        sizes = {f"{name}/rows": self.size, f"{name}/columns": self.size, reads: self.inputs, makes: self.outputs}
        deviation = self.deviation or math.sqrt(2 / (self.outputs * self.size**2))
        init: Initializer = parameters.normal(deviation)
        group: dict[str, Declaration] = {"kernel": (sizes, init)}
        if self.bias:
            group["bias"] = ({makes: self.outputs}, parameters.constant(self.bias_start))
        normed: Table = {f"{name}_norm": parameters.norm(self.outputs, makes)} if self.norm else {}
        return {name: group, **normed}


Layers = dict[str, Layer]
Head = Mapping[str, Mapping[str, jax.Array]]  # group -> name -> parameter


def head_table(layers: Layers) -> Table:
    """The parameters of all layers."""
    return {group: row for name, layer in layers.items() for group, row in layer.table(name).items()}


def applied(p: Head, name: str, x: jax.Array) -> jax.Array:
    """A convolution, and its bias if it has one."""
    y = convolve(x, p[name]["kernel"])
    return y + p[name]["bias"].astype(y.dtype) if "bias" in p[name] else y


def module(p: Head, name: str, x: jax.Array, norms: Norms) -> jax.Array:
    """The ConvModule of mmcv: convolution without bias, norm, ReLU."""
    return jax.nn.relu(norms(name, p[f"{name}_norm"], applied(p, name, x)))


def uses(layers: Layers, p: axes.Parameter) -> int:
    """Number of places of an image at which a head's parameter is applied. A norm has as many as its layer's
    output: four times as many if the layer doubles rows and columns.
    """
    group = p.path.split("/")[-2]
    layer = layers[group.removesuffix("_norm")]
    return layer.places * (4 if group.endswith("_norm") and layer.size == 2 else 1)


def first_statistics(layers: Layers) -> Statistics:
    """Running statistics before the first batch."""
    return {
        name: {"mean": jnp.zeros(layer.outputs), "variance": jnp.ones(layer.outputs)}
        for name, layer in layers.items()
        if layer.norm
    }


def statistics_names(layers: Layers) -> dict[str, dict[str, tuple[str, ...]]]:
    """Axis names of the running statistics."""
    normed = {name: (f"{NETWORK}/{name}/channels",) for name, layer in layers.items() if layer.norm}
    return {name: {"mean": axis, "variance": axis} for name, axis in normed.items()}
