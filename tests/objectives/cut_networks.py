"""Slimmable training written out: networks that are cut by hand, differentiated one by one, and summed."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from scaling import axes
from scaling.data.arrays import normalise
from scaling.models.mae import MAE
from scaling.models.vit import position_embedding
from scaling.objectives import Inputs
from scaling.objectives.moco import MomentumContrast
from tests.models.sizes import halves, small

GRID = (0.25, 0.5, 0.75)
SIZES = {"head_dim": 4, "heads": 4, "mlp": 8, "branch": 4, "embed": 8, "decoder/head_dim": 4, "decoder/mlp": 32}
TINY = halves(
    small(width=8, depth=1, heads=4, head_dim=4, mlp=8, branches=4, decoder_width=8, decoder_depth=1, decoder_heads=2)
)
MODEL, OF = TINY["model"], TINY["objective"]
HEADS = MomentumContrast(hidden=12, outputs=6)
IN_MODES = {
    "inner": ("head_dim", "mlp"),
    "token": ("head_dim", "mlp", "embed"),
    "heads": ("heads",),
    "branch": ("branch",),
    "heads+mlp": ("heads", "mlp"),
}
FIELDS = {"heads": "heads", "head_dim": "head_dim", "mlp": "mlp", "branch": "branches", "embed": "width"}
MEAN, STD = (128.0,) * 3, (64.0,) * 3  # exact in float32 too


def narrow_config(c, mode, width):
    """The networks of one width, said by hand, and how many of each axis they keep."""
    kept = {axis: max(1, int(width * SIZES[axis])) for axis in IN_MODES[mode]}
    fields = {FIELDS[axis]: k for axis, k in kept.items()}
    if mode == "token":
        fields |= {"position": "learned", "fixed_positions": True}
    if c.decoder:
        kept |= {f"decoder/{axis}": max(1, int(width * SIZES[f"decoder/{axis}"])) for axis in ("head_dim", "mlp")}
        fields |= {"decoder_head_dim": kept["decoder/head_dim"], "decoder_mlp": kept["decoder/mlp"]}
    return dataclasses.replace(whole_config(c), **fields), kept


def whole_config(c):
    """The uncut network: encoder and decoder of MAE, or the encoder that is contrasted."""
    return c.wraps.with_encoder(MODEL) if c.wraps.name == "mae" else MODEL


def told(c, config, p, inputs):
    """Loss of one network, and the outputs that narrower ones learn."""
    if c.wraps.name == "moco":
        found, outputs = c.wraps.make(config, Inputs(MEAN, STD, jnp.float64, 10)).told(p, inputs)
        return found["loss"].mean(), outputs
    found = MAE(config, jnp.float64).apply({"params": p}, normalise(inputs["image"], MEAN, STD), inputs["noise"])
    return found["loss"].mean(), {"tokens": found["tokens"], "outputs": found["prediction"]}


def apart(c, seen, wanted):
    """The distance of distillation: squares, or the divergence of two distributions over the keys."""
    if c.distillation != "similarities":
        return ((seen - wanted[..., : seen.shape[-1]]) ** 2).mean()
    full, narrow = (jnp.exp(x) / jnp.exp(x).sum(-1, keepdims=True) for x in (wanted, seen))
    return 2 * c.wraps.temperature * (full * jnp.log(full / narrow)).sum() / len(seen)


def explicit(c, params, names, inputs, widths):
    """The sum of losses, and of gradients, of networks that are cut and differentiated one by one."""
    total, gradient = 0.0, jax.tree.map(np.zeros_like, params)
    wanted, sizes, full = None, {}, None
    for i, width in enumerate(dict.fromkeys(widths)):
        config, kept = narrow_config(c, c.mode, width) if width < 1 else (whole_config(c), {})
        tree, labels = params, names
        if config.fixed_positions:
            table = {"embedding": np.asarray(position_embedding({}, MODEL), np.float64)}
            tree = {**params, "encoder": {**params["encoder"], "position": table}}
            labels = {**names, "encoder": {**names["encoder"], "position": {"embedding": ("tokens", "embed")}}}
        places = axes.map_named(lambda n, kept=kept: tuple(slice(kept.get(axis)) for axis in n), labels)
        part = axes.map_named(lambda n, x, kept=kept: x[tuple(slice(kept.get(axis)) for axis in n)], labels, tree)

        def loss(p, config=config, wanted=wanted):
            own, outputs = told(c, config, p, inputs)
            if wanted is None or c.distillation == "none":
                return own, outputs
            far = apart(c, outputs[c.distillation], wanted[c.distillation])
            return (1 - c.distilled) * own + c.distilled * far, outputs

        (value, outputs), g = jax.jit(jax.value_and_grad(loss, has_aux=True))(part)
        wanted = outputs if wanted is None else wanted
        weight = {"equal": 1, "width": width, "full": 1 if i else 1 + sum(widths[1:])}[c.weights] * widths.count(width)
        total += weight * float(value)
        g["encoder"].pop("position", None)
        places["encoder"].pop("position", None)
        leaves = jax.tree.leaves(gradient), jax.tree.leaves(g), jax.tree.leaves(places, is_leaf=is_slices)
        if full is None:
            full = [np.array(x) for x in leaves[1]]
        for whole, x, place in zip(*leaves, strict=True):
            whole[place] += weight * np.asarray(x)
        flat = np.concatenate([np.ravel(x) for x in leaves[1]])
        same = np.concatenate([np.ravel(x[place]) for x, place in zip(full, leaves[2], strict=True)])
        norm = np.linalg.norm(flat)
        sizes[width] = norm, flat @ same / norm / np.linalg.norm(same)
    return total, gradient, [sizes[width] for width in widths]


def is_slices(x):
    return isinstance(x, tuple) and all(isinstance(part, slice) for part in x)
