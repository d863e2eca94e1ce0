"""The vocabulary of the codebase: every array dimension has a name, and everything else is derived from the names.

A parameter is declared once, with one name per dimension (`scaling.models.parameters`). From the names follow: how it
is sharded (`scaling.parallel.sharding`), how it is cut narrower or shallower (`scaling.slimming`), whether it decays,
its fan-in and fan-out at initialisation, its floating point operations (`scaling.compute.counting`) and the layout that
checkpoint importers write into.

Two conventions keep that possible:

* Named axes are never fused: a qkv kernel is `[embed, branch, qkv, heads, head_dim]`, not `[embed, 3 * embed]`.
* A kernel lists its input axes before its output axes. A *space* is what an axis is a coordinate of (the residual
  stream, the attention heads, the hidden layer of the MLP, the pixels of a patch); a kernel joins two spaces, a bias or
  a scale lies in one.

A second network in the same tree (the MAE decoder) has the same axes under its own prefix, `decoder/embed`, so that
cutting the encoder's `embed` never touches it.
"""

import dataclasses
import math
from collections.abc import Callable, Collection, Mapping
from typing import Any

import jax
from jax._src import xla_bridge  # no public function says whether a backend is initialised
from jax.sharding import Mesh, PartitionSpec

Names = tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Axis:
    """The meaning of a dimension. `mesh` names the mesh axes it is sharded over, `letter` is its name in einsums."""

    letter: str
    meaning: str
    space: str | None = None
    mesh: tuple[str, ...] = ()


AXES = {
    "layers": Axis("L", "depth, the scanned axis"),
    "branch": Axis("R", "parallel branches of a block", mesh=("tensor",)),
    "embed": Axis("D", "token width, the residual stream", space="residual", mesh=("fsdp",)),
    "heads": Axis("N", "attention heads", space="attention", mesh=("tensor",)),
    "head_dim": Axis("H", "width of one head", space="attention"),
    "mlp": Axis("F", "hidden width of the MLP", space="mlp", mesh=("tensor",)),
    "gate": Axis("G", "gate and value of a gated MLP"),
    "qkv": Axis("S", "query, key and value (size 3)"),
    "patch": Axis("P", "pixels of a patch times bands", space="pixels"),
    "bands": Axis("C", "channels of an image"),
    "groups": Axis("J", "tokens that one patch becomes"),
    "registers": Axis("Q", "learned tokens without a position"),
    "classes": Axis("K", "what a head tells apart", space="classes"),
    "row_offsets": Axis("Y", "rows between two patches, from one direction to the other"),
    "column_offsets": Axis("X", "columns between them"),
    "rows": Axis("V", "rows of the kernel of a convolution"),
    "columns": Axis("W", "columns of it"),
    "inputs": Axis("I", "channels that a convolution reads, of several maps side by side", "inputs", mesh=("fsdp",)),
    "channels": Axis("O", "channels of the map that it makes", space="channels", mesh=("tensor",)),
    "contrast": Axis("E", "what images are compared by", space="contrast"),
    "batch": Axis("B", "images", mesh=("replica", "fsdp")),
    "views": Axis("A", "crops of one image"),
    "keys": Axis("M", "images that each image is compared with, all of a batch on every device"),
    "tokens": Axis("T", "patches, preceded by tokens without a position (class token, registers)"),
}


def split(name: str) -> tuple[str, str]:
    """The network an axis belongs to and its plain name: `decoder/embed` -> `("decoder", "embed")`."""
    network, _, plain = name.rpartition("/")
    return network, plain


def axis(name: str) -> Axis:
    """The axis a (possibly prefixed) name stands for.

    Raises:
      KeyError: the name is not in the vocabulary.
    """
    _, plain = split(name)
    if plain not in AXES:
        raise KeyError(f"unknown axis {name!r}; the axes are {', '.join(AXES)}")
    return AXES[plain]


def space(name: str) -> tuple[str, str] | None:
    """The feature space an axis is a coordinate of, or None for an axis that only counts copies (`layers`, `qkv`)."""
    where = axis(name).space
    return None if where is None else (split(name)[0], where)


def spaces(names: Names) -> list[tuple[str, str]]:
    """The distinct feature spaces of a parameter, in order: two or three for a kernel, one for a bias or a scale."""
    return list(dict.fromkeys(s for s in map(space, names) if s is not None))


def is_kernel(names: Names) -> bool:
    """True for a matrix that joins two spaces: it is multiplied, decays, and is initialised at random.

    A matrix that generates kernels joins three: its input, and the two spaces that those kernels join.
    """
    return len(spaces(names)) >= 2


def counts_copies(name: str) -> bool:
    """True for an axis along which a parameter is stacked, with one entry for each layer or branch."""
    return split(name)[1] in ("layers", "branch")


def fans(names: Names, shape: tuple[int, ...]) -> tuple[int, int]:
    """Fan-in and fan-out of one kernel: sizes of its input and of its output axes.

    `layers` and `branch` count copies of the kernel. `qkv`, `gate` and `groups` belong to the output: the fused matrix
    is initialised as the one matrix it is (as in facebookresearch/mae).
    """
    first = spaces(names)[0]
    fan_in = math.prod(n for name, n in zip(names, shape, strict=True) if space(name) == first)
    copies = math.prod(n for name, n in zip(names, shape, strict=True) if counts_copies(name))
    return fan_in, math.prod(shape) // (fan_in * copies)


@dataclasses.dataclass(frozen=True)
class Growth:
    """Ratio of the size of a parameter to that in another model: over its input axes (1 if it has none), over its
    output axes and over the depth.
    """

    inputs: float
    outputs: float
    layers: float


def growth(names: Names, shape: tuple[int, ...], base: tuple[int, ...]) -> Growth:
    """The growth of a parameter over its shape in the base model. A parameter that is not a kernel grows along its
    outputs alone."""
    first = spaces(names)[0] if is_kernel(names) else None
    parts = {"inputs": 1.0, "outputs": 1.0, "layers": 1.0}
    for name, large, small in zip(names, shape, base, strict=True):
        part = "layers" if split(name)[1] == "layers" else "inputs" if first and space(name) == first else "outputs"
        parts[part] *= large / small
    return Growth(**parts)


def is_names(x: Any) -> bool:
    """True for a leaf of a tree of names (a tuple of strings, the empty tuple included)."""
    return isinstance(x, tuple) and all(isinstance(name, str) for name in x)


def map_named(function: Callable[..., Any], names: Any, *trees: Any) -> Any:
    """`function(names, *leaves)` over a tree of names and the trees parallel to it."""
    return jax.tree.map(function, names, *trees, is_leaf=is_names)


@dataclasses.dataclass(frozen=True)
class Parameter:
    """One leaf of a tree: its path (`encoder/blocks/qkv/kernel`), axis names and sizes."""

    path: str
    names: Names
    shape: tuple[int, ...]


def parameters(names: Any, shapes: Any) -> list[Parameter]:
    """The leaves of a tree of names and of a parallel tree of arrays or shapes."""
    paths = [path for path, _ in jax.tree_util.tree_flatten_with_path(names, is_leaf=is_names)[0]]
    leaves = jax.tree.leaves(map_named(lambda n, x: Parameter("", n, tuple(x.shape)), names, shapes))
    return [
        dataclasses.replace(leaf, path=jax.tree_util.keystr(path, simple=True, separator="/"))
        for path, leaf in zip(paths, leaves, strict=True)
    ]


def decay_mask(names: Any) -> Any:
    """Tree of bools: which parameters weight decay applies to (kernels; not biases, norms, tokens or positions)."""
    return map_named(is_kernel, names)


def partition(names: Names, shape: tuple[int, ...], mesh: Mapping[str, int]) -> list[tuple[str, ...]]:
    """The mesh axes each dimension is sharded over: its own by the table, where free and where they divide it.

    Args:
      names: one name per dimension.
      shape: sizes of the dimensions.
      mesh: size of each mesh axis. Axes of size 1 are never named.

    Returns:
      One (possibly empty) tuple of mesh axes per dimension; every mesh axis is used at most once.
    """
    used: set[str] = set()
    result = []
    for name, size in zip(names, shape, strict=True):
        wanted = tuple(m for m in axis(name).mesh if mesh.get(m, 1) > 1 and m not in used)
        if size % math.prod(mesh[m] for m in wanted):
            wanted = ()
        used.update(wanted)
        result.append(wanted)
    return result


def mesh_size(mesh_axis: str) -> int:
    """Size of an axis of the current mesh (`jax.set_mesh`); 1 if there is no mesh."""
    return jax.sharding.get_abstract_mesh().shape.get(mesh_axis, 1)


def platform(mesh: Mesh | None = None) -> str:
    """The platform that a program is traced for: that of the mesh (by default the current one), which may be compiled
    for devices you do not have; without a mesh, the default backend.

    Never initialises a backend: before that only shapes are traced, which are the same on all platforms, and the
    processes of a pod may not be connected yet.
    """
    device = (mesh.abstract_mesh if mesh else jax.sharding.get_abstract_mesh()).abstract_device
    if device:
        return device.platform
    return jax.default_backend() if xla_bridge.backends_are_initialized() else "cpu"


def constrain(x: jax.Array, *names: str, whole: Collection[str] = ()) -> jax.Array:
    """Pins the sharding of an activation by its names on the current mesh (`jax.set_mesh`); without one, a no-op.

    whole: mesh axes that x is not split over.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return x
    sizes = {**mesh.shape, **dict.fromkeys(whole, 1)}
    spec = PartitionSpec(*(m or None for m in partition(names, x.shape, sizes)))
    return jax.lax.with_sharding_constraint(x, spec)


def per_image(function: Callable[..., Any], *trees: Any) -> Any:
    """`function` of one image, mapped over the first axis of trees of arrays [B, ...]: each device processes its own
    images one after the other.

    Sorting, suppression and gathering within an image need no communication; left to itself, the compiler would add
    some.
    """

    def of_own(*parts: Any) -> Any:
        return jax.lax.map(lambda each: function(*each), parts)

    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return of_own(*trees)
    (own,) = partition(("batch",), (jax.tree.leaves(trees)[0].shape[0],), mesh.shape)
    spec = PartitionSpec(own or None)
    return jax.shard_map(of_own, in_specs=spec, out_specs=spec, check_vma=False)(*trees)
