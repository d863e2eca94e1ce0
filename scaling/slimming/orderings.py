"""Orderings of units: reparametrisations of a whole encoder that preserve its function and put important units first.

A cut then keeps the first k. `first` is the network as trained. `last` and `random` are the published ablation
(2601.22841). `energy` sorts the units by the power of their output: the mean square of a unit's activation times the
squared norm of its outgoing weights. `svd` also rotates queries with keys, and values with their output projection; see
`scaling.slimming.rotation`.

Each takes the parameter tree of an encoder, with its `moments` if there are any, and orders every layer, branch and
head separately; the channels of the residual stream have one order for all layers.
"""

from collections.abc import Callable, Collection
from typing import Any

import numpy as np

from scaling import axes
from scaling.slimming.rotation import rotate_queries_keys, rotate_values

ORDERINGS = ("first", "last", "random", "energy", "svd")

# For each axis that can be cut, the axes over which its units are scored, itself last. From coarse to fine: heads are
# moved with their dimensions.
UNITS: dict[str, axes.Names] = {
    "embed": ("embed",),
    "branch": ("layers", "branch"),
    "heads": ("layers", "branch", "heads"),
    "mlp": ("layers", "branch", "mlp"),
    "head_dim": ("layers", "branch", "heads", "head_dim"),
}


def reorder(tree: Any, names: Any, ordering: str, cut: Collection[str], seed: int = 0) -> Any:
    """The same encoder with its units in another order.

    Args:
      tree: parameters of an encoder, numpy; for `energy` and `svd` with `moments` (`scaling.models.activations`).
      names: parallel tree of axis names.
      ordering: one of `ORDERINGS`.
      cut: the axes that will be cut; others are not reordered. Ordering `embed` permutes the features.
      seed: seed of `random`.
    """
    if ordering == "first":
        return tree
    random = np.random.default_rng(seed)
    for axis, unit in UNITS.items():
        if axis not in cut:
            continue
        if axis == "head_dim":
            tree = _reorder_head_dim(tree, names, ordering, random)
        else:
            order = np.argsort(-_score(tree, axis, ordering, random), axis=-1, kind="stable")
            tree = axes.map_named(lambda n, x, o=order, u=unit: permute(x, n, o, u), names, tree)
    return tree


def permute(x: np.ndarray, names: axes.Names, order: np.ndarray, unit: axes.Names) -> np.ndarray:
    """Reorders every dimension of x that is named like the last of `unit`; `order` may differ along the other axes."""
    for dimension, name in enumerate(names):
        if name == unit[-1]:
            leading = [order.shape[unit.index(n)] if n in unit[:-1] else 1 for n in names]
            leading[dimension] = order.shape[-1]
            x = np.take_along_axis(x, order.reshape(leading), axis=dimension)
    return x


def _score(tree: Any, axis: str, ordering: str, random: np.random.Generator) -> np.ndarray:
    """Importance of each unit; shape as in `UNITS`."""
    if ordering in ("energy", "svd"):
        return _ENERGY[axis](tree)
    out = tree["blocks"]["attention_out" if axis in ("heads", "head_dim") else "mlp_out"]["kernel"]
    shape = out.shape[-1:] if axis == "embed" else out.shape[: len(UNITS[axis])]  # [L, R, N, H, D] or [L, R, F, D]
    return random.random(shape) if ordering == "random" else np.broadcast_to(np.arange(shape[-1]), shape)


def _reorder_head_dim(tree: Any, names: Any, ordering: str, random: np.random.Generator) -> Any:
    """Queries and keys share an order, values and their output projection another one.

    If queries and keys are normalised, all heads of a layer share the order of these two, and `svd` orders them by
    energy: the scale of that norm is tied to its coordinates, so a rotation would change the function.
    """
    normalised = "query_norm" in tree["blocks"]
    if ordering == "svd":
        tree = rotate_values(tree)
        if not normalised:
            return rotate_queries_keys(tree)
    value = _score(tree, "head_dim", ordering, random)  # [L, R, N, H]
    query = _query_energy(tree) if ordering in ("energy", "svd") else value
    if normalised:
        query = np.broadcast_to(query.sum((1, 2), keepdims=True), query.shape)
    return _permute_head_dim(tree, names, *(np.argsort(-score, axis=-1, kind="stable") for score in (query, value)))


def _permute_head_dim(tree: Any, names: Any, qk: np.ndarray, vo: np.ndarray) -> Any:
    """Gives queries and keys one order [L, R, N, H], values and their output projection another one."""
    unit = UNITS["head_dim"]
    orders = {
        "qkv": (np.stack([qk, qk, vo], axis=2), ("layers", "branch", "qkv", "heads", "head_dim")),
        **dict.fromkeys(("attention_out", "mixed"), (vo, unit)),
        **dict.fromkeys(("query", "key"), (qk, unit)),
        **dict.fromkeys(("query_norm", "key_norm"), (qk[:, 0, 0], ("layers", "head_dim"))),
    }

    def permuted(groups: Any, names: Any) -> Any:
        mine = {group: arrays for group, arrays in groups.items() if group in orders}
        return groups | {g: {k: permute(x, names[g][k], *orders[g]) for k, x in a.items()} for g, a in mine.items()}

    return tree | {part: permuted(tree[part], names[part]) for part in ("blocks", "moments") if part in tree}


def _outgoing(tree: Any, group: str) -> np.ndarray:
    """Squared norms of the rows of an output projection. [L, R, ...]."""
    return np.square(tree["blocks"][group]["kernel"], dtype=np.float64).sum(-1)


def _hidden_energy(tree: Any) -> np.ndarray:
    return tree["moments"]["hidden"]["square"] * _outgoing(tree, "mlp_out")  # [L, R, F]


def _value_energy(tree: Any) -> np.ndarray:
    return np.diagonal(tree["moments"]["mixed"]["square"], axis1=-2, axis2=-1) * _outgoing(tree, "attention_out")


def _query_energy(tree: Any) -> np.ndarray:
    """Contribution of a dimension to the logits: E[q²] times the variance of its keys within an image. [L, R, N, H]."""
    query, key = tree["moments"]["query"]["square"], tree["moments"]["key"]["covariance"]
    return np.diagonal(query, axis1=-2, axis2=-1) * np.diagonal(key, axis1=-2, axis2=-1)


def _head_energy(tree: Any) -> np.ndarray:
    """Mean square of a head's output, E |m W|². [L, R, N]."""
    kernel = tree["blocks"]["attention_out"]["kernel"].astype(np.float64)
    products = kernel @ kernel.swapaxes(-1, -2)  # [L, R, N, H, H]
    return (tree["moments"]["mixed"]["square"] * products).sum((-2, -1))


def _branch_energy(tree: Any) -> np.ndarray:
    """Energy of a branch: that of its heads plus that of its hidden units. [L, R]."""
    return _head_energy(tree).sum(-1) + _hidden_energy(tree).sum(-1)


def _channel_energy(tree: Any) -> np.ndarray:
    """Energy that the layers read from a channel of the residual stream, after its normalisation. [D]."""
    energy = np.zeros(())
    for moment, group in (("attention_in", "qkv"), ("mlp_in", "mlp_in")):
        kernel = tree["blocks"][group]["kernel"]  # [L, D, ...]
        weights = np.square(kernel, dtype=np.float64).reshape(*kernel.shape[:2], -1).sum(-1)
        energy = energy + (tree["moments"][moment]["square"] * weights).sum(0)
    return energy


_ENERGY: dict[str, Callable[[Any], np.ndarray]] = {
    "embed": _channel_energy,
    "branch": _branch_energy,
    "heads": _head_energy,
    "mlp": _hidden_energy,
    "head_dim": _value_energy,
}
