"""The second moments of Adafactor (Shazeer and Stern, 1804.04235), as Zhai et al. (2106.04560) use them for ViT-G.

optax factors a parameter over its two largest axes, whatever they are. Our parameters are stacked over layers and
branches, which must not share moments; the axis names show which axes only count copies.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from scaling import axes

SMALLEST = 32  # smallest size of an axis that is factored
EPSILON = 1e-30  # added to squared gradients


def decay(count: jax.Array) -> jax.Array:
    """Decay of the second moments after `count` updates: min(0.999, 1 - t^-0.8) for t = 1, 2, ... Without the cap,
    taken from google-research/big_vision, they would eventually average over the whole run.
    """
    return jnp.minimum(0.999, 1.0 - jnp.array(count + 1, jnp.float32) ** -0.8)


def factored(names: axes.Names, shape: tuple[int, ...]) -> tuple[int, int] | None:
    """The two largest dimensions of one copy of a parameter, the larger one last; None if one is too small."""
    own = [i for i, name in enumerate(names) if not axes.counts_copies(name)]
    largest = [own[i] for i in np.argsort([shape[i] for i in own], stable=True)[-2:]]
    if len(largest) < 2 or shape[largest[0]] < SMALLEST:
        return None
    return largest[0], largest[1]


def scale_by_factored_rms(names: Any) -> optax.GradientTransformation:
    """Gradients divided by the root of their factored second moments, which each layer and branch has for itself.

    Args:
      names: tree of the axis names of the parameters.

    Returns:
      A transformation whose state is optax's FactoredState: moments that lack one of the two dimensions, and a single
      number for moments that a parameter does not have.
    """

    def start(n: axes.Names, x: jax.Array) -> tuple[jax.Array, ...]:
        none, dims = jnp.zeros((1,), x.dtype), factored(n, x.shape)
        if dims is None:
            return none, none, jnp.zeros_like(x)
        small, large = (jnp.zeros(np.delete(x.shape, dim), x.dtype) for dim in dims)
        return large, small, none

    def init(params: optax.Params) -> optax.FactoredState:
        count = jnp.zeros((), jnp.int32)
        if not jax.tree.leaves(
            params
        ):  # optax calls this to learn which parts of a state have the structure of the parameters
            return optax.FactoredState(count, params, params, params)
        return optax.FactoredState(count, *_unzipped(axes.map_named(start, names, params), 3))

    def update(
        gradients: optax.Updates, state: optax.FactoredState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, optax.FactoredState]:
        del params
        kept = decay(state.count)

        def one(n: axes.Names, g: jax.Array, *moments: jax.Array) -> tuple[jax.Array, ...]:
            return _update(g, moments, factored(n, g.shape), kept)

        results = axes.map_named(one, names, gradients, state.v_row, state.v_col, state.v)
        updates, *moments = _unzipped(results, 4)
        return updates, optax.FactoredState(optax.safe_increment(state.count), *moments)

    return optax.GradientTransformation(init, update)


def _update(
    g: jax.Array, moments: tuple[jax.Array, ...], dims: tuple[int, int] | None, kept: jax.Array
) -> tuple[jax.Array, ...]:
    """A gradient -> its update, and the moments of rows, columns and the whole."""
    rows, columns, whole = moments
    squared = jnp.square(g) + EPSILON
    if dims is None:
        whole = kept * whole + (1.0 - kept) * squared
        return g * whole**-0.5, rows, columns, whole
    small, large = dims
    rows = kept * rows + (1.0 - kept) * squared.mean(large)
    columns = kept * columns + (1.0 - kept) * squared.mean(small)
    left = small - (small > large)  # the dimension of rows in which they are normalised
    row_factor = (rows / rows.mean(left, keepdims=True)) ** -0.5
    update = g * jnp.expand_dims(row_factor, large) * jnp.expand_dims(columns**-0.5, small)
    return update, rows, columns, whole


def _unzipped(tree: Any, parts: int) -> list[Any]:
    """A tree of tuples -> trees of their parts."""
    return [jax.tree.map(lambda x, i=i: x[i], tree, is_leaf=lambda x: isinstance(x, tuple)) for i in range(parts)]
